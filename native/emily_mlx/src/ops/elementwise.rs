//! Operations that give an element for an element: MLX's, or kernels in their place, and those that MLX lacks.

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::elementwise::{self, functions};
use emily_kernels::{integer, math};
use half::{bf16, f16};
use mlx_rs::Array;
use mlx_sys::mlx_array;

use crate::ops::args::Args;
use crate::ops::cast;
use crate::ops::create::number_like;
use crate::ops::map::{map, result_type, some, Mapping};
use crate::ops::op::Op;
use crate::runtime::dtype::{by_type, Dtype};
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx, Binary, Stream};
use crate::runtime::kernel::level;
use crate::runtime::stream::StreamHandle;

type Unary = unsafe extern "C" fn(*mut mlx_array, mlx_array, Stream) -> i32;

pub(crate) fn unary(op: Op, function: Unary, args: &Args, stream: &StreamHandle) -> Result<Array> {
    one(op, function, args.array()?, stream)
}

pub(crate) fn one(op: Op, function: Unary, x: &Array, stream: &StreamHandle) -> Result<Array> {
    if let Some(kernel) = kernel(op, &[x], stream) {
        return kernel.apply_with(&[x], result_type(op, Dtype::of(x)), 0.0, stream);
    }
    let s = stream.raw();
    // SAFETY: both handles are live, and mlx-c answers what it refuses with a status.
    let result = ffi::array(|result| unsafe { function(result, x.as_ptr(), s) })?;
    // On a CPU MLX 0.32.4 has 0.0 for the sine of -0.0, and -0.0 for the error function of 0.0.
    if !matches!(op, Op::Sin | Op::Erf) || !stream.is_cpu() || !Dtype::of(x).is_real_float() {
        return Ok(result);
    }
    let is_zero = call(mlx_sys::mlx_equal, x, &number_like(op.name(), 0.0, x)?, s)?;
    mlx!(mlx_where, is_zero.as_ptr(), x.as_ptr(), result.as_ptr(), s)
}

/// A function of one number that is computed in steps. On a CPU the steps of some of MLX's each round floats of 16 bits;
/// on CUDA those of its sigmoid do.
pub(crate) fn function(
    op: Op,
    function: Unary,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let x = args.array()?;
    if stream.is_cpu() || op == Op::Sigmoid {
        cast::in_f32(x, stream.raw(), |x| one(op, function, x, stream))
    } else {
        one(op, function, x, stream)
    }
}

pub(crate) fn binary(
    op: Op,
    function: Binary,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    pairwise(op, function, args.array()?, args.array()?, stream)
}

pub(crate) fn pairwise(
    op: Op,
    function: Binary,
    x: &Array,
    y: &Array,
    stream: &StreamHandle,
) -> Result<Array> {
    match kernel(op, &[x, y], stream) {
        Some(kernel) => kernel.apply_with(&[x, y], result_type(op, Dtype::of(x)), 0.0, stream),
        None => call(function, x, y, stream.raw()),
    }
}

/// `{:where, condition, x, y}`
pub(crate) fn choose(args: &Args, stream: &StreamHandle) -> Result<Array> {
    select(args.array()?, args.array()?, args.array()?, stream)
}

/// What `x` has where the condition holds, and `y` elsewhere.
pub(crate) fn select(
    condition: &Array,
    x: &Array,
    y: &Array,
    stream: &StreamHandle,
) -> Result<Array> {
    let dtype = Dtype::of(x);
    let fits = dtype == Dtype::of(y) && Dtype::of(condition) == Dtype::Bool;
    if let (true, Some(map), Some(level)) = (fits, map_select(dtype.size()), level(stream)) {
        let op = Op::Where;
        return Mapping { op, map, level }.apply(&[condition, x, y], stream);
    }
    let s = stream.raw();
    mlx!(mlx_where, condition.as_ptr(), x.as_ptr(), y.as_ptr(), s)
}

/// `{:clip, x, low, high}`
pub(crate) fn clip(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, low, high) = (args.array()?, args.array()?, args.array()?);
    mlx!(
        mlx_clip,
        x.as_ptr(),
        low.as_ptr(),
        high.as_ptr(),
        stream.raw()
    )
}

/// Halves go to even.
pub(crate) fn round(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    mlx!(mlx_round, x.as_ptr(), 0, stream.raw())
}

/// A function of real floats, of which MLX has none: the kernel, or what is composed of others. Floats of 16 bits round
/// once.
fn real(
    op: Op,
    composed: fn(&Args, &Array, Stream) -> Result<Array>,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if !Dtype::of(x).is_real_float() {
        refuse!(
            "{}: needs real floats, got {}",
            op.name(),
            Dtype::of(x).name()
        )
    }
    cast::in_f32(x, s, |x| match kernel(op, &[x], stream) {
        Some(kernel) => kernel.apply(&[x], stream),
        None => composed(args, x, s),
    })
}

pub(crate) fn cbrt(args: &Args, stream: &StreamHandle) -> Result<Array> {
    real(Op::Cbrt, composed_cbrt, args, stream)
}

/// 1 - erf(x), which loses every digit once erf(x) is near 1.
pub(crate) fn erfc(args: &Args, stream: &StreamHandle) -> Result<Array> {
    real(Op::Erfc, composed_erfc, args, stream)
}

/// A power, then one step of Newton's method. The step divides 0 by 0 or infinity by infinity where the number
/// is its own root, and gives NaN there.
fn composed_cbrt(args: &Args, x: &Array, s: Stream) -> Result<Array> {
    let third = number_like(args.op, 1.0 / 3.0, x)?;
    let size = mlx!(mlx_abs, x.as_ptr(), s)?;
    let root = call(mlx_sys::mlx_power, &size, &third, s)?;
    let square = mlx!(mlx_square, root.as_ptr(), s)?;
    let excess = call(mlx_sys::mlx_divide, &size, &square, s)?;
    let excess = call(mlx_sys::mlx_subtract, &root, &excess, s)?;
    let excess = call(mlx_sys::mlx_multiply, &excess, &third, s)?;
    let refined = call(mlx_sys::mlx_subtract, &root, &excess, s)?;
    let sign = mlx!(mlx_sign, x.as_ptr(), s)?;
    let refined = call(mlx_sys::mlx_multiply, &sign, &refined, s)?;
    let is_number = call(mlx_sys::mlx_equal, &refined, &refined, s)?;
    mlx!(
        mlx_where,
        is_number.as_ptr(),
        refined.as_ptr(),
        x.as_ptr(),
        s
    )
}

/// Chebyshev's fit of the logarithm of erfc(x) exp(x^2) in 1 / (1 + x / 2), from the highest power on. The relative
/// error of erfc stays below 1.2e-7.
const ERFC_TAIL: [f64; 10] = [
    0.17087277,
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
    0.37409196,
    1.00002368,
    -1.26551223,
];

/// erf(x) / x in powers of x^2, from the highest: 2 / sqrt(pi) (-1)^k / (k! (2k + 1)). Below one half the next term adds
/// less than 1.0e-9.
const ERF_SERIES: [f64; 7] = [
    1.2055332981789664e-4,
    -8.548327023450852e-4,
    5.223977625442188e-3,
    -2.6866170645131252e-2,
    0.11283791670955126,
    -0.37612638903183754,
    std::f64::consts::FRAC_2_SQRT_PI,
];

fn composed_erfc(args: &Args, x: &Array, s: Stream) -> Result<Array> {
    let add = |x: &Array, y: &Array| call(mlx_sys::mlx_add, x, y, s);
    let subtract = |x: &Array, y: &Array| call(mlx_sys::mlx_subtract, x, y, s);
    let multiply = |x: &Array, y: &Array| call(mlx_sys::mlx_multiply, x, y, s);
    let polynomial = |coefficients: &[f64], at: &Array| {
        let mut sum = number_like(args.op, coefficients[0], x)?;
        for coefficient in &coefficients[1..] {
            sum = add(
                &multiply(&sum, at)?,
                &number_like(args.op, *coefficient, x)?,
            )?;
        }
        Ok(sum)
    };
    let (one, half) = (number_like(args.op, 1.0, x)?, number_like(args.op, 0.5, x)?);
    let size = mlx!(mlx_abs, x.as_ptr(), s)?;
    let square = mlx!(mlx_square, x.as_ptr(), s)?;
    let t = call(
        mlx_sys::mlx_divide,
        &one,
        &add(&one, &multiply(&size, &half)?)?,
        s,
    )?;
    let exponent = subtract(&polynomial(&ERFC_TAIL, &t)?, &square)?;
    let tail = multiply(&t, &mlx!(mlx_exp, exponent.as_ptr(), s)?)?;
    // 2 - tail below zero: MLX chooses slowly where it cannot foresee the choice.
    let sign = mlx!(mlx_sign, x.as_ptr(), s)?;
    let far = add(&subtract(&one, &sign)?, &multiply(&sign, &tail)?)?;
    let near = subtract(&one, &multiply(x, &polynomial(&ERF_SERIES, &square)?)?)?;
    let is_near = call(mlx_sys::mlx_less, &size, &half, s)?;
    mlx!(mlx_where, is_near.as_ptr(), near.as_ptr(), far.as_ptr(), s)
}

/// Of NaN it is NaN, where MLX 0.32.4 has 0. What is compared with here is at most -1, or NaN: that takes half the time
/// of a choice.
pub(crate) fn sign(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if let Some(kernel) = kernel(Op::Sign, &[x], stream) {
        return kernel.apply(&[x], stream);
    }
    let sign = mlx!(mlx_sign, x.as_ptr(), s)?;
    if !Dtype::of(x).is_real_float() {
        return Ok(sign);
    }
    let low = call(mlx_sys::mlx_minimum, x, &number_like(args.op, -1.0, x)?, s)?;
    call(mlx_sys::mlx_maximum, &sign, &low, s)
}

/// The greater of a number and zero, which is negative where the number is below it. NaN stays.
pub(crate) fn rectify(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if let Some(kernel) = kernel(Op::Rectify, &[x], stream) {
        return kernel.apply(&[x], stream);
    }
    floats(args, x)?;
    let zero = number_like(args.op, 0.0, x)?;
    let is_below = call(mlx_sys::mlx_less, x, &zero, s)?;
    let (below, above) = (
        number_like(args.op, -0.0, x)?,
        call(mlx_sys::mlx_add, x, &zero, s)?,
    );
    mlx!(
        mlx_where,
        is_below.as_ptr(),
        below.as_ptr(),
        above.as_ptr(),
        s
    )
}

/// Whether a number is neither below zero nor a negative zero, nor NaN: the reciprocal of a zero has its sign.
pub(crate) fn is_positive(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if let Some(kernel) = kernel(Op::IsPositive, &[x], stream) {
        return kernel.apply_with(&[x], Dtype::Bool, 0.0, stream);
    }
    floats(args, x)?;
    let zero = number_like(args.op, 0.0, x)?;
    let reciprocal = mlx!(mlx_reciprocal, x.as_ptr(), s)?;
    let is_above = call(mlx_sys::mlx_greater, x, &zero, s)?;
    let is_zero = call(mlx_sys::mlx_equal, x, &zero, s)?;
    let has_sign = call(mlx_sys::mlx_greater, &reciprocal, &zero, s)?;
    let is_zero = call(mlx_sys::mlx_logical_and, &is_zero, &has_sign, s)?;
    call(mlx_sys::mlx_logical_or, &is_above, &is_zero, s)
}

fn floats(args: &Args, x: &Array) -> Result<()> {
    let dtype = Dtype::of(x);
    if !dtype.is_real_float() {
        refuse!("{}: needs real floats, got {}", args.op, dtype.name())
    }
    Ok(())
}

/// Halves go away from zero, where MLX's go to even. What is added is the greatest number below one half: one half
/// itself would take that number up to 1.
pub(crate) fn round_away(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if let Some(kernel) = kernel(Op::RoundAway, &[x], stream) {
        return kernel.apply(&[x], stream);
    }
    let half = match Dtype::of(x) {
        Dtype::F64 => 0.5 - f64::EPSILON / 4.0,
        Dtype::F32 => 0.5 - f64::from(f32::EPSILON) / 4.0,
        Dtype::F16 => 0.5 - f64::from(f16::EPSILON) / 4.0,
        Dtype::Bf16 => 0.5 - f64::from(bf16::EPSILON) / 4.0,
        other => refuse!("round_away: needs real floats, got {}", other.name()),
    };
    let size = mlx!(mlx_abs, x.as_ptr(), s)?;
    let size = call(mlx_sys::mlx_add, &size, &number_like(args.op, half, x)?, s)?;
    let whole = mlx!(mlx_floor, size.as_ptr(), s)?;
    let sign = mlx!(mlx_sign, x.as_ptr(), s)?;
    call(mlx_sys::mlx_multiply, &sign, &whole, s)
}

/// What is no larger than a number becomes zero, of a complex number each part.
pub(crate) fn chop(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, least) = (args.array()?, args.float()?);
    if let Some(kernel) = kernel(Op::Chop, &[x], stream) {
        return kernel.apply_with(&[x], Dtype::of(x), least, stream);
    }
    let (is_complex, s) = (Dtype::of(x) == Dtype::C64, stream.raw());
    // The parts of complex numbers lie side by side, on an axis of their own.
    let parts = if is_complex {
        let apart = mlx!(mlx_expand_dims, x.as_ptr(), -1, s)?;
        mlx!(mlx_view, apart.as_ptr(), Dtype::F32.raw(), s)?
    } else {
        x.clone()
    };
    let size = mlx!(mlx_abs, parts.as_ptr(), s)?;
    let is_small = call(
        mlx_sys::mlx_less_equal,
        &size,
        &number_like(args.op, least, &parts)?,
        s,
    )?;
    let zero = number_like(args.op, 0.0, &parts)?;
    let chopped = mlx!(
        mlx_where,
        is_small.as_ptr(),
        zero.as_ptr(),
        parts.as_ptr(),
        s
    )?;
    if !is_complex {
        return Ok(chopped);
    }
    let whole = mlx!(mlx_view, chopped.as_ptr(), Dtype::C64.raw(), s)?;
    mlx!(mlx_squeeze_axis, whole.as_ptr(), -1, s)
}

/// The kernel that takes the place of MLX's operation on these arrays, if there is one.
fn kernel(op: Op, arrays: &[&Array], stream: &StreamHandle) -> Option<Mapping> {
    // What MLX lacks is taken from here even where no kernels are wanted; a build without any refuses it.
    let is_needed = || {
        let is_only_here = |array: &&Array| is_only_here(op, Dtype::of(array));
        stream.is_cpu() && arrays.first().is_some_and(is_only_here)
    };
    let level = level(stream).or_else(|| is_needed().then_some(Level::PORTABLE));
    Mapping::of(maps, op, arrays, level)
}

/// The map of an operation on numbers of one type.
fn maps(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    own(op, dtype).or_else(|| same(op, dtype))
}

/// The map of an operation on numbers of one type where MLX has none, a slower one, or one that means less.
pub(crate) fn own(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Power if dtype.is_integer() => map!(dtype, integers, integer::power),
        Op::Sign => map!(dtype, floats, elementwise::sign),
        Op::Rectify => map!(dtype, floats, elementwise::rectify),
        Op::IsPositive => map!(dtype, floats, elementwise::is_positive),
        Op::Cbrt => by_type!(dtype, floats, T => some(&functions::unary::<math::Cbrt, T>)),
        Op::Chop if matches!(dtype, Dtype::F32 | Dtype::C64) => Some(&elementwise::chop),
        Op::Sqrt if dtype == Dtype::F32 => Some(&elementwise::sqrt::<f32>),
        Op::Floor if dtype == Dtype::F32 => Some(&elementwise::floor::<f32>),
        Op::Ceil if dtype == Dtype::F32 => Some(&elementwise::ceil::<f32>),
        Op::RoundAway if dtype == Dtype::F32 => Some(&elementwise::round_away::<f32>),
        _ => own_function(op, dtype),
    }
}

/// The map of a function on floats of one type, of which MLX has a slower one or, of f64, one of f32's digits. Its other
/// functions of f64 are the C library's, which are nearer than those of `math`.
fn own_function(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    if dtype == Dtype::F64 && !is_only_here(op, dtype) {
        return None;
    }
    macro_rules! unary {
        ($function:ident) => {
            by_type!(dtype, floats, T => some(&functions::unary::<math::$function, T>))
        };
    }
    match op {
        Op::Exp => unary!(Exp),
        Op::Expm1 => unary!(Expm1),
        Op::Sigmoid if dtype == Dtype::F64 => Some(&functions::unary::<functions::NxSigmoid, f64>),
        Op::Sigmoid => unary!(Sigmoid),
        Op::Log => unary!(Log),
        Op::Log1p => unary!(Log1p),
        Op::Log2 => unary!(Log2),
        Op::Log10 => unary!(Log10),
        Op::Sin => unary!(Sin),
        Op::Cos => unary!(Cos),
        Op::Tan => unary!(Tan),
        Op::Arcsin => unary!(Asin),
        Op::Arccos => unary!(Acos),
        Op::Arctan => unary!(Atan),
        Op::Sinh => unary!(Sinh),
        Op::Cosh => unary!(Cosh),
        Op::Tanh => unary!(Tanh),
        Op::Arcsinh => unary!(Asinh),
        Op::Arccosh => unary!(Acosh),
        Op::Arctanh => unary!(Atanh),
        Op::Erf => unary!(Erf),
        Op::Erfc => unary!(Erfc),
        Op::Erfinv if dtype == Dtype::F32 => Some(&functions::unary::<functions::NxErfInv, f32>),
        Op::Erfinv => unary!(ErfInv),
        Op::Rsqrt => unary!(Rsqrt),
        Op::Power => by_type!(dtype, floats, T => some(&functions::power::<math::Pow, T>)),
        Op::Arctan2 => by_type!(dtype, floats, T => some(&functions::binary::<math::Atan2, T>)),
        _ => None,
    }
}

/// Whether MLX 0.32.4 has the function with f32's digits alone (#3047). A GPU has no f64.
fn is_only_here(op: Op, dtype: Dtype) -> bool {
    dtype == Dtype::F64
        && matches!(
            op,
            Op::Exp | Op::Sigmoid | Op::Sin | Op::Cos | Op::Erf | Op::Erfc | Op::Erfinv
        )
}

/// The map of an operation on numbers of one type that means what MLX's means, which takes one thread and never the
/// caller's.
pub(crate) fn same(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Add => map!(dtype, numbers, elementwise::add),
        Op::Subtract => map!(dtype, numbers, elementwise::subtract),
        Op::Multiply => map!(dtype, numbers, elementwise::multiply),
        Op::Divide => map!(dtype, floats, elementwise::divide),
        Op::Maximum => map!(dtype, numbers, elementwise::maximum),
        Op::Minimum => map!(dtype, numbers, elementwise::minimum),
        Op::Clip => map!(dtype, numbers, elementwise::clip),
        Op::Negative => map!(dtype, numbers, elementwise::negative),
        Op::Abs => map!(dtype, numbers, elementwise::abs),
        Op::Square => map!(dtype, numbers, elementwise::square),
        Op::Sqrt => map!(dtype, floats, elementwise::sqrt),
        Op::Floor => map!(dtype, floats, elementwise::floor),
        Op::Ceil => map!(dtype, floats, elementwise::ceil),
        Op::Round => map!(dtype, floats, elementwise::round),
        Op::Isnan => map!(dtype, floats, elementwise::is_nan),
        Op::Isinf => map!(dtype, floats, elementwise::is_infinite),
        Op::Isfinite => map!(dtype, floats, elementwise::is_finite),
        Op::LogicalNot | Op::LogicalAnd | Op::LogicalOr if dtype == Dtype::Bool => {
            same(op, Dtype::U8)
        }
        Op::LogicalNot => map!(dtype, numbers, elementwise::logical_not),
        Op::LogicalAnd => map!(dtype, numbers, elementwise::logical_and),
        Op::LogicalOr => map!(dtype, numbers, elementwise::logical_or),
        _ => None,
    }
}

/// The map that chooses between elements of so many bytes.
pub(crate) fn map_select(bytes: usize) -> Option<&'static dyn Map> {
    match bytes {
        1 => Some(&elementwise::select::<u8>),
        2 => Some(&elementwise::select::<u16>),
        4 => Some(&elementwise::select::<u32>),
        8 => Some(&elementwise::select::<u64>),
        _ => None,
    }
}
