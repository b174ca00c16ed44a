//! Softmax and norms.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::norm as kernels;
use emily_kernels::view::{typed, typed_mut, Row};
use mlx_rs::{fast, Array};
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::checks::real_float;
use crate::ops::{cast, reduce};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::kernel::{self, level_of_f32, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// `{:softmax, x, axes, precise}`
pub(crate) fn softmax(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, s) = (args.array()?, stream.raw());
    let (axes, precise) = (args.axes(x.ndim())?, args.bool()?);
    if let ([axis], Some(rows)) = (&axes[..], RowKernels::of(&[Some(x)], stream)) {
        if *axis == x.ndim() as i32 - 1 {
            return rows.softmax(x, stream);
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
    if let Some(rows) = RowKernels::of(&[Some(x), weight], stream) {
        return rows.rms_norm(x, weight, eps, stream);
    }
    stream.on(|| fast::rms_norm(x, weight, eps as f32))
}

/// `{:layer_norm, x, weight, bias, eps}`: `(x - mean) * rsqrt(variance + eps) * weight + bias` over the last axis.
pub(crate) fn layer_norm(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, weight) = (args.array()?, args.optional_array()?);
    let (bias, eps) = (args.optional_array()?, args.float()?);
    norm_input(args.op, x, &[("weight", weight), ("bias", bias)])?;
    if let Some(rows) = RowKernels::of(&[Some(x), weight, bias], stream) {
        return rows.layer_norm(x, weight, bias, eps, stream);
    }
    stream.on(|| fast::layer_norm(x, weight, bias, eps as f32))
}

/// Kernels over the last axis, for a level of the processor.
#[derive(Clone, Copy)]
struct RowKernels(Level);

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

struct Rows {
    of: Of,
    columns: usize,
    level: Level,
}

impl Kernel for Rows {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let x = match &inputs[0] {
            Input::Array(view) => Some(view.to_row()),
            Input::InOutput => None,
        };
        let x = x.as_ref().map(|x| typed::<f32>(x.bytes()));
        let vectors: SmallVec<[Row; 2]> = inputs[1..].iter().map(row).collect();
        let mut vectors = vectors.iter().map(|vector| typed::<f32>(vector.bytes()));
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

impl RowKernels {
    /// The kernels, where all arrays are f32.
    fn of(arrays: &[Option<&Array>], stream: &StreamHandle) -> Option<RowKernels> {
        level_of_f32(arrays, stream).map(RowKernels)
    }

    fn softmax(self, x: &Array, stream: &StreamHandle) -> Result<Array> {
        self.add("softmax", Of::Softmax, &[Some(x)], stream)
    }

    fn rms_norm(
        self,
        x: &Array,
        weight: Option<&Array>,
        eps: f64,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let of = Of::RmsNorm {
            weight: weight.is_some(),
            eps: eps as f32,
        };
        self.add("rms_norm", of, &[Some(x), weight], stream)
    }

    fn layer_norm(
        self,
        x: &Array,
        weight: Option<&Array>,
        bias: Option<&Array>,
        eps: f64,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let of = Of::LayerNorm {
            weight: weight.is_some(),
            bias: bias.is_some(),
            eps: eps as f32,
        };
        self.add("layer_norm", of, &[Some(x), weight, bias], stream)
    }

    fn add(
        self,
        name: &'static str,
        of: Of,
        arrays: &[Option<&Array>],
        stream: &StreamHandle,
    ) -> Result<Array> {
        let arrays = arrays.iter().flatten().map(|x| kernel::in_rows(x, stream));
        let arrays: SmallVec<[Array; 3]> = arrays.collect::<Result<_>>()?;
        let rows = Rows {
            of,
            columns: arrays[0].dim(-1) as usize,
            level: self.0,
        };
        let result = (arrays[0].shape(), Dtype::F32);
        let arrays: SmallVec<[&Array; 3]> = arrays.iter().collect();
        kernel::add(name, rows, &arrays, result, Placement::InFirst, stream)
    }
}
