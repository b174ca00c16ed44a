//! The end of the process. OpenBLAS ends its threads in a destructor, which waits for ever where one of
//! them is at work; so the work of MLX ends first, or the process ends without destructors.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::{c_int, c_void};
    use std::sync::mpsc::channel;
    use std::sync::Once;
    use std::thread;
    use std::time::Duration;

    use crate::runtime::graph::graph;
    use crate::runtime::queue::finish_all;

    /// How long the process waits for what is being computed.
    const LONGEST: Duration = Duration::from_millis(500);

    extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    extern "C" fn end(status: c_int, _argument: *mut c_void) {
        let (sender, stopped) = channel();
        let waiting = thread::Builder::new().spawn(move || {
            // Nothing is scheduled any more, and nobody wants it.
            std::mem::forget(graph());
            finish_all();
            let _ = sender.send(());
        });
        if waiting.is_err() || stopped.recv_timeout(LONGEST).is_err() {
            // SAFETY: ends the process, with what C wrote flushed.
            unsafe {
                libc::fflush(std::ptr::null_mut());
                libc::_exit(status)
            }
        }
    }

    /// To be called once MLX is loaded: what is registered last runs first.
    pub fn register() {
        static ONCE: Once = Once::new();
        // SAFETY: the function lives as long as the library, whose threads keep it loaded.
        ONCE.call_once(|| unsafe {
            on_exit(end, std::ptr::null_mut());
        });
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use glibc::register;

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn register() {}
