//! Kernels over rows: softmax and the norms. Where there is no `x`, it is in the place of the output. Floats of 16 bits are
//! computed in f32 and rounded once.

use crate::dispatch::{for_each_level, Level};
use crate::lanes::in_lanes;
use crate::math::{Exp, Unary};
use crate::pool;
use crate::real::{widened, Real};

/// Sums are taken in so many lanes.
const LANES: usize = 32;
/// So many elements are worth another thread, as each takes longer than elsewhere.
const PART: usize = pool::PART / 2;

#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    if x.len() < LANES {
        return x.iter().fold(0.0, |total, x| total + f(*x));
    }
    let (mut lanes, rest) = in_lanes(x, [0.0; LANES], |total, x| total + f(x));
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f(*x);
    }
    lanes.iter().fold(0.0, |total, lane| total + lane)
}

/// NaN goes through.
#[inline(always)]
pub(crate) fn greater(a: f32, b: f32) -> f32 {
    let greater = if b > a { b } else { a };
    if b.is_nan() {
        b
    } else {
        greater
    }
}

#[inline(always)]
pub(crate) fn greatest(x: &[f32]) -> f32 {
    let (lanes, rest) = in_lanes(x, [x[0]; LANES], greater);
    lanes
        .iter()
        .chain(rest)
        .fold(x[0], |most, x| greater(most, *x))
}

/// A row of the output with the numbers of `x`, in the output's place, where it stays in the nearest cache, or in one of
/// f32. What is done with it is no closure: that would be compiled without the instructions of the level.
#[inline(always)]
fn begin<'a, T: Real>(
    x: Option<&[T]>,
    number: usize,
    out: &'a mut [T],
    wide: &'a mut Vec<f32>,
) -> &'a mut [f32] {
    if let Some(x) = x {
        let columns = out.len();
        out.copy_from_slice(&x[number * columns..(number + 1) * columns]);
    }
    if T::as_wide(out).is_none() {
        wide.clear();
        wide.extend(out.iter().map(|x| x.wide()));
    }
    T::as_wide_mut(out).unwrap_or(wide)
}

/// Rounds a row of f32 that is not in its place.
#[inline(always)]
fn end<T: Real>(out: &mut [T], wide: &[f32]) {
    if T::as_wide(out).is_none() {
        for (out, x) in out.iter_mut().zip(wide) {
            *out = T::narrow(*x);
        }
    }
}

/// Cuts rows into parts for the pool's threads.
fn in_parts<T: Real>(
    x: Option<&[T]>,
    output: &mut [T],
    columns: usize,
    part: impl Fn(Option<&[T]>, &mut [T]) + Sync,
) {
    let size = (PART / columns).max(1) * columns;
    pool::each_part(output, size, |at, output| {
        let start = at * size;
        part(x.map(|x| &x[start..start + output.len()]), output);
    });
}

/// Rows in which each number lies in proportion to its exponential, and which add up to one.
pub fn softmax<T: Real>(level: Level, x: Option<&[T]>, output: &mut [T], columns: usize) {
    in_parts(x, output, columns, |x, output| {
        softmax_rows(level, x, output, columns);
    });
}

for_each_level! {
    fn softmax_rows<T: Real; A>(x: Option<&[T]>, output: &mut [T], columns: usize) {
        let mut wide = Vec::new();
        for (number, out) in output.chunks_exact_mut(columns).enumerate() {
            let row = begin(x, number, out, &mut wide);
            let most = greatest(row);
            for x in row.iter_mut() {
                *x = Exp::near::<A>(*x - most);
            }
            let inverse = 1.0 / sum(row, |x| x);
            for x in row.iter_mut() {
                *x *= inverse;
            }
            end(out, &wide);
        }
    }
}

#[inline(always)]
fn scale(row: &mut [f32], weight: Option<&[f32]>, bias: Option<&[f32]>, f: impl Fn(f32) -> f32) {
    match (weight, bias) {
        (Some(weight), Some(bias)) => {
            for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                *x = f(*x) * weight + bias;
            }
        }
        (Some(weight), None) => {
            for (x, weight) in row.iter_mut().zip(weight) {
                *x = f(*x) * weight;
            }
        }
        (None, Some(bias)) => {
            for (x, bias) in row.iter_mut().zip(bias) {
                *x = f(*x) + bias;
            }
        }
        (None, None) => {
            for x in row.iter_mut() {
                *x = f(*x);
            }
        }
    }
}

/// `x * rsqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm<T: Real>(
    level: Level,
    x: Option<&[T]>,
    output: &mut [T],
    columns: usize,
    weight: Option<&[T]>,
    eps: f32,
) {
    in_parts(x, output, columns, |x, output| {
        rms_norm_rows(level, x, output, columns, weight, eps);
    });
}

for_each_level! {
    fn rms_norm_rows<T: Real>(
        x: Option<&[T]>,
        output: &mut [T],
        columns: usize,
        weight: Option<&[T]>,
        eps: f32,
    ) {
        let weight = weight.map(widened);
        let mut wide = Vec::new();
        for (number, out) in output.chunks_exact_mut(columns).enumerate() {
            let row = begin(x, number, out, &mut wide);
            let square = sum(row, |x| x * x) / columns as f32;
            let inverse = 1.0 / (square + eps).sqrt();
            scale(row, weight.as_deref(), None, |x| x * inverse);
            end(out, &wide);
        }
    }
}

/// `(x - mean) * rsqrt(variance + eps) * weight + bias`.
pub fn layer_norm<T: Real>(
    level: Level,
    x: Option<&[T]>,
    output: &mut [T],
    columns: usize,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f32,
) {
    in_parts(x, output, columns, |x, output| {
        layer_norm_rows(level, x, output, columns, (weight, bias), eps);
    });
}

for_each_level! {
    fn layer_norm_rows<T: Real>(
        x: Option<&[T]>,
        output: &mut [T],
        columns: usize,
        vectors: (Option<&[T]>, Option<&[T]>),
        eps: f32,
    ) {
        let (weight, bias) = (vectors.0.map(widened), vectors.1.map(widened));
        let mut wide = Vec::new();
        for (number, out) in output.chunks_exact_mut(columns).enumerate() {
            let row = begin(x, number, out, &mut wide);
            let mean = sum(row, |x| x) / columns as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / columns as f32;
            let inverse = 1.0 / (variance + eps).sqrt();
            scale(row, weight.as_deref(), bias.as_deref(), |x| (x - mean) * inverse);
            end(out, &wide);
        }
    }
}
