//! Functions of the libraries that come behind this one.

use std::ffi::{c_void, CStr};

/// The function of a name in the libraries that were loaded after this one, which are MLX and what it loads.
pub(crate) fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a NUL; looking for it changes nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// A struct of functions of the libraries that come behind this one, and `find`, which gives them where all are there. What
/// each gives is 0 unless it failed.
macro_rules! functions {
    ($(#[$about:meta])* $visibility:vis struct $functions:ident {
        $($(#[$doc:meta])* $field:ident = $name:literal($($argument:ty),*);)*
    }) => {
        $(#[$about])*
        $visibility struct $functions {
            $($(#[$doc])* $visibility $field: unsafe extern "C" fn($($argument),*) -> std::ffi::c_int,)*
        }

        impl $functions {
            fn find() -> Option<Self> {
                Some(Self {
                    $($field: {
                        let found = $crate::runtime::library::next($name)?;
                        // SAFETY: the library's function of that name takes these arguments.
                        unsafe {
                            std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($argument),*) -> std::ffi::c_int>(found)
                        }
                    },)*
                })
            }
        }
    };
}
pub(crate) use functions;
