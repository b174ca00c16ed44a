//! Graphs of CUDA's.

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;

use super::edges::Edges;
use crate::runtime::driver::{check, made, Driver, Edge, Pointer, Stream};
use crate::runtime::error::Result;

const FLAGS: c_uint = 0;
/// Other threads may do what cannot be captured meanwhile.
const OF_THE_THREAD: c_int = 1;

/// A graph, destroyed with the value.
pub(super) struct Graph {
    driver: &'static Driver,
    graph: Pointer,
    /// The last of the graphs that it runs one after the other.
    last: Pointer,
}

impl Graph {
    fn own(driver: &'static Driver, graph: Pointer) -> Graph {
        Graph {
            driver,
            graph,
            last: null_mut(),
        }
    }

    pub(super) fn new(driver: &'static Driver) -> Result<Graph> {
        // SAFETY: the graph is written to a live place.
        let graph = made("cuGraphCreate", |made| unsafe {
            (driver.create_graph)(made, FLAGS)
        })?;
        Ok(Graph::own(driver, graph))
    }

    /// A copy of a graph, in which nodes of the graph come before others of it.
    ///
    /// # Safety
    /// The graph is live, and the nodes are its own.
    pub(super) unsafe fn copy_of(
        driver: &'static Driver,
        graph: Pointer,
        before: &[Pointer],
        behind: &[Pointer],
    ) -> Result<Graph> {
        assert_eq!(before.len(), behind.len());
        // SAFETY: the graph is live, so says the caller, and so are the places for what is made.
        let clone = |made| unsafe { (driver.clone_graph)(made, graph) };
        let copy = made("cuGraphClone", clone)?;
        let copy = Graph::own(driver, copy);
        let in_copy = |nodes: &[Pointer]| -> Result<Vec<Pointer>> {
            // SAFETY: the node is of the graph, so says the caller, whose copy is live.
            let find =
                |made, &node: &Pointer| unsafe { (driver.node_in_clone)(made, node, copy.graph) };
            let found = nodes
                .iter()
                .map(|node| made("cuGraphNodeFindInClone", |made| find(made, node)));
            found.collect()
        };
        let (before, behind) = (in_copy(before)?, in_copy(behind)?);
        if !before.is_empty() {
            // SAFETY: both lists have nodes of the copy, and as many.
            let status = unsafe {
                let edges = Edges::of(driver, &before, &behind);
                let (before, behind) = (edges.before.as_ptr(), edges.behind.as_ptr());
                let (kinds, count) = (edges.kinds.as_ptr(), edges.kinds.len());
                (driver.add_dependencies)(copy.graph, before, behind, kinds, count)
            };
            check("cuGraphAddDependencies", status)?;
        }
        Ok(copy)
    }

    /// Runs a graph behind all that is in this one, which copies it.
    pub(super) fn append(&mut self, graph: &Graph) -> Result<()> {
        let count = usize::from(!self.last.is_null());
        self.last = made("cuGraphAddChildGraphNode", |made| {
            // SAFETY: both graphs are live, and the last node is in this one.
            unsafe { (self.driver.add_child)(made, self.graph, &self.last, count, graph.graph) }
        })?;
        Ok(())
    }

    fn remove_edges(&self) -> Result<()> {
        let mut count = 0;
        // SAFETY: the graph is live, and so is the place for how many there are.
        let status = unsafe {
            let (none, no_edges) = (null_mut(), null_mut());
            (self.driver.edges)(self.graph, none, none, no_edges, &mut count)
        };
        check("cuGraphGetEdges", status)?;
        if count == 0 {
            return Ok(());
        }
        let (mut before, mut behind) = (vec![null_mut(); count], vec![null_mut(); count]);
        let mut edges = vec![Edge::default(); count];
        // SAFETY: the graph is live, and there is a place for each of its edges.
        let status = unsafe {
            let (before, behind) = (before.as_mut_ptr(), behind.as_mut_ptr());
            (self.driver.edges)(self.graph, before, behind, edges.as_mut_ptr(), &mut count)
        };
        check("cuGraphGetEdges", status)?;
        // SAFETY: they are the graph's edges.
        let status = unsafe {
            let (before, behind) = (before.as_ptr(), behind.as_ptr());
            (self.driver.remove_dependencies)(self.graph, before, behind, edges.as_ptr(), count)
        };
        check("cuGraphRemoveDependencies", status)
    }

    pub(super) fn launchable(&self) -> Result<Launchable> {
        // SAFETY: the graph is live.
        let launchable = made("cuGraphInstantiate", |made| unsafe {
            (self.driver.instantiate)(made, self.graph, FLAGS.into())
        })?;
        Ok(Launchable(self.driver, launchable))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the graph is owned and destroyed once.
        unsafe { (self.driver.destroy_graph)(self.graph) };
    }
}

/// What a stream can be given of a graph.
pub(super) struct Launchable(&'static Driver, Pointer);

impl Launchable {
    /// # Safety
    /// The stream is live, and so is the memory that the graph reads and writes, until the stream is through.
    pub(super) unsafe fn launch(&self, stream: Pointer) -> Result<()> {
        // SAFETY: so says the caller.
        let status = unsafe { (self.0.launch)(self.1, stream) };
        check("cuGraphLaunch", status)
    }
}

impl Drop for Launchable {
    fn drop(&mut self) {
        // SAFETY: it is owned and destroyed once.
        unsafe { (self.0.destroy_launchable)(self.1) };
    }
}

/// Bytes that are copied on the device.
#[derive(Clone, Copy)]
pub(super) struct Copy {
    pub(super) to: *mut u8,
    pub(super) from: *const u8,
    pub(super) bytes: usize,
}

/// # Safety
/// The stream and the memory of the copies are live, until the stream is through.
pub(super) unsafe fn copy_all(driver: &Driver, copies: &[Copy], stream: Pointer) -> Result<()> {
    copies.iter().try_for_each(|copy| {
        let (to, from) = (copy.to.cast(), copy.from.cast());
        // SAFETY: so says the caller.
        let status = unsafe { (driver.copy)(to, from, copy.bytes, stream) };
        check("cuMemcpyAsync", status)
    })
}

/// A graph of copies, none of which writes what another one reads or writes: they wait for nothing.
///
/// # Safety
/// As of [`copy_all`].
pub(super) unsafe fn graph_of_copies(driver: &'static Driver, copies: &[Copy]) -> Result<Graph> {
    let stream = Stream::new(driver)?;
    // SAFETY: the stream is live from here on to the end of the function, and nobody else has it.
    unsafe {
        check(
            "cuStreamBeginCapture",
            (driver.begin_capture)(stream.raw(), OF_THE_THREAD),
        )?;
        let copied = copy_all(driver, copies, stream.raw());
        let graph = made("cuStreamEndCapture", |made| {
            (driver.end_capture)(stream.raw(), made)
        });
        let graph = graph.map(|graph| Graph::own(driver, graph));
        let graph = copied.and(graph)?;
        graph.remove_edges()?;
        Ok(graph)
    }
}
