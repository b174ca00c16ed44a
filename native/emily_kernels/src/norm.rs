//! Kernels over rows: softmax and the norms. Where there is no `x`, it is in the place of the output. Floats of 16 bits are
//! computed in f32 and rounded once.

use crate::dispatch::for_each_level;
use crate::lanes::in_lanes;
use crate::math::{Exp, Unary};
use crate::real::{widened, Real};

/// Sums are taken in so many lanes.
const LANES: usize = 16;

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
    if (a > b) | a.is_nan() {
        a
    } else {
        b
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

/// Computes each row of the output from that of `x`, in the output's place, where it stays in the nearest cache, or in one
/// of f32.
#[inline(always)]
fn by_row<T: Real>(
    x: Option<&[T]>,
    output: &mut [T],
    columns: usize,
    compute: impl Fn(&mut [f32]),
) {
    let mut wide = Vec::new();
    for (number, out) in output.chunks_exact_mut(columns).enumerate() {
        if let Some(x) = x {
            out.copy_from_slice(&x[number * columns..(number + 1) * columns]);
        }
        if let Some(row) = T::as_wide_mut(out) {
            compute(row);
            continue;
        }
        wide.clear();
        wide.extend(out.iter().map(|x| x.wide()));
        compute(&mut wide);
        for (out, x) in out.iter_mut().zip(&wide) {
            *out = T::narrow(*x);
        }
    }
}

for_each_level! {
    /// Rows in which each number lies in proportion to its exponential, and which add up to one.
    pub fn softmax<T: Real; A>(x: Option<&[T]>, output: &mut [T], columns: usize) {
        by_row(x, output, columns, |row| {
            let most = greatest(row);
            for x in row.iter_mut() {
                *x = Exp::near::<A>(*x - most);
            }
            let inverse = 1.0 / sum(row, |x| x);
            for x in row.iter_mut() {
                *x *= inverse;
            }
        });
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

for_each_level! {
    /// `x * rsqrt(mean(x^2) + eps) * weight`.
    pub fn rms_norm<T: Real>(
        x: Option<&[T]>,
        output: &mut [T],
        columns: usize,
        weight: Option<&[T]>,
        eps: f32,
    ) {
        let weight = weight.map(widened);
        by_row(x, output, columns, |row| {
            let square = sum(row, |x| x * x) / columns as f32;
            let inverse = 1.0 / (square + eps).sqrt();
            scale(row, weight.as_deref(), None, |x| x * inverse);
        });
    }
}

for_each_level! {
    /// `(x - mean) * rsqrt(variance + eps) * weight + bias`.
    pub fn layer_norm<T: Real>(
        x: Option<&[T]>,
        output: &mut [T],
        columns: usize,
        weight: Option<&[T]>,
        bias: Option<&[T]>,
        eps: f32,
    ) {
        let (weight, bias) = (weight.map(widened), bias.map(widened));
        by_row(x, output, columns, |row| {
            let mean = sum(row, |x| x) / columns as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / columns as f32;
            let inverse = 1.0 / (variance + eps).sqrt();
            scale(row, weight.as_deref(), bias.as_deref(), |x| (x - mean) * inverse);
        });
    }
}
