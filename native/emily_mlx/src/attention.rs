//! Attention on a CPU: in pieces where its scores would take much memory, and of f32 out of products and Emily's own
//! softmax. MLX composes it there too, with a softmax that takes longer than the products.

use std::ops::Range;

use mlx_rs::Array;

use crate::args::Mask;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::{refuse, Result};
use crate::ffi::{mlx, Arrays};
use crate::kernels::{self, Rows};
use crate::op::{Op, Stream};
use crate::shape;
use crate::stream::StreamHandle;

/// Scores up to so many bytes are computed at once on a CPU. More are computed for as many queries at a time as have
/// `PIECE` of them, in `MOST_PIECES` pieces at most.
const AT_ONCE: i64 = 1 << 30;
const PIECE: i64 = 64 << 20;
const MOST_PIECES: i64 = 2048;

/// `attend` on queries and their mask: all of them, or one piece after the other.
pub(crate) fn in_pieces(
    q: &Array,
    k: &Array,
    mask: Mask,
    stream: &StreamHandle,
    attend: impl Fn(&Array, Mask) -> Result<Array>,
) -> Result<Array> {
    let (queries, keys) = (q.dim(2), k.dim(2));
    // MLX computes half-precision floats in f32 too.
    let each = [q.dim(0), q.dim(1), keys]
        .iter()
        .fold(4i64, |bytes, size| bytes.saturating_mul((*size).into()));
    let bytes = each.saturating_mul(queries.into());
    if bytes <= AT_ONCE || stream.device() != Device::Cpu {
        return attend(q, mask);
    }
    let rows = (PIECE / each).max(1);
    if i64::from(queries) > rows * MOST_PIECES {
        refuse!(
            "attention: the scores of {queries} queries and {keys} keys take {bytes} bytes, more than {MOST_PIECES} pieces of {}",
            rows * each
        )
    }
    let s = stream.raw();
    let pieces = (0..queries).step_by(rows as usize).map(|from| {
        let range = from..queries.min(from + rows as i32);
        let q = shape::cut(q, 2, &range, s)?;
        match &mask {
            Mask::None => attend(&q, Mask::None),
            Mask::Causal => {
                let last = keys - queries;
                attend(&q, Mask::Array(&before(&range, last, keys, s)?))
            }
            Mask::Array(mask) => {
                let axis = mask.ndim() as i32 - 2;
                if axis < 0 || mask.dim(axis) == 1 {
                    return attend(&q, Mask::Array(mask));
                }
                attend(&q, Mask::Array(&shape::cut(mask, axis, &range, s)?))
            }
        }
    });
    let pieces = Arrays::new(&pieces.collect::<Result<Vec<Array>>>()?)?;
    mlx!(mlx_concatenate_axis, pieces.as_ptr(), 2, s)
}

/// The causal mask of some queries: the key `last` is the one that the first query of all sees last.
fn before(queries: &Range<i32>, last: i32, keys: i32, s: Stream) -> Result<Array> {
    let count = |from: i32, to: i32| {
        let (from, to) = (f64::from(from), f64::from(to));
        mlx!(mlx_arange, from, to, 1.0, Dtype::S32.raw(), s)
    };
    let query = count(queries.start + last, queries.end + last)?;
    let query = mlx!(mlx_expand_dims, query.as_ptr(), 1, s)?;
    let key = count(0, keys)?;
    mlx!(mlx_less_equal, key.as_ptr(), query.as_ptr(), s)
}

/// The softmax that attention on these arrays takes, where it is composed here.
pub(crate) fn softmax(
    q: &Array,
    k: &Array,
    v: &Array,
    mask: &Mask,
    stream: &StreamHandle,
) -> Option<Rows> {
    let mask = match mask {
        Mask::Array(mask) if Dtype::of(mask) != Dtype::Bool => Some(*mask),
        // A query that sees no key at all is left to MLX.
        Mask::Causal if q.dim(2) > k.dim(2) => return None,
        _ => None,
    };
    kernels::rows(Op::Softmax, &[Some(q), Some(k), Some(v), mask], stream)
}

/// `softmax(scale * q k^T + mask) v` on arrays whose shapes fit together.
pub(crate) fn composed(
    softmax: Rows,
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f64,
    mask: &Mask,
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    let groups = Groups::of(q, k);
    let scale = Array::from_f32(scale as f32);
    let q = groups.split(&mlx!(mlx_multiply, q.as_ptr(), scale.as_ptr(), s)?, s)?;
    let k = groups.shared(k, s)?;
    let k = mlx!(mlx_swapaxes, k.as_ptr(), -1, -2, s)?;
    let scores = mlx!(mlx_matmul, q.as_ptr(), k.as_ptr(), s)?;
    let (scores, queries) = match mask {
        Mask::None => (scores, 0),
        Mask::Causal => (scores, q.dim(-2)),
        Mask::Array(mask) => (masked(&groups.split(mask, s)?, &scores, s)?, 0),
    };
    let weights = softmax.apply(&[Some(&scores)], queries.into(), stream)?;
    let v = groups.shared(v, s)?;
    groups.join(&mlx!(mlx_matmul, weights.as_ptr(), v.as_ptr(), s)?, s)
}

fn masked(mask: &Array, scores: &Array, s: Stream) -> Result<Array> {
    if Dtype::of(mask) != Dtype::Bool {
        return mlx!(mlx_add, scores.as_ptr(), mask.as_ptr(), s);
    }
    let hidden = Array::from_f32(f32::MIN);
    mlx!(
        mlx_where,
        mask.as_ptr(),
        scores.as_ptr(),
        hidden.as_ptr(),
        s
    )
}

/// Several heads of queries for each head of keys, as an axis of their own after the heads'.
struct Groups {
    heads: i32,
    queries: i32,
}

impl Groups {
    fn of(q: &Array, k: &Array) -> Self {
        Groups {
            heads: k.dim(1),
            queries: q.dim(1) / k.dim(1),
        }
    }

    /// An array with the heads of queries, or with one for all.
    fn split(&self, x: &Array, s: Stream) -> Result<Array> {
        if self.queries == 1 || x.ndim() < 3 {
            return Ok(x.clone());
        }
        let at = x.ndim() - 3;
        let heads = match x.dim(at as i32) {
            1 => [1, 1],
            _ => [self.heads, self.queries],
        };
        let shape: Vec<i32> = [&x.shape()[..at], &heads, &x.shape()[at + 1..]].concat();
        mlx!(mlx_reshape, x.as_ptr(), shape.as_ptr(), shape.len(), s)
    }

    /// Keys or values, the same for all queries of a group.
    fn shared(&self, x: &Array, s: Stream) -> Result<Array> {
        match self.queries {
            1 => Ok(x.clone()),
            _ => mlx!(mlx_expand_dims, x.as_ptr(), 2, s),
        }
    }

    fn join(&self, x: &Array, s: Stream) -> Result<Array> {
        if self.queries == 1 {
            return Ok(x.clone());
        }
        let shape = [x.dim(0), self.heads * self.queries, x.dim(3), x.dim(4)];
        mlx!(mlx_reshape, x.as_ptr(), shape.as_ptr(), shape.len(), s)
    }
}
