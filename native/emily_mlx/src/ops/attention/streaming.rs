//! Attention on a CPU, by a kernel that never has all scores.

use std::marker::PhantomData;

use emily_kernels::attention as kernels;
use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::real::Real;
use emily_kernels::view::typed_mut;
use half::{bf16, f16};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::args::Mask;
use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// What the inputs behind the keys and values are.
#[derive(Clone, Copy)]
enum Hides {
    Nothing,
    Later,
    Added,
    Zeros,
}

struct Streaming<T> {
    scale: f32,
    hides: Hides,
    level: Level,
    of: PhantomData<fn(T)>,
}

impl<T: Real> Kernel for Streaming<T> {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let mut inputs = inputs.iter().map(|input| view(input).clone());
        let mut next = || inputs.next().expect("as many inputs as were given");
        let (q, k, v) = (next(), next(), next());
        let mask = match self.hides {
            Hides::Nothing => kernels::Mask::None,
            Hides::Later => kernels::Mask::Causal,
            Hides::Added => kernels::Mask::Added(next()),
            Hides::Zeros => kernels::Mask::Seen(next()),
        };
        let attention = kernels::Attention {
            q,
            k,
            v,
            scale: self.scale,
            mask,
            sinks: inputs.next(),
        };
        kernels::attend::<T>(self.level, &attention, typed_mut(output));
    }
}

/// `softmax(scale * q k^T + mask) v` on arrays that fit together, where the kernel takes their types.
pub(super) fn attend(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f64,
    mask: &Mask,
    sinks: Option<&Array>,
    stream: &StreamHandle,
) -> Result<Option<Array>> {
    let Some(level) = kernel::level(stream) else {
        return Ok(None);
    };
    let dtype = Dtype::of(q);
    let (hides, mask) = match mask {
        Mask::None => (Hides::Nothing, None),
        Mask::Causal => (Hides::Later, None),
        Mask::Array(mask) if Dtype::of(mask) == Dtype::Bool => (Hides::Zeros, Some(*mask)),
        Mask::Array(mask) => (Hides::Added, Some(*mask)),
    };
    let floats = [Some(q), Some(k), Some(v), mask, sinks];
    let same = |array: &Array| match Dtype::of(array) {
        Dtype::Bool => true,
        other => other == dtype,
    };
    if !floats.into_iter().flatten().all(same) {
        return Ok(None);
    }
    let scores = [q.dim(0), q.dim(1), q.dim(2), k.dim(2)];
    let broadcast = |mask: &Array| {
        let (shape, rank) = (scores.as_ptr(), scores.len());
        mlx!(mlx_broadcast_to, mask.as_ptr(), shape, rank, stream.raw())
    };
    let mask = mask.map(broadcast).transpose()?;
    let arrays = [Some(q), Some(k), Some(v), mask.as_ref(), sinks];
    let arrays: SmallVec<[&Array; 5]> = arrays.into_iter().flatten().collect();
    let scale = scale as f32;
    let result = match dtype {
        Dtype::F32 => add::<f32>(&arrays, (scale, hides, level), stream),
        Dtype::F16 => add::<f16>(&arrays, (scale, hides, level), stream),
        Dtype::Bf16 => add::<bf16>(&arrays, (scale, hides, level), stream),
        _ => return Ok(None),
    };
    result.map(Some)
}

/// The kernel's result has the heads of a query in a row, as the layers around attention have them.
fn add<T: Real>(
    arrays: &[&Array],
    (scale, hides, level): (f32, Hides, Level),
    stream: &StreamHandle,
) -> Result<Array> {
    let (q, v) = (arrays[0], arrays[2]);
    let shape = [q.dim(0), q.dim(2), q.dim(1), v.dim(3)];
    let streaming = Streaming::<T> {
        scale,
        hides,
        level,
        of: PhantomData,
    };
    let result = (&shape[..], Dtype::of(q));
    let name = Op::Attention.name();
    let result = kernel::add(name, streaming, arrays, result, Placement::Apart, stream)?;
    mlx!(mlx_swapaxes, result.as_ptr(), 1, 2, stream.raw())
}
