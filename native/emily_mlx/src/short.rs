//! Short work on a CPU: scheduled by the thread that asks for it, and its end told by MLX's own. That spares
//! the worker's two wakes, which take longer than a small operation.

use std::sync::Arc;
use std::time::Duration;

use mlx_rs::{Array, Stream};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::device::Device;
use crate::stream::StreamHandle;
use crate::worker::Done;

/// Schedules arrays if that is short work for the CPU's stream, with the lock of the graph held; gives them
/// back where it is not.
pub(crate) fn schedule(
    arrays: Vec<Array>,
    done: Done,
    stream: &Stream,
    graph: &MutexGuard<()>,
) -> std::result::Result<(), (Vec<Array>, Done)> {
    own::schedule(arrays, done, stream, graph)
}

/// Keeps a CPU's stream at the door while tasks are queued for it, at most this long: a thread that sleeps is
/// woken for each task that it finds alone, and that takes longer than a small task.
const AT_THE_DOOR: Duration = Duration::from_micros(200);

/// A door before which the thread of a stream waits. It opens when the value is dropped.
pub(crate) struct Door(Option<Arc<Latch>>);

impl Door {
    pub(crate) fn close(stream: &StreamHandle) -> Self {
        Door(match stream.device() {
            Device::Cpu => own::close(stream),
            Device::Gpu => None,
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(latch) = self.0.take() {
            *latch.open.lock() = true;
            latch.opened.notify_one();
        }
    }
}

#[derive(Default)]
struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

#[cfg(own_kernels)]
mod own {
    use std::ffi::{c_int, c_void};
    use std::sync::Arc;

    use mlx_rs::{Array, Stream};
    use mlx_sys::{mlx_array, mlx_stream};
    use parking_lot::MutexGuard;
    use smallvec::SmallVec;

    use super::{Latch, AT_THE_DOOR};
    use crate::ffi;
    use crate::stream::{adopt_thread, StreamHandle};
    use crate::worker::{answer, Done};

    extern "C" {
        fn emily_schedule_short(
            arrays: *const mlx_array,
            count: usize,
            on: mlx_stream,
            done: extern "C" fn(*mut c_void),
            data: *mut c_void,
            scheduled: *mut bool,
        ) -> c_int;
        fn emily_enqueue(
            on: mlx_stream,
            task: extern "C" fn(*mut c_void),
            data: *mut c_void,
        ) -> c_int;
    }

    extern "C" fn wait_for_door(data: *mut c_void) {
        // SAFETY: `close` gave the counted pointer away to this one call.
        let latch = unsafe { Arc::from_raw(data.cast::<Latch>().cast_const()) };
        let mut open = latch.open.lock();
        if !*open {
            latch.opened.wait_for(&mut open, AT_THE_DOOR);
        }
    }

    pub(super) fn close(stream: &StreamHandle) -> Option<Arc<Latch>> {
        let latch = Arc::new(Latch::default());
        let given = Arc::into_raw(latch.clone());
        // SAFETY: the handle is live, and the task takes what it is given once.
        let queued = ffi::status(|| unsafe {
            emily_enqueue(stream.raw(), wait_for_door, given.cast_mut().cast())
        });
        if queued.is_err() {
            // SAFETY: no task has taken it.
            drop(unsafe { Arc::from_raw(given) });
            return None;
        }
        Some(latch)
    }

    struct Waiting {
        arrays: Vec<Array>,
        done: Done,
    }

    extern "C" fn computed(data: *mut c_void) {
        // SAFETY: `schedule` gave the box away to this one call.
        let waiting = unsafe { Box::from_raw(data.cast::<Waiting>()) };
        answer(waiting.done, Ok(waiting.arrays));
    }

    pub(super) fn schedule(
        arrays: Vec<Array>,
        done: Done,
        stream: &Stream,
        _graph: &MutexGuard<()>,
    ) -> std::result::Result<(), (Vec<Array>, Done)> {
        adopt_thread();
        let handles: SmallVec<[mlx_array; 4]> = arrays.iter().map(Array::as_ptr).collect();
        let waiting = Box::into_raw(Box::new(Waiting { arrays, done }));
        let mut scheduled = false;
        // SAFETY: the handles are live, since `waiting` is until `computed` takes it; `computed` is called
        // once, if `scheduled` says so. The lock keeps every other thread from changing a graph.
        let status = ffi::status(|| unsafe {
            emily_schedule_short(
                handles.as_ptr(),
                handles.len(),
                stream.as_ptr(),
                computed,
                waiting.cast(),
                &mut scheduled,
            )
        });
        if scheduled {
            return Ok(());
        }
        // What MLX refuses it refuses again, for the worker, which can answer: this thread may be the BEAM's.
        drop(status);
        // SAFETY: nobody else has the box.
        let Waiting { arrays, done } = *unsafe { Box::from_raw(waiting) };
        Err((arrays, done))
    }
}

#[cfg(not(own_kernels))]
mod own {
    use std::sync::Arc;

    use mlx_rs::{Array, Stream};
    use parking_lot::MutexGuard;

    use super::Latch;
    use crate::stream::StreamHandle;
    use crate::worker::Done;

    pub(super) fn close(_stream: &StreamHandle) -> Option<Arc<Latch>> {
        None
    }

    pub(super) fn schedule(
        arrays: Vec<Array>,
        done: Done,
        _stream: &Stream,
        _graph: &MutexGuard<()>,
    ) -> std::result::Result<(), (Vec<Array>, Done)> {
        Err((arrays, done))
    }
}
