//! Graphs of CUDA's driver, which comes with MLX for CUDA. Its headers are not there where this is compiled: graphs, nodes
//! and streams are pointers.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use once_cell::sync::Lazy;

use crate::runtime::error::{Error, Result};
use crate::runtime::library::functions;

pub(super) type Pointer = *mut c_void;

/// `CUgraphEdgeData`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Edge {
    pub(super) from_port: u8,
    pub(super) to_port: u8,
    pub(super) kind: u8,
    pub(super) reserved: [u8; 5],
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
pub(super) struct Launched {
    pub(super) function: Pointer,
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) shared_bytes: c_uint,
    pub(super) arguments: Pointer,
    pub(super) extra: Pointer,
    pub(super) kernel: Pointer,
    pub(super) context: Pointer,
}

functions! {
    /// Functions of the driver.
    pub(super) struct Driver {
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
        synchronize = c"cuStreamSynchronize"(Pointer);
        create_stream = c"cuStreamCreate"(*mut Pointer, c_uint);
        destroy_stream = c"cuStreamDestroy_v2"(Pointer);
        begin_capture = c"cuStreamBeginCapture_v2"(Pointer, c_int);
        end_capture = c"cuStreamEndCapture"(Pointer, *mut Pointer);
    }
}

static DRIVER: Lazy<Option<Driver>> = Lazy::new(Driver::find);

/// CUDA's, where it has all of them.
pub(super) fn driver() -> Option<&'static Driver> {
    DRIVER.as_ref()
}

pub(super) fn check(what: &str, status: c_int) -> Result<()> {
    match status {
        0 => Ok(()),
        status => Err(Error::Mlx(format!(
            "[replay] {what} gave CUDA's error {status}"
        ))),
    }
}
