//! Few rows times the columns of a packed matrix.

use super::codes::{numbers, units, Decode};
use super::factors::spread;
use super::{add, Packed, LANES, PART};
use crate::dispatch::{for_each_level, Level};
use crate::pool;
use crate::view::zeros;

/// The columns of a part are at least so many: their totals stay in the nearest cache, and a row's scales are read once
/// for all.
const WIDTH: usize = 1024;

pub(super) fn multiply<D: Decode>(level: Level, x: &[f32], packed: &Packed, output: &mut [f32]) {
    let (inner, columns) = (packed.rows(), packed.columns);
    let rows = x.len() / inner;
    // Whole blocks and whole groups, both of which are powers of two.
    let unit = (LANES * D::NUMBERS).max(packed.packing.group);
    let width = (PART / inner).max(WIDTH).next_multiple_of(unit);
    if rows == 1 {
        return pool::each_part(output, width, |i, output| {
            part::<D>(level, x, packed, i * width, output)
        });
    }
    // Parts that are apart, each with its columns of all rows.
    let mut parts = zeros(output.len());
    pool::each_part(&mut parts, width * rows, |i, parts| {
        let length = parts.len() / rows;
        for (x, part_of) in x.chunks_exact(inner).zip(parts.chunks_exact_mut(length)) {
            part::<D>(level, x, packed, i * width, part_of);
        }
    });
    for (i, parts) in parts.chunks(width * rows).enumerate() {
        let length = parts.len() / rows;
        for (row, part) in parts.chunks_exact(length).enumerate() {
            output[row * columns + i * width..][..length].copy_from_slice(part);
        }
    }
}

for_each_level! {
    /// A row times some columns, from one on.
    fn part<D: Decode; A>(x: &[f32], packed: &Packed, first: usize, output: &mut [f32]) {
        let group = packed.packing.group;
        let groups = first / group..(first + output.len()) / group;
        let blocks = output.len().div_ceil(LANES * D::NUMBERS);
        let mut factors = zeros(groups.len());
        // What the biases of each group add.
        let mut shifts = zeros(groups.len());
        let mut scales = zeros(blocks);
        let mut totals = zeros(blocks * D::NUMBERS);
        for (row, x) in x.iter().enumerate() {
            if packed.biases(row, groups.clone(), &mut factors) {
                for (shift, bias) in shifts.iter_mut().zip(&factors) {
                    *shift = A::mul_add_single(*x, *bias, *shift);
                }
            }
            packed.scales(row, groups.clone(), &mut factors);
            spread(factors.iter().map(|scale| x * scale), group / D::NUMBERS, &mut scales);
            let words = &packed.words(row)[first * D::BITS / 32..][..output.len() * D::BITS / 32];
            let totals = totals.chunks_exact_mut(D::NUMBERS);
            for (block, (scales, totals)) in scales.iter().zip(totals).enumerate() {
                let units = units::<D>(words, block);
                for (place, totals) in totals.iter_mut().enumerate() {
                    add::<A>(totals, &numbers::<D>(&units, place), scales);
                }
            }
        }
        for (unit, output) in output.chunks_exact_mut(D::NUMBERS).enumerate() {
            let (block, lane) = (unit / LANES, unit % LANES);
            let shift = shifts[unit * D::NUMBERS / group];
            for (out, totals) in output.iter_mut().zip(&totals[block * D::NUMBERS..]) {
                *out = totals[lane] + shift;
            }
        }
    }
}
