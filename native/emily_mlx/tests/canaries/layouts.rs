//! What MLX says of arrays' memory, which its kernels trust without a look.

use mlx_rs::Array;

use crate::support::*;

const TRUTH: &str = "native/emily_mlx/src/runtime/truth.rs";

/// What is computed of each element takes memory for as many as there are said to be.
#[test]
fn lu_counts_bytes_for_elements() {
    let end = apart("layouts::lu_counts_bytes_for_elements", || {
        let mut numbers = vec![0.0f32; 256 * 256];
        numbers.iter_mut().step_by(257).for_each(|x| *x = 2.0);
        let x = Array::from_slice(&numbers, &[256, 256]);
        let mut pivots = None;
        let factors = made(|factors, stream| {
            // SAFETY: the handles are live or new, and each is its array's.
            unsafe {
                let mut second = mlx_sys::mlx_array_new();
                let status =
                    mlx_sys::mlx_linalg_lu_factor(factors, &mut second, x.as_ptr(), stream);
                pivots = Some(Array::from_ptr(second));
                status
            }
        });
        computed(&factors).expect("it is not singular");
        let held = || {
            let mut bytes = 0;
            // SAFETY: the number is written to a place that is there.
            unsafe { mlx_sys::mlx_get_active_memory(&mut bytes) };
            bytes
        };
        let before = held();
        let result = raw!(mlx_exp, factors.as_ptr());
        computed(&result).expect("it can be computed");
        held() - before > 2 * result.nbytes()
    });
    leans_on(
        end != End::Saw(false),
        "the size of LU's factors",
        None,
        &[TRUTH],
    );
}
