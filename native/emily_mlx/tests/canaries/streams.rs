//! Streams and the threads that use them.

use std::thread;

use mlx_rs::Array;

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
