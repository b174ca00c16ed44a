//! Few rows times the rows of a matrix of blocks, each block where it lies.

use super::dots::{for_each_dots, Block, Dots, CODES, GROUPS};
use super::matrix::Blocks;
use super::rounded::{Rounded, HIGHER};

for_each_dots! {
    /// The products of all rows with some of the matrix's, from one on.
    pub(super) fn part<B: Block; dots>(x: &Rounded, blocks: &Blocks, first: usize, output: &mut [f32]) {
        let rows = x.rows / 2;
        for (i, output) in output.chunks_exact_mut(rows).enumerate() {
            let bytes = blocks.row(first + i);
            let mut row = 0;
            while row + 2 <= rows {
                products::<B, _, 2>(dots, x, row, bytes, &mut output[row..]);
                row += 2;
            }
            if row < rows {
                products::<B, _, 1>(dots, x, row, bytes, &mut output[row..]);
            }
        }
    }
}

/// What of a row is multiplied with one of the matrix's: its higher integers and its lower ones.
struct Row<'a> {
    codes: [&'a [[i8; CODES]]; 2],
    /// Of the lower ones.
    scales: &'a [f32],
    starts: [&'a [i32]; 2],
    sums: [&'a [f32]; 2],
}

/// The products of so many rows with one of the matrix's.
#[inline(always)]
fn products<B: Block, D: Dots, const ROWS: usize>(
    dots: D,
    x: &Rounded,
    first: usize,
    bytes: &[u8],
    output: &mut [f32],
) {
    let (groups, sets) = (CODES / B::GROUP, B::NUMBERS / CODES);
    let count = bytes.len() / B::BYTES * sets;
    let rows: [Row; ROWS] = std::array::from_fn(|row| {
        let pair = [2 * (first + row), 2 * (first + row) + 1];
        Row {
            codes: pair.map(|row| &x.row(&x.codes, row).as_chunks().0[..count]),
            scales: &x.row(&x.scales, pair[1])[..count],
            starts: pair.map(|row| &x.row(&x.starts, row)[..count * groups]),
            sums: pair.map(|row| &x.row(&x.sums, row)[..count * groups]),
        }
    });
    let (mut scales, mut least) = ([0.0; GROUPS], [0.0; GROUPS]);
    let mut totals = [dots.none(); ROWS];
    let mut shifts = [0.0; ROWS];
    for (at, block) in bytes.chunks_exact(B::BYTES).enumerate() {
        B::factors(dots, block, &mut scales, &mut least);
        for set in 0..sets {
            let codes = B::codes(dots, block, set);
            for ((row, total), shift) in rows.iter().zip(&mut totals).zip(&mut shifts) {
                let here = at * sets + set;
                let shared = row.scales[here];
                // The groups of both halves, which may be one.
                let halves = [0, groups - 1];
                let starts = match (B::OFFSET, groups) {
                    (0, _) => [0; 2],
                    (_, 1) => [start(row, here), 0],
                    _ => halves.map(|half| start(row, here * groups + half)),
                };
                let scales = halves.map(|half| scales[set * groups + half] * shared);
                *total = dots.add::<B>(
                    *total,
                    codes,
                    row.codes.map(|codes| &codes[here]),
                    starts,
                    scales,
                );
                if B::LEAST {
                    for half in 0..groups {
                        let sum = row.sums.map(|sums| sums[here * groups + half]);
                        let least = least[set * groups + half];
                        *shift = dots.mul_add(least, sum[0] + sum[1], *shift);
                    }
                }
            }
        }
    }
    for (output, (total, shift)) in output.iter_mut().zip(totals.into_iter().zip(shifts)) {
        *output = dots.total(total) - shift;
    }
}

/// What the blocks' offset makes of both integers of a group.
#[inline(always)]
fn start(row: &Row, group: usize) -> i32 {
    let [high, low] = row.starts.map(|starts| starts[group]);
    high * HIGHER + low
}
