//! Arithmetic of integers that MLX 0.32.4 leaves undefined: dividing the least number by -1 ends the process on a CPU,
//! and of a shift the processor takes a few bits. A negative power is 0 there.
//!
//! Here a quotient by zero has all bits set and a remainder by zero is the dividend, as in XLA; the least number
//! divided by -1 wraps to itself.

use emily_kernels::chain::Map;
use emily_kernels::{elementwise, integer};
use mlx_rs::Array;

use crate::ops::args::{Args, Number};
use crate::ops::create;
use crate::ops::map::{map, Mapping};
use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::{call, mlx, Binary, Stream};
use crate::runtime::kernel::level;
use crate::runtime::stream::StreamHandle;

/// Two operands, which have this one type where both are integers.
struct Operands {
    x: Array,
    y: Array,
    common: Option<Dtype>,
}

impl Operands {
    fn read(args: &Args, s: Stream) -> Result<Operands> {
        let (x, y) = (args.array()?, args.array()?);
        let is_whole = |dtype: Dtype| dtype.is_integer() || dtype == Dtype::Bool;
        let (left, right) = (Dtype::of(x), Dtype::of(y));
        if !is_whole(left) || !is_whole(right) {
            let (x, y, common) = (x.clone(), y.clone(), None);
            return Ok(Operands { x, y, common });
        }
        let common = if left == right {
            left
        } else {
            // As MLX would promote.
            Dtype::of(&call(mlx_sys::mlx_add, x, y, s)?)
        };
        let common = match common {
            Dtype::Bool => Dtype::U8,
            common => common,
        };
        Ok(Operands {
            x: mlx!(mlx_astype, x.as_ptr(), common.raw(), s)?,
            y: mlx!(mlx_astype, y.as_ptr(), common.raw(), s)?,
            common: Some(common),
        })
    }
}

/// By a kernel where there is one; else integers as `composed` and the rest as `function`.
fn either(
    op: Op,
    function: Binary,
    args: &Args,
    stream: &StreamHandle,
    composed: impl FnOnce(&Array, &Array, Dtype) -> Result<Array>,
) -> Result<Array> {
    let Operands { x, y, common } = Operands::read(args, stream.raw())?;
    if let Some(kernel) = Mapping::of(own, op, &[&x, &y], level(stream)) {
        return kernel.apply(&[&x, &y], stream);
    }
    match common {
        Some(common) => composed(&x, &y, common),
        None => call(function, &x, &y, stream.raw()),
    }
}

pub(crate) fn floor_divide(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let function = mlx_sys::mlx_floor_divide;
    either(Op::FloorDivide, function, args, stream, |x, y, dtype| {
        quotient(args.op, x, y, dtype, s)
    })
}

/// The sign is the divisor's.
pub(crate) fn remainder(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let function = mlx_sys::mlx_remainder;
    either(Op::Remainder, function, args, stream, |x, y, dtype| {
        remainder_whole(args.op, x, y, dtype, s)
    })
}

/// The sign is the dividend's.
pub(crate) fn fmod(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let Operands { x, y, common } = Operands::read(args, s)?;
    if let Some(kernel) = Mapping::of(own, Op::Fmod, &[&x, &y], level(stream)) {
        return kernel.apply(&[&x, &y], stream);
    }
    if let Some(common) = common {
        let whole = quotient(args.op, &x, &y, common, s)?;
        let whole = call(mlx_sys::mlx_multiply, &y, &whole, s)?;
        return call(mlx_sys::mlx_subtract, &x, &whole, s);
    }
    // Minus zero has a sign too.
    let signed = match Dtype::of(&x) {
        dtype if dtype.is_real_float() => mlx!(mlx_view, x.as_ptr(), dtype.signed().raw(), s)?,
        _ => x.clone(),
    };
    let zero = create::scalar(args.op, Number::Int(0), Dtype::of(&signed))?;
    let negative = call(mlx_sys::mlx_less, &signed, &zero, s)?;
    let (x, y) = (mlx!(mlx_abs, x.as_ptr(), s)?, mlx!(mlx_abs, y.as_ptr(), s)?);
    let rest = call(mlx_sys::mlx_remainder, &x, &y, s)?;
    let turned = mlx!(mlx_negative, rest.as_ptr(), s)?;
    mlx!(
        mlx_where,
        negative.as_ptr(),
        turned.as_ptr(),
        rest.as_ptr(),
        s
    )
}

/// As in XLA a negative power is the integer part of the reciprocal: 1 and -1 keep their parity, the rest are 0.
pub(crate) fn power(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let function = mlx_sys::mlx_power;
    either(Op::IntegerPower, function, args, stream, |x, y, dtype| {
        if !dtype.is_signed() {
            return call(function, x, y, s);
        }
        let constant = |value| create::scalar(args.op, Number::Int(value), dtype);
        let (zero, one) = (constant(0)?, constant(1)?);
        let negative = call(mlx_sys::mlx_less, y, &zero, s)?;
        let parity = call(mlx_sys::mlx_bitwise_and, y, &one, s)?;
        let finite = mlx!(mlx_where, negative.as_ptr(), parity.as_ptr(), y.as_ptr(), s)?;
        let size = mlx!(mlx_abs, x.as_ptr(), s)?;
        let large = call(mlx_sys::mlx_not_equal, &size, &one, s)?;
        let vanishes = call(mlx_sys::mlx_logical_and, &negative, &large, s)?;
        let power = call(function, x, &finite, s)?;
        mlx!(
            mlx_where,
            vanishes.as_ptr(),
            zero.as_ptr(),
            power.as_ptr(),
            s
        )
    })
}

/// By the width or more all bits are shifted out; a negative count is a large one without its sign.
pub(crate) fn left_shift(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let function = mlx_sys::mlx_left_shift;
    either(Op::WideLeftShift, function, args, stream, |x, y, dtype| {
        shift_out(function, args.op, x, y, dtype, s)
    })
}

pub(crate) fn right_shift(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let function = mlx_sys::mlx_right_shift;
    either(Op::WideRightShift, function, args, stream, |x, y, dtype| {
        if !dtype.is_signed() {
            return shift_out(function, args.op, x, y, dtype, s);
        }
        // The sign is left.
        let most = create::scalar(args.op, most_bits(dtype), dtype.unsigned())?;
        let count = mlx!(mlx_view, y.as_ptr(), dtype.unsigned().raw(), s)?;
        let count = call(mlx_sys::mlx_minimum, &count, &most, s)?;
        let count = mlx!(mlx_view, count.as_ptr(), dtype.raw(), s)?;
        call(function, x, &count, s)
    })
}

fn most_bits(dtype: Dtype) -> Number {
    Number::Int(8 * dtype.size() as i128 - 1)
}

fn shift_out(
    function: Binary,
    op: &str,
    x: &Array,
    y: &Array,
    dtype: Dtype,
    s: Stream,
) -> Result<Array> {
    let shifted = call(function, x, y, s)?;
    let most = create::scalar(op, most_bits(dtype), dtype.unsigned())?;
    let zero = create::scalar(op, Number::Int(0), dtype)?;
    let count = mlx!(mlx_view, y.as_ptr(), dtype.unsigned().raw(), s)?;
    let within = call(mlx_sys::mlx_less_equal, &count, &most, s)?;
    mlx!(
        mlx_where,
        within.as_ptr(),
        shifted.as_ptr(),
        zero.as_ptr(),
        s
    )
}

/// Divides magnitudes, the divisor's of at least 1, and gives the sign afterwards: no divisor is unsafe, and nothing is below zero, where
/// MLX takes the floor. MLX computes a choice between arrays slower than these steps.
fn quotient(op: &str, x: &Array, y: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
    // As unsigned numbers: the least number is its own magnitude.
    let unsigned = dtype.unsigned();
    let magnitude = |x: &Array| {
        let size = mlx!(mlx_abs, x.as_ptr(), s)?;
        mlx!(mlx_view, size.as_ptr(), unsigned.raw(), s)
    };
    let size = magnitude(y)?;
    let one = create::scalar(op, Number::Int(1), unsigned)?;
    let divisor = call(mlx_sys::mlx_maximum, &size, &one, s)?;
    let quotient = call(mlx_sys::mlx_floor_divide, &magnitude(x)?, &divisor, s)?;
    let quotient = mlx!(mlx_view, quotient.as_ptr(), dtype.raw(), s)?;
    let quotient = if dtype.is_signed() {
        let differ = call(mlx_sys::mlx_bitwise_xor, x, y, s)?;
        let one = create::scalar(op, Number::Int(1), dtype)?;
        let differ = call(mlx_sys::mlx_bitwise_or, &differ, &one, s)?;
        let sign = mlx!(mlx_sign, differ.as_ptr(), s)?;
        call(mlx_sys::mlx_multiply, &quotient, &sign, s)?
    } else {
        quotient
    };
    // All bits set where the divisor is 0, and 0 elsewhere.
    let bits = call(mlx_sys::mlx_subtract, &size, &divisor, s)?;
    let bits = mlx!(mlx_view, bits.as_ptr(), dtype.raw(), s)?;
    call(mlx_sys::mlx_bitwise_or, &quotient, &bits, s)
}

fn remainder_whole(op: &str, x: &Array, y: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
    let constant = |value| create::scalar(op, Number::Int(value), dtype);
    let (zero, one) = (constant(0)?, constant(1)?);
    let is_zero = call(mlx_sys::mlx_equal, y, &zero, s)?;
    let is_unsafe = if dtype.is_signed() {
        let is_minus_one = call(mlx_sys::mlx_equal, y, &constant(-1)?, s)?;
        call(mlx_sys::mlx_logical_or, &is_zero, &is_minus_one, s)?
    } else {
        is_zero.clone()
    };
    let safe = mlx!(mlx_where, is_unsafe.as_ptr(), one.as_ptr(), y.as_ptr(), s)?;
    let result = call(mlx_sys::mlx_remainder, x, &safe, s)?;
    mlx!(mlx_where, is_zero.as_ptr(), x.as_ptr(), result.as_ptr(), s)
}

/// The maps that take the place of MLX's operations, or mean more.
pub(crate) fn own(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::FloorDivide => map!(dtype, integers, integer::floor_divide),
        Op::Remainder => map!(dtype, integers, integer::remainder),
        Op::WideLeftShift => map!(dtype, integers, integer::wide_left_shift),
        Op::WideRightShift => map!(dtype, integers, integer::wide_right_shift),
        Op::Fmod if dtype == Dtype::F32 => Some(&elementwise::functions::fmod),
        Op::Fmod => map!(dtype, integers, integer::fmod),
        Op::IntegerPower => map!(dtype, integers, integer::power),
        _ => None,
    }
}

/// The maps that mean what MLX's operations mean.
pub(crate) fn same(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::BitwiseAnd => map!(dtype, integers, integer::bitwise_and),
        Op::BitwiseOr => map!(dtype, integers, integer::bitwise_or),
        Op::BitwiseXor => map!(dtype, integers, integer::bitwise_xor),
        Op::BitwiseInvert => map!(dtype, integers, integer::bitwise_invert),
        Op::LeftShift => map!(dtype, integers, integer::left_shift),
        Op::RightShift => map!(dtype, integers, integer::right_shift),
        _ => None,
    }
}
