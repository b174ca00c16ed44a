//! Reductions: sums and products, extremes and their places, and what is true.
//!
//! On a CPU sums, products and extremes of f32 are taken in f64 by kernels. Truth and the places of extremes mean more than MLX's.

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::reduce as kernels;
use emily_kernels::reduce::fold::{self, Fold};
use emily_kernels::view::typed_mut;
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};
use once_cell::sync::OnceCell;
use smallvec::SmallVec;

use crate::ops::args::{Args, Number};
use crate::ops::cast;
use crate::ops::create;
use crate::ops::op::Op;
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::{by_type, Dtype};
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx, Stream};
use crate::runtime::kernel::{self, level, row, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

pub(crate) type Reduction =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, *const i32, usize, bool, mlx_stream) -> i32;
pub(crate) type AxisReduction =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, bool, mlx_stream) -> i32;

pub(crate) fn total(
    op: Op,
    function: Reduction,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let x = args.array()?;
    let (axes, keep) = (args.axes(x.ndim())?, args.bool()?);
    totalled(op, function, x, &axes, keep, stream)
}

pub(crate) fn totalled(
    op: Op,
    function: Reduction,
    x: &Array,
    axes: &[i32],
    keep: bool,
    stream: &StreamHandle,
) -> Result<Array> {
    if let Some(sum) = sum_on_cuda(op, x, axes, keep, stream) {
        return sum;
    }
    cast::in_f32(x, stream.raw(), |x| {
        by_kernel_of_f32(op, x, axes, keep, stream)
            .unwrap_or_else(|| reduced(function, x, axes, keep, stream.raw()))
    })
}

static SUM: Source = Source {
    name: "sum",
    inputs: &[c"x"],
    header: c"",
    ahead: "",
    text: include_str!("sum.cu.h"),
    in_rows: true,
    made: OnceCell::new(),
};

/// The sum of 16-bit floats over the last axes on CUDA, where MLX adds them up in their own type: of parts in f32, then
/// of the parts. None for what else there is.
fn sum_on_cuda(
    op: Op,
    x: &Array,
    axes: &[i32],
    keep: bool,
    stream: &StreamHandle,
) -> Option<Result<Array>> {
    const IN_BLOCK: i64 = 256;
    const MOST_BLOCKS: i64 = 1 << 20;
    let (dtype, kept) = (Dtype::of(x), x.ndim() - axes.len());
    let last = !axes.is_empty() && axes.iter().all(|axis| *axis as usize >= kept);
    let rows: i64 = x.shape()[..kept]
        .iter()
        .map(|size| i64::from(*size))
        .product();
    let columns = x.size() as i64 / rows.max(1);
    let fits = rows <= MOST_BLOCKS && columns <= i64::from(i32::MAX);
    if op != Op::Sum || !dtype.is_half() || !last || !fits || !cuda::is_cuda(stream) {
        return None;
    }
    let parts = (columns / 8192).clamp(1, (4096 / rows).max(1));
    let sum = || {
        let s = stream.raw();
        let matrix = ffi::reshape(x, &[rows as i32, columns as i32], s)?;
        let launch = Launch {
            inputs: &[&matrix],
            output: (&[rows as i32, parts as i32], Dtype::F32),
            threads: (rows * parts * IN_BLOCK) as i32,
            in_block: IN_BLOCK as i32,
            dtype: Some((c"T", dtype)),
            numbers: &[],
            zeroed: false,
        };
        let sums = cuda::launch(&SUM, &launch, stream)?;
        let sum = match parts {
            1 => sums,
            _ => over_axes(mlx_sys::mlx_sum_axes, &sums, &[1], false, s)?,
        };
        let sum = cast::cast(&sum, dtype, s)?;
        ffi::reshape(&sum, &shape_without(x.shape(), axes, keep), s)
    };
    Some(sum())
}

/// The greatest or least, of which NaN is one.
pub(crate) fn extreme(
    op: Op,
    function: Reduction,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let x = args.array()?;
    let (axes, keep) = (args.axes(x.ndim())?, args.bool()?);
    by_kernel_of_f32(op, x, &axes, keep, stream)
        .unwrap_or_else(|| reduced(function, x, &axes, keep, stream.raw()))
}

/// A reduction of any size. On a CPU MLX 0.32.4 counts elements and places in 32 bits (#4539), but for one axis of what
/// lies in a row: of more elements one axis is reduced after the other, the longest first.
pub(crate) fn reduced(
    function: Reduction,
    x: &Array,
    axes: &[i32],
    keep: bool,
    s: Stream,
) -> Result<Array> {
    const MOST: usize = i32::MAX as usize;
    if x.size() <= MOST || axes.is_empty() {
        return over_axes(function, x, axes, keep, s);
    }
    let mut longest_first = axes.to_vec();
    longest_first.sort_by_key(|axis| std::cmp::Reverse(x.dim(*axis)));
    let mut result = mlx!(mlx_contiguous, x.as_ptr(), false, s)?;
    for axis in longest_first {
        result = over_axes(function, &result, &[axis], true, s)?;
        if result.size() > MOST {
            refuse!(
                "reduction: {} elements are left of shape {:?} without axis {axis}, more than {MOST}",
                result.size(),
                x.shape()
            )
        }
    }
    match keep {
        true => Ok(result),
        false => mlx!(
            mlx_squeeze_axes,
            result.as_ptr(),
            axes.as_ptr(),
            axes.len(),
            s
        ),
    }
}

pub(crate) fn over_axes(
    function: Reduction,
    x: &Array,
    axes: &[i32],
    flag: bool,
    s: Stream,
) -> Result<Array> {
    // SAFETY: the handles are live; the axes are within the rank and outlive the call.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axes.as_ptr(), axes.len(), flag, s) })
}

/// The place of an extreme as MLX has it.
pub(crate) fn place_of_numbers(
    function: AxisReduction,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let (axis, keep) = (args.axis(x)?, args.bool()?);
    // SAFETY: the handles are live, and the axis is within the rank.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, keep, s) })
}

/// What is not zero is true.
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
    let kernel = RowFold::of(op, Dtype::of(x), false, stream);
    if let Some(kernel) = kernel.filter(|_| trailing) {
        return kernel.apply(x, kept, keep, Dtype::Bool, stream);
    }
    reduced(function, x, &axes, keep, s)
}

/// `{:argmax_nan, x, axis, last}`: the last NaN, or else the first of the extremes, or the last of them. MLX takes
/// the first of either. The axis stays.
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
    if let Some(found) = place_on_cuda(op, x, axis, last, stream) {
        return found;
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

static PLACE: Source = Source {
    name: "place",
    inputs: &[c"x"],
    header: c"",
    ahead: "",
    text: include_str!("place.cu.h"),
    in_rows: true,
    made: OnceCell::new(),
};

/// The place of an extreme of floats along the last axis on CUDA, where what MLX has takes several passes. None for what
/// else there is.
fn place_on_cuda(
    op: Op,
    x: &Array,
    axis: i32,
    last: bool,
    stream: &StreamHandle,
) -> Option<Result<Array>> {
    const MOST_ROWS: usize = 1 << 20;
    let (dtype, rank) = (Dtype::of(x), x.ndim());
    let known = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
    let columns = *x.shape().last()?;
    let rows = x.size().checked_div(columns as usize)?;
    if !known || axis as usize + 1 != rank || rows > MOST_ROWS || !cuda::is_cuda(stream) {
        return None;
    }
    let place = || {
        let s = stream.raw();
        let rows = rows as i32;
        // Of few numbers a row has few threads.
        let in_block = (columns / 32).clamp(1, 32) * 32;
        let launch = Launch {
            inputs: &[&ffi::reshape(x, &[rows, columns], s)?],
            output: (&[rows], Dtype::U32),
            threads: rows * in_block,
            in_block,
            dtype: Some((c"T", dtype)),
            numbers: &[
                (c"least", (op == Op::ArgminNan).into()),
                (c"last", last.into()),
            ],
            zeroed: false,
        };
        let kept = [&x.shape()[..rank - 1], &[1]].concat();
        ffi::reshape(&cuda::launch(&PLACE, &launch, stream)?, &kept, s)
    };
    Some(place())
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
    let Some(kernel) = RowFold::of(op, dtype, last, stream).filter(|_| is_inner) else {
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

/// A reduction over some axes, for a level of the processor.
struct Total {
    total: kernels::Reduction,
    axes: SmallVec<[usize; 6]>,
    level: Level,
}

impl Kernel for Total {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let output = typed_mut(output);
        kernels::reduce(self.level, self.total, view(&inputs[0]), &self.axes, output);
    }

    fn steps(&self) -> usize {
        1
    }
}

/// The reduction over `axes`, each named once and within the rank, if there is a kernel for it.
fn by_kernel_of_f32(
    op: Op,
    x: &Array,
    axes: &[i32],
    keep: bool,
    stream: &StreamHandle,
) -> Option<Result<Array>> {
    let total = total_of_f32(op)?;
    if Dtype::of(x) != Dtype::F32 || axes.is_empty() {
        return None;
    }
    let kernel = Total {
        total,
        axes: axes.iter().map(|axis| *axis as usize).collect(),
        level: level(stream)?,
    };
    let shape = shape_without(x.shape(), axes, keep);
    let result = (&shape[..], Dtype::F32);
    Some(kernel::add(
        op.name(),
        kernel,
        &[x],
        result,
        Placement::Apart,
        stream,
    ))
}

/// The kernel of a reduction of f32, if there is one.
pub(crate) fn total_of_f32(op: Op) -> Option<kernels::Reduction> {
    match op {
        Op::Sum => Some(kernels::Reduction::Sum),
        Op::Prod => Some(kernels::Reduction::Product),
        Op::Max => Some(kernels::Reduction::Greatest),
        Op::Min => Some(kernels::Reduction::Least),
        _ => None,
    }
}

/// A shape once these axes are reduced.
pub(crate) fn shape_without(shape: &[i32], axes: &[i32], keep: bool) -> SmallVec<[i32; 6]> {
    let sizes = shape.iter().enumerate();
    let left = |(at, size): (usize, &i32)| match axes.contains(&(at as i32)) {
        true => keep.then_some(1),
        false => Some(*size),
    };
    sizes.filter_map(left).collect()
}

/// A kernel of one operation.
#[derive(Clone, Copy)]
struct RowFold {
    op: Op,
    fold: Fold,
    level: Level,
}

struct Folded {
    fold: Fold,
    columns: usize,
    level: Level,
}

impl Kernel for Folded {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        (self.fold)(self.level, row(&inputs[0]).bytes(), output, self.columns);
    }

    fn steps(&self) -> usize {
        1
    }
}

impl RowFold {
    /// The kernel of an operation, if there is one; `last` means that it takes the last of equals.
    fn of(op: Op, dtype: Dtype, last: bool, stream: &StreamHandle) -> Option<RowFold> {
        let level = level(stream)?;
        row_fold(op, dtype, last).map(|fold| RowFold { op, fold, level })
    }

    /// One element of type `dtype` for all axes from `kept` on.
    fn apply(
        self,
        x: &Array,
        kept: usize,
        keep_axes: bool,
        dtype: Dtype,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let (before, folded) = x.shape().split_at(kept);
        let mut shape = before.to_vec();
        if keep_axes {
            shape.resize(x.ndim(), 1);
        }
        let rows = Folded {
            fold: self.fold,
            columns: folded.iter().map(|size| *size as usize).product(),
            level: self.level,
        };
        let result = (&shape[..], dtype);
        let x = kernel::in_rows(x, stream)?;
        let name = self.op.name();
        kernel::add(name, rows, &[&x], result, Placement::Apart, stream)
    }
}

/// The fold of an operation on numbers of one type; `last` means that it takes the last of equals.
fn row_fold(op: Op, dtype: Dtype, last: bool) -> Option<Fold> {
    match (op, dtype) {
        (Op::All, Dtype::F16 | Dtype::Bf16) => Some(fold::all_halves::<u16>),
        (Op::Any, Dtype::F16 | Dtype::Bf16) => Some(fold::any_halves::<u16>),
        (Op::All | Op::Any, Dtype::Bool) => row_fold(op, Dtype::U8, last),
        (Op::All, _) => by_type!(dtype, numbers, T => Some(fold::all::<T>)),
        (Op::Any, _) => by_type!(dtype, numbers, T => Some(fold::any::<T>)),
        (Op::ArgmaxNan, _) if last => by_type!(dtype, numbers, T => Some(fold::argmax_last::<T>)),
        (Op::ArgminNan, _) if last => by_type!(dtype, numbers, T => Some(fold::argmin_last::<T>)),
        (Op::ArgmaxNan, _) => by_type!(dtype, numbers, T => Some(fold::argmax::<T>)),
        (Op::ArgminNan, _) => by_type!(dtype, numbers, T => Some(fold::argmin::<T>)),
        (Op::WindowArgmax, _) => by_type!(dtype, numbers, T => Some(fold::window_argmax::<T>)),
        (Op::WindowArgmin, _) => by_type!(dtype, numbers, T => Some(fold::window_argmin::<T>)),
        _ => None,
    }
}
