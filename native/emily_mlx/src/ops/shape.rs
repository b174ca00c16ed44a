//! Operations on shapes.

use std::ops::Range;

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::Args;
use crate::ops::checks::{self, Ints};
use crate::runtime::contiguous;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx, Arrays, Stream};
use crate::runtime::stream::StreamHandle;

type OverAxes =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, *const i32, usize, mlx_stream) -> i32;
type Triangle = unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, mlx_stream) -> i32;
type SliceUpdate = unsafe extern "C" fn(
    *mut mlx_array,
    mlx_array,
    mlx_array,
    *const i32,
    usize,
    *const i32,
    usize,
    *const i32,
    usize,
    mlx_stream,
) -> i32;

pub(crate) fn reshape(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (x, shape) = (args.array()?, args.shape()?);
    ffi::reshape(x, &shape, s)
}

/// The same bytes as another type.
pub(crate) fn view(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, dtype) = (args.array()?, args.dtype()?);
    let parts = Dtype::of(x).size() / dtype.size();
    let last = x.shape().last().copied().unwrap_or(1);
    if i64::from(last) * parts as i64 > i64::from(i32::MAX) {
        refuse!(
            "view: shape {:?} of elements {parts} times narrower is too long",
            x.shape()
        )
    }
    mlx!(mlx_view, x.as_ptr(), dtype.raw(), stream.raw())
}

pub(crate) fn broadcast_to(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (x, shape) = (args.array()?, args.shape()?);
    mlx!(mlx_broadcast_to, x.as_ptr(), shape.as_ptr(), shape.len(), s)
}

pub(crate) fn transpose(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let axes = args.axes(x.ndim())?;
    checks::same_length(args.op, x.ndim(), &[("axes", axes.len())])?;
    mlx!(mlx_transpose_axes, x.as_ptr(), axes.as_ptr(), axes.len(), s)
}

pub(crate) fn expand_dims(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let axes = args.ints()?;
    let axes = checks::axes(args.op, &axes, x.ndim() + axes.len())?;
    mlx!(
        mlx_expand_dims_axes,
        x.as_ptr(),
        axes.as_ptr(),
        axes.len(),
        s
    )
}

pub(crate) fn over_axes(function: OverAxes, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let axes = args.axes(x.ndim())?;
    // SAFETY: the handles are live, the axes are within the rank and outlive the call.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axes.as_ptr(), axes.len(), s) })
}

/// The bounds of a slice: `0 <= start <= stop <= size`, with strides of one or more.
struct Bounds {
    starts: Ints,
    stops: Ints,
    strides: Ints,
}

fn bounds(args: &Args, x: &Array) -> Result<Bounds> {
    let (starts, stops, strides) = (args.ints()?, args.ints()?, args.ints()?);
    let lengths = [
        ("starts", starts.len()),
        ("stops", stops.len()),
        ("strides", strides.len()),
    ];
    checks::same_length(args.op, x.ndim(), &lengths)?;
    checks::at_least(args.op, "stride", &strides, 1)?;
    for (axis, size) in x.shape().iter().enumerate() {
        let (start, stop) = (starts[axis], stops[axis]);
        if start < 0 || stop < start || stop > *size {
            refuse!(
                "{}: from {start} to {stop} is not within axis {axis} of shape {:?}",
                args.op,
                x.shape()
            )
        }
    }
    Ok(Bounds {
        starts,
        stops,
        strides,
    })
}

pub(crate) fn slice(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let Bounds {
        starts,
        stops,
        strides,
    } = bounds(args, x)?;
    strided(x, &starts, &stops, &strides, s)
}

pub(crate) fn strided(
    x: &Array,
    starts: &[i32],
    stops: &[i32],
    strides: &[i32],
    s: Stream,
) -> Result<Array> {
    mlx!(
        mlx_slice,
        x.as_ptr(),
        starts.as_ptr(),
        starts.len(),
        stops.as_ptr(),
        stops.len(),
        strides.as_ptr(),
        strides.len(),
        s
    )
}

/// The entries of one axis that lie in `range`, which is within it.
pub(crate) fn cut(x: &Array, axis: i32, range: &Range<i32>, s: Stream) -> Result<Array> {
    if *range == (0..x.dim(axis)) {
        return Ok(x.clone());
    }
    let (mut starts, mut stops) = (vec![0; x.ndim()], x.shape().to_vec());
    (starts[axis as usize], stops[axis as usize]) = (range.start, range.end);
    strided(x, &starts, &stops, &vec![1; x.ndim()], s)
}

pub(crate) fn slice_update(
    function: SliceUpdate,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    let (x, update) = (args.array()?, args.array()?);
    let Bounds {
        starts,
        stops,
        strides,
    } = bounds(args, x)?;
    // SAFETY: the handles are live; the lists have one entry an axis and outlive the call.
    ffi::array(|result| unsafe {
        function(
            result,
            x.as_ptr(),
            update.as_ptr(),
            starts.as_ptr(),
            starts.len(),
            stops.as_ptr(),
            stops.len(),
            strides.as_ptr(),
            strides.len(),
            s,
        )
    })
}

fn some_arrays<'a>(args: &'a Args) -> Result<&'a [Array]> {
    let arrays = args.arrays()?;
    if arrays.is_empty() {
        refuse!("{}: needs at least one array", args.op)
    }
    Ok(arrays)
}

pub(crate) fn concatenate(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let arrays = some_arrays(args)?;
    let axis = args.axis(&arrays[0])?;
    let size: i64 = arrays
        .iter()
        .filter_map(|array| array.shape().get(axis as usize))
        .map(|size| i64::from(*size))
        .sum();
    if size > i64::from(i32::MAX) {
        refuse!("concatenate: axis {axis} would have {size} entries")
    }
    let vector = Arrays::new(arrays)?;
    mlx!(mlx_concatenate_axis, vector.as_ptr(), axis, s)
}

pub(crate) fn stack(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let arrays = some_arrays(args)?;
    let axis = checks::axis(args.op, args.int()?, arrays[0].ndim() + 1)?;
    let vector = Arrays::new(arrays)?;
    mlx!(mlx_stack_axis, vector.as_ptr(), axis, s)
}

pub(crate) fn pad(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let axes = args.axes(x.ndim())?;
    let (low, high, value) = (args.ints()?, args.ints()?, args.array()?);
    let lengths = [("low padding", low.len()), ("high padding", high.len())];
    checks::same_length(args.op, axes.len(), &lengths)?;
    checks::at_least(args.op, "padding", &low, 0)?;
    checks::at_least(args.op, "padding", &high, 0)?;
    if value.ndim() != 0 {
        refuse!(
            "pad: the value must be a scalar, got shape {:?}",
            value.shape()
        )
    }
    for (i, axis) in axes.iter().enumerate() {
        let size = i64::from(x.dim(*axis)) + i64::from(low[i]) + i64::from(high[i]);
        if size > i64::from(i32::MAX) {
            refuse!("pad: axis {axis} would have {size} entries")
        }
    }
    mlx!(
        mlx_pad,
        x.as_ptr(),
        axes.as_ptr(),
        axes.len(),
        low.as_ptr(),
        low.len(),
        high.as_ptr(),
        high.len(),
        value.as_ptr(),
        c"constant".as_ptr().cast(),
        s
    )
}

/// The elements of `x` in row-major order, taken by strides; every element that they name must exist.
/// They are copied: MLX 0.32.4 reduces a view whose elements overlap wrongly, and beyond its memory.
pub(crate) fn as_strided(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (x, shape) = (args.array()?, args.shape()?);
    let strides = args.wide_ints()?;
    let offset = args.int()?;
    checks::same_length(args.op, shape.len(), &[("strides", strides.len())])?;
    let (mut low, mut high) = (i128::from(offset), i128::from(offset));
    for (size, stride) in shape.iter().zip(strides) {
        let reach = i128::from(*stride) * i128::from(*size - 1);
        if reach < 0 {
            low += reach
        } else {
            high += reach
        }
    }
    if low < 0 || high >= x.size() as i128 {
        refuse!(
            "as_strided: shape {shape:?}, strides {strides:?} and offset {offset} leave the {} elements",
            x.size()
        )
    }
    let contiguous = mlx!(mlx_contiguous, x.as_ptr(), false, s)?;
    let view = mlx!(
        mlx_as_strided,
        contiguous.as_ptr(),
        shape.as_ptr(),
        shape.len(),
        strides.as_ptr(),
        strides.len(),
        offset as usize,
        s
    )?;
    mlx!(mlx_contiguous, view.as_ptr(), false, s)
}

/// `{:contiguous, x}`: the same elements in row-major order.
pub(crate) fn contiguous(args: &Args, stream: &StreamHandle) -> Result<Array> {
    contiguous::contiguous(args.array()?, stream)
}

/// An array of at least two axes.
fn matrix<'a>(args: &'a Args) -> Result<&'a Array> {
    let x = args.array()?;
    if x.ndim() < 2 {
        refuse!(
            "{}: needs at least two axes, got shape {:?}",
            args.op,
            x.shape()
        )
    }
    Ok(x)
}

/// `{:tril, x, diagonal}` and `{:triu, x, diagonal}`: what lies below or above a diagonal, and zeros.
pub(crate) fn triangle(function: Triangle, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, diagonal) = (matrix(args)?, args.int()?);
    // SAFETY: the handle is live, and mlx-c answers what it refuses with a status.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), diagonal, stream.raw()) })
}

pub(crate) fn diagonal(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = matrix(args)?;
    let (offset, first, second) = (args.int()?, args.axis(x)?, args.axis(x)?);
    if first == second {
        refuse!("diagonal: axis {first} is named twice")
    }
    if offset <= -x.dim(first) || offset >= x.dim(second) {
        refuse!(
            "diagonal: offset {offset} is outside of shape {:?}",
            x.shape()
        )
    }
    mlx!(mlx_diagonal, x.as_ptr(), offset, first, second, s)
}

pub(crate) fn repeat(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (x, times) = (args.array()?, args.int()?);
    let axis = args.axis(x)?;
    checks::at_least(args.op, "times", &[times], 0)?;
    let size = i64::from(x.dim(axis)) * i64::from(times);
    if size > i64::from(i32::MAX) {
        refuse!("repeat: axis {axis} would have {size} entries")
    }
    mlx!(mlx_repeat_axis, x.as_ptr(), times, axis, s)
}

pub(crate) fn tile(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (x, times) = (args.array()?, args.ints()?);
    checks::same_length(args.op, x.ndim(), &[("times", times.len())])?;
    checks::at_least(args.op, "times", &times, 0)?;
    for (axis, (size, times)) in x.shape().iter().zip(&times).enumerate() {
        let size = i64::from(*size) * i64::from(*times);
        if size > i64::from(i32::MAX) {
            refuse!("tile: axis {axis} would have {size} entries")
        }
    }
    mlx!(mlx_tile, x.as_ptr(), times.as_ptr(), times.len(), s)
}
