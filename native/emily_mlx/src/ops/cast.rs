//! Numbers of one type as numbers of another.

use emily_kernels::cast as kernels;
use emily_kernels::chain::Map;
use emily_kernels::elementwise;
use mlx_rs::Array;

use crate::ops::args::{Args, Number};
use crate::ops::create::{self, number_like};
use crate::ops::map::{map, some, Mapping};
use crate::ops::op::Op;
use crate::runtime::dtype::{by_type, Dtype};
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{call, mlx, Stream};
use crate::runtime::kernel::level;
use crate::runtime::stream::StreamHandle;

pub(crate) fn cast(x: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
    mlx!(mlx_astype, x.as_ptr(), dtype.raw(), s)
}

/// What `compute` gives of `x`, in its type. Floats of 16 bits lose every addend beyond a few thousand where they
/// accumulate in their own type, as MLX has them on a CPU: they are computed with in f32, and rounded once.
pub(crate) fn in_f32(
    x: &Array,
    s: Stream,
    compute: impl FnOnce(&Array) -> Result<Array>,
) -> Result<Array> {
    let dtype = Dtype::of(x);
    if !dtype.is_half() {
        return compute(x);
    }
    cast(&compute(&widened(x, s)?)?, dtype, s)
}

/// An array of f32 in the place of one of 16-bit floats.
pub(crate) fn widened(x: &Array, s: Stream) -> Result<Array> {
    match Dtype::of(x) {
        dtype if dtype.is_half() => cast(x, Dtype::F32, s),
        _ => Ok(x.clone()),
    }
}

/// `{:astype, x, dtype}`
pub(crate) fn astype(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, to) = (args.array()?, args.dtype()?);
    let from = Dtype::of(x);
    if let (true, Some(map), Some(level)) = (from != to, map_cast(from, to), level(stream)) {
        let op = Op::Astype;
        return Mapping { op, map, level }.apply_with(&[x], to, 0.0, stream);
    }
    cast(x, to, stream.raw())
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
    if let (Some(map), Some(level)) = (map_to_integer(wide, to), level(stream)) {
        let op = Op::ToInteger;
        let kernel = Mapping { op, map, level };
        let x = mlx!(mlx_astype, x.as_ptr(), wide.raw(), s)?;
        return kernel.apply_with(&[&x], to, 0.0, stream);
    }
    // NaN is replaced before the cast, what an infinity gave after it: both are rare, and MLX chooses slowly
    // where it cannot foresee which.
    let is_number = call(mlx_sys::mlx_equal, x, x, s)?;
    let zero = number_like(args.op, 0.0, x)?;
    let number = mlx!(mlx_where, is_number.as_ptr(), x.as_ptr(), zero.as_ptr(), s)?;
    let mut whole = truncate(args, &number, to, s)?;
    for (end, integer) in [(f64::INFINITY, high), (f64::NEG_INFINITY, low)] {
        let is_end = call(mlx_sys::mlx_equal, x, &number_like(args.op, end, x)?, s)?;
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
    let is_less = call(
        mlx_sys::mlx_less,
        x,
        &number_like(args.op, (1u64 << 63) as f64, x)?,
        s,
    )?;
    let unsigned = mlx!(mlx_astype, x.as_ptr(), to.raw(), s)?;
    mlx!(
        mlx_where,
        is_less.as_ptr(),
        cut.as_ptr(),
        unsigned.as_ptr(),
        s
    )
}

/// The map that makes integers of type `to` of floats of type `from`.
pub(crate) fn map_to_integer(from: Dtype, to: Dtype) -> Option<&'static dyn Map> {
    match from {
        Dtype::F32 => by_type!(to, integers, T => some(&kernels::to_integer::<f32, T>)),
        Dtype::F64 => by_type!(to, integers, T => some(&kernels::to_integer::<f64, T>)),
        _ => None,
    }
}

/// The map that casts numbers as MLX does; of floats to integers MLX has nothing that is defined for all numbers.
pub(crate) fn map_cast(from: Dtype, to: Dtype) -> Option<&'static dyn Map> {
    match (from, to) {
        (Dtype::Bool, Dtype::Bool) => Some(&elementwise::copy),
        (Dtype::Bool, _) => map_cast(Dtype::U8, to),
        (_, Dtype::Bool) => map!(from, numbers, kernels::to_bool),
        (Dtype::F32 | Dtype::F64, _) => {
            by_type!(from, floats, F => by_type!(to, floats, T => some(&kernels::cast::<F, T>)))
        }
        _ => {
            by_type!(from, integers, F => by_type!(to, numbers, T => some(&kernels::cast::<F, T>)))
        }
    }
}
