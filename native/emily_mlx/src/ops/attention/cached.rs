//! Attention over a cache that is filled up to a number of keys, which is an array as everything else.

use std::ops::Range;

use half::bf16;
use mlx_rs::Array;
use once_cell::sync::OnceCell;

use super::{attend, streaming};
use crate::ops::args::{Args, Mask, Number};
use crate::ops::create;
use crate::ops::shape::cut;
use crate::runtime::cuda::{self, is_cuda, Launch, Source};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx};
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// `{:cached_attention, q, k, v, scale, key_mask, offset}`: query `i` sees the keys up to `offset + i` where
/// `key_mask`, of shape `[batch, keys]`, is not 0.
pub(crate) struct CachedAttention<'a> {
    op: &'static str,
    q: &'a Array,
    k: &'a Array,
    v: &'a Array,
    scale: f64,
    pub(crate) key_mask: &'a Array,
    pub(crate) offset: &'a Array,
}

/// The keys that count for some query, and an additive mask where not all of them count for each, but
/// for those to come.
pub(crate) struct Seen {
    pub(crate) keys: Range<i32>,
    pub(crate) mask: Option<Array>,
}

impl<'a> CachedAttention<'a> {
    pub(crate) fn read(args: &'a Args) -> Result<Self> {
        let (q, k, v) = (args.array()?, args.array()?, args.array()?);
        let (scale, key_mask, offset) = (args.float()?, args.array()?, args.array()?);
        let op = args.op;
        for (name, array) in [("q", q), ("k", k), ("v", v)] {
            if array.ndim() != 4 {
                refuse!(
                    "{op}: {name} must have shape [batch, heads, seq, head_dim], got {:?}",
                    array.shape()
                )
            }
        }
        if k.dim(2) != v.dim(2) {
            refuse!("{op}: {} keys for {} values", k.dim(2), v.dim(2))
        }
        let keys = [q.dim(0), k.dim(2)];
        let whole = |array| Dtype::of(array).is_integer() || Dtype::of(array) == Dtype::Bool;
        if !whole(key_mask) || key_mask.shape() != keys {
            refuse!(
                "{op}: key_mask must be integers of shape {keys:?}, got {} of shape {:?}",
                Dtype::of(key_mask).name(),
                key_mask.shape()
            )
        }
        if !Dtype::of(offset).is_integer() || offset.ndim() != 0 {
            refuse!(
                "{op}: offset must be one integer, got {} of shape {:?}",
                Dtype::of(offset).name(),
                offset.shape()
            )
        }
        Ok(CachedAttention {
            op,
            q,
            k,
            v,
            scale,
            key_mask,
            offset,
        })
    }

    /// What else than the mask and the offset `Seen` depends on.
    pub(crate) fn queries(&self) -> (i32, Dtype) {
        (self.q.dim(2), Dtype::of(self.q))
    }

    /// By a kernel of Emily's own, which looks at the mask and the offset itself, where there is one.
    pub(crate) fn on_device(&self, stream: &StreamHandle) -> Result<Option<Array>> {
        let (q, k, v) = (self.q, self.k, self.v);
        if stream.is_cpu() {
            super::fits(q, k, v)?;
            let arrays = [q, k, v, self.key_mask, self.offset];
            return streaming::attend_cached(arrays, self.scale, stream);
        }
        let dtype = Dtype::of(q);
        let known = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16)
            && [k, v].iter().all(|x| Dtype::of(x) == dtype)
            && self.scale >= 0.0;
        let few = q.dim(2) <= FEW
            && q.dim(3) <= WIDEST
            && i64::from(q.dim(0)) * i64::from(q.dim(1)) <= MOST_HEADS;
        let fit = k.shape() == v.shape()
            && q.dim(0) == k.dim(0)
            && q.dim(3) == k.dim(3)
            && k.dim(1) > 0
            && q.dim(1) % k.dim(1) == 0;
        if !is_cuda(stream) || !known || !few || !fit || q.size() == 0 || k.size() == 0 {
            return Ok(None);
        }
        let launch = Launch {
            inputs: &[q, k, v, self.key_mask, self.offset],
            output: (q.shape(), dtype),
            threads: q.dim(0) * q.dim(1) * q.dim(2) * BLOCK,
            in_block: BLOCK,
            dtype: Some((c"T", dtype)),
            numbers: &[
                (c"dims", q.dim(3)),
                (c"scale_bits", (self.scale as f32).to_bits() as i32),
            ],
            zeroed: false,
        };
        cuda::launch(&CACHED, &launch, stream).map(Some)
    }

    pub(crate) fn attend(&self, seen: &Seen, stream: &StreamHandle) -> Result<Array> {
        let s = stream.raw();
        let [k, v] = [self.k, self.v].map(|x| cut(x, 2, &seen.keys, s));
        let mask = match &seen.mask {
            Some(mask) => Mask::Array(mask),
            None if self.q.dim(2) == 1 => Mask::None,
            None => Mask::Causal,
        };
        attend(self.q, &k?, &v?, self.scale, mask, None, stream)
    }

    /// All keys, by a mask. Looks at no data.
    pub(crate) fn unseen(&self, stream: &StreamHandle) -> Result<Seen> {
        self.masked(0..self.key_mask.dim(1), stream)
    }

    /// Some of the keys, by a mask. Looks at no data.
    pub(crate) fn masked(&self, keys: Range<i32>, stream: &StreamHandle) -> Result<Seen> {
        let (s, dtype) = (stream.raw(), Dtype::of(self.q));
        let count = |from: i32, to: i32| {
            let (from, to) = (f64::from(from), f64::from(to));
            mlx!(mlx_arange, from, to, 1.0, Dtype::S64.raw(), s)
        };
        let offset = mlx!(mlx_astype, self.offset.as_ptr(), Dtype::S64.raw(), s)?;
        let queries = count(0, self.q.dim(2))?;
        let query = mlx!(mlx_add, offset.as_ptr(), queries.as_ptr(), s)?;
        let query = mlx!(mlx_expand_dims, query.as_ptr(), 1, s)?;
        let key = count(keys.start, keys.end)?;
        let before = mlx!(mlx_less_equal, key.as_ptr(), query.as_ptr(), s)?;
        let there = cut(self.key_mask, 1, &keys, s)?;
        let there = ffi::reshape(&there, &[self.q.dim(0), 1, 1, keys.end - keys.start], s)?;
        let seen = mlx!(mlx_logical_and, there.as_ptr(), before.as_ptr(), s)?;
        let number = |number| create::scalar(self.op, Number::Float(number), dtype);
        let (zero, least) = (number(0.0)?, number(least(dtype))?);
        let mask = mlx!(mlx_where, seen.as_ptr(), zero.as_ptr(), least.as_ptr(), s)?;
        room::fits(self.op, &mask)?;
        let mask = Some(mask);
        Ok(Seen { keys, mask })
    }
}

/// What hides a key: the least number, which leaves a row that hides all of them the mean of the values. In
/// f16 the least number plus a score is beyond the type.
fn least(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => -32_752.0,
        Dtype::Bf16 => bf16::MIN.to_f64(),
        Dtype::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    }
}

/// What the kernel takes: queries, columns, and heads in all.
const FEW: i32 = 8;
const WIDEST: i32 = 256;
const MOST_HEADS: i64 = 1 << 16;

/// The threads of a block, as many as the 16 warps of the source.
const BLOCK: i32 = 512;

static CACHED: Source = Source {
    name: "cached_attention",
    inputs: &[c"q", c"k", c"v", c"key_mask", c"offset"],
    header: c"",
    ahead: "",
    text: include_str!("cached.cu.h"),
    in_rows: false,
    made: OnceCell::new(),
};

/// The operation where nobody looks at the arrays: over all keys, by a mask.
pub(crate) fn cached_attention(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let attention = CachedAttention::read(args)?;
    if let Some(attended) = attention.on_device(stream)? {
        return Ok(attended);
    }
    attention.attend(&attention.unseen(stream)?, stream)
}
