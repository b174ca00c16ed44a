//! Few rows times the rows of a packed matrix.

use std::hint::black_box;

use super::codes::{numbers, units, Decode};
use super::factors::{spread as spread_scales, Factors};
use super::{add, by_rows, Packed, LANES};
use crate::dispatch::{for_each_level, Level};
use crate::math::Arithmetic;
use crate::view::zeros;

/// Rows in the order in which the lanes take their numbers, and the sums of their groups.
struct Spread {
    rows: usize,
    blocks: usize,
    /// The numbers of a block at one place, for each place of each block of each row.
    numbers: Vec<[f32; LANES]>,
    sums: Vec<f32>,
}

impl Spread {
    fn of<D: Decode>(x: &[f32], packed: &Packed) -> Self {
        let blocks = (packed.columns / D::NUMBERS).div_ceil(LANES);
        let rows = x.len() / packed.columns;
        let mut numbers: Vec<[f32; LANES]> = zeros(rows * blocks * D::NUMBERS);
        let x = x.chunks_exact(packed.columns);
        let spread = numbers.chunks_exact_mut(blocks * D::NUMBERS);
        for (x, spread) in x.clone().zip(spread) {
            for (unit, x) in x.chunks_exact(D::NUMBERS).enumerate() {
                let block = &mut spread[unit / LANES * D::NUMBERS..][..D::NUMBERS];
                for (place, x) in block.iter_mut().zip(x) {
                    place[unit % LANES] = *x;
                }
            }
        }
        let group = |group: &[f32]| group.iter().map(|x| f64::from(*x)).sum::<f64>() as f32;
        let sums = x.flat_map(|x| x.chunks_exact(packed.packing.group).map(group));
        Spread {
            rows,
            blocks,
            numbers,
            sums: sums.collect(),
        }
    }

    fn row(&self, row: usize) -> &[[f32; LANES]] {
        let length = self.numbers.len() / self.rows;
        &self.numbers[row * length..][..length]
    }

    fn sums(&self, row: usize) -> &[f32] {
        let length = self.sums.len() / self.rows;
        &self.sums[row * length..][..length]
    }
}

pub(super) fn multiply<D: Decode>(level: Level, x: &[f32], packed: &Packed, output: &mut [f32]) {
    let spread = Spread::of::<D>(x, packed);
    let size = (packed.rows(), packed.columns);
    by_rows(spread.rows, size, output, |first, output| {
        part::<D>(level, &spread, packed, first, output)
    });
}

for_each_level! {
    /// The products of all rows with some of the matrix's, from one on.
    fn part<D: Decode; A>(spread: &Spread, packed: &Packed, first: usize, output: &mut [f32]) {
        let mut factors = Factors::of(packed);
        // A scale for each unit; lanes without numbers have zeros.
        let mut scales = vec![[0.0; LANES]; spread.blocks];
        let units = packed.packing.group / D::NUMBERS;
        for (i, output) in output.chunks_exact_mut(spread.rows).enumerate() {
            factors.read(packed, first + i);
            spread_scales(factors.scales.iter().copied(), units, &mut scales);
            let words = packed.words(first + i);
            let mut row = 0;
            while row + 4 <= spread.rows {
                dots::<D, A, 4>(spread, row, words, &scales, &factors.biases, &mut output[row..]);
                row += 4;
            }
            while row < spread.rows {
                dots::<D, A, 1>(spread, row, words, &scales, &factors.biases, &mut output[row..]);
                row += 1;
            }
        }
    }
}

/// The products of so many rows with one of the matrix's.
#[inline(always)]
fn dots<D: Decode, A: Arithmetic, const ROWS: usize>(
    spread: &Spread,
    first: usize,
    words: &[u32],
    scales: &[[f32; LANES]],
    biases: &[f32],
    output: &mut [f32],
) {
    let rows: [&[[f32; LANES]]; ROWS] = std::array::from_fn(|row| spread.row(first + row));
    let mut totals = [[0.0; LANES]; ROWS];
    for (block, scales) in scales.iter().enumerate() {
        let units = units::<D>(words, block);
        let rows = rows.map(|row| &row[block * D::NUMBERS..][..D::NUMBERS]);
        let mut sums = [[0.0; LANES]; ROWS];
        for place in 0..D::NUMBERS {
            let numbers = numbers::<D>(&units, place);
            for (sums, row) in sums.iter_mut().zip(&rows) {
                add::<A>(sums, &numbers, &row[place]);
            }
        }
        for (totals, sums) in totals.iter_mut().zip(&sums) {
            add::<A>(totals, sums, scales);
        }
    }
    for (row, totals) in totals.iter().enumerate() {
        let bias = bias::<A>(biases, spread.sums(first + row));
        output[row] = total(totals) + bias;
    }
}

/// What the biases add to a product.
#[inline(always)]
fn bias<A: Arithmetic>(biases: &[f32], sums: &[f32]) -> f32 {
    let mut totals = [0.0; LANES];
    let ((many, biases), (others, sums)) = (biases.as_chunks::<LANES>(), sums.as_chunks::<LANES>());
    for (biases, sums) in many.iter().zip(others) {
        add::<A>(&mut totals, biases, sums);
    }
    let rest = biases.iter().zip(sums);
    rest.fold(total(&totals), |total, (bias, sum)| {
        A::mul_add_single(*bias, *sum, total)
    })
}

#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f32 {
    // Else the compiler makes the lanes pairs, which are added first, where they are filled.
    let mut lanes = black_box(*lanes);
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}
