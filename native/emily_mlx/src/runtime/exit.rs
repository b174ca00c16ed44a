//! The end of the process, which comes without destructors. OpenBLAS ends its threads in one, which waits for ever where one
//! of them is at work; CUDA is gone before MLX; and whoever schedules or computes, as recorded turns do, may still use what
//! they take apart. Those of MLX's objects, which would run before this, are left out (`destructors.rs`). The work of MLX ends
//! first, if it does so soon.

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

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{abort, exit, Command};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use mlx_rs::Array;

    use crate::runtime::device::Device;
    use crate::runtime::ffi::{mlx, Arrays};
    use crate::runtime::graph::{async_eval, graph};
    use crate::runtime::queue::finish_on_exit;
    use crate::runtime::stream::StreamHandle;

    /// Ends the process while a thread schedules work, which it goes on with when the end has begun.
    fn end_amid_scheduling() -> ! {
        finish_on_exit();
        let stream = StreamHandle::default_on(Device::Cpu).unwrap();
        stream
            .compute(&[Array::from_slice(&[1.0f32], &[1])], false)
            .unwrap();
        let (schedules, is_scheduled) = channel();
        thread::spawn(move || {
            let sort = || {
                let x = Array::from_slice(&[2.0f32, 1.0], &[2]);
                mlx!(mlx_sort_axis, x.as_ptr(), 0, stream.raw())
            };
            let guard = graph();
            schedules.send(()).unwrap();
            thread::sleep(Duration::from_millis(100));
            let scheduled = sort().and_then(|x| async_eval(&Arrays::new([&x])?, &guard));
            if scheduled.is_err() {
                abort()
            }
        });
        is_scheduled.recv().unwrap();
        exit(3)
    }

    #[test]
    fn what_is_scheduled_at_the_end_finds_its_stream() {
        const MARK: &str = "EMILY_TEST_END";
        if env::var_os(MARK).is_some() {
            end_amid_scheduling()
        }
        let name = "runtime::exit::tests::what_is_scheduled_at_the_end_finds_its_stream";
        let mut command = Command::new(env::current_exe().unwrap());
        let status = command.args(["--exact", name]).env(MARK, "1").status();
        assert_eq!(status.unwrap().code(), Some(3));
    }
}
