//! The kernels over rows of f32.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::norm;
use emily_kernels::view::{typed, typed_mut, Row};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// Kernels over the last axis, for a level of the processor.
#[derive(Clone, Copy)]
pub(crate) struct RowKernels(pub(super) Level);

enum Of {
    /// With a causal mask for each so many rows, or 0.
    Softmax(usize),
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
            Of::Softmax(queries) => norm::softmax(level, x, output, columns, queries),
            Of::RmsNorm { weight, eps } => {
                norm::rms_norm(level, x, output, columns, next(weight), eps)
            }
            Of::LayerNorm { weight, bias, eps } => {
                norm::layer_norm(level, x, output, columns, next(weight), next(bias), eps)
            }
        }
    }
}

impl RowKernels {
    pub(crate) fn softmax(self, x: &Array, queries: usize, stream: &StreamHandle) -> Result<Array> {
        self.add("softmax", Of::Softmax(queries), &[Some(x)], stream)
    }

    pub(crate) fn rms_norm(
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

    pub(crate) fn layer_norm(
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
