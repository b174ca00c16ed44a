//! Rotary embeddings of f32.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::rope::{self, Rotary};
use emily_kernels::view::{typed, typed_mut};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::fused::Rope;
use crate::ops::table::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// The kernel for a level of the processor.
#[derive(Clone, Copy)]
pub(crate) struct RopeKernel(pub(super) Level);

struct Rotation {
    rotary: Rotary,
    level: Level,
}

impl Kernel for Rotation {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, offsets) = (row(&inputs[0]), row(&inputs[1]));
        let periods = inputs.get(2).map(row);
        rope::rotate(
            self.level,
            &self.rotary,
            typed(x.bytes()),
            typed(offsets.bytes()),
            periods.as_ref().map(|periods| typed(periods.bytes())),
            typed_mut(output),
        );
    }
}

impl RopeKernel {
    /// The turned rows. The arguments fit each other.
    pub(crate) fn apply(self, x: &Array, rope: &Rope, stream: &StreamHandle) -> Result<Array> {
        let s = stream.raw();
        let offset = mlx!(mlx_astype, rope.offset.as_ptr(), Dtype::S32.raw(), s)?;
        let size = |axis: usize| x.dim(axis as i32) as usize;
        let last = x.ndim() - 1;
        let rotary = Rotary {
            batches: size(0),
            heads: (1..last - 1).map(size).product(),
            positions: size(last - 1),
            columns: size(last),
            dims: rope.dims as usize,
            traditional: rope.traditional,
            scale: rope.scale,
            base: rope.base.unwrap_or(1.0),
        };
        let rotation = Rotation {
            rotary,
            level: self.0,
        };
        let arrays: SmallVec<[&Array; 3]> = [Some(x), Some(&offset), rope.freqs]
            .into_iter()
            .flatten()
            .collect();
        let result = (x.shape(), Dtype::F32);
        kernel::add(
            Op::Rope.name(),
            rotation,
            &arrays,
            result,
            Placement::Apart,
            stream,
        )
    }
}
