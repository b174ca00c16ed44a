//! Attention on a CPU, by a kernel that never has all scores.

use std::marker::PhantomData;
use std::ops::Range;

use emily_kernels::attention as kernels;
use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::real::Real;
use emily_kernels::view::{typed_mut, View};
use half::{bf16, f16};
use mlx_rs::Array;
use smallvec::SmallVec;

use super::seen::{integer, range, rows};
use crate::ops::args::Mask;
use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, row, view, Kernel, Placement};
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

/// Over the keys of a cache that are seen, which the kernel finds out when it runs.
struct Cached<T> {
    scale: f32,
    /// Whether the offset has a sign.
    signed: bool,
    level: Level,
    of: PhantomData<fn(T)>,
}

impl<T: Real> Kernel for Cached<T> {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let [q, k, v, key_mask, offset] = inputs else {
            unreachable!("five inputs were given")
        };
        let (q, k, v) = (view(q), view(k), view(v));
        let (queries, keys) = (q.axes()[2].size, k.axes()[2].size);
        let width = view(key_mask).width();
        let key_mask = row(key_mask);
        let key_mask = rows(key_mask.bytes(), keys, width);
        let first = integer(row(offset).bytes(), self.signed);
        let found = range(&key_mask, first, queries);
        let (seen, gaps) = found.unwrap_or((0..keys, true));
        let mask: Vec<u8> = match gaps {
            true => hides(&key_mask, first, queries, &seen),
            false => Vec::new(),
        };
        let kept = seen.len();
        let mask = match gaps {
            false if queries == 1 => kernels::Mask::None,
            false => kernels::Mask::Causal,
            true => {
                let heads = q.axes()[1].size;
                let mask = View::in_rows(&mask, 1, &[key_mask.len(), 1, queries, kept]);
                kernels::Mask::Seen(mask.broadcast(&[key_mask.len(), heads, queries, kept]))
            }
        };
        let attention = kernels::Attention {
            q: q.clone(),
            k: k.narrow(2, seen.clone()),
            v: v.narrow(2, seen),
            scale: self.scale,
            mask,
            sinks: None,
        };
        kernels::attend::<T>(self.level, &attention, typed_mut(output));
    }
}

/// Which of some keys each query sees, in row-major order.
fn hides(key_mask: &[Vec<bool>], first: i64, queries: usize, keys: &Range<usize>) -> Vec<u8> {
    let mut seen = Vec::with_capacity(key_mask.len() * queries * keys.len());
    for there in key_mask {
        for query in 0..queries as i64 {
            let last = first.saturating_add(query);
            let sees = |key: usize| u8::from(there[key] && key as i64 <= last);
            seen.extend(keys.clone().map(sees));
        }
    }
    seen
}

/// Attention over a cache, on arrays that fit together, where the kernel takes their types.
pub(super) fn attend_cached(
    arrays: [&Array; 5],
    scale: f64,
    stream: &StreamHandle,
) -> Result<Option<Array>> {
    let [q, k, v, _, offset] = arrays;
    let Some(level) = kernel::level(stream) else {
        return Ok(None);
    };
    let dtype = Dtype::of(q);
    if [k, v].iter().any(|x| Dtype::of(x) != dtype) {
        return Ok(None);
    }
    let (scale, signed) = (scale as f32, Dtype::of(offset).is_signed());
    macro_rules! cached {
        ($type:ty) => {
            in_heads(
                Cached::<$type> {
                    scale,
                    signed,
                    level,
                    of: PhantomData,
                },
                &arrays,
                stream,
            )
        };
    }
    match dtype {
        Dtype::F32 => cached!(f32),
        Dtype::F16 => cached!(f16),
        Dtype::Bf16 => cached!(bf16),
        _ => return Ok(None),
    }
    .map(Some)
}

fn add<T: Real>(
    arrays: &[&Array],
    (scale, hides, level): (f32, Hides, Level),
    stream: &StreamHandle,
) -> Result<Array> {
    let streaming = Streaming::<T> {
        scale,
        hides,
        level,
        of: PhantomData,
    };
    in_heads(streaming, arrays, stream)
}

/// A kernel whose result has the heads of a query in a row, as the layers around attention have them.
fn in_heads(kernel: impl Kernel, arrays: &[&Array], stream: &StreamHandle) -> Result<Array> {
    let (q, v) = (arrays[0], arrays[2]);
    let shape = [q.dim(0), q.dim(2), q.dim(1), v.dim(3)];
    let result = (&shape[..], Dtype::of(q));
    let name = Op::Attention.name();
    let result = kernel::add(name, kernel, arrays, result, Placement::Apart, stream)?;
    mlx!(mlx_swapaxes, result.as_ptr(), 1, 2, stream.raw())
}
