//! The kernels of `cpp/`, by the names of operations.

use std::ffi::{c_char, c_int, c_void, CString};

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_dtype, mlx_stream};
use once_cell::sync::Lazy;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::device::Device;
use crate::dtype::Dtype;
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

/// A kernel that takes rows by their numbers, or updates them.
#[derive(Clone, Copy)]
pub(crate) struct Indexed(*const c_void);

/// A kernel that makes one element of the trailing axes.
#[derive(Clone, Copy)]
pub(crate) struct Fold(*const c_void);

// SAFETY: the pointers are to constants of the library.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}
// SAFETY: as above.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}
// SAFETY: as above.
unsafe impl Send for Fold {}
// SAFETY: as above.
unsafe impl Sync for Fold {}
// SAFETY: as above.
unsafe impl Send for Indexed {}
// SAFETY: as above.
unsafe impl Sync for Indexed {}

extern "C" {
    fn emily_find_map(name: *const c_char) -> *const c_void;
    fn emily_find_rows(name: *const c_char) -> *const c_void;
    fn emily_find_fold(name: *const c_char) -> *const c_void;
    fn emily_find_indexed(name: *const c_char) -> *const c_void;
    fn emily_map(
        result: *mut mlx_array,
        kernel: *const c_void,
        inputs: *const mlx_array,
        count: usize,
        dtype: mlx_dtype,
        option: f64,
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
    fn emily_fold(
        result: *mut mlx_array,
        kernel: *const c_void,
        input: mlx_array,
        kept: usize,
        keep_axes: bool,
        dtype: mlx_dtype,
        on: mlx_stream,
    ) -> c_int;
    fn emily_indexed(
        result: *mut mlx_array,
        kernel: *const c_void,
        inputs: *const mlx_array,
        count: usize,
        axis: usize,
        shape: *const c_int,
        rank: usize,
        on: mlx_stream,
    ) -> c_int;
    fn emily_along(
        result: *mut mlx_array,
        kernel: *const c_void,
        input: mlx_array,
        at: mlx_array,
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

/// By the number of the operation and the type.
static MAPS: Lazy<Vec<Vec<Option<Map>>>> = Lazy::new(|| {
    let name = |op: Op, dtype: Dtype| match dtype {
        Dtype::F32 => op.name().to_owned(),
        _ => format!("{}_{}", op.name(), dtype.name()),
    };
    Op::iter()
        .map(|op| each_type(|dtype| find(&name(op, dtype), emily_find_map).map(Map)))
        .collect()
});

/// Casts to integers, by the type of the number and that of the integer.
static CASTS: Lazy<Vec<Vec<Option<Map>>>> = Lazy::new(|| {
    each_type(|from| {
        each_type(|to| {
            let name = format!("to_integer_{}_{}", from.name(), to.name());
            find(&name, emily_find_map).map(Map)
        })
    })
});

/// What clamps indices, by their type.
static CLAMPS: Lazy<Vec<Option<Map>>> = Lazy::new(|| {
    each_type(|dtype| find(&format!("clamp_{}", dtype.name()), emily_find_map).map(Map))
});

/// By the number of the operation and the type, and for what takes the last of equals.
static FOLDS: Lazy<[Vec<Vec<Option<Fold>>>; 2]> = Lazy::new(|| {
    ["", "_last"].map(|last| {
        Op::iter()
            .map(|op| {
                each_type(|dtype| {
                    let name = format!("{}{last}_{}", op.name(), dtype.name());
                    find(&name, emily_find_fold).map(Fold)
                })
            })
            .collect()
    })
});

/// By the operation, the type of the elements and that of the indices.
static INDEXED: Lazy<[Vec<Vec<Option<Indexed>>>; 3]> = Lazy::new(|| {
    [Op::Take, Op::Scatter, Op::ScatterAdd].map(|op| {
        each_type(|dtype| {
            let elements = match (op, dtype) {
                // Half-precision floats and complex numbers are not added here.
                (Op::ScatterAdd, Dtype::F16 | Dtype::Bf16 | Dtype::C64 | Dtype::Bool) => {
                    return Vec::new()
                }
                (Op::ScatterAdd, Dtype::F32 | Dtype::F64) => dtype.name().to_owned(),
                _ => (8 * dtype.size()).to_string(),
            };
            each_type(|index| {
                let name = format!("{}_{elements}_{}", op.name(), index.name());
                find(&name, emily_find_indexed).map(Indexed)
            })
        })
    })
});

fn each_type<T>(of: impl Fn(Dtype) -> T) -> Vec<T> {
    Dtype::iter().map(of).collect()
}

static ROWS: Lazy<Vec<Option<Rows>>> = Lazy::new(|| {
    Op::iter()
        .map(|op| find(op.name(), emily_find_rows).map(Rows))
        .collect()
});

/// By the width of the elements: 1, 2, 4 and 8 bytes.
static CHOICES: Lazy<[Option<Map>; 4]> = Lazy::new(|| {
    [8, 16, 32, 64].map(|bits| find(&format!("where{bits}"), emily_find_map).map(Map))
});

pub(super) fn map(op: Op, dtype: Dtype, stream: &StreamHandle) -> Option<Map> {
    on_cpu(stream).and_then(|()| MAPS[op as usize][dtype as usize])
}

pub(super) fn cast(from: Dtype, to: Dtype, stream: &StreamHandle) -> Option<Map> {
    on_cpu(stream).and_then(|()| CASTS[from as usize][to as usize])
}

pub(super) fn clamp(dtype: Dtype, stream: &StreamHandle) -> Option<Map> {
    on_cpu(stream).and_then(|()| CLAMPS[dtype as usize])
}

pub(super) fn fold(op: Op, dtype: Dtype, last: bool, stream: &StreamHandle) -> Option<Fold> {
    on_cpu(stream).and_then(|()| FOLDS[usize::from(last)][op as usize][dtype as usize])
}

pub(super) fn choice(bytes: usize, stream: &StreamHandle) -> Option<Map> {
    on_cpu(stream).and_then(|()| CHOICES[bytes.ilog2() as usize])
}

pub(super) fn rows(op: Op, stream: &StreamHandle) -> Option<Rows> {
    on_cpu(stream).and_then(|()| ROWS[op as usize])
}

pub(super) fn indexed(
    op: Op,
    dtype: Dtype,
    index: Dtype,
    stream: &StreamHandle,
) -> Option<Indexed> {
    on_cpu(stream)?;
    let kernels = match op {
        Op::Take => &INDEXED[0],
        Op::Scatter => &INDEXED[1],
        Op::ScatterAdd => &INDEXED[2],
        _ => return None,
    };
    kernels[dtype as usize]
        .get(index as usize)
        .copied()
        .flatten()
}

fn on_cpu(stream: &StreamHandle) -> Option<()> {
    (stream.device() == Device::Cpu).then_some(())
}

impl Map {
    /// The kernel on arrays that broadcast to one shape; the result has the type of the last.
    pub(crate) fn apply(self, arrays: &[&Array], stream: &StreamHandle) -> Result<Array> {
        let dtype = arrays.last().map_or(Dtype::F32, |array| Dtype::of(array));
        self.apply_with(arrays, dtype, 0.0, stream)
    }

    /// The kernel with a result of type `dtype`; what `option` means is its own affair.
    pub(crate) fn apply_with(
        self,
        arrays: &[&Array],
        dtype: Dtype,
        option: f64,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let inputs: SmallVec<[mlx_array; 4]> = arrays.iter().map(|array| array.as_ptr()).collect();
        // SAFETY: the handles are live, the kernel is one of the library's, and what MLX refuses comes back
        // as a status.
        ffi::array(|result| unsafe {
            emily_map(
                result,
                self.0,
                inputs.as_ptr(),
                inputs.len(),
                dtype.raw(),
                option,
                stream.raw(),
            )
        })
    }
}

impl Fold {
    /// One element of type `dtype` for all axes from `kept` on.
    pub(crate) fn apply(
        self,
        x: &Array,
        kept: usize,
        keep_axes: bool,
        dtype: Dtype,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let (x, s) = (x.as_ptr(), stream.raw());
        // SAFETY: as in `Map::apply_with`; the caller made sure that `kept` is within the rank.
        ffi::array(|result| unsafe {
            emily_fold(result, self.0, x, kept, keep_axes, dtype.raw(), s)
        })
    }
}

impl Indexed {
    /// The kernel on an array whose rows are along `axis`, before which all sizes are 1, on indices and updates;
    /// the result has `shape`.
    pub(crate) fn apply(
        self,
        arrays: &[&Array],
        axis: usize,
        shape: &[i32],
        stream: &StreamHandle,
    ) -> Result<Array> {
        let inputs: SmallVec<[mlx_array; 4]> = arrays.iter().map(|array| array.as_ptr()).collect();
        // SAFETY: as in `Map::apply_with`; the caller made sure that the arrays' sizes and the shape fit together.
        ffi::array(|result| unsafe {
            emily_indexed(
                result,
                self.0,
                inputs.as_ptr(),
                inputs.len(),
                axis,
                shape.as_ptr(),
                shape.len(),
                stream.raw(),
            )
        })
    }

    /// The kernel along the last axis, on indices whose other axes have the sizes of the array's.
    pub(crate) fn along(self, x: &Array, at: &Array, stream: &StreamHandle) -> Result<Array> {
        let (x, at, s) = (x.as_ptr(), at.as_ptr(), stream.raw());
        // SAFETY: as in `apply`.
        ffi::array(|result| unsafe { emily_along(result, self.0, x, at, s) })
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
        // SAFETY: as in `Map::apply_with`.
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
