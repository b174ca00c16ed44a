//! LAPACK's failures, and matrices without elements.

use std::time::{Duration, Instant};

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::support::*;

const LINALG: &str = "native/emily_mlx/src/ops/linalg.rs";
const WORKER: &str = "native/emily_mlx/src/runtime/worker.rs";

fn singular() -> Array {
    raw!(
        mlx_linalg_inv,
        Array::from_slice(&[0.0f32; 4], &[2, 2]).as_ptr()
    )
}

fn start(array: &Array) {
    // SAFETY: the handles are live, and the vector is freed once.
    unsafe {
        let arrays = mlx_sys::mlx_vector_array_new();
        mlx_sys::mlx_vector_array_append_value(arrays, array.as_ptr());
        mlx_sys::mlx_async_eval(arrays);
        mlx_sys::mlx_vector_array_free(arrays);
    }
}

/// The failure of one's work is told to whoever waits for the stream, and what failed counts as computed from then on.
#[test]
fn a_failure_is_the_streams_and_not_the_arrays() {
    let end = apart(
        "linalg::a_failure_is_the_streams_and_not_the_arrays",
        || {
            let (failing, stream) = (singular(), cpu());
            start(&failing);
            let until = Instant::now() + Duration::from_secs(60);
            // SAFETY: the stream is live.
            while unsafe { mlx_sys::mlx_synchronize(stream) } == 0 && Instant::now() < until {}
            computed(&failing).is_ok()
        },
    );
    leans_on(
        end == End::Saw(true),
        "failures of LAPACK",
        Some(4329),
        &[LINALG, WORKER],
    );
}

/// It divides by the number of elements, which is a signal on x86-64 alone.
#[test]
#[cfg(target_arch = "x86_64")]
fn matrices_without_elements_end_the_process() {
    type Factor = unsafe extern "C" fn(*mut mlx_array, mlx_array, mlx_stream) -> i32;
    let end = apart("linalg::matrices_without_elements_end_the_process", || {
        let shape = [0, 0];
        let empty = raw!(
            mlx_zeros,
            shape.as_ptr(),
            shape.len(),
            mlx_sys::mlx_dtype__MLX_FLOAT32
        );
        let inverse: Factor = mlx_sys::mlx_linalg_inv;
        // SAFETY: the handles are live.
        let inverse = made(|result, stream| unsafe { inverse(result, empty.as_ptr(), stream) });
        computed(&inverse).is_err()
    });
    let files = ["native/emily_mlx/src/ops/checks.rs"];
    leans_on(
        end == End::Signal(libc::SIGFPE),
        "empty matrices",
        None,
        &files,
    );
}
