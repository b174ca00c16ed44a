//! What C++ asks of Rust, whatever for.

use std::cell::RefCell;
use std::ffi::{c_char, c_void, CString};
use std::ptr::null;

thread_local! {
    /// Why the last call failed that did on this thread.
    static FAILURE: RefCell<CString> = RefCell::default();
}

/// For C++, which raises it: nothing, or why a call has failed; there until the next fails on this thread.
pub(crate) fn failure(result: Result<(), String>) -> *const c_char {
    let Err(text) = result else {
        return null();
    };
    let text = CString::new(text.replace('\0', " "));
    FAILURE.set(text.unwrap_or_default());
    FAILURE.with_borrow(|failure| failure.as_ptr())
}

extern "C" {
    fn __cxa_begin_catch(exception: *mut c_void) -> *mut c_void;
    #[link_name = "_ZSt9terminatev"]
    fn terminate() -> !;
}

/// Where an exception leaves what is `noexcept`, and nothing stands between it and the end. What GCC 13 and newer compile
/// calls it, and the libstdc++ of GCC 12, on which MLX runs, lacks it.
#[cfg(target_os = "linux")]
#[no_mangle]
unsafe extern "C" fn __cxa_call_terminate(exception: *mut c_void) -> ! {
    // SAFETY: C++'s own functions, called as its compiler does; it passes the exception that it caught.
    unsafe {
        __cxa_begin_catch(exception);
        terminate()
    }
}
