//! MLX's objects stay as they are when the process ends. MLX registers a destructor for the streams' encoders, its allocator
//! and others when it first uses each. What is registered last runs first: before `exit.rs`, while other threads go on with
//! what is destroyed. MLX registers through a table of the dynamic linker's, in which a function that registers nothing
//! takes the place of the C library's.

use std::ffi::c_int;

use crate::runtime::table;

extern "C" fn register_nothing(_destroy: usize, _object: usize, _library: usize) -> c_int {
    0
}

/// To be called before MLX is used.
pub(crate) fn leave_out() {
    let function = register_nothing as *const () as *mut _;
    // SAFETY: it takes and gives what the C library's does; MLX is not used yet, says the caller.
    unsafe { table::replace(c"__cxa_atexit", function) };
}
