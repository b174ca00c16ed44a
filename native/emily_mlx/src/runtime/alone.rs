//! Arrays of a graph that one thread has built and nobody else knows, which that thread computes itself: what is
//! freed by then is free, and what nobody holds any more is written over, while MLX's queue keeps both until the
//! device is there. And no thread waits for another, which takes longer than most operations on a token.

use mlx_rs::Array;

use crate::runtime::error::Result;
use crate::runtime::queue::Queue;

/// Computes arrays on the calling thread where all that they need is on the queue's stream; answers whether they are
/// computed.
///
/// What is not computed of their graph yet must be the calling thread's: nobody else may hold it.
pub(crate) fn compute(arrays: &[Array], queue: &Queue) -> Result<bool> {
    own::compute(arrays, queue)
}

/// Whether arrays are known to be computed.
pub(crate) fn are_computed(arrays: &[Array]) -> bool {
    own::are_computed(arrays)
}

/// Whether an array that is not computed is a view of `base`.
pub(crate) fn is_view(array: &Array, base: &Array) -> bool {
    own::is_view(array, base)
}

/// Whether an array is a scalar that is computed, and zero; no negative one.
pub(crate) fn is_zero(array: &Array) -> bool {
    own::is_zero(array)
}

#[cfg(all(own_kernels, target_os = "linux"))]
mod own {
    use std::collections::HashSet;

    use mlx_rs::Array;

    use crate::runtime::error::Result;
    use crate::runtime::graph::{graph, scheduling};
    use crate::runtime::inspect::{self, Node};
    use crate::runtime::queue::Queue;
    use crate::runtime::single;
    use crate::runtime::tasks;

    struct Graph<'a> {
        stream: i32,
        seen: HashSet<usize>,
        /// What is computed, each behind what it needs.
        order: Vec<(Node<'a>, By)>,
    }

    /// What computes an array.
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        /// A kernel of Emily's, or a view.
        Itself,
        /// Functions that MLX makes for its queue, whose names need not be known.
        Tasks,
    }

    impl<'a> Graph<'a> {
        /// Whether a node and all that it needs can be computed here.
        fn holds(&mut self, node: Node<'a>) -> bool {
            if node.is_scheduled() {
                return node.is_available();
            }
            if !self.seen.insert(node.id()) {
                return true;
            }
            if node.stream() != Some(self.stream) || node.siblings().len() > 0 {
                return false;
            }
            let holds = node.inputs().all(|input| self.holds(input));
            self.order.push((node, By::of(&node)));
            holds
        }
    }

    impl By {
        fn of(node: &Node) -> By {
            // SAFETY: the array is live, and its graph this thread's.
            match node.is_view() || unsafe { single::steps(node) } >= 0 {
                true => By::Itself,
                false => By::Tasks,
            }
        }
    }

    pub(super) fn are_computed(arrays: &[Array]) -> bool {
        let _graph = graph();
        let is_computed = |array: &Array| {
            let node = Node::of(array);
            node.is_scheduled() && node.is_available()
        };
        arrays.iter().all(is_computed)
    }

    pub(super) fn is_view(array: &Array, base: &Array) -> bool {
        let _graph = graph();
        let (node, base) = (Node::of(array), Node::of(base));
        let of_base = || node.inputs().any(|input| input.id() == base.id());
        // The elements of another view seldom lie in the order in which they get other axes.
        let is_reshaped = || node.is_reshaped() && !base.is_view();
        (node.is_view() || is_reshaped()) && of_base()
    }

    pub(super) fn is_zero(array: &Array) -> bool {
        let is_computed = || are_computed(std::slice::from_ref(array));
        let Some(memory) = Some(array)
            .filter(|array| array.ndim() == 0 && is_computed())
            .and_then(inspect::memory)
        else {
            return false;
        };
        // SAFETY: the array is computed, so that its element is there, which does not change, and lives through the read.
        let element = unsafe { std::slice::from_raw_parts(memory.data, memory.item) };
        element.iter().all(|byte| *byte == 0)
    }

    pub(super) fn compute(arrays: &[Array], queue: &Queue) -> Result<bool> {
        let Some(stream) = queue.number() else {
            return Ok(false);
        };
        let mut found = Graph {
            stream,
            seen: HashSet::new(),
            order: Vec::new(),
        };
        {
            // The arrays around the graph may be others' too, who may look at them.
            let _graph = graph();
            if !arrays.iter().all(|array| found.holds(Node::of(array))) {
                return Ok(false);
            }
        }
        if !tasks::is_there() && found.order.iter().any(|(_, by)| *by == By::Tasks) {
            return Ok(false);
        }
        // Each lies among the inputs of a later one, which holds it until then, or is one of `arrays`; this thread alone has
        // what is not computed yet, and what is does not change.
        scheduling(|| {
            for (node, by) in &found.order {
                match by {
                    // SAFETY: as above.
                    By::Itself => unsafe { single::compute(node) }?,
                    By::Tasks => compute_by_tasks(node)?,
                }
            }
            Ok(true)
        })
    }

    /// Calls what MLX would queue, once the queue, which others have too, is left to them.
    fn compute_by_tasks(node: &Node) -> Result<()> {
        let (begun, tasks) = {
            let _graph = graph();
            // SAFETY: as in `compute`; the lock keeps others from the queue.
            tasks::taken(|| unsafe { single::begin(node) })
        };
        let mut called = begun;
        for task in tasks? {
            // Behind a failure, of an allocation too, what the operation has prepared may be gone.
            if called.is_ok() || task.counts() {
                // SAFETY: the node has its inputs, the last of the tasks what is needed besides, and this thread alone has
                // the output; what counts reads nothing. A task is called once.
                called = called.and(unsafe { task.run(true) });
            }
        }
        // SAFETY: as above; the array is computed.
        called.map(|()| unsafe { single::end(node) })
    }
}

#[cfg(not(all(own_kernels, target_os = "linux")))]
mod own {
    use mlx_rs::Array;

    use crate::runtime::error::Result;
    use crate::runtime::queue::Queue;

    pub(super) fn are_computed(_arrays: &[Array]) -> bool {
        false
    }

    pub(super) fn is_view(_array: &Array, _base: &Array) -> bool {
        false
    }

    pub(super) fn is_zero(_array: &Array) -> bool {
        false
    }

    pub(super) fn compute(_arrays: &[Array], _queue: &Queue) -> Result<bool> {
        Ok(false)
    }
}
