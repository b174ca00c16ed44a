//! Short work on a CPU: what takes no longer than to wake a thread is computed by the one that asks for it; somewhat more
//! is scheduled by it, and its end told by MLX's own. That spares the worker's two wakes, which take longer than a small
//! operation.

use mlx_rs::{Array, Stream};
use parking_lot::MutexGuard;

use crate::runtime::worker::Done;

/// Computes arrays if that takes no longer than to wake the CPU's stream, with the lock of the graph held; answers whether
/// they are computed.
pub(crate) fn compute(arrays: &[Array], stream: &Stream, graph: &MutexGuard<()>) -> bool {
    own::compute(arrays, stream, graph)
}

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

#[cfg(own_kernels)]
mod own {
    use std::ffi::{c_int, c_void};

    use mlx_rs::{Array, Stream};
    use mlx_sys::{mlx_array, mlx_stream};
    use parking_lot::MutexGuard;
    use smallvec::SmallVec;

    use crate::runtime::allocator::{is_ample, scheduling};
    use crate::runtime::ffi;
    use crate::runtime::stream::adopt_thread;
    use crate::runtime::worker::{answer, Done};

    extern "C" {
        fn emily_schedule_short(
            arrays: *const mlx_array,
            count: usize,
            on: mlx_stream,
            done: extern "C" fn(*mut c_void),
            data: *mut c_void,
            scheduled: *mut bool,
        ) -> c_int;

        fn emily_compute_here(
            arrays: *const mlx_array,
            count: usize,
            on: mlx_stream,
            computed: *mut bool,
        ) -> c_int;
    }

    /// More memory than short work takes.
    const MOST_BYTES: usize = 8 << 20;

    pub(super) fn compute(arrays: &[Array], stream: &Stream, _graph: &MutexGuard<()>) -> bool {
        if !is_ample(MOST_BYTES) {
            return false;
        }
        let handles: SmallVec<[mlx_array; 4]> = arrays.iter().map(Array::as_ptr).collect();
        let mut computed = false;
        // SAFETY: the handles are live. The lock keeps every other thread from changing a graph.
        let compute = || unsafe {
            emily_compute_here(
                handles.as_ptr(),
                handles.len(),
                stream.as_ptr(),
                &mut computed,
            )
        };
        // What fails here fails the worker too, whose answer the caller gets.
        let _ = ffi::status(|| scheduling(compute));
        computed
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
        // Where memory is short MLX may have to wait for it, which is for the worker.
        if !is_ample(MOST_BYTES) {
            return Err((arrays, done));
        }
        adopt_thread();
        let handles: SmallVec<[mlx_array; 4]> = arrays.iter().map(Array::as_ptr).collect();
        let waiting = Box::into_raw(Box::new(Waiting { arrays, done }));
        let mut scheduled = false;
        // SAFETY: the handles are live, since `waiting` is until `computed` takes it; `computed` is called
        // once, if `scheduled` says so. The lock keeps every other thread from changing a graph.
        let schedule = || unsafe {
            emily_schedule_short(
                handles.as_ptr(),
                handles.len(),
                stream.as_ptr(),
                computed,
                waiting.cast(),
                &mut scheduled,
            )
        };
        // What MLX refuses here it refuses the worker too, whose answer the caller gets.
        let _ = ffi::status(|| scheduling(schedule));
        if scheduled {
            return Ok(());
        }
        // SAFETY: nobody else has the box.
        let Waiting { arrays, done } = *unsafe { Box::from_raw(waiting) };
        Err((arrays, done))
    }
}

#[cfg(not(own_kernels))]
mod own {
    use mlx_rs::{Array, Stream};
    use parking_lot::MutexGuard;

    use crate::runtime::worker::Done;

    pub(super) fn compute(_arrays: &[Array], _stream: &Stream, _graph: &MutexGuard<()>) -> bool {
        false
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
