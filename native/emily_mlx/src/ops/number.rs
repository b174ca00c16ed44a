//! Functions of one number that MLX lacks, or that mean less there.

use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::create::{self, Number};
use crate::ops::kernels;
use crate::ops::table::{call, Op, Stream};
use crate::ops::totals;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::mlx;
use crate::runtime::stream::StreamHandle;
use crate::runtime::truth;

fn scalar(args: &Args, number: f64, x: &Array) -> Result<Array> {
    create::scalar(args.op, Number::Float(number), Dtype::of(x))
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
    totals::accumulate(x, s, |x| match kernels::map(op, &[x], stream) {
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
    let third = scalar(args, 1.0 / 3.0, x)?;
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
        let mut sum = scalar(args, coefficients[0], x)?;
        for coefficient in &coefficients[1..] {
            sum = add(&multiply(&sum, at)?, &scalar(args, *coefficient, x)?)?;
        }
        Ok(sum)
    };
    let (one, half) = (scalar(args, 1.0, x)?, scalar(args, 0.5, x)?);
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

/// Of NaN it is NaN, where MLX's is 0. What is compared with here is at most -1, or NaN: that takes half the time
/// of a choice.
pub(crate) fn sign(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if let Some(kernel) = kernels::map(Op::Sign, &[x], stream) {
        return kernel.apply(&[x], stream);
    }
    let sign = mlx!(mlx_sign, x.as_ptr(), s)?;
    if !Dtype::of(x).is_real_float() {
        return Ok(sign);
    }
    let low = call(mlx_sys::mlx_minimum, x, &scalar(args, -1.0, x)?, s)?;
    call(mlx_sys::mlx_maximum, &sign, &low, s)
}

/// Halves go away from zero, where MLX's go to even. What is added is the greatest number below one half: one half
/// itself would take that number up to 1.
pub(crate) fn round_away(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    if let Some(kernel) = kernels::map(Op::RoundAway, &[x], stream) {
        return kernel.apply(&[x], stream);
    }
    let half = match Dtype::of(x) {
        Dtype::F64 => 0.5 - 2f64.powi(-54),
        Dtype::F32 => 0.5 - 2f64.powi(-25),
        Dtype::F16 => 0.5 - 2f64.powi(-12),
        Dtype::Bf16 => 0.5 - 2f64.powi(-9),
        other => refuse!("round_away: needs real floats, got {}", other.name()),
    };
    let size = mlx!(mlx_abs, x.as_ptr(), s)?;
    let size = call(mlx_sys::mlx_add, &size, &scalar(args, half, x)?, s)?;
    let whole = mlx!(mlx_floor, size.as_ptr(), s)?;
    let sign = mlx!(mlx_sign, x.as_ptr(), s)?;
    call(mlx_sys::mlx_multiply, &sign, &whole, s)
}

/// What is no larger than a number becomes zero, of a complex number each part.
pub(crate) fn chop(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, least) = (args.array()?, args.float()?);
    if let Some(kernel) = kernels::map(Op::Chop, &[x], stream) {
        return kernel.apply_with(&[x], Dtype::of(x), least, stream);
    }
    let (is_complex, s) = (Dtype::of(x) == Dtype::C64, stream.raw());
    // The parts of complex numbers lie side by side. They get an axis of their own, as in `shape::view`.
    let parts = if is_complex {
        let apart = mlx!(mlx_expand_dims, x.as_ptr(), -1, s)?;
        truth::view(&apart, Dtype::F32, s)?
    } else {
        x.clone()
    };
    let size = mlx!(mlx_abs, parts.as_ptr(), s)?;
    let is_small = call(
        mlx_sys::mlx_less_equal,
        &size,
        &scalar(args, least, &parts)?,
        s,
    )?;
    let zero = scalar(args, 0.0, &parts)?;
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
    let whole = truth::view(&chopped, Dtype::C64, s)?;
    mlx!(mlx_squeeze_axis, whole.as_ptr(), -1, s)
}

/// As in Nx.BinaryBackend a float becomes an integer by truncation, with the bits above the type's width lost; NaN
/// becomes zero and the infinities the ends of the type's range. A C++ cast leaves all of that undefined.
pub(crate) fn to_integer(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, to, s) = (args.array()?, args.dtype()?, stream.raw());
    let Some((low, high)) = to.integer_range() else {
        refuse!("to_integer: {} is no type of integers", to.name())
    };
    let from = Dtype::of(x);
    if from == Dtype::C64 {
        refuse!("to_integer: needs real numbers, got c64")
    }
    if !from.is_real_float() {
        return mlx!(mlx_astype, x.as_ptr(), to.raw(), s);
    }
    // Every number of 16 bits is one of f32.
    let wide = if from == Dtype::F64 { from } else { Dtype::F32 };
    if let Some(kernel) = kernels::cast(wide, to, stream) {
        let x = mlx!(mlx_astype, x.as_ptr(), wide.raw(), s)?;
        return kernel.apply_with(&[&x], to, 0.0, stream);
    }
    // NaN is replaced before the cast, what an infinity gave after it: both are rare, and MLX chooses slowly
    // where it cannot foresee which.
    let is_number = call(mlx_sys::mlx_equal, x, x, s)?;
    let zero = scalar(args, 0.0, x)?;
    let number = mlx!(mlx_where, is_number.as_ptr(), x.as_ptr(), zero.as_ptr(), s)?;
    let mut whole = truncate(args, &number, to, s)?;
    for (end, integer) in [(f64::INFINITY, high), (f64::NEG_INFINITY, low)] {
        let is_end = call(mlx_sys::mlx_equal, x, &scalar(args, end, x)?, s)?;
        let integer = create::scalar(args.op, Number::Int(integer), to)?;
        whole = mlx!(
            mlx_where,
            is_end.as_ptr(),
            integer.as_ptr(),
            whole.as_ptr(),
            s
        )?;
    }
    Ok(whole)
}

fn truncate(args: &Args, x: &Array, to: Dtype, s: Stream) -> Result<Array> {
    let signed = mlx!(mlx_astype, x.as_ptr(), Dtype::S64.raw(), s)?;
    let cut = mlx!(mlx_astype, signed.as_ptr(), to.raw(), s)?;
    if to != Dtype::U64 || Dtype::of(x) == Dtype::F16 {
        return Ok(cut);
    }
    // Above 2^63 only the unsigned cast is defined, below zero only the signed one.
    let is_less = call(mlx_sys::mlx_less, x, &scalar(args, 2f64.powi(63), x)?, s)?;
    let unsigned = mlx!(mlx_astype, x.as_ptr(), to.raw(), s)?;
    mlx!(
        mlx_where,
        is_less.as_ptr(),
        cut.as_ptr(),
        unsigned.as_ptr(),
        s
    )
}
