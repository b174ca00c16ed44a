//! Attention of f32 on a CPU, out of products and Emily's own softmax. MLX composes it there too, with a
//! softmax that takes longer than the products.

use mlx_rs::Array;

use crate::args::Mask;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::ffi::mlx;
use crate::kernels::{self, Rows};
use crate::op::{Op, Stream};
use crate::stream::StreamHandle;
use crate::truth;

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
        truth::reshape(x, &shape, s)
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
        truth::reshape(x, &shape, s)
    }
}
