//! The end of the process, which comes without destructors. OpenBLAS ends its threads in one, which waits for ever where one
//! of them is at work; CUDA is gone before MLX; and whoever computes without MLX's streams, as recorded turns do, may still
//! use what they take apart. The work of MLX ends first, if it does so soon.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::{c_int, c_void};
    use std::sync::mpsc::channel;
    use std::sync::Once;
    use std::thread;
    use std::time::Duration;

    use crate::runtime::graph::graph;

    /// How long the process waits for what is being computed.
    const LONGEST: Duration = Duration::from_millis(500);

    extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    extern "C" fn end(status: c_int, finish: *mut c_void) {
        // SAFETY: `at_end` passes such a function.
        let finish: fn() = unsafe { std::mem::transmute(finish) };
        let (sender, stopped) = channel();
        let waiting = thread::Builder::new().spawn(move || {
            // Nothing is scheduled any more, and nobody wants it.
            std::mem::forget(graph());
            finish();
            let _ = sender.send(());
        });
        if waiting.is_ok() {
            let _ = stopped.recv_timeout(LONGEST);
        }
        // SAFETY: ends the process, with what C wrote flushed.
        unsafe {
            libc::fflush(std::ptr::null_mut());
            libc::_exit(status)
        }
    }

    fn at_end(finish: fn()) {
        // SAFETY: the functions live as long as the library, whose threads keep it loaded.
        unsafe { on_exit(end, finish as *mut c_void) };
    }

    /// Has `finish`, which waits for the work of all streams, called at the end. To be called once MLX is loaded:
    /// what is registered last runs first.
    pub fn register(finish: fn()) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| at_end(finish));
    }

    /// To be called once a GPU was used: CUDA's own end is registered by then, and never comes.
    pub fn register_gpu(finish: fn()) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| at_end(finish));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use glibc::{register, register_gpu};

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn register(_finish: fn()) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn register_gpu(_finish: fn()) {}
