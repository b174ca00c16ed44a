//! Reductions that mean more than MLX's: what is true, and the place of an extreme.

use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::create::{self, Number};
use crate::ops::kernels;
use crate::ops::table::{call, reduced, AxisReduction, Op, Reduction, Stream};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::{self, mlx};
use crate::runtime::stream::StreamHandle;

/// What is not zero is true. MLX's own looks at the bits, of which minus zero has one.
pub(crate) fn truth(
    op: Op,
    function: Reduction,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    let (mut axes, keep) = (args.axes(x.ndim())?, args.bool()?);
    axes.sort_unstable();
    let kept = x.ndim() - axes.len();
    let trailing = !axes.is_empty() && axes[0] as usize == kept;
    let kernel = kernels::fold(op, Dtype::of(x), false, stream);
    if let Some(kernel) = kernel.filter(|_| trailing) {
        return kernel.apply(x, kept, keep, Dtype::Bool, stream);
    }
    let x = match Dtype::of(x) {
        Dtype::Bool => x.clone(),
        dtype => {
            let zero = create::scalar(args.op, Number::Int(0), dtype)?;
            call(mlx_sys::mlx_not_equal, x, &zero, s)?
        }
    };
    reduced(function, &x, &axes, keep, s)
}

/// `{:argmax_nan, x, axis, last}`: the last NaN, or else the first of the extremes, or the last of them. MLX passes
/// over NaN, and takes the first. The axis stays.
pub(crate) fn place(
    op: Op,
    function: AxisReduction,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let x = args.array()?;
    let (axis, last, s) = (args.axis(x)?, args.bool()?, stream.raw());
    if let Some(found) = by_kernel(op, x, axis, last, stream)? {
        return Ok(found);
    }
    let found = if last {
        last_place(function, args.op, x, axis, s)?
    } else {
        first_place(function, x, axis, s)?
    };
    if !Dtype::of(x).is_real_float() {
        return Ok(found);
    }
    // Whether there is a NaN is asked of the one that was found, which costs less than all of them.
    let nan = mlx!(mlx_isnan, x.as_ptr(), s)?;
    let at = last_place(mlx_sys::mlx_argmax_axis, args.op, &nan, axis, s)?;
    let is_nan = mlx!(mlx_take_along_axis, nan.as_ptr(), at.as_ptr(), axis, s)?;
    mlx!(mlx_where, is_nan.as_ptr(), at.as_ptr(), found.as_ptr(), s)
}

/// `{:window_argmax, x, axis}`, as Nx chooses from a window: the last of the extremes, but a NaN where it comes
/// first. The axis stays.
pub(crate) fn choice(op: Op, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let (axis, s, dtype) = (args.axis(x)?, stream.raw(), Dtype::of(x));
    if let Some(found) = by_kernel(op, x, axis, false, stream)? {
        return Ok(found);
    }
    let (place, extreme, worst): (AxisReduction, Reduction, f64) = match op {
        Op::WindowArgmax => (
            mlx_sys::mlx_argmax_axis,
            mlx_sys::mlx_max_axes,
            f64::NEG_INFINITY,
        ),
        _ => (
            mlx_sys::mlx_argmin_axis,
            mlx_sys::mlx_min_axes,
            f64::INFINITY,
        ),
    };
    if !dtype.is_real_float() {
        return last_place(place, args.op, x, axis, s);
    }
    let scalar = |number, dtype| create::scalar(args.op, number, dtype);
    let worst = scalar(Number::Float(worst), dtype)?;
    let first = scalar(Number::Int(0), Dtype::U32)?;
    let nan = mlx!(mlx_isnan, x.as_ptr(), s)?;
    let numbers = mlx!(mlx_where, nan.as_ptr(), worst.as_ptr(), x.as_ptr(), s)?;
    // SAFETY: the handles are live, and the axis is within the rank.
    let best =
        ffi::array(|result| unsafe { extreme(result, numbers.as_ptr(), &axis, 1, true, s) })?;
    let is_best = call(mlx_sys::mlx_equal, x, &best, s)?;
    let found = last_place(mlx_sys::mlx_argmax_axis, args.op, &is_best, axis, s)?;
    let column = mlx!(mlx_reshape, first.as_ptr(), [1].as_ptr(), 1, s)?;
    let starts_with_nan = mlx!(mlx_take_axis, nan.as_ptr(), column.as_ptr(), axis, s)?;
    mlx!(
        mlx_where,
        starts_with_nan.as_ptr(),
        first.as_ptr(),
        found.as_ptr(),
        s
    )
}

/// The place along the last axis, by a kernel where there is one.
fn by_kernel(
    op: Op,
    x: &Array,
    axis: i32,
    last: bool,
    stream: &StreamHandle,
) -> Result<Option<Array>> {
    // Every number of 16 bits is one of f32.
    let dtype = match Dtype::of(x) {
        Dtype::F16 | Dtype::Bf16 => Dtype::F32,
        other => other,
    };
    let is_inner = axis as usize + 1 == x.ndim();
    let Some(kernel) = kernels::fold(op, dtype, last, stream).filter(|_| is_inner) else {
        return Ok(None);
    };
    let x = mlx!(mlx_astype, x.as_ptr(), dtype.raw(), stream.raw())?;
    kernel
        .apply(&x, axis as usize, true, Dtype::U32, stream)
        .map(Some)
}

fn first_place(function: AxisReduction, x: &Array, axis: i32, s: Stream) -> Result<Array> {
    // SAFETY: the handles are live, and the axis is within the rank.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, true, s) })
}

fn last_place(function: AxisReduction, op: &str, x: &Array, axis: i32, s: Stream) -> Result<Array> {
    let most = create::scalar(op, Number::Int(i128::from(x.dim(axis)) - 1), Dtype::U32)?;
    let flipped = mlx!(mlx_flip_axes, x.as_ptr(), &axis, 1, s)?;
    let found = first_place(function, &flipped, axis, s)?;
    call(mlx_sys::mlx_subtract, &most, &found, s)
}
