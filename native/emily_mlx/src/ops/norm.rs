//! Softmax and norms.

use std::marker::PhantomData;

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::norm as kernels;
use emily_kernels::real::Real;
use emily_kernels::view::{typed, typed_mut, Row};
use half::{bf16, f16};
use mlx_rs::{fast, Array};
use once_cell::sync::OnceCell;
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::checks::real_float;
use crate::ops::op::Op;
use crate::ops::{cast, reduce};
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::kernel::{self, level, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// `{:softmax, x, axes, precise}`
pub(crate) fn softmax(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    let (axes, precise) = (args.axes(x.ndim())?, args.bool()?);
    if axes[..] == [x.ndim() as i32 - 1] {
        if let Some(result) = rows(Op::Softmax, Of::Softmax, &[Some(x)], stream)? {
            return Ok(result);
        }
    }
    cast::in_f32(x, s, |x| {
        reduce::over_axes(mlx_sys::mlx_softmax_axes, x, &axes, precise, s)
    })
}

fn norm_input(op: &str, x: &Array, vectors: &[(&str, Option<&Array>)]) -> Result<()> {
    real_float(op, "x", x)?;
    if x.ndim() == 0 {
        refuse!("{op}: x must have at least one axis")
    }
    for (name, vector) in vectors {
        if let Some(vector) = vector {
            real_float(op, name, vector)?;
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

/// `{:rms_norm, x, weight, eps}`: `x * rsqrt(mean(x^2) + eps) * weight` over the last axis.
pub(crate) fn rms_norm(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, weight, eps) = (args.array()?, args.optional_array()?, args.float()?);
    norm_input(args.op, x, &[("weight", weight)])?;
    let of = Of::RmsNorm {
        weight: weight.is_some(),
        eps: eps as f32,
    };
    if let Some(result) = rows(Op::RmsNorm, of, &[Some(x), weight], stream)? {
        return Ok(result);
    }
    if let Some(result) = on_cuda(x, weight, eps as f32, stream) {
        return result;
    }
    stream.on(|| fast::rms_norm(x, weight, eps as f32))
}

/// MLX's kernel (0.32.4) has a block for each row: of 128 columns, as heads have, it takes twice as long.
static RMS_NORM: Source = Source {
    name: "rms_norm",
    inputs: &[c"x", c"weight"],
    header: c"",
    ahead: "",
    text: include_str!("norm.cu.h"),
    in_rows: true,
    made: OnceCell::new(),
};

/// Up to so many columns a row is a warp's work.
const COLUMNS_OF_A_WARP: i32 = 256;

/// By a kernel of Emily's own, where there is one.
fn on_cuda(
    x: &Array,
    weight: Option<&Array>,
    eps: f32,
    stream: &StreamHandle,
) -> Option<Result<Array>> {
    let (weight, dtype) = (weight?, Dtype::of(x));
    let fits = cuda::is_cuda(stream)
        && Dtype::of(weight) == dtype
        && dtype != Dtype::F64
        && (1..=COLUMNS_OF_A_WARP).contains(&x.dim(-1))
        && x.ndim() <= 8
        && x.size() > 0
        && eps.is_sign_positive();
    let rows = x.size() / x.dim(-1).max(1) as usize;
    let launch = Launch {
        inputs: &[x, weight],
        output: (x.shape(), dtype),
        threads: (32 * rows).min(1 << 22) as i32,
        in_block: 256,
        dtype: Some((c"T", dtype)),
        numbers: &[(c"eps_bits", eps.to_bits() as i32)],
        zeroed: false,
    };
    fits.then(|| cuda::launch(&RMS_NORM, &launch, stream))
}

/// `{:layer_norm, x, weight, bias, eps}`: `(x - mean) * rsqrt(variance + eps) * weight + bias` over the last axis.
pub(crate) fn layer_norm(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, weight) = (args.array()?, args.optional_array()?);
    let (bias, eps) = (args.optional_array()?, args.float()?);
    norm_input(args.op, x, &[("weight", weight), ("bias", bias)])?;
    let of = Of::LayerNorm {
        weight: weight.is_some(),
        bias: bias.is_some(),
        eps: eps as f32,
    };
    if let Some(result) = rows(Op::LayerNorm, of, &[Some(x), weight, bias], stream)? {
        return Ok(result);
    }
    stream.on(|| fast::layer_norm(x, weight, bias, eps as f32))
}

enum Of {
    Softmax,
    /// With these vectors after the rows, and this small number.
    RmsNorm {
        weight: bool,
        eps: f32,
    },
    LayerNorm {
        weight: bool,
        bias: bool,
        eps: f32,
    },
}

/// A kernel over the last axis, for a level of the processor.
struct Rows<T> {
    of: Of,
    columns: usize,
    level: Level,
    elements: PhantomData<fn(T)>,
}

impl<T: Real> Kernel for Rows<T> {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let x = match &inputs[0] {
            Input::Array(view) => Some(view.to_row()),
            Input::InOutput => None,
        };
        let x = x.as_ref().map(|x| typed::<T>(x.bytes()));
        let vectors: SmallVec<[Row; 2]> = inputs[1..].iter().map(row).collect();
        let mut vectors = vectors.iter().map(|vector| typed::<T>(vector.bytes()));
        let mut next = |is_there: bool| if is_there { vectors.next() } else { None };
        let (level, columns, output) = (self.level, self.columns, typed_mut(output));
        match self.of {
            Of::Softmax => kernels::softmax(level, x, output, columns),
            Of::RmsNorm { weight, eps } => {
                kernels::rms_norm(level, x, output, columns, next(weight), eps)
            }
            Of::LayerNorm { weight, bias, eps } => {
                kernels::layer_norm(level, x, output, columns, next(weight), next(bias), eps)
            }
        }
    }
}

/// The kernel over the rows of the first array, with the vectors behind it, where it takes their types.
fn rows(op: Op, of: Of, arrays: &[Option<&Array>], stream: &StreamHandle) -> Result<Option<Array>> {
    let arrays: SmallVec<[&Array; 3]> = arrays.iter().copied().flatten().collect();
    let dtype = Dtype::of(arrays[0]);
    let (Some(level), true) = (
        level(stream),
        arrays.iter().all(|array| Dtype::of(array) == dtype),
    ) else {
        return Ok(None);
    };
    match dtype {
        Dtype::F32 => add::<f32>(op, of, &arrays, level, stream).map(Some),
        Dtype::F16 => add::<f16>(op, of, &arrays, level, stream).map(Some),
        Dtype::Bf16 => add::<bf16>(op, of, &arrays, level, stream).map(Some),
        _ => Ok(None),
    }
}

fn add<T: Real>(
    op: Op,
    of: Of,
    arrays: &[&Array],
    level: Level,
    stream: &StreamHandle,
) -> Result<Array> {
    let arrays = arrays.iter().map(|x| kernel::in_rows(x, stream));
    let arrays: SmallVec<[Array; 3]> = arrays.collect::<Result<_>>()?;
    let rows = Rows::<T> {
        of,
        columns: arrays[0].dim(-1) as usize,
        level,
        elements: PhantomData,
    };
    let result = (arrays[0].shape(), Dtype::of(&arrays[0]));
    let arrays: SmallVec<[&Array; 3]> = arrays.iter().collect();
    let name = op.name();
    kernel::add(name, rows, &arrays, result, Placement::InFirst, stream)
}
