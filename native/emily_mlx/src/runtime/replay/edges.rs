//! Edges of a recorded graph. A kernel of Emily's own begins while those before it still run, and waits for them by itself
//! before it reads what they write (`runtime/cuda.rs`): what a launch takes, and the way of a matrix to the near cache, are
//! over by then. Each waits for all before it, so that who waits for it waits for those too.
//!
//! CUDA (driver 580, measured) has kernels begin early only where no edge to them follows from others, and where
//! an edge that lets a kernel do so leads from the node that the graph begins with.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{c_char, c_int, CStr};
use std::ptr::{null, null_mut};

use crate::runtime::cuda::OWN;
use crate::runtime::driver::{Driver, Edge, Launched, Pointer};

/// `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC` from `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC`
const EARLY: Edge = Edge {
    from_port: 1,
    to_port: 0,
    kind: 1,
    reserved: [0; 5],
};

/// `CU_GRAPH_NODE_TYPE_KERNEL`
const KERNEL: c_int = 0;

/// The edges, each from a node to one behind it, that do not follow from others. Nodes are numbers, and the edges are no circle.
fn needed(edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let edges: HashSet<(usize, usize)> = edges.iter().copied().collect();
    let mut before: HashMap<usize, Vec<usize>> = HashMap::new();
    for (first, second) in &edges {
        before.entry(*second).or_default().push(*first);
    }
    let none = Vec::new();
    let parents = |node: &usize| before.get(node).unwrap_or(&none);
    let mut all_before: HashMap<usize, HashSet<usize>> = HashMap::new();
    // A node stays on the way until those before it are known.
    let mut way: Vec<usize> = before.keys().copied().collect();
    while let Some(node) = way.last().copied() {
        let unknown = parents(&node)
            .iter()
            .filter(|parent| !all_before.contains_key(parent));
        let unknown: Vec<usize> = unknown.copied().collect();
        if !unknown.is_empty() {
            way.extend(unknown);
            continue;
        }
        way.pop();
        let known = parents(&node).iter().flat_map(|parent| {
            let further = all_before.get(parent).into_iter().flatten();
            further.copied().chain([*parent])
        });
        let known: HashSet<usize> = known.collect();
        all_before.entry(node).or_insert(known);
    }
    let follows = |(first, second): &(usize, usize)| {
        let mut others = parents(second).iter().filter(|other| *other != first);
        others.any(|other| all_before[other].contains(first))
    };
    let mut needed: Vec<_> = edges
        .iter()
        .copied()
        .filter(|edge| !follows(edge))
        .collect();
    needed.sort_unstable();
    needed
}

/// An edge to the nearest kernel of Emily's own from each kernel that is behind none and has no such edge. It follows from
/// others.
fn beginnings(edges: &[(usize, usize)], nodes: &[Node]) -> Vec<(usize, usize)> {
    let mut behind: HashMap<usize, Vec<usize>> = HashMap::new();
    for (first, second) in edges {
        behind.entry(*first).or_default().push(*second);
    }
    let own = |node: &usize| nodes[*node] == Node::Own;
    let is_behind: HashSet<usize> = edges.iter().map(|(_, second)| *second).collect();
    let nearest = |first: usize| {
        let mut seen = HashSet::new();
        let mut way = VecDeque::from([first]);
        while let Some(node) = way.pop_front() {
            let next = behind.get(&node).into_iter().flatten();
            for node in next.filter(|node| seen.insert(**node)) {
                if own(node) {
                    return Some(*node);
                }
                way.push_back(*node);
            }
        }
        None
    };
    let mut firsts: Vec<usize> = behind.keys().copied().collect();
    firsts.retain(|first| {
        let lets = || behind[first].iter().any(own);
        !is_behind.contains(first) && nodes[*first] != Node::Other && !lets()
    });
    firsts.sort_unstable();
    let edge = |first| nearest(first).map(|own| (first, own));
    firsts.into_iter().filter_map(edge).collect()
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Other,
    Kernel,
    /// A kernel of Emily's own, which waits.
    Own,
}

/// Edges, and what they are.
pub(super) struct Edges {
    pub(super) before: Vec<Pointer>,
    pub(super) behind: Vec<Pointer>,
    pub(super) kinds: Vec<Edge>,
}

impl Edges {
    /// What leads in a graph from each of the first nodes to the same of the second.
    ///
    /// # Safety
    /// The nodes are live.
    pub(super) unsafe fn of(driver: &Driver, before: &[Pointer], behind: &[Pointer]) -> Edges {
        let mut nodes: Vec<Pointer> = Vec::new();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut number = |node: Pointer| {
            *numbers.entry(node.addr()).or_insert_with(|| {
                nodes.push(node);
                nodes.len() - 1
            })
        };
        let ends = before.iter().zip(behind);
        let all: Vec<_> = ends
            .map(|(&before, &behind)| (number(before), number(behind)))
            .collect();
        // SAFETY: so says the caller.
        let kind = |node: &Pointer| unsafe {
            match is_kernel(driver, *node) {
                true if is_own(driver, *node) => Node::Own,
                true => Node::Kernel,
                false => Node::Other,
            }
        };
        let kinds: Vec<Node> = nodes.iter().map(kind).collect();
        let mut edges = needed(&all);
        edges.extend(beginnings(&edges, &kinds));
        let kind = |(before, behind): &(usize, usize)| match (kinds[*before], kinds[*behind]) {
            (Node::Kernel | Node::Own, Node::Own) => EARLY,
            _ => Edge::default(),
        };
        Edges {
            before: edges.iter().map(|(before, _)| nodes[*before]).collect(),
            behind: edges.iter().map(|(_, behind)| nodes[*behind]).collect(),
            kinds: edges.iter().map(kind).collect(),
        }
    }
}

/// # Safety
/// The node is live.
unsafe fn is_kernel(driver: &Driver, node: Pointer) -> bool {
    let mut kind = -1;
    // SAFETY: so says the caller; the place for what it is lives through the call.
    unsafe { (driver.node_type)(node, &mut kind) == 0 && kind == KERNEL }
}

/// Whether a kernel's name says that it waits. One whose name the driver does not tell does not.
///
/// # Safety
/// The node is live, and a kernel.
unsafe fn is_own(driver: &Driver, node: Pointer) -> bool {
    let mut launched = Launched {
        function: null_mut(),
        grid: [0; 3],
        block: [0; 3],
        shared_bytes: 0,
        arguments: null_mut(),
        extra: null_mut(),
        kernel: null_mut(),
        context: null_mut(),
    };
    let mut name: *const c_char = null();
    // SAFETY: so says the caller; the places for what is told live through the calls. A name ends with NUL, and lives as long
    // as its module.
    unsafe {
        if (driver.launched)(node, &mut launched) != 0 {
            return false;
        }
        let told = match launched.function.is_null() {
            false => (driver.function_name)(&mut name, launched.function),
            true => (driver.kernel_name)(&mut name, launched.kernel),
        };
        let is_told = told == 0 && !name.is_null();
        is_told && CStr::from_ptr(name).to_string_lossy().contains(OWN)
    }
}

#[cfg(test)]
mod tests {
    use super::{beginnings, needed, Node};

    #[test]
    fn what_a_graph_begins_with_lets_another_begin() {
        use Node::{Kernel, Other, Own};
        // Two own products, one behind a copy of MLX's, before own attention.
        let nodes = [Own, Kernel, Own, Own, Own];
        let edges = [(0, 1), (1, 3), (2, 3), (3, 4)];
        assert_eq!(beginnings(&edges, &nodes), [(0, 3)]);
        // Over several, the nearest; what is no kernel and what has none behind it stay as they are.
        let nodes = [Kernel, Kernel, Own, Own, Other, Kernel, Kernel];
        let edges = [(0, 1), (1, 2), (2, 3), (4, 2), (5, 6)];
        assert_eq!(beginnings(&edges, &nodes), [(0, 2)]);
    }

    #[test]
    fn edges_that_follow_from_others_are_left_out() {
        // A product whose sum with a residual is read by the next, which has the residual too.
        assert_eq!(needed(&[(0, 1), (1, 2), (0, 2)]), [(0, 1), (1, 2)]);
        // Over more than one node, and told twice.
        let all = [(0, 1), (1, 2), (2, 3), (0, 3), (0, 3), (1, 3)];
        assert_eq!(needed(&all), [(0, 1), (1, 2), (2, 3)]);
        // Nothing follows here.
        let diamond = [(0, 1), (0, 2), (1, 3), (2, 3)];
        assert_eq!(needed(&diamond), diamond);
        assert_eq!(needed(&[(7, 3)]), [(7, 3)]);
        assert_eq!(needed(&[]), []);
    }

    #[test]
    fn what_comes_before_what_stays() {
        // Against all pairs, by hand: from each number to its multiples below 40.
        let reach = |edges: &[(usize, usize)]| {
            let mut reach = [[false; 40]; 40];
            for (first, second) in edges {
                reach[*first][*second] = true;
            }
            for middle in 0..40 {
                for first in 0..40 {
                    for second in 0..40 {
                        reach[first][second] |= reach[first][middle] && reach[middle][second];
                    }
                }
            }
            reach
        };
        let all: Vec<_> = (1..40)
            .flat_map(|first| {
                (2 * first..40)
                    .step_by(first)
                    .map(move |second| (first, second))
            })
            .collect();
        let few = needed(&all);
        assert_eq!(reach(&few), reach(&all));
        // A number and its product with a prime alone.
        let prime = |n: usize| n > 1 && (2..n).all(|d| !n.is_multiple_of(d));
        assert!(few.iter().all(|(first, second)| prime(second / first)));
        assert_eq!(few.len(), all.iter().filter(|(a, b)| prime(b / a)).count());
    }
}
