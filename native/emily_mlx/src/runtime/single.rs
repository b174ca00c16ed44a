//! Single arrays of MLX's graph that the calling thread computes itself.

use std::ffi::{c_int, c_void};

use crate::runtime::error::Result;
use crate::runtime::ffi;
use crate::runtime::inspect::Node;

extern "C" {
    fn emily_steps(array: *const c_void) -> c_int;
    fn emily_begin(array: *mut c_void, queues: bool) -> c_int;
    fn emily_end(array: *mut c_void);
}

/// How many steps each element takes of what a kernel of Emily's computes, 0 where that is for no caller's thread; less of
/// all else.
///
/// # Safety
/// Nobody changes the graph of the array meanwhile.
pub(crate) unsafe fn steps(node: &Node) -> c_int {
    // SAFETY: so says the caller.
    unsafe { emily_steps(node.raw()) }
}

/// Computes what a kernel of Emily's does, or a view.
///
/// # Safety
/// The array is live and has no memory yet, its inputs are computed, and this thread alone has it.
pub(crate) unsafe fn compute(node: &Node) -> Result<()> {
    // SAFETY: so says the caller.
    unsafe {
        ffi::status(|| emily_begin(node.raw(), false))?;
        end(node);
    }
    Ok(())
}

/// Has MLX hand the functions that compute an array to its queue (`tasks::taken`).
///
/// # Safety
/// As for [`compute`]; the lock of the graph is held.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn begin(node: &Node) -> Result<()> {
    // SAFETY: so says the caller.
    ffi::status(|| unsafe { emily_begin(node.raw(), true) })
}

/// Says that an array is computed.
///
/// # Safety
/// It is, and this thread alone has it.
pub(crate) unsafe fn end(node: &Node) {
    // SAFETY: so says the caller.
    unsafe { emily_end(node.raw()) };
}
