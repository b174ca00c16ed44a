//! Few rows times the columns of a packed matrix.

use super::codes::{numbers, units, Decode, MOST_NUMBERS};
use super::{Packed, LANES, PART};
use crate::dispatch::{for_each_level, Level};
use crate::math::Arithmetic;
use crate::pool;

pub(super) fn multiply<D: Decode>(level: Level, x: &[f32], packed: &Packed, output: &mut [f32]) {
    let (inner, columns) = (packed.rows(), packed.columns);
    // Columns that the lanes of some blocks have.
    let block = LANES * D::NUMBERS;
    let width = (PART / inner).max(1).next_multiple_of(block);
    let rows = x.len() / inner;
    if rows == 1 {
        return pool::each_chunk(output, width, |i, output| {
            part::<D>(level, x, packed, i * width, output)
        });
    }
    // Parts that are apart, each with its columns of all rows.
    let mut parts = vec![0.0; output.len()];
    pool::each_chunk(&mut parts, width * rows, |i, part_of| {
        let width = part_of.len() / rows;
        for (x, output) in x.chunks_exact(inner).zip(part_of.chunks_exact_mut(width)) {
            part::<D>(
                level,
                x,
                packed,
                i * (PART / inner).max(1).next_multiple_of(block),
                output,
            );
        }
    });
    for (i, part) in parts.chunks(width * rows).enumerate() {
        let length = part.len() / rows;
        for (row, part) in part.chunks_exact(length).enumerate() {
            output[row * columns + i * width..][..length].copy_from_slice(part);
        }
    }
}

for_each_level! {
    /// A row times some columns, from one on.
    fn part<D: Decode; A>(x: &[f32], packed: &Packed, first: usize, output: &mut [f32]) {
        let block = LANES * D::NUMBERS;
        for (i, output) in output.chunks_mut(block).enumerate() {
            block_of_columns::<D, A>(x, packed, first / block + i, output);
        }
    }
}

#[inline(always)]
fn block_of_columns<D: Decode, A: Arithmetic>(
    x: &[f32],
    packed: &Packed,
    block: usize,
    output: &mut [f32],
) {
    let a_group = packed.packing.group / D::NUMBERS;
    let count = output.len() / D::NUMBERS;
    // The groups of the block's lanes.
    let groups = block * LANES / a_group..(block * LANES + count).div_ceil(a_group);
    let mut factors = [0.0; LANES];
    let factors = &mut factors[..groups.len()];
    let mut totals = [[0.0; LANES]; MOST_NUMBERS];
    let mut shifts = [0.0; LANES];
    for (row, x) in x.iter().enumerate() {
        let mut scaled = [0.0; LANES];
        packed.scales(row, groups.clone(), factors);
        for (lanes, scale) in scaled[..count].chunks_mut(a_group).zip(&*factors) {
            lanes.fill(x * scale);
        }
        if packed.biases(row, groups.clone(), factors) {
            for (lanes, bias) in shifts[..count].chunks_mut(a_group).zip(&*factors) {
                for lane in lanes {
                    *lane = A::mul_add_single(*x, *bias, *lane);
                }
            }
        }
        let units = units::<D>(packed.words(row), block);
        for (place, totals) in totals[..D::NUMBERS].iter_mut().enumerate() {
            let numbers = numbers::<D>(&units, place);
            for lane in 0..LANES {
                totals[lane] = A::mul_add_single(numbers[lane], scaled[lane], totals[lane]);
            }
        }
    }
    for (lane, output) in output.chunks_exact_mut(D::NUMBERS).enumerate() {
        for (place, out) in output.iter_mut().enumerate() {
            *out = totals[place][lane] + shifts[lane];
        }
    }
}
