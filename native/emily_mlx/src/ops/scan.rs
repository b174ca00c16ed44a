//! Sums, products and extremes along an axis, of all elements up to each.

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::Args;
use crate::ops::cast;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi;
use crate::runtime::stream::StreamHandle;

type Cumulative =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, bool, bool, mlx_stream) -> i32;
type TypedCumulative = unsafe extern "C" fn(
    *mut mlx_array,
    mlx_array,
    i32,
    bool,
    bool,
    mlx_sys::mlx_optional_dtype,
    mlx_stream,
) -> i32;

pub(crate) fn cumulate(function: Cumulative, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let (axis, reverse) = (args.axis(x)?, args.bool()?);
    cast::in_f32(x, s, |x| {
        // SAFETY: the handles are live, and the axis is within the rank.
        ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, reverse, true, s) })
    })
}

pub(crate) fn cumulate_typed(
    function: TypedCumulative,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let (axis, reverse) = (args.axis(x)?, args.bool()?);
    cast::in_f32(x, s, |x| {
        // The result has the type of the input.
        let dtype = mlx_sys::mlx_optional_dtype {
            value: Dtype::of(x).raw(),
            has_value: true,
        };
        // SAFETY: the handles are live, and the axis is within the rank.
        ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, reverse, true, dtype, s) })
    })
}
