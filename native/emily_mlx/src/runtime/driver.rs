//! Graphs, streams and copies of CUDA's driver, which comes with MLX for CUDA. Its headers are not there where this is compiled:
//! graphs, nodes and streams are pointers.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::null_mut;

use emily_kernels::pool::patiently;
use once_cell::sync::Lazy;

use crate::runtime::error::{Error, Result};
use crate::runtime::library::functions;

pub(crate) type Pointer = *mut c_void;

/// `CUgraphEdgeData`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Edge {
    pub(crate) from_port: u8,
    pub(crate) to_port: u8,
    pub(crate) kind: u8,
    pub(crate) reserved: [u8; 5],
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
pub(crate) struct Launched {
    pub(crate) function: Pointer,
    pub(crate) grid: [c_uint; 3],
    pub(crate) block: [c_uint; 3],
    pub(crate) shared_bytes: c_uint,
    pub(crate) arguments: Pointer,
    pub(crate) extra: Pointer,
    pub(crate) kernel: Pointer,
    pub(crate) context: Pointer,
}

functions! {
    /// Functions of the driver.
    pub(crate) struct Driver {
        clone_graph = c"cuGraphClone"(*mut Pointer, Pointer);
        node_in_clone = c"cuGraphNodeFindInClone"(*mut Pointer, Pointer, Pointer);
        /// From each of the first nodes to the same of the second, with what the edges are.
        add_dependencies = c"cuGraphAddDependencies_v2"(Pointer, *const Pointer, *const Pointer, *const Edge, usize);
        /// The ends of all edges, as many as are asked for, which it tells where there is no place for them.
        edges = c"cuGraphGetEdges_v2"(Pointer, *mut Pointer, *mut Pointer, *mut Edge, *mut usize);
        remove_dependencies = c"cuGraphRemoveDependencies_v2"(Pointer, *const Pointer, *const Pointer, *const Edge, usize);
        node_type = c"cuGraphNodeGetType"(Pointer, *mut c_int);
        launched = c"cuGraphKernelNodeGetParams_v2"(Pointer, *mut Launched);
        function_name = c"cuFuncGetName"(*mut *const c_char, Pointer);
        kernel_name = c"cuKernelGetName"(*mut *const c_char, Pointer);
        create_graph = c"cuGraphCreate"(*mut Pointer, c_uint);
        add_child = c"cuGraphAddChildGraphNode"(*mut Pointer, Pointer, *const Pointer, usize, Pointer);
        instantiate = c"cuGraphInstantiateWithFlags"(*mut Pointer, Pointer, c_ulonglong);
        launch = c"cuGraphLaunch"(Pointer, Pointer);
        destroy_graph = c"cuGraphDestroy"(Pointer);
        destroy_launchable = c"cuGraphExecDestroy"(Pointer);
        copy = c"cuMemcpyAsync"(Pointer, *const c_void, usize, Pointer);
        host_memory = c"cuMemHostAlloc"(*mut Pointer, usize, c_uint);
        synchronize = c"cuStreamSynchronize"(Pointer);
        create_stream = c"cuStreamCreate"(*mut Pointer, c_uint);
        destroy_stream = c"cuStreamDestroy_v2"(Pointer);
        create_event = c"cuEventCreate"(*mut Pointer, c_uint);
        destroy_event = c"cuEventDestroy_v2"(Pointer);
        record_event = c"cuEventRecord"(Pointer, Pointer);
        query_event = c"cuEventQuery"(Pointer);
        wait_for_event = c"cuEventSynchronize"(Pointer);
        begin_capture = c"cuStreamBeginCapture_v2"(Pointer, c_int);
        end_capture = c"cuStreamEndCapture"(Pointer, *mut Pointer);
    }
}

static DRIVER: Lazy<Option<Driver>> = Lazy::new(Driver::find);

/// CUDA's, where it has all of them.
pub(crate) fn driver() -> Option<&'static Driver> {
    DRIVER.as_ref()
}

/// What a call makes, which the driver writes to a place.
pub(crate) fn made(what: &str, make: impl FnOnce(*mut Pointer) -> c_int) -> Result<Pointer> {
    let mut made = null_mut();
    check(what, make(&mut made)).map(|()| made)
}

pub(crate) fn check(what: &str, status: c_int) -> Result<()> {
    match status {
        0 => Ok(()),
        status => Err(Error::Mlx(format!(
            "[cuda] {what} gave CUDA's error {status}"
        ))),
    }
}

/// Neither waits for the other: the stream and the one that has no name.
const NON_BLOCKING: c_uint = 1;

/// A stream of Emily's own.
pub(crate) struct Stream(&'static Driver, Pointer);

impl Stream {
    pub(crate) fn new(driver: &'static Driver) -> Result<Stream> {
        // SAFETY: the stream is written to a live place.
        let create = |made| unsafe { (driver.create_stream)(made, NON_BLOCKING) };
        made("cuStreamCreate", create).map(|stream| Stream(driver, stream))
    }

    pub(crate) fn raw(&self) -> Pointer {
        self.1
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is owned and destroyed once.
        unsafe { (self.0.destroy_stream)(self.1) };
    }
}

/// Waits until a stream is through.
///
/// # Safety
/// The stream is live.
pub(crate) unsafe fn wait(driver: &Driver, stream: Pointer) -> Result<()> {
    // SAFETY: so says the caller.
    let status = unsafe { (driver.synchronize)(stream) };
    check("cuStreamSynchronize", status)
}

/// No time is kept, which takes time.
const WITHOUT_TIME: c_uint = 2;

/// A place in a stream's work.
pub(crate) struct Event(&'static Driver, Pointer);

// SAFETY: CUDA's events are any thread's.
unsafe impl Send for Event {}

impl Event {
    /// Behind all that the stream was given.
    ///
    /// # Safety
    /// The stream is live.
    pub(crate) unsafe fn on(driver: &'static Driver, stream: Pointer) -> Result<Event> {
        // SAFETY: the event is written to a live place.
        let create = |made| unsafe { (driver.create_event)(made, WITHOUT_TIME) };
        let event = Event(driver, made("cuEventCreate", create)?);
        // SAFETY: both are live.
        let status = unsafe { (driver.record_event)(event.1, stream) };
        check("cuEventRecord", status).map(|()| event)
    }

    /// Whether the stream has come here, or failed, while we look for a moment.
    pub(crate) fn is_soon_over(&self) -> bool {
        const NOT_READY: c_int = 600;
        // SAFETY: the event is live.
        let is_over = || unsafe { (self.0.query_event)(self.1) } != NOT_READY;
        patiently(is_over, || false)
    }

    /// Waits, and does not sleep meanwhile.
    pub(crate) fn wait(&self) -> Result<()> {
        // SAFETY: the event is live.
        let status = unsafe { (self.0.wait_for_event)(self.1) };
        check("cuEventSynchronize", status)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is owned and destroyed once.
        unsafe { (self.0.destroy_event)(self.1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::replay::fake::{pointer, said, BROKEN, FAKE};

    #[test]
    fn a_place_is_looked_for() {
        // SAFETY: the driver is none.
        let event = unsafe { Event::on(&FAKE, pointer(7)) }.expect("there is one");
        assert!(event.is_soon_over());
        assert!(event.wait().is_ok());
        BROKEN.set("wait");
        let error = event.wait().expect_err("the device failed").to_string();
        BROKEN.set("nothing");
        assert_eq!(error, "[cuda] cuEventSynchronize gave CUDA's error 719");
        drop(event);
        let begun = ["event makes 9", "event 9 on 7", "is 9 over", "is 9 over"];
        let waited = ["wait for event 9"; 2];
        let all = [&begun[..], &waited, &["destroy 9"]].concat();
        assert_eq!(said(), all);
    }
}
