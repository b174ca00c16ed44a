//! MLX's fused kernels and einsum, through mlx-rs.

use mlx_rs::error::Exception;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask};
use mlx_rs::{with_stream, Array};

use crate::ops::args::{Args, Mask};
use crate::ops::attention;
use crate::ops::checks;
use crate::ops::kernels;
use crate::ops::totals;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx};
use crate::runtime::stream::StreamHandle;

/// Runs an mlx-rs operation on a stream.
fn on(
    stream: &StreamHandle,
    operation: impl FnOnce() -> std::result::Result<Array, Exception>,
) -> Result<Array> {
    ffi::wrapped(|| with_stream(stream.mlx_rs(), operation))
}

fn float(op: &str, name: &str, array: &Array) -> Result<()> {
    let dtype = Dtype::of(array);
    if !dtype.is_real_float() {
        refuse!(
            "{op}: {name} must have a floating-point type, got {}",
            dtype.name()
        )
    }
    Ok(())
}

fn norm_input(op: &str, x: &Array, vectors: &[(&str, Option<&Array>)]) -> Result<()> {
    float(op, "x", x)?;
    if x.ndim() == 0 {
        refuse!("{op}: x must have at least one axis")
    }
    for (name, vector) in vectors {
        if let Some(vector) = vector {
            float(op, name, vector)?;
            if vector.shape() != [x.dim(-1)] {
                refuse!(
                    "{op}: {name} must have shape [{}], got {:?}",
                    x.dim(-1),
                    vector.shape()
                )
            }
        }
    }
    Ok(())
}

/// `x * rsqrt(mean(x^2) + eps) * weight` over the last axis.
pub(crate) fn rms_norm(
    x: &Array,
    weight: Option<&Array>,
    eps: f64,
    stream: &StreamHandle,
) -> Result<Array> {
    norm_input("rms_norm", x, &[("weight", weight)])?;
    if let Some(kernels) = kernels::rows(&[Some(x), weight], stream) {
        return kernels.rms_norm(x, weight, eps, stream);
    }
    on(stream, || fast::rms_norm(x, weight, eps as f32))
}

/// `(x - mean) * rsqrt(variance + eps) * weight + bias` over the last axis.
pub(crate) fn layer_norm(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f64,
    stream: &StreamHandle,
) -> Result<Array> {
    norm_input("layer_norm", x, &[("weight", weight), ("bias", bias)])?;
    if let Some(kernels) = kernels::rows(&[Some(x), weight, bias], stream) {
        return kernels.layer_norm(x, weight, bias, eps, stream);
    }
    on(stream, || fast::layer_norm(x, weight, bias, eps as f32))
}

/// How a rotary embedding turns its planes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rope<'a> {
    pub dims: i32,
    pub traditional: bool,
    /// The base of the geometric progression of periods, or none with `freqs`.
    pub base: Option<f64>,
    pub scale: f64,
    /// The position of the first entry: a scalar, or one for each of the first axis.
    pub offset: &'a Array,
    /// The period of each plane.
    pub freqs: Option<&'a Array>,
}

pub(crate) fn rope(x: &Array, turn: Rope, stream: &StreamHandle) -> Result<Array> {
    float("rope", "x", x)?;
    let Rope {
        dims,
        offset,
        freqs,
        ..
    } = turn;
    if x.ndim() < 3 {
        refuse!(
            "rope: x must have at least three axes, got shape {:?}",
            x.shape()
        )
    }
    if dims < 2 || dims % 2 != 0 || dims > x.dim(-1) {
        refuse!(
            "rope: dims must be even and from 2 to the last axis of shape {:?}, got {dims}",
            x.shape()
        )
    }
    if !Dtype::of(offset).is_integer() || offset.ndim() > 1 {
        refuse!(
            "rope: offset must be integers of rank 0 or 1, got {} of shape {:?}",
            Dtype::of(offset).name(),
            offset.shape()
        )
    }
    if offset.ndim() == 1 && offset.dim(0) != x.dim(0) && offset.dim(0) != 1 {
        refuse!("rope: {} offsets for shape {:?}", offset.dim(0), x.shape())
    }
    if turn.base.is_some() == freqs.is_some() {
        refuse!("rope: takes either a base or freqs")
    }
    if let Some(freqs) = freqs {
        float("rope", "freqs", freqs)?;
        if freqs.shape() != [dims / 2] {
            refuse!(
                "rope: freqs must have shape [{}], got {:?}",
                dims / 2,
                freqs.shape()
            )
        }
    }
    if let Some(kernel) = kernels::rope(&[Some(x), freqs], stream) {
        return kernel.apply(x, &turn, stream);
    }
    let (base, scale) = (turn.base.map(|base| base as f32), turn.scale as f32);
    on(stream, || {
        fast::rope_dynamic(x, dims, turn.traditional, base, scale, offset, freqs)
    })
}

/// `softmax(scale * q k^T + mask) v`, with `sinks` in the softmax's denominator.
pub(crate) fn attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f64,
    mask: Mask,
    sinks: Option<&Array>,
    stream: &StreamHandle,
) -> Result<Array> {
    let shapes = || format!("{:?}, {:?} and {:?}", q.shape(), k.shape(), v.shape());
    for (name, array) in [("q", q), ("k", k), ("v", v)] {
        float("attention", name, array)?;
        if array.ndim() != 4 {
            refuse!(
                "attention: {name} must have shape [batch, heads, seq, head_dim], got {}",
                shapes()
            )
        }
    }
    let batches = q.dim(0) == k.dim(0) && q.dim(0) == v.dim(0);
    let heads = k.dim(1) == v.dim(1) && q.dim(1) % k.dim(1) == 0;
    if !batches || !heads || q.dim(3) != k.dim(3) || k.dim(2) != v.dim(2) {
        refuse!("attention: shapes {} do not fit together", shapes())
    }
    if let Mask::Array(mask) = &mask {
        let wanted = [q.dim(0), q.dim(1), q.dim(2), k.dim(2)];
        let given = mask.shape();
        let fits = given.len() <= 4
            && given
                .iter()
                .rev()
                .zip(wanted.iter().rev())
                .all(|(size, full)| *size == 1 || size == full);
        if !fits {
            refuse!("attention: a mask of shape {given:?} does not broadcast to {wanted:?}")
        }
    }
    if let Some(sinks) = sinks {
        float("attention", "sinks", sinks)?;
        if sinks.shape() != [q.dim(1)] {
            refuse!(
                "attention: sinks must have shape [{}], got {:?}",
                q.dim(1),
                sinks.shape()
            )
        }
    }
    attention::in_pieces(q, k, mask, stream, |q, mask| {
        whole_attention(q, k, v, scale, mask, sinks, stream)
    })
}

/// Attention on arrays that fit together, whose scores fit memory.
fn whole_attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f64,
    mask: Mask,
    sinks: Option<&Array>,
    stream: &StreamHandle,
) -> Result<Array> {
    if let (None, Some(softmax)) = (sinks, attention::softmax(q, k, v, &mask, stream)) {
        return attention::composed(softmax, q, k, v, scale, &mask, stream);
    }
    let contiguous = |array: &Array| mlx!(mlx_contiguous, array.as_ptr(), false, stream.raw());
    // The CUDA kernel reads them in a row, whatever their strides.
    let sinks = sinks.map(contiguous).transpose()?;
    // On a CPU MLX reshapes queries and mask, which is wrong of what is column-major (`truth.rs`).
    let row_major = |array: &Array| match stream.device() {
        Device::Cpu => contiguous(array),
        Device::Gpu => Ok(array.clone()),
    };
    let q = row_major(q)?;
    let array = match &mask {
        Mask::Array(array) => Some(row_major(array)?),
        _ => None,
    };
    let mask = match (&mask, &array) {
        (Mask::Causal, _) => Some(ScaledDotProductAttentionMask::Causal),
        (_, Some(array)) => Some(ScaledDotProductAttentionMask::Array(array)),
        _ => None,
    };
    on(stream, || {
        fast::scaled_dot_product_attention(&q, k, v, scale as f32, mask, sinks.as_ref())
    })
}

/// How many operands an einsum takes, as NumPy's: MLX looks at each pair before each contraction.
const MOST_OPERANDS: usize = 64;
/// A letter for every axis that the operands may have.
const MOST_SUBSCRIPTS: usize = MOST_OPERANDS * checks::MOST_AXES;

/// The contraction that `subscripts` names, in the order that MLX finds cheapest.
pub(crate) fn einsum(subscripts: &str, operands: &[Array], stream: &StreamHandle) -> Result<Array> {
    if operands.is_empty() {
        refuse!("einsum: needs at least one operand")
    }
    if operands.len() > MOST_OPERANDS {
        refuse!(
            "einsum: takes up to {MOST_OPERANDS} operands, got {}",
            operands.len()
        )
    }
    if subscripts.len() > MOST_SUBSCRIPTS {
        refuse!(
            "einsum: takes subscripts of up to {MOST_SUBSCRIPTS} bytes, got {}",
            subscripts.len()
        )
    }
    enough_letters(subscripts, operands)?;
    let s = stream.raw();
    let wide = operands.iter().map(|x| totals::widened(x, s));
    let wide = wide.collect::<Result<Vec<_>>>()?;
    let result = on(stream, || mlx_rs::ops::einsum(subscripts, &wide))?;
    match common_half(operands) {
        Some(half) => totals::cast(&result, half, s),
        None => Ok(result),
    }
}

/// The 16-bit floats that operands of these types have in common, if that is their common type.
fn common_half(operands: &[Array]) -> Option<Dtype> {
    let exact = |dtype: &Dtype| dtype.is_integer() || *dtype == Dtype::Bool;
    let mut floats = operands.iter().map(Dtype::of).filter(|dtype| !exact(dtype));
    let first = floats.next().filter(|dtype| dtype.is_half())?;
    floats.all(|dtype| dtype == first).then_some(first)
}

/// MLX names the axes of an ellipsis by letters that the equation leaves, without a look at how many
/// those are, and reads on before the first one.
fn enough_letters(subscripts: &str, operands: &[Array]) -> Result<()> {
    let named = |text: &str| text.chars().filter(char::is_ascii_alphabetic).count();
    let used = ('A'..='z')
        .filter(|&c| c.is_ascii_alphabetic() && subscripts.contains(c))
        .count();
    let text = subscripts.replace(' ', "");
    let inputs = text.split("->").next().unwrap_or_default();
    let widest = inputs
        .split(',')
        .zip(operands)
        .filter(|(group, _)| group.contains("..."))
        .map(|(group, operand)| operand.ndim().saturating_sub(named(group)))
        .max()
        .unwrap_or(0);
    if used + widest > 52 {
        refuse!("einsum: {subscripts:?} names {used} axes, and {widest} more are too many: there are 52 letters")
    }
    Ok(())
}

/// `{:rms_norm, x, weight, eps}`
pub(crate) fn rms_norm_op(args: &Args, stream: &StreamHandle) -> Result<Array> {
    rms_norm(args.array()?, args.optional_array()?, args.float()?, stream)
}

/// `{:layer_norm, x, weight, bias, eps}`
pub(crate) fn layer_norm_op(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, weight) = (args.array()?, args.optional_array()?);
    let (bias, eps) = (args.optional_array()?, args.float()?);
    layer_norm(x, weight, bias, eps, stream)
}

/// `{:rope, x, dims, traditional, base, scale, offset, freqs}`
pub(crate) fn rope_op(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let turn = Rope {
        dims: args.int()?,
        traditional: args.bool()?,
        base: args.optional_float()?,
        scale: args.float()?,
        offset: args.array()?,
        freqs: args.optional_array()?,
    };
    rope(x, turn, stream)
}

/// `{:attention, q, k, v, scale, mask, sinks}`
pub(crate) fn attention_op(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (q, k, v) = (args.array()?, args.array()?, args.array()?);
    let (scale, mask, sinks) = (args.float()?, args.mask()?, args.optional_array()?);
    attention(q, k, v, scale, mask, sinks, stream)
}
