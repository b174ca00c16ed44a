//! Short work on a CPU: what takes no longer than to wake a thread is computed by the one that asks for it; somewhat more
//! is scheduled by it, and its end told by MLX's own. That spares the worker's two wakes, which take longer than a small
//! operation.

use mlx_rs::Array;
use parking_lot::MutexGuard;

use crate::runtime::job::Done;
use crate::runtime::queue::Queue;

/// Computes arrays if that takes no longer than to wake the thread of a CPU's stream, with the lock of the graph held;
/// answers whether they are computed.
pub(crate) fn compute(arrays: &[Array], queue: &Queue, graph: &MutexGuard<()>) -> bool {
    own::compute(arrays, queue, graph)
}

/// Schedules arrays if that is short work for a stream, with the lock of the graph held; gives them
/// back where it is not.
pub(crate) fn schedule(
    arrays: Vec<Array>,
    done: Done<Array>,
    queue: &Queue,
    graph: &MutexGuard<()>,
) -> std::result::Result<(), (Vec<Array>, Done<Array>)> {
    own::schedule(arrays, done, queue, graph)
}

#[cfg(own_kernels)]
mod own {
    use std::ffi::{c_int, c_void};

    use mlx_rs::Array;
    use parking_lot::MutexGuard;
    use smallvec::SmallVec;

    use crate::runtime::ffi::{self, Arrays};
    use crate::runtime::graph::{async_eval, scheduling};
    use crate::runtime::inspect::Node;
    use crate::runtime::job::{answer, Done};
    use crate::runtime::queue::{adopt_thread, Queue};
    use crate::runtime::room::is_ample;
    use crate::runtime::single;

    extern "C" {
        fn emily_queued() -> usize;
        fn emily_enqueue(
            stream: *const c_void,
            done: extern "C" fn(*mut c_void),
            data: *mut c_void,
        ) -> c_int;
    }

    /// The work that takes less than to wake a thread and to be woken by it, 20 to 200 us: steps of a byte each, and what a
    /// node takes beside them. No scheduler of the BEAM is held by it for more than 50 us.
    const MOST_WORK: usize = 32 << 10;
    const WORK_OF_A_NODE: usize = 256;

    /// What arrays need, in the order in which it is computed, where whoever asks may compute it.
    struct Here<'a> {
        stream: i32,
        seen: SmallVec<[usize; MOST_WORK / WORK_OF_A_NODE]>,
        order: SmallVec<[Node<'a>; MOST_WORK / WORK_OF_A_NODE]>,
        work: usize,
    }

    impl<'a> Here<'a> {
        fn holds(&mut self, node: Node<'a>) -> bool {
            if node.is_scheduled() {
                return node.is_available();
            }
            if self.seen.contains(&node.id()) {
                return true;
            }
            self.seen.push(node.id());
            let is_view = node.is_view()
                || node.is_reshaped() && node.inputs().all(|input| input.is_in_rows());
            // SAFETY: the array is live, and the lock keeps its graph.
            let steps = unsafe { single::steps(&node) }.max(0) as usize;
            let is_known = is_view || steps > 0;
            if node.stream() != Some(self.stream) || node.siblings().len() > 0 || !is_known {
                return false;
            }
            let inputs = node.inputs().map(|input| input.bytes());
            self.work += WORK_OF_A_NODE + steps * inputs.fold(node.bytes(), usize::max);
            if self.work > MOST_WORK {
                return false;
            }
            let holds = node.inputs().all(|input| self.holds(input));
            self.order.push(node);
            holds
        }
    }

    pub(super) fn compute(arrays: &[Array], queue: &Queue, _graph: &MutexGuard<()>) -> bool {
        let Some(stream) = queue.number() else {
            return false;
        };
        let mut here = Here {
            stream,
            seen: SmallVec::new(),
            order: SmallVec::new(),
            work: 0,
        };
        if !is_ample(AMPLE_BYTES) || !arrays.iter().all(|array| here.holds(Node::of(array))) {
            return false;
        }
        // SAFETY: each lies among the inputs of a later one, which holds it until then, or is one of `arrays`; the lock
        // keeps every other thread from changing a graph.
        let compute = |node: &Node| unsafe { single::compute(node) };
        // What fails here fails the worker too, whose answer the caller gets.
        scheduling(|| here.order.iter().all(|node| compute(node).is_ok()))
    }

    /// MLX lets whoever schedules wait once about a hundred tasks are queued; each operation queues one for each
    /// input that has to be copied first, itself, and the freeing of its inputs.
    const MOST_TASKS: usize = 60;

    /// More takes longer than the wakes that are spared, and its memory might not be there.
    const MOST_BYTES: usize = 1 << 20;

    /// More memory than short work takes, with what is copied for it.
    const AMPLE_BYTES: usize = 8 << 20;

    /// Whether all that the arrays need is on one stream and so little that scheduling it neither takes long nor waits.
    struct Shortness {
        stream: i32,
        seen: SmallVec<[usize; MOST_TASKS / 2]>,
        tasks: usize,
        bytes: usize,
    }

    impl Shortness {
        fn holds(&mut self, node: Node) -> bool {
            if node.is_scheduled() {
                let elsewhere = |stream| stream != self.stream && !node.is_available();
                return !node.stream().is_some_and(elsewhere);
            }
            if self.seen.contains(&node.id()) {
                return true;
            }
            self.seen.push(node.id());
            // What is compiled is so when it is scheduled.
            let compiles = node
                .operation()
                .is_some_and(|name| name.to_bytes().starts_with(b"Compiled"));
            if node.stream() != Some(self.stream) || compiles {
                return false;
            }
            self.tasks += 2 + node.inputs().len();
            self.bytes += node.bytes();
            if self.tasks > MOST_TASKS || self.bytes > MOST_BYTES {
                return false;
            }
            self.bytes += node
                .siblings()
                .map(|sibling| sibling.bytes())
                .sum::<usize>();
            node.inputs().all(|input| self.holds(input))
        }
    }

    fn has_room() -> bool {
        let (mut active, mut limit) = (0, 0);
        // SAFETY: both write a number to what they are given, and the last takes nothing.
        unsafe {
            mlx_sys::mlx_get_active_memory(&mut active);
            mlx_sys::mlx_get_memory_limit(&mut limit);
            emily_queued() == 0 && active + MOST_BYTES < limit
        }
    }

    struct Waiting {
        arrays: Vec<Array>,
        done: Done<Array>,
    }

    extern "C" fn computed(data: *mut c_void) {
        // SAFETY: `schedule` gave the box away to this one call.
        let waiting = unsafe { Box::from_raw(data.cast::<Waiting>()) };
        answer(waiting.done, Ok(waiting.arrays));
    }

    pub(super) fn schedule(
        arrays: Vec<Array>,
        done: Done<Array>,
        queue: &Queue,
        graph: &MutexGuard<()>,
    ) -> std::result::Result<(), (Vec<Array>, Done<Array>)> {
        adopt_thread(queue.device());
        // What MLX refuses here it refuses the worker too, whose answer the caller gets.
        let scheduled = queue.number().is_some_and(|number| {
            let mut short = Shortness {
                stream: number,
                seen: SmallVec::new(),
                tasks: 0,
                bytes: 0,
            };
            // Where memory is short MLX may have to wait for it, which is for the worker.
            is_ample(AMPLE_BYTES)
                && has_room()
                && arrays.iter().all(|array| short.holds(Node::of(array)))
                && Arrays::new(&arrays)
                    .and_then(|arrays| async_eval(&arrays, graph))
                    .is_ok()
        });
        if !scheduled {
            return Err((arrays, done));
        }
        let waiting = Box::into_raw(Box::new(Waiting { arrays, done }));
        // SAFETY: the stream is live, and `computed` is called once with the box, if MLX takes it.
        let queued = ffi::status(|| unsafe {
            emily_enqueue(queue.stream().as_ptr().ctx, computed, waiting.cast())
        });
        queued.map_err(|_| {
            // SAFETY: nobody else has the box.
            let Waiting { arrays, done } = *unsafe { Box::from_raw(waiting) };
            (arrays, done)
        })
    }
}

#[cfg(not(own_kernels))]
mod own {
    use mlx_rs::Array;
    use parking_lot::MutexGuard;

    use crate::runtime::job::Done;
    use crate::runtime::queue::Queue;

    pub(super) fn compute(_arrays: &[Array], _queue: &Queue, _graph: &MutexGuard<()>) -> bool {
        false
    }

    pub(super) fn schedule(
        arrays: Vec<Array>,
        done: Done<Array>,
        _queue: &Queue,
        _graph: &MutexGuard<()>,
    ) -> std::result::Result<(), (Vec<Array>, Done<Array>)> {
        Err((arrays, done))
    }
}
