//! Streams and the threads that use them.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use mlx_rs::Array;
use mlx_sys::mlx_stream;

use crate::support::*;

/// A part of what is asked of one stream goes to the default one of the thread that asks, which no other may use.
#[test]
fn a_part_of_a_graph_is_on_the_threads_default_stream() {
    let vector = |x: f32| {
        let x = Array::from_slice(&[x, 2.0, 3.0], &[3]);
        computed(&x).expect("it is there");
        x
    };
    let (x, y) = (vector(1.0), vector(4.0));
    let asked = thread::spawn(move || {
        let _ = cpu();
        made(|result, _default| {
            // SAFETY: the handles are live or new; the device and the stream are freed once, and the stream belongs to no
            // thread.
            unsafe {
                let device = mlx_sys::mlx_device_new_type(mlx_sys::mlx_device_type__MLX_CPU, 0);
                let stream = mlx_sys::mlx_stream_new_thread_unsafe(device);
                let status = mlx_sys::mlx_linalg_cross(result, x.as_ptr(), y.as_ptr(), 0, stream);
                mlx_sys::mlx_stream_free(stream);
                mlx_sys::mlx_device_free(device);
                status
            }
        })
    });
    let product = asked.join().expect("it can be asked");
    let refused = computed(&product).is_err_and(|message| message.contains("in current thread"));
    let files = ["native/emily_mlx/src/runtime/stream.rs"];
    leans_on(refused, "parts of graphs on other streams", None, &files);
}

/// The streams' encoders are destroyed at the end of the process, when threads may still schedule: MLX registers that when
/// it first has a stream, so that it comes before what was registered earlier.
#[test]
fn streams_are_gone_before_the_end() {
    static STREAM: AtomicPtr<std::ffi::c_void> = AtomicPtr::new(std::ptr::null_mut());

    // Whether something is computed on the stream, on a thread that has not used MLX yet.
    fn computes() -> bool {
        let compute = || {
            let stream = mlx_stream {
                ctx: STREAM.load(Ordering::Relaxed),
            };
            let x = Array::from_slice(&[2.0f32, 1.0], &[2]);
            // SAFETY: the handles are live or new, and the stream belongs to no thread.
            let sorted = tried(|result, _default| unsafe {
                mlx_sys::mlx_sort_axis(result, x.as_ptr(), 0, stream)
            });
            sorted.is_ok_and(|sorted| computed(&sorted).is_ok())
        };
        thread::spawn(compute).join().unwrap_or(false)
    }

    extern "C" fn end() {
        let saw = i32::from(computes());
        // SAFETY: ends the process.
        unsafe { libc::_exit(saw) }
    }

    let end = apart("streams::streams_are_gone_before_the_end", || {
        // SAFETY: the function lives as long as the process; the device is freed once, and the stream stays.
        unsafe {
            libc::atexit(end);
            let device = mlx_sys::mlx_device_new_type(mlx_sys::mlx_device_type__MLX_CPU, 0);
            let stream = mlx_sys::mlx_stream_new_thread_unsafe(device);
            STREAM.store(stream.ctx, Ordering::Relaxed);
            mlx_sys::mlx_device_free(device);
        }
        assert!(computes(), "the stream is there before the end");
        true
    });
    let files = ["native/emily_mlx/src/runtime/destructors.rs"];
    leans_on(end != End::Saw(false), "streams at the end", None, &files);
}
