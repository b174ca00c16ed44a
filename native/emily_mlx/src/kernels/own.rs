//! The kernels of `cpp/`, by the names of operations.

use std::ffi::{c_char, c_int, c_void, CString};

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};
use once_cell::sync::Lazy;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::device::Device;
use crate::error::Result;
use crate::ffi;
use crate::op::Op;
use crate::stream::StreamHandle;

/// A kernel that gives an element for an element of each input.
#[derive(Clone, Copy)]
pub(crate) struct Map(*const c_void);

/// A kernel over the last axis.
#[derive(Clone, Copy)]
pub(crate) struct Rows(*const c_void);

// SAFETY: the pointers are to constants of the library.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}
// SAFETY: as above.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

extern "C" {
    fn emily_find_map(name: *const c_char) -> *const c_void;
    fn emily_find_rows(name: *const c_char) -> *const c_void;
    fn emily_map(
        result: *mut mlx_array,
        kernel: *const c_void,
        inputs: *const mlx_array,
        count: usize,
        on: mlx_stream,
    ) -> c_int;
    fn emily_rows(
        result: *mut mlx_array,
        kernel: *const c_void,
        inputs: *const mlx_array,
        count: usize,
        option: f64,
        on: mlx_stream,
    ) -> c_int;
}

fn find(
    name: &str,
    function: unsafe extern "C" fn(*const c_char) -> *const c_void,
) -> Option<*const c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero and lives through the call.
    let kernel = unsafe { function(name.as_ptr()) };
    (!kernel.is_null()).then_some(kernel)
}

/// By the number of the operation.
static MAPS: Lazy<Vec<Option<Map>>> = Lazy::new(|| {
    Op::iter()
        .map(|op| find(op.name(), emily_find_map).map(Map))
        .collect()
});

static ROWS: Lazy<Vec<Option<Rows>>> = Lazy::new(|| {
    Op::iter()
        .map(|op| find(op.name(), emily_find_rows).map(Rows))
        .collect()
});

/// By the width of the elements: 1, 2, 4 and 8 bytes.
static CHOICES: Lazy<[Option<Map>; 4]> = Lazy::new(|| {
    [8, 16, 32, 64].map(|bits| find(&format!("where{bits}"), emily_find_map).map(Map))
});

pub(super) fn map(op: Op, stream: &StreamHandle) -> Option<Map> {
    on_cpu(stream).and_then(|()| MAPS[op as usize])
}

pub(super) fn choice(bytes: usize, stream: &StreamHandle) -> Option<Map> {
    on_cpu(stream).and_then(|()| CHOICES[bytes.ilog2() as usize])
}

pub(super) fn rows(op: Op, stream: &StreamHandle) -> Option<Rows> {
    on_cpu(stream).and_then(|()| ROWS[op as usize])
}

fn on_cpu(stream: &StreamHandle) -> Option<()> {
    (stream.device() == Device::Cpu).then_some(())
}

impl Map {
    /// The kernel on arrays that broadcast to one shape.
    pub(crate) fn apply(self, arrays: &[&Array], stream: &StreamHandle) -> Result<Array> {
        let inputs: SmallVec<[mlx_array; 4]> = arrays.iter().map(|array| array.as_ptr()).collect();
        // SAFETY: the handles are live, the kernel is one of the library's, and what MLX refuses comes back
        // as a status.
        ffi::array(|result| unsafe {
            emily_map(result, self.0, inputs.as_ptr(), inputs.len(), stream.raw())
        })
    }
}

impl Rows {
    /// The kernel on the arrays that are there; what `option` means is its own affair.
    pub(crate) fn apply(
        self,
        arrays: &[Option<&Array>],
        option: f64,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let none = mlx_array {
            ctx: std::ptr::null_mut(),
        };
        let handle = |array: &Option<&Array>| array.map_or(none, Array::as_ptr);
        let inputs: SmallVec<[mlx_array; 4]> = arrays.iter().map(handle).collect();
        // SAFETY: as in `Map::apply`.
        ffi::array(|result| unsafe {
            emily_rows(
                result,
                self.0,
                inputs.as_ptr(),
                inputs.len(),
                option,
                stream.raw(),
            )
        })
    }
}
