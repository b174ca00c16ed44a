//! The one way into mlx-c: every call's status is checked, and the message of a failure is taken
//! on the thread that failed.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::sync::mpsc::channel;
use std::thread;

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream, mlx_vector_array};
use once_cell::sync::Lazy;

use crate::runtime::error::{Error, Result};
use crate::runtime::room;

/// What mlx-c takes as a stream.
pub(crate) type Stream = mlx_stream;

/// A function of mlx-c of two arrays.
pub(crate) type Binary =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, mlx_array, mlx_stream) -> c_int;

thread_local! {
    static LAST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

extern "C" fn keep_message(message: *const c_char, _data: *mut c_void) {
    // SAFETY: mlx-c passes a NUL-terminated string that lives for this call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    // The place in mlx-c's own sources that mlx-c appends says nothing to a user.
    let message = message
        .rsplit_once(" at ")
        .map_or(&*message, |(what, _)| what);
    LAST_ERROR.with_borrow_mut(|last| *last = Some(message.to_owned()));
}

/// The first use of MLX. MLX takes the thread for its main one, and there alone queueing work raises the
/// failures of other work, with its own half queued and counted for ever. So that is a thread that does nothing
/// else, and never ends, since its number could be another's then.
static HANDLER: Lazy<()> = Lazy::new(|| {
    let (used, is_used) = channel::<()>();
    let main = thread::Builder::new().name("emily-main".to_owned());
    let spawned = main.spawn(move || {
        use_first();
        drop(used);
        loop {
            thread::park();
        }
    });
    match spawned {
        // Ends with an error, once the sender is dropped.
        Ok(_) => drop(is_used.recv()),
        Err(_) => use_first(),
    }
});

/// Replaces MLX's error handler, which ends the process. mlx-rs installs one of its own at its
/// first call, so that call is made here, before ours takes its place for good.
fn use_first() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        crate::runtime::destructors::leave_out();
        crate::runtime::shelf::put_up();
    }
    let _ = mlx_rs::memory::active_memory();
    // MLX knows the machine's memory only, and makes work wait from a part of it on.
    let most = room::limit() / 5 * 4;
    #[cfg(target_os = "linux")]
    crate::runtime::blas::one_thread();
    // SAFETY: the handler is a plain function that lives as long as the program. The numbers are live. The device and the stream are
    // freed once, the stream after its last use; null is no stream.
    unsafe {
        mlx_sys::mlx_set_error_handler(Some(keep_message), std::ptr::null_mut(), None);
        let mut limit = 0;
        mlx_sys::mlx_get_memory_limit(&mut limit);
        mlx_sys::mlx_set_memory_limit(&mut limit, limit.min(most));
        let device = mlx_sys::mlx_device_new_type(mlx_sys::mlx_device_type__MLX_CPU, 0);
        let stream = mlx_sys::mlx_stream_new_thread_unsafe(device);
        if !stream.ctx.is_null() {
            mlx_sys::mlx_synchronize(stream);
            mlx_sys::mlx_stream_free(stream);
        }
        mlx_sys::mlx_device_free(device);
    }
}

fn take_message() -> Option<String> {
    LAST_ERROR.with_borrow_mut(Option::take)
}

/// Calls into mlx-c and turns a non-zero status into MLX's message.
pub(crate) fn status(call: impl FnOnce() -> c_int) -> Result<()> {
    Lazy::force(&HANDLER);
    if call() == 0 {
        Ok(())
    } else {
        let message = take_message();
        Err(Error::Mlx(message.unwrap_or_else(|| {
            "MLX failed without a message".to_owned()
        })))
    }
}

/// A call that writes one array.
pub(crate) fn array(call: impl FnOnce(*mut mlx_array) -> c_int) -> Result<Array> {
    // SAFETY: an empty handle owns nothing; a successful call makes it own one array, which passes
    // to the `Array`, and a failed one leaves it as it was.
    unsafe {
        let mut result = mlx_sys::mlx_array_new();
        status(|| call(&mut result))?;
        Ok(Array::from_ptr(result))
    }
}

/// The array that a function gives of two.
pub(crate) fn call(function: Binary, x: &Array, y: &Array, s: Stream) -> Result<Array> {
    // SAFETY: the handles are live, and mlx-c answers what it refuses with a status.
    array(|result| unsafe { function(result, x.as_ptr(), y.as_ptr(), s) })
}

pub(crate) fn reshape(x: &Array, shape: &[i32], s: Stream) -> Result<Array> {
    mlx!(mlx_reshape, x.as_ptr(), shape.as_ptr(), shape.len(), s)
}

/// `x`, which is new, computed behind other arrays, whose memory is kept until then.
pub(crate) fn behind(x: &Array, others: &[Array]) -> Result<Array> {
    let (x, others) = (Arrays::new([x])?, Arrays::new(others)?);
    // SAFETY: the handles are live.
    let results =
        arrays(|result| unsafe { mlx_sys::mlx_depends(result, x.as_ptr(), others.as_ptr()) })?;
    let first = results.into_iter().next();
    first.ok_or_else(|| Error::Mlx("MLX gave no array".to_owned()))
}

/// A call that writes two arrays.
pub(crate) fn two_arrays(
    call: impl FnOnce(*mut mlx_array, *mut mlx_array) -> c_int,
) -> Result<[Array; 2]> {
    // SAFETY: as in `array`; mlx-c writes both handles or neither.
    unsafe {
        let mut first = mlx_sys::mlx_array_new();
        let mut second = mlx_sys::mlx_array_new();
        status(|| call(&mut first, &mut second))?;
        Ok([Array::from_ptr(first), Array::from_ptr(second)])
    }
}

/// A vector of arrays as mlx-c takes it.
pub(crate) struct Arrays(mlx_vector_array);

impl Arrays {
    pub(crate) fn new<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<Self> {
        // SAFETY: the new vector is owned by the value returned, which frees it; appending copies
        // the handle it is given.
        unsafe {
            let vector = Arrays(mlx_sys::mlx_vector_array_new());
            for array in arrays {
                status(|| mlx_sys::mlx_vector_array_append_value(vector.0, array.as_ptr()))?;
            }
            Ok(vector)
        }
    }

    pub(crate) fn as_ptr(&self) -> mlx_vector_array {
        self.0
    }
}

impl Drop for Arrays {
    fn drop(&mut self) {
        // SAFETY: the vector is owned and freed once.
        unsafe { mlx_sys::mlx_vector_array_free(self.0) };
    }
}

/// A call that writes a vector of arrays.
pub(crate) fn arrays(call: impl FnOnce(*mut mlx_vector_array) -> c_int) -> Result<Vec<Array>> {
    // SAFETY: the vector is owned here and freed by `Arrays`.
    unsafe {
        let mut vector = Arrays(mlx_sys::mlx_vector_array_new());
        status(|| call(&mut vector.0))?;
        elements(vector.0)
    }
}

/// The arrays of a vector that somebody else owns.
pub(crate) fn elements(vector: mlx_vector_array) -> Result<Vec<Array>> {
    // SAFETY: the caller's vector is live; each element is copied out of it.
    unsafe {
        (0..mlx_sys::mlx_vector_array_size(vector))
            .map(|i| array(|result| mlx_sys::mlx_vector_array_get(result, vector, i)))
            .collect()
    }
}

/// `mlx!(mlx_add, a, b, s)` calls mlx-c's function of that name and gives the array it writes.
macro_rules! mlx {
    ($function:ident, $($argument:expr),*) => {
        $crate::runtime::ffi::array(|result| {
            // SAFETY: the handles come from arrays and streams that outlive the call, a pointer is
            // followed by its length, and mlx-c checks the rest and answers with a status.
            unsafe { mlx_sys::$function(result, $($argument),*) }
        })
    };
}
pub(crate) use mlx;

/// A call through mlx-rs, whose own error lacks MLX's message since [`HANDLER`] takes it.
pub(crate) fn wrapped<T>(
    call: impl FnOnce() -> std::result::Result<T, mlx_rs::error::Exception>,
) -> Result<T> {
    Lazy::force(&HANDLER);
    call().map_err(|exception| match take_message() {
        Some(message) => Error::Mlx(message),
        None => Error::Mlx(exception.what().to_owned()),
    })
}
