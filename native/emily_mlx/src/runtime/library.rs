//! Functions of the libraries that come behind this one.

use std::ffi::{c_void, CStr};

/// The function of a name in the libraries that were loaded after this one, which are MLX and what it loads.
pub(crate) fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a NUL; looking for it changes nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
