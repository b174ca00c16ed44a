//! Attention: on a CPU a kernel of Emily's own, and MLX's where there are no kernels, and of f64. MLX composes it there of
//! all scores, so it goes in pieces where these would take much memory.

pub(crate) mod cached;
pub(crate) mod seen;
mod streaming;

use std::ops::Range;

use mlx_rs::fast::{self, ScaledDotProductAttentionMask};
use mlx_rs::Array;

use crate::ops::args::{Args, Mask};
use crate::ops::checks::real_float;
use crate::ops::create;
use crate::ops::shape;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx, Arrays, Stream};
use crate::runtime::stream::StreamHandle;

/// `{:attention, q, k, v, scale, mask, sinks}`
pub(crate) fn attention(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (q, k, v) = (args.array()?, args.array()?, args.array()?);
    let (scale, mask, sinks) = (args.float()?, args.mask()?, args.optional_array()?);
    attend(q, k, v, scale, mask, sinks, stream)
}

/// `softmax(scale * q k^T + mask) v`, with `sinks` in the softmax's denominator.
pub(crate) fn attend(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f64,
    mask: Mask,
    sinks: Option<&Array>,
    stream: &StreamHandle,
) -> Result<Array> {
    fits(q, k, v)?;
    if let Mask::Array(mask) = &mask {
        let wanted = [q.dim(0), q.dim(1), q.dim(2), k.dim(2)];
        let given = mask.shape();
        let fits = given.len() <= 4
            && given
                .iter()
                .rev()
                .zip(wanted.iter().rev())
                .all(|(size, full)| *size == 1 || size == full);
        if !fits {
            refuse!("attention: a mask of shape {given:?} does not broadcast to {wanted:?}")
        }
    }
    if let Some(sinks) = sinks {
        real_float("attention", "sinks", sinks)?;
        if sinks.shape() != [q.dim(1)] {
            refuse!(
                "attention: sinks must have shape [{}], got {:?}",
                q.dim(1),
                sinks.shape()
            )
        }
    }
    if let Some(result) = streaming::attend(q, k, v, scale, &mask, sinks, stream)? {
        return Ok(result);
    }
    in_pieces(q, k, mask, stream, |q, mask| {
        whole_attention(q, k, v, scale, mask, sinks, stream)
    })
}

/// Refuses queries, keys and values that do not fit together.
fn fits(q: &Array, k: &Array, v: &Array) -> Result<()> {
    let shapes = || format!("{:?}, {:?} and {:?}", q.shape(), k.shape(), v.shape());
    for (name, array) in [("q", q), ("k", k), ("v", v)] {
        real_float("attention", name, array)?;
        if array.ndim() != 4 {
            refuse!(
                "attention: {name} must have shape [batch, heads, seq, head_dim], got {}",
                shapes()
            )
        }
    }
    let batches = q.dim(0) == k.dim(0) && q.dim(0) == v.dim(0);
    let heads = k.dim(1) == v.dim(1) && q.dim(1) % k.dim(1) == 0;
    if !batches || !heads || q.dim(3) != k.dim(3) || k.dim(2) != v.dim(2) {
        refuse!("attention: shapes {} do not fit together", shapes())
    }
    Ok(())
}

/// MLX's attention on arrays that fit together, whose scores fit memory.
fn whole_attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f64,
    mask: Mask,
    sinks: Option<&Array>,
    stream: &StreamHandle,
) -> Result<Array> {
    let contiguous = |array: &Array| mlx!(mlx_contiguous, array.as_ptr(), false, stream.raw());
    // The CUDA kernel reads them in a row, whatever their strides.
    let sinks = sinks.map(contiguous).transpose()?;
    let array = match &mask {
        Mask::Array(array) if stream.is_gpu() => Some(bounded(array, stream)?),
        Mask::Array(array) => Some((*array).clone()),
        _ => None,
    };
    let mask = match (&mask, &array) {
        (Mask::Causal, _) => Some(ScaledDotProductAttentionMask::Causal),
        (_, Some(array)) => Some(ScaledDotProductAttentionMask::Array(array)),
        _ => None,
    };
    stream.on(|| fast::scaled_dot_product_attention(q, k, v, scale as f32, mask, sinks.as_ref()))
}

/// A mask that cuDNN can multiply by the logarithm of two: with the least numbers of bf16, which f32 has too, it
/// gives infinities, and a row that hides all keys is not the mean of the values.
fn bounded(mask: &Array, stream: &StreamHandle) -> Result<Array> {
    if Dtype::of(mask) != Dtype::Bf16 {
        return Ok(mask.clone());
    }
    let least = create::number_like("attention", -1.69e38, mask)?;
    call(mlx_sys::mlx_maximum, mask, &least, stream.raw())
}

/// Scores up to so many bytes are computed at once on a CPU. More are computed for as many queries at a time as have
/// `PIECE` of them, in `MOST_PIECES` pieces at most.
const AT_ONCE: i64 = 1 << 30;
const PIECE: i64 = 64 << 20;
const MOST_PIECES: i64 = 2048;

/// `attend` on queries and their mask: all of them, or one piece after the other.
fn in_pieces(
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
    if bytes <= AT_ONCE || !stream.is_cpu() {
        return attend(q, mask);
    }
    let rows = (PIECE / each).max(1);
    if i64::from(queries) > rows * MOST_PIECES {
        refuse!(
            "attention: the scores of {queries} queries and {keys} keys take {bytes} bytes, more than {MOST_PIECES} pieces of {}",
            rows * each
        )
    }
    by_rows(q, keys, mask, rows as i32, stream.raw(), attend)
}

/// `attend` on `rows` queries at a time.
fn by_rows(
    q: &Array,
    keys: i32,
    mask: Mask,
    rows: i32,
    s: Stream,
    attend: impl Fn(&Array, Mask) -> Result<Array>,
) -> Result<Array> {
    let queries = q.dim(2);
    let mut pieces: Vec<Array> = Vec::new();
    for from in (0..queries).step_by(rows as usize) {
        let range = from..queries.min(from.saturating_add(rows));
        let mut q = shape::cut(q, 2, &range, s)?;
        // MLX would have many pieces on their way at once.
        if let Some(last) = pieces.last() {
            q = ffi::behind(&q, std::slice::from_ref(last))?;
        }
        let part = match &mask {
            Mask::None => None,
            Mask::Causal => Some(seen(&range, keys - queries, keys, s)?),
            Mask::Array(mask) => {
                let axis = mask.ndim() as i32 - 2;
                let for_all = axis < 0 || mask.dim(axis) == 1;
                let whole = || Ok((*mask).clone());
                Some(if for_all {
                    whole()
                } else {
                    shape::cut(mask, axis, &range, s)
                }?)
            }
        };
        pieces.push(attend(&q, part.as_ref().map_or(Mask::None, Mask::Array))?);
    }
    let pieces = Arrays::new(&pieces)?;
    mlx!(mlx_concatenate_axis, pieces.as_ptr(), 2, s)
}

/// The causal mask of some queries: the key `last` is the one that the first query of all sees last.
fn seen(queries: &Range<i32>, last: i32, keys: i32, s: Stream) -> Result<Array> {
    let count = |from: i32, to: i32| {
        let (from, to) = (f64::from(from), f64::from(to));
        mlx!(mlx_arange, from, to, 1.0, Dtype::S32.raw(), s)
    };
    let query = count(queries.start + last, queries.end + last)?;
    let query = mlx!(mlx_expand_dims, query.as_ptr(), 1, s)?;
    let key = count(0, keys)?;
    mlx!(mlx_less_equal, key.as_ptr(), query.as_ptr(), s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::create::from_bytes;
    use crate::runtime::contiguous;
    use crate::runtime::device::Device;

    const QUERIES: usize = 5;
    const KEYS: usize = 7;

    fn floats(count: usize, seed: usize) -> Vec<f32> {
        let number = |i| ((i * 37 + seed) % 23) as f32 / 8.0 - 1.0;
        (0..count).map(number).collect()
    }

    fn array(values: &[f32], shape: &[i64]) -> Array {
        let bytes: Vec<u8> = values.iter().flat_map(|one| one.to_ne_bytes()).collect();
        from_bytes(&bytes, shape, Dtype::F32).expect("they fill the shape")
    }

    /// One head of two entries a query and a key, by loops; `hides` adds to the scores.
    fn by_loops(q: &[f32], k: &[f32], v: &[f32], hides: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let mut results = Vec::new();
        for i in 0..QUERIES {
            let score = |j: usize| {
                let product = |e| f64::from(q[2 * i + e]) * f64::from(k[2 * j + e]);
                0.5 * (product(0) + product(1)) + hides(i, j)
            };
            let weights: Vec<f64> = (0..KEYS).map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            for e in 0..2 {
                let value = |j: usize| weights[j] / total * f64::from(v[2 * j + e]);
                results.push((0..KEYS).map(value).sum());
            }
        }
        results
    }

    #[test]
    fn pieces_are_the_whole() {
        let stream = StreamHandle::default_on(Device::Cpu).expect("there is a CPU");
        let (q, k, v) = (floats(10, 1), floats(14, 5), floats(14, 11));
        let shape = |rows: usize| [1, 1, rows as i64, 2];
        let arrays = [
            array(&q, &shape(QUERIES)),
            array(&k, &shape(KEYS)),
            array(&v, &shape(KEYS)),
        ];
        let added = floats(QUERIES * KEYS, 3);
        let full = array(&added, &[QUERIES as i64, KEYS as i64]);
        let one_row = array(&added[..KEYS], &[1, KEYS as i64]);
        let check = |mask: for<'a> fn(&'a Array) -> Mask<'a>, given: &Array, expected: Vec<f64>| {
            for rows in [1, 2, 3, 5, 6] {
                let [q, k, v] = &arrays;
                let attend =
                    |q: &Array, mask: Mask| whole_attention(q, k, v, 0.5, mask, None, stream);
                let result = by_rows(q, KEYS as i32, mask(given), rows, stream.raw(), attend)
                    .expect("they fit together");
                stream
                    .compute(std::slice::from_ref(&result), false)
                    .expect("it is computed");
                let result = contiguous::readable(&result, stream).expect("a copy");
                stream
                    .compute(std::slice::from_ref(&result), false)
                    .expect("it is computed");
                for (got, wanted) in result.as_slice::<f32>().iter().zip(&expected) {
                    assert!(
                        (f64::from(*got) - wanted).abs() < 1e-5,
                        "{got} for {wanted}"
                    );
                }
            }
        };
        check(|_| Mask::None, &full, by_loops(&q, &k, &v, |_, _| 0.0));
        let causal = by_loops(&q, &k, &v, |i, j| match j > i + KEYS - QUERIES {
            true => f64::NEG_INFINITY,
            false => 0.0,
        });
        check(|_| Mask::Causal, &full, causal);
        let each = by_loops(&q, &k, &v, |i, j| added[i * KEYS + j].into());
        check(|mask| Mask::Array(mask), &full, each);
        let same = by_loops(&q, &k, &v, |_, j| added[j].into());
        check(|mask| Mask::Array(mask), &one_row, same);
    }
}
