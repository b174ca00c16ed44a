//! The kernels in C++, by the names of operations.

use std::ffi::{c_char, c_int, c_void, CString};

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_dtype, mlx_stream};
use once_cell::sync::Lazy;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi;
use crate::op::Op;
use crate::stream::StreamHandle;

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
    fn emily_find_map(name: *const c_char) -> *const RawMap;
    fn emily_find_rows(name: *const c_char) -> *const c_void;
    fn emily_find_fold(name: *const c_char) -> *const c_void;
    fn emily_find_indexed(name: *const c_char) -> *const c_void;
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

/// As in `cpp/kernels.h`.
#[repr(C)]
struct RawMap {
    name: *const c_char,
    function: unsafe extern "C" fn(*const *const c_void, *mut c_void, usize, f64),
}

/// A map of f32 in C++.
struct ForeignMap(&'static RawMap);

// SAFETY: it is a constant of the library.
unsafe impl Send for ForeignMap {}
// SAFETY: as above.
unsafe impl Sync for ForeignMap {}

impl Map for ForeignMap {
    fn run(&self, _level: Level, inputs: &[&[u8]], output: &mut [u8], option: f64) {
        assert!(inputs.iter().all(|input| input.len() == output.len()));
        let data: SmallVec<[*const c_void; 4]> =
            inputs.iter().map(|input| input.as_ptr().cast()).collect();
        // SAFETY: inputs and output have as many elements of f32; a map of the table takes as many inputs as the
        // operation of its name has operands.
        unsafe {
            (self.0.function)(
                data.as_ptr(),
                output.as_mut_ptr().cast(),
                output.len() / Dtype::F32.size(),
                option,
            )
        }
    }
}

/// What C++ asks to know for which processor kernels are wanted.
#[no_mangle]
extern "C" fn emily_level() -> c_int {
    match Level::chosen().ok().flatten().map(Level::name) {
        Some("avx512") => 4,
        Some("avx2") => 3,
        _ => 0,
    }
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
static MAPS: Lazy<Vec<Option<ForeignMap>>> = Lazy::new(|| {
    let map = |op: Op| {
        let name = CString::new(op.name()).ok()?;
        // SAFETY: the name ends with a zero and lives through the call; what is found is a constant of the library.
        let found = unsafe { emily_find_map(name.as_ptr()).as_ref() };
        found.map(ForeignMap)
    };
    Op::iter().map(map).collect()
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

/// The map of an operation on f32.
pub(super) fn map(op: Op) -> Option<&'static dyn Map> {
    let map: &'static ForeignMap = MAPS[op as usize].as_ref()?;
    Some(map)
}

pub(super) fn fold(op: Op, dtype: Dtype, last: bool) -> Option<Fold> {
    FOLDS[usize::from(last)][op as usize][dtype as usize]
}

pub(super) fn rows(op: Op) -> Option<Rows> {
    ROWS[op as usize]
}

pub(super) fn indexed(op: Op, dtype: Dtype, index: Dtype) -> Option<Indexed> {
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
        // SAFETY: as in `Rows::apply`; the caller made sure that `kept` is within the rank.
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
        // SAFETY: as in `Rows::apply`; the caller made sure that the arrays' sizes and the shape fit together.
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
        // SAFETY: the handles are live, the kernel is one of the library's, and what MLX refuses comes back
        // as a status.
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
