//! Arrays of a graph that one thread has built and nobody else knows, which that thread computes itself: what is
//! freed by then is free, and what nobody holds any more is written over, while MLX's queue keeps both until the
//! device is there.

use mlx_rs::Array;

use crate::runtime::error::Result;
use crate::runtime::queue::Queue;

/// Computes arrays on the calling thread where kernels and views are all that they need; answers whether they are
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

#[cfg(own_kernels)]
mod own {
    use std::collections::HashSet;
    use std::ffi::{c_int, c_void, CStr};

    use mlx_rs::Array;

    use crate::runtime::error::Result;
    use crate::runtime::ffi;
    use crate::runtime::graph::{graph, scheduling};
    use crate::runtime::inspect::Node;
    use crate::runtime::queue::Queue;

    extern "C" {
        fn emily_steps(array: *const c_void) -> c_int;
        fn emily_compute(array: *mut c_void) -> c_int;
    }

    /// What has its input's memory, whatever that is.
    const VIEWS: [&CStr; 5] = [
        c"Broadcast",
        c"ExpandDims",
        c"Slice",
        c"Squeeze",
        c"Transpose",
    ];

    /// What has its input's memory where that lies in row-major order.
    const VIEWS_OF_ROWS: [&CStr; 3] = [c"Flatten", c"Reshape", c"Unflatten"];

    struct Graph<'a> {
        stream: i32,
        seen: HashSet<usize>,
        order: Vec<Node<'a>>,
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
            let is_known = is_among(&VIEWS, &node)
                || is_among(&VIEWS_OF_ROWS, &node)
                // SAFETY: the array is live, and its graph this thread's.
                || unsafe { emily_steps(node.raw()) } >= 0;
            let holds = is_known && node.inputs().all(|input| self.holds(input));
            self.order.push(node);
            holds
        }
    }

    fn is_among(names: &[&CStr], node: &Node) -> bool {
        node.operation().is_some_and(|name| names.contains(&name))
    }

    /// Whether a view of rows has them.
    fn has_rows(node: &Node) -> bool {
        let in_rows = |input: Node| input.memory().is_some_and(|memory| memory.row_contiguous);
        node.inputs().all(in_rows)
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
        (is_among(&VIEWS, &node) || is_among(&VIEWS_OF_ROWS, &node)) && of_base()
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
        scheduling(|| {
            for node in &found.order {
                if is_among(&VIEWS_OF_ROWS, node) && !has_rows(node) {
                    return Ok(false);
                }
                // SAFETY: each lies among the inputs of a later one, which holds it until then, or is one of `arrays`;
                // this thread alone has what is not computed yet, and what is does not change.
                ffi::status(|| unsafe { emily_compute(node.raw()) })?;
            }
            Ok(true)
        })
    }
}

#[cfg(not(own_kernels))]
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

    pub(super) fn compute(_arrays: &[Array], _queue: &Queue) -> Result<bool> {
        Ok(false)
    }
}
