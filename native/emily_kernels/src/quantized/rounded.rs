//! Rows rounded to integers of 15 bits, each of which is two of 8 bits.

use super::dots::Block;
use crate::dispatch::{for_each_level, Level};
use crate::view::zeros;

/// So many numbers share a scale.
pub(super) const SHARED: usize = 32;
/// What the higher of two integers counts for.
pub(super) const HIGHER: i32 = 1 << HIGHER_BITS;
pub(super) const HIGHER_BITS: i32 = 7;
/// The greatest integer: its higher one is 127.
const GREATEST_CODE: f32 = 16_256.0;
/// A float whose last digit is one, amid others.
const NEAREST: f32 = 12_582_912.0;

pub(super) struct Rounded {
    /// Two for each that was given, whose products are added: of its higher integers, and of its lower ones.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) codes: Vec<i8>,
    /// One for every `SHARED` codes.
    pub(super) scales: Vec<f32>,
    /// The sum of each group of a block, scaled, and what the blocks' offset makes of it.
    pub(super) sums: Vec<f32>,
    pub(super) starts: Vec<i32>,
}

impl Rounded {
    pub(super) fn of<B: Block>(level: Level, x: &[f32], columns: usize) -> Self {
        let mut codes = zeros(2 * x.len());
        let mut scales = zeros(codes.len() / SHARED);
        let mut starts = zeros(codes.len() / B::GROUP);
        let mut sums = zeros(codes.len() / B::GROUP);
        let rows = codes.chunks_exact_mut(2 * columns);
        let rows = rows.zip(scales.chunks_exact_mut(2 * columns / SHARED));
        for (x, (codes, scales)) in x.chunks_exact(columns).zip(rows) {
            let (high, low) = codes.split_at_mut(columns);
            let (high_scales, low_scales) = scales.split_at_mut(columns / SHARED);
            round(level, x, high, low, low_scales);
            for (high, low) in high_scales.iter_mut().zip(low_scales) {
                *high = *low * HIGHER as f32;
            }
        }
        add_up::<B>(level, &codes, &mut starts);
        for (group, (start, sum)) in starts.iter_mut().zip(&mut sums).enumerate() {
            *sum = *start as f32 * scales[group * B::GROUP / SHARED];
            *start *= -B::OFFSET;
        }
        Rounded {
            rows: 2 * x.len() / columns,
            columns,
            codes,
            scales,
            sums,
            starts,
        }
    }

    /// The part of a row.
    pub(super) fn row<'a, T>(&self, each: &'a [T], row: usize) -> &'a [T] {
        let length = each.len() / self.rows;
        &each[row * length..][..length]
    }
}

for_each_level! {
    /// Rounds numbers to codes; the greatest of those that share a scale is without error.
    fn round(x: &[f32], high: &mut [i8], low: &mut [i8], scales: &mut [f32]) {
        let codes = high.chunks_exact_mut(SHARED).zip(low.chunks_exact_mut(SHARED));
        for ((x, (high, low)), scale) in x.chunks_exact(SHARED).zip(codes).zip(scales) {
            let greatest = greatest(x);
            *scale = greatest / GREATEST_CODE;
            let inverse = inverse(GREATEST_CODE, greatest);
            for ((high, low), x) in high.iter_mut().zip(low).zip(x) {
                let code = nearest(x * inverse);
                let higher = (code + HIGHER / 2).div_euclid(HIGHER);
                *high = higher as i8;
                *low = (code - higher * HIGHER) as i8;
            }
        }
    }
}

#[inline(always)]
pub(super) fn greatest(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (blocks, _) = x.as_chunks::<8>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            let size = x.abs();
            *lane = if size > *lane { size } else { *lane };
        }
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// What numbers are multiplied with, so that the greatest becomes the greatest code. Below what has an inverse, all are zero.
#[inline(always)]
pub(super) fn inverse(code: f32, greatest: f32) -> f32 {
    let inverse = if greatest > 0.0 { code / greatest } else { 0.0 };
    if inverse.is_finite() {
        inverse
    } else {
        0.0
    }
}

/// The nearest integer: the last digits of a sum with such a float.
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    (x + NEAREST).to_bits() as i32 - NEAREST.to_bits() as i32
}

for_each_level! {
    /// The sums of groups.
    fn add_up<B: Block>(codes: &[i8], sums: &mut [i32]) {
        for (codes, sum) in codes.chunks_exact(B::GROUP).zip(sums) {
            *sum = codes.iter().map(|code| i32::from(*code)).sum();
        }
    }
}
