//! Kernels over rows of f32: softmax and the norms. Where there is no `x`, it is in the place of the output.

use crate::dispatch::for_each_level;
use crate::lanes::in_lanes;
use crate::math::{Exp, Unary};

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

/// Puts a row of `x` into the output's, where it stays in the nearest cache, unless it is there.
#[inline(always)]
fn load(x: Option<&[f32]>, number: usize, row: &mut [f32]) {
    if let Some(x) = x {
        row.copy_from_slice(&x[number * row.len()..(number + 1) * row.len()]);
    }
}

for_each_level! {
    /// Rows in which each number lies in proportion to its exponential, and which add up to one.
    pub fn softmax<; A>(x: Option<&[f32]>, output: &mut [f32], columns: usize) {
        for (number, row) in output.chunks_exact_mut(columns).enumerate() {
            load(x, number, row);
            let most = greatest(row);
            for x in row.iter_mut() {
                *x = Exp::near::<A>(*x - most);
            }
            let inverse = 1.0 / sum(row, |x| x);
            for x in row.iter_mut() {
                *x *= inverse;
            }
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

for_each_level! {
    /// `x * rsqrt(mean(x^2) + eps) * weight`.
    pub fn rms_norm(
        x: Option<&[f32]>,
        output: &mut [f32],
        columns: usize,
        weight: Option<&[f32]>,
        eps: f32,
    ) {
        for (number, row) in output.chunks_exact_mut(columns).enumerate() {
            load(x, number, row);
            let square = sum(row, |x| x * x) / columns as f32;
            let inverse = 1.0 / (square + eps).sqrt();
            scale(row, weight, None, |x| x * inverse);
        }
    }
}

for_each_level! {
    /// `(x - mean) * rsqrt(variance + eps) * weight + bias`.
    pub fn layer_norm(
        x: Option<&[f32]>,
        output: &mut [f32],
        columns: usize,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        eps: f32,
    ) {
        for (number, row) in output.chunks_exact_mut(columns).enumerate() {
            load(x, number, row);
            let mean = sum(row, |x| x) / columns as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / columns as f32;
            let inverse = 1.0 / (variance + eps).sqrt();
            scale(row, weight, bias, |x| (x - mean) * inverse);
        }
    }
}
