//! The table of operations: one arm each, reading its arguments in order.

use std::borrow::Cow;

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};
use strum::{EnumIter, IntoStaticStr};

use crate::ops::args::Args;
use crate::ops::{
    checks, conv, create, fold, fused, index, integer, kernels, linalg, number, shape, totals,
};
use crate::program::cached;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx};
use crate::runtime::stream::StreamHandle;

/// What mlx-c takes as a stream.
pub(crate) type Stream = mlx_stream;

type Unary = unsafe extern "C" fn(*mut mlx_array, mlx_array, mlx_stream) -> i32;
pub(crate) type Binary =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, mlx_array, mlx_stream) -> i32;
pub(crate) type Reduction =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, *const i32, usize, bool, mlx_stream) -> i32;
pub(crate) type AxisReduction =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, bool, mlx_stream) -> i32;
type Sort = unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, mlx_stream) -> i32;
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
type Fft = unsafe extern "C" fn(
    *mut mlx_array,
    mlx_array,
    i32,
    i32,
    mlx_sys::mlx_fft_norm,
    mlx_stream,
) -> i32;

/// The operations, under the names by which they cross from Elixir (in snake case).
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[rustfmt::skip]
pub enum Op {
    Abs, Negative, Exp, Expm1, Log, Log1p, Log2, Log10, Sqrt, Rsqrt, Square,
    Sin, Cos, Tan, Arcsin, Arccos, Arctan, Sinh, Cosh, Tanh, Arcsinh, Arccosh, Arctanh,
    Erf, Erfc, Erfinv, Sigmoid, Cbrt, Sign, Floor, Ceil, Round, RoundAway, Trunc, Chop, LogicalNot, BitwiseInvert,
    Isnan, Isinf, Isfinite, Isposinf, Isneginf, Real, Imag, Conjugate, Contiguous,
    Add, Subtract, Multiply, Divide, FloorDivide, Remainder, Fmod, Power, IntegerPower, Maximum, Minimum, Arctan2,
    Logaddexp, Equal, NotEqual, Greater, GreaterEqual, Less, LessEqual, LogicalAnd, LogicalOr,
    BitwiseAnd, BitwiseOr, BitwiseXor, LeftShift, RightShift, WideLeftShift, WideRightShift, Matmul,
    Astype, ToInteger, View, Where, Clip, Full, Arange, Eye,
    Reshape, Transpose, BroadcastTo, ExpandDims, Squeeze, Flip, Slice, SliceUpdate, SliceUpdateAdd,
    SliceUpdateProd, SliceUpdateMax, SliceUpdateMin, SliceDynamic, SliceUpdateDynamic, Concatenate,
    Stack, Pad, AsStrided, Tril, Triu, Diagonal, Repeat, Tile,
    Sum, Prod, Max, Min, Mean, All, Any, Logsumexp, Softmax, Argmax, Argmin, ArgmaxNan, ArgminNan,
    WindowArgmax, WindowArgmin,
    Cumsum, Cumprod, Cummax, Cummin, Logcumsumexp, Sort, Argsort,
    Take, TakeAlongAxis, Gather, Scatter, ScatterAdd, ScatterProd, ScatterMax, ScatterMin,
    Cholesky, Qr, Svd, Eigh, Lu, LuFactor, Solve, SolveTriangular, Inv, Det,
    Fft, Ifft, Rfft, Irfft, Conv,
    RmsNorm, LayerNorm, Rope, Attention, CachedAttention, Einsum,
}

impl Op {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it is a function of one number that is computed in steps.
    #[rustfmt::skip]
    fn is_function(self) -> bool {
        matches!(
            self,
            Op::Exp | Op::Expm1 | Op::Log | Op::Log1p | Op::Log2 | Op::Log10 | Op::Rsqrt | Op::Sin | Op::Cos
                | Op::Tan | Op::Arcsin | Op::Arccos | Op::Arctan | Op::Sinh | Op::Cosh | Op::Tanh | Op::Arcsinh
                | Op::Arccosh | Op::Arctanh | Op::Erf | Op::Erfinv | Op::Sigmoid
        )
    }

    /// Whether LAPACK computes it.
    #[rustfmt::skip]
    pub fn is_linalg(self) -> bool {
        matches!(
            self,
            Op::Cholesky | Op::Qr | Op::Svd | Op::Eigh | Op::Lu | Op::LuFactor | Op::Solve
                | Op::SolveTriangular | Op::Inv | Op::Det
        )
    }
}

/// What an operation gives: one array, or several that MLX computes together.
#[derive(Debug)]
pub enum Value {
    One(Array),
    Many(Vec<Array>),
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Value::One(array)
    }
}

impl From<Vec<Array>> for Value {
    fn from(arrays: Vec<Array>) -> Self {
        Value::Many(arrays)
    }
}

/// Adds one operation to the lazy graph. Nothing is computed.
pub fn apply(op: Op, args: &Args, stream: &StreamHandle) -> Result<Value> {
    let value = build(op, args, stream)?;
    checked(op, args, value)
}

/// What an operation gave, unless it left arguments or no memory could hold it.
pub(crate) fn checked(op: Op, args: &Args, value: Value) -> Result<Value> {
    args.finish()?;
    let results = match &value {
        Value::One(array) => std::slice::from_ref(array),
        Value::Many(arrays) => arrays,
    };
    for array in results {
        checks::rank(args.op, array.ndim())?;
        checks::not_empty(args.op, array)?;
        // A broadcast takes no memory of its own.
        if op != Op::BroadcastTo {
            checks::fits_memory(args.op, array)?;
        }
    }
    Ok(value)
}

#[rustfmt::skip]
fn build(op: Op, args: &Args, stream: &StreamHandle) -> Result<Value> {
    let s = stream.raw();
    let value: Array = match op {
        Op::Abs => unary(op, mlx_sys::mlx_abs, args, stream),
        Op::Negative => unary(op, mlx_sys::mlx_negative, args, stream),
        Op::Exp => unary(op, mlx_sys::mlx_exp, args, stream),
        Op::Expm1 => unary(op, mlx_sys::mlx_expm1, args, stream),
        Op::Log => unary(op, mlx_sys::mlx_log, args, stream),
        Op::Log1p => unary(op, mlx_sys::mlx_log1p, args, stream),
        Op::Log2 => unary(op, mlx_sys::mlx_log2, args, stream),
        Op::Log10 => unary(op, mlx_sys::mlx_log10, args, stream),
        Op::Sqrt => unary(op, mlx_sys::mlx_sqrt, args, stream),
        Op::Rsqrt => unary(op, mlx_sys::mlx_rsqrt, args, stream),
        Op::Square => unary(op, mlx_sys::mlx_square, args, stream),
        Op::Sin => unary(op, mlx_sys::mlx_sin, args, stream),
        Op::Cos => unary(op, mlx_sys::mlx_cos, args, stream),
        Op::Tan => unary(op, mlx_sys::mlx_tan, args, stream),
        Op::Arcsin => unary(op, mlx_sys::mlx_arcsin, args, stream),
        Op::Arccos => unary(op, mlx_sys::mlx_arccos, args, stream),
        Op::Arctan => unary(op, mlx_sys::mlx_arctan, args, stream),
        Op::Sinh => unary(op, mlx_sys::mlx_sinh, args, stream),
        Op::Cosh => unary(op, mlx_sys::mlx_cosh, args, stream),
        Op::Tanh => unary(op, mlx_sys::mlx_tanh, args, stream),
        Op::Arcsinh => unary(op, mlx_sys::mlx_arcsinh, args, stream),
        Op::Arccosh => unary(op, mlx_sys::mlx_arccosh, args, stream),
        Op::Arctanh => unary(op, mlx_sys::mlx_arctanh, args, stream),
        Op::Erf => unary(op, mlx_sys::mlx_erf, args, stream),
        Op::Erfc => number::erfc(args, stream),
        Op::Erfinv => unary(op, mlx_sys::mlx_erfinv, args, stream),
        Op::Sigmoid => unary(op, mlx_sys::mlx_sigmoid, args, stream),
        Op::Cbrt => number::cbrt(args, stream),
        Op::Sign => number::sign(args, stream),
        Op::Floor => unary(op, mlx_sys::mlx_floor, args, stream),
        Op::Ceil => unary(op, mlx_sys::mlx_ceil, args, stream),
        Op::Round => { let x = args.array()?; mlx!(mlx_round, x.as_ptr(), 0, s) }
        Op::RoundAway => number::round_away(args, stream),
        Op::Chop => number::chop(args, stream),
        Op::Trunc => unary(op, mlx_sys::mlx_trunc, args, stream),
        Op::LogicalNot => unary(op, mlx_sys::mlx_logical_not, args, stream),
        Op::BitwiseInvert => unary(op, mlx_sys::mlx_bitwise_invert, args, stream),
        Op::Isnan => unary(op, mlx_sys::mlx_isnan, args, stream),
        Op::Isinf => unary(op, mlx_sys::mlx_isinf, args, stream),
        Op::Isfinite => unary(op, mlx_sys::mlx_isfinite, args, stream),
        Op::Isposinf => unary(op, mlx_sys::mlx_isposinf, args, stream),
        Op::Isneginf => unary(op, mlx_sys::mlx_isneginf, args, stream),
        Op::Real => unary(op, mlx_sys::mlx_real, args, stream),
        Op::Imag => unary(op, mlx_sys::mlx_imag, args, stream),
        Op::Conjugate => unary(op, mlx_sys::mlx_conjugate, args, stream),
        Op::Contiguous => shape::contiguous(args.array()?, stream),

        Op::Add => binary(op, mlx_sys::mlx_add, args, stream),
        Op::Subtract => binary(op, mlx_sys::mlx_subtract, args, stream),
        Op::Multiply => binary(op, mlx_sys::mlx_multiply, args, stream),
        Op::Divide => binary(op, mlx_sys::mlx_divide, args, stream),
        Op::FloorDivide => integer::floor_divide(args, stream),
        Op::Remainder => integer::remainder(args, stream),
        Op::Fmod => integer::fmod(args, stream),
        Op::Power => binary(op, mlx_sys::mlx_power, args, stream),
        Op::IntegerPower => integer::power(args, stream),
        Op::Maximum => binary(op, mlx_sys::mlx_maximum, args, stream),
        Op::Minimum => binary(op, mlx_sys::mlx_minimum, args, stream),
        Op::Arctan2 => binary(op, mlx_sys::mlx_arctan2, args, stream),
        Op::Logaddexp => binary(op, mlx_sys::mlx_logaddexp, args, stream),
        Op::Equal => compare(op, mlx_sys::mlx_equal, args, stream),
        Op::NotEqual => compare(op, mlx_sys::mlx_not_equal, args, stream),
        Op::Greater => compare(op, mlx_sys::mlx_greater, args, stream),
        Op::GreaterEqual => compare(op, mlx_sys::mlx_greater_equal, args, stream),
        Op::Less => compare(op, mlx_sys::mlx_less, args, stream),
        Op::LessEqual => compare(op, mlx_sys::mlx_less_equal, args, stream),
        Op::LogicalAnd => binary(op, mlx_sys::mlx_logical_and, args, stream),
        Op::LogicalOr => binary(op, mlx_sys::mlx_logical_or, args, stream),
        Op::BitwiseAnd => binary(op, mlx_sys::mlx_bitwise_and, args, stream),
        Op::BitwiseOr => binary(op, mlx_sys::mlx_bitwise_or, args, stream),
        Op::BitwiseXor => binary(op, mlx_sys::mlx_bitwise_xor, args, stream),
        Op::LeftShift => binary(op, mlx_sys::mlx_left_shift, args, stream),
        Op::RightShift => binary(op, mlx_sys::mlx_right_shift, args, stream),
        Op::WideLeftShift => integer::left_shift(args, stream),
        Op::WideRightShift => integer::right_shift(args, stream),
        Op::Matmul => matmul(args, stream),

        Op::Astype => { let (x, dtype) = (args.array()?, args.dtype()?); mlx!(mlx_astype, x.as_ptr(), dtype.raw(), s) }
        Op::ToInteger => number::to_integer(args, stream),
        Op::View => shape::view(args, s),
        Op::Where => choose(args.array()?, args.array()?, args.array()?, stream),
        Op::Clip => {
            let (x, low, high) = (args.array()?, args.array()?, args.array()?);
            mlx!(mlx_clip, x.as_ptr(), low.as_ptr(), high.as_ptr(), s)
        }
        Op::Full => create::full(args, s),
        Op::Arange => create::arange(args, s),
        Op::Eye => create::eye(args, s),

        Op::Reshape => shape::reshape(args, s),
        Op::Transpose => shape::transpose(args, s),
        Op::BroadcastTo => shape::broadcast_to(args, s),
        Op::ExpandDims => shape::expand_dims(args, s),
        Op::Squeeze => shape::over_axes(mlx_sys::mlx_squeeze_axes, args, s),
        Op::Flip => shape::over_axes(mlx_sys::mlx_flip_axes, args, s),
        Op::Slice => shape::slice(args, s),
        Op::SliceUpdate => shape::slice_update(mlx_sys::mlx_slice_update, args, s),
        Op::SliceUpdateAdd => shape::slice_update(mlx_sys::mlx_slice_update_add, args, s),
        Op::SliceUpdateProd => shape::slice_update(mlx_sys::mlx_slice_update_prod, args, s),
        Op::SliceUpdateMax => shape::slice_update(mlx_sys::mlx_slice_update_max, args, s),
        Op::SliceUpdateMin => shape::slice_update(mlx_sys::mlx_slice_update_min, args, s),
        Op::SliceDynamic => index::slice_dynamic(args, stream),
        Op::SliceUpdateDynamic => index::slice_update_dynamic(args, stream),
        Op::Concatenate => shape::concatenate(args, s),
        Op::Stack => shape::stack(args, s),
        Op::Pad => shape::pad(args, s),
        Op::AsStrided => shape::as_strided(args, s),
        Op::Tril => { let (x, k) = (shape::matrix(args)?, args.int()?); mlx!(mlx_tril, x.as_ptr(), k, s) }
        Op::Triu => { let (x, k) = (shape::matrix(args)?, args.int()?); mlx!(mlx_triu, x.as_ptr(), k, s) }
        Op::Diagonal => shape::diagonal(args, s),
        Op::Repeat => shape::repeat(args, s),
        Op::Tile => shape::tile(args, s),

        Op::Sum => total(op, mlx_sys::mlx_sum_axes, args, stream),
        Op::Prod => total(op, mlx_sys::mlx_prod_axes, args, stream),
        Op::Max => reduce(mlx_sys::mlx_max_axes, args, s),
        Op::Min => reduce(mlx_sys::mlx_min_axes, args, s),
        Op::Mean => total(op, mlx_sys::mlx_mean_axes, args, stream),
        Op::All => fold::truth(op, mlx_sys::mlx_all_axes, args, stream),
        Op::Any => fold::truth(op, mlx_sys::mlx_any_axes, args, stream),
        Op::Logsumexp => total(op, mlx_sys::mlx_logsumexp_axes, args, stream),
        Op::Softmax => {
            let x = args.array()?;
            let (axes, precise) = (args.axes(x.ndim())?, args.bool()?);
            totals::accumulate(x, s, |x| over_axes(mlx_sys::mlx_softmax_axes, x, &axes, precise, s))
        }
        Op::Argmax => reduce_axis(mlx_sys::mlx_argmax_axis, args, s),
        Op::Argmin => reduce_axis(mlx_sys::mlx_argmin_axis, args, s),
        Op::ArgmaxNan => fold::place(op, mlx_sys::mlx_argmax_axis, args, stream),
        Op::ArgminNan => fold::place(op, mlx_sys::mlx_argmin_axis, args, stream),
        Op::WindowArgmax | Op::WindowArgmin => fold::choice(op, args, stream),
        Op::Cumsum => cumulate_typed(mlx_sys::mlx_cumsum_axis, args, s),
        Op::Cumprod => cumulate_typed(mlx_sys::mlx_cumprod_axis, args, s),
        Op::Cummax => cumulate(mlx_sys::mlx_cummax_axis, args, s),
        Op::Cummin => cumulate(mlx_sys::mlx_cummin_axis, args, s),
        Op::Logcumsumexp => cumulate(mlx_sys::mlx_logcumsumexp_axis, args, s),
        Op::Sort => sort(mlx_sys::mlx_sort_axis, args, stream),
        Op::Argsort => sort(mlx_sys::mlx_argsort_axis, args, stream),

        Op::Take => index::take(args, stream),
        Op::TakeAlongAxis => index::take_along_axis(args, stream),
        Op::Gather => index::gather(args, stream),
        Op::Scatter => index::scatter(op, mlx_sys::mlx_scatter, args, stream),
        Op::ScatterAdd => index::scatter(op, mlx_sys::mlx_scatter_add, args, stream),
        Op::ScatterProd => index::scatter(op, mlx_sys::mlx_scatter_prod, args, stream),
        Op::ScatterMax => index::scatter(op, mlx_sys::mlx_scatter_max, args, stream),
        Op::ScatterMin => index::scatter(op, mlx_sys::mlx_scatter_min, args, stream),

        Op::Cholesky => linalg::cholesky(args, stream),
        Op::Qr => return linalg::qr(args, stream),
        Op::Svd => return linalg::svd(args, stream),
        Op::Eigh => return linalg::eigh(args, stream),
        Op::Lu => return linalg::lu(args, stream),
        Op::LuFactor => return linalg::lu_factor(args, stream),
        Op::Solve => linalg::solve(args, stream),
        Op::SolveTriangular => linalg::solve_triangular(args, stream),
        Op::Inv => linalg::inv(args, stream),
        Op::Det => linalg::det(args, stream),

        Op::Fft => fft(mlx_sys::mlx_fft_fft, args, s),
        Op::Ifft => fft(mlx_sys::mlx_fft_ifft, args, s),
        Op::Rfft => fft(mlx_sys::mlx_fft_rfft, args, s),
        Op::Irfft => fft(mlx_sys::mlx_fft_irfft, args, s),
        Op::Conv => conv::conv(args, stream),

        Op::RmsNorm => fused::rms_norm_op(args, stream),
        Op::LayerNorm => fused::layer_norm_op(args, stream),
        Op::Rope => fused::rope_op(args, stream),
        Op::Attention => fused::attention_op(args, stream),
        Op::CachedAttention => cached::cached_attention_op(args, stream),
        Op::Einsum => fused::einsum(args.text()?, args.arrays()?, stream),
    }?;
    Ok(value.into())
}

fn unary(op: Op, function: Unary, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let apply = |x: &Array| match kernels::map(op, &[x], stream) {
        Some(kernel) => kernel.apply(&[x], stream),
        // SAFETY: both handles are live, and mlx-c answers what it refuses with a status.
        None => ffi::array(|result| unsafe { function(result, x.as_ptr(), stream.raw()) }),
    };
    let x = args.array()?;
    // On a CPU the steps of some of MLX's functions each round floats of 16 bits; on CUDA those of its sigmoid do.
    if op.is_function() && (stream.device() == Device::Cpu || op == Op::Sigmoid) {
        totals::accumulate(x, stream.raw(), apply)
    } else {
        apply(x)
    }
}

fn binary(op: Op, function: Binary, args: &Args, stream: &StreamHandle) -> Result<Array> {
    pairwise(op, function, args.array()?, args.array()?, stream)
}

pub(crate) fn pairwise(
    op: Op,
    function: Binary,
    x: &Array,
    y: &Array,
    stream: &StreamHandle,
) -> Result<Array> {
    match kernels::map(op, &[x, y], stream) {
        Some(kernel) => kernel.apply(&[x, y], stream),
        None => call(function, x, y, stream.raw()),
    }
}

fn compare(op: Op, function: Binary, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, y) = (args.array()?, args.array()?);
    match kernels::map(op, &[x, y], stream) {
        Some(kernel) => kernel.apply_with(&[x, y], Dtype::Bool, 0.0, stream),
        None => call(function, x, y, stream.raw()),
    }
}

pub(crate) fn choose(
    condition: &Array,
    x: &Array,
    y: &Array,
    stream: &StreamHandle,
) -> Result<Array> {
    if let Some(kernel) = kernels::choice(condition, x, y, stream) {
        return kernel.apply(&[condition, x, y], stream);
    }
    let s = stream.raw();
    mlx!(mlx_where, condition.as_ptr(), x.as_ptr(), y.as_ptr(), s)
}

pub(crate) fn call(function: Binary, x: &Array, y: &Array, s: Stream) -> Result<Array> {
    // SAFETY: as in `unary`.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), y.as_ptr(), s) })
}

fn matmul(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, y) = (args.array()?, args.array()?);
    totals::matmul(x, y, stream).unwrap_or_else(|| call(mlx_sys::mlx_matmul, x, y, stream.raw()))
}

fn total(op: Op, function: Reduction, args: &Args, stream: &StreamHandle) -> Result<Array> {
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
    totals::accumulate(x, stream.raw(), |x| {
        totals::reduce(op, x, axes, keep, stream)
            .unwrap_or_else(|| reduced(function, x, axes, keep, stream.raw()))
    })
}

fn reduce(function: Reduction, args: &Args, s: Stream) -> Result<Array> {
    let x = args.array()?;
    let (axes, keep) = (args.axes(x.ndim())?, args.bool()?);
    reduced(function, x, &axes, keep, s)
}

/// A reduction of any size. On a CPU MLX counts elements and places in 32 bits, but for one axis of what lies in a
/// row: of more elements one axis is reduced after the other, the longest first.
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

fn over_axes(function: Reduction, x: &Array, axes: &[i32], flag: bool, s: Stream) -> Result<Array> {
    // SAFETY: as in `unary`; the axes are within the rank and outlive the call.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axes.as_ptr(), axes.len(), flag, s) })
}

fn reduce_axis(function: AxisReduction, args: &Args, s: Stream) -> Result<Array> {
    let x = args.array()?;
    let (axis, keep) = (args.axis(x)?, args.bool()?);
    // SAFETY: as in `reduce`.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, keep, s) })
}

fn sort(function: Sort, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let axis = args.axis(x)?;
    // MLX's kernels for a GPU mistake the order of what is not row-major.
    let x = match stream.device() {
        Device::Cpu => Cow::Borrowed(x),
        Device::Gpu => Cow::Owned(shape::contiguous(x, stream)?),
    };
    // SAFETY: as in `reduce`.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, stream.raw()) })
}

fn cumulate(function: Cumulative, args: &Args, s: Stream) -> Result<Array> {
    let x = args.array()?;
    let (axis, reverse) = (args.axis(x)?, args.bool()?);
    totals::accumulate(x, s, |x| {
        // SAFETY: as in `reduce`.
        ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, reverse, true, s) })
    })
}

fn cumulate_typed(function: TypedCumulative, args: &Args, s: Stream) -> Result<Array> {
    let x = args.array()?;
    let (axis, reverse) = (args.axis(x)?, args.bool()?);
    totals::accumulate(x, s, |x| {
        // The result has the type of the input.
        let dtype = mlx_sys::mlx_optional_dtype {
            value: Dtype::of(x).raw(),
            has_value: true,
        };
        // SAFETY: as in `reduce`.
        ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, reverse, true, dtype, s) })
    })
}

fn fft(function: Fft, args: &Args, s: Stream) -> Result<Array> {
    let x = args.array()?;
    let length = args.int()?;
    let axis = args.axis(x)?;
    checks::at_least(args.op, "length", &[length], 1)?;
    let norm = mlx_sys::mlx_fft_norm__MLX_FFT_NORM_BACKWARD;
    // SAFETY: as in `reduce`.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), length, axis, norm, s) })
}
