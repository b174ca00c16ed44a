//! Rotary embeddings.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::rope::{self as kernels, Rotary};
use emily_kernels::view::{typed, typed_mut};
use mlx_rs::{fast, Array};
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::checks::real_float;
use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, level_of_f32, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// How a rotary embedding turns its planes.
#[derive(Clone, Copy, Debug)]
struct Turn<'a> {
    dims: i32,
    traditional: bool,
    /// The base of the geometric progression of periods, or none with `freqs`.
    base: Option<f64>,
    scale: f64,
    /// The position of the first entry: a scalar, or one for each of the first axis.
    offset: &'a Array,
    /// The period of each plane.
    freqs: Option<&'a Array>,
}

/// `{:rope, x, dims, traditional, base, scale, offset, freqs}`
pub(crate) fn rope(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let turn = Turn {
        dims: args.int()?,
        traditional: args.bool()?,
        base: args.optional_float()?,
        scale: args.float()?,
        offset: args.array()?,
        freqs: args.optional_array()?,
    };
    real_float("rope", "x", x)?;
    let Turn {
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
        real_float("rope", "freqs", freqs)?;
        if freqs.shape() != [dims / 2] {
            refuse!(
                "rope: freqs must have shape [{}], got {:?}",
                dims / 2,
                freqs.shape()
            )
        }
    }
    if let Some(level) = level_of_f32(&[Some(x), freqs], stream) {
        return RopeKernel(level).apply(x, &turn, stream);
    }
    let (base, scale) = (turn.base.map(|base| base as f32), turn.scale as f32);
    stream.on(|| fast::rope_dynamic(x, dims, turn.traditional, base, scale, offset, freqs))
}

/// The kernel for a level of the processor.
#[derive(Clone, Copy)]
struct RopeKernel(Level);

struct Rotation {
    rotary: Rotary,
    level: Level,
}

impl Kernel for Rotation {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, offsets) = (row(&inputs[0]), row(&inputs[1]));
        let periods = inputs.get(2).map(row);
        kernels::rotate(
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
    fn apply(self, x: &Array, turn: &Turn, stream: &StreamHandle) -> Result<Array> {
        let s = stream.raw();
        let offset = mlx!(mlx_astype, turn.offset.as_ptr(), Dtype::S32.raw(), s)?;
        let size = |axis: usize| x.dim(axis as i32) as usize;
        let last = x.ndim() - 1;
        let rotary = Rotary {
            batches: size(0),
            heads: (1..last - 1).map(size).product(),
            positions: size(last - 1),
            columns: size(last),
            dims: turn.dims as usize,
            traditional: turn.traditional,
            scale: turn.scale,
            base: turn.base.unwrap_or(1.0),
        };
        let rotation = Rotation {
            rotary,
            level: self.0,
        };
        let arrays: SmallVec<[&Array; 3]> = [Some(x), Some(&offset), turn.freqs]
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
