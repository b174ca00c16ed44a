//! Few rows times the rows of a matrix of blocks, each block where it lies.

use super::blocks::Blocks;
use super::dots::{for_each_dots, Dots, CODES};
use super::formats::{Block, GROUPS};
use super::rounded::Rounded;

for_each_dots! {
    /// The products of all rows with some of the matrix's, from one on.
    pub(super) fn part<B: Block; dots>(x: &Rounded, blocks: &Blocks, first: usize, output: &mut [f32]) {
        for (i, output) in output.chunks_exact_mut(x.rows).enumerate() {
            let bytes = blocks.row(first + i);
            let mut row = 0;
            while row + 4 <= x.rows {
                products::<B, _, 4>(dots, x, row, bytes, &mut output[row..]);
                row += 4;
            }
            // They come in pairs.
            while row < x.rows {
                products::<B, _, 2>(dots, x, row, bytes, &mut output[row..]);
                row += 2;
            }
        }
    }
}

/// What of a row is multiplied with one of the matrix's.
struct Row<'a> {
    codes: &'a [[i8; CODES]],
    scales: &'a [f32],
    starts: &'a [i32],
    sums: &'a [f32],
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
    let rows: [Row; ROWS] = std::array::from_fn(|row| Row {
        codes: &x.row(&x.codes, first + row).as_chunks().0[..count],
        scales: &x.row(&x.scales, first + row)[..count],
        starts: &x.row(&x.starts, first + row)[..count * groups],
        sums: &x.row(&x.sums, first + row)[..count * groups],
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
                    (_, 1) => [row.starts[here], 0],
                    _ => halves.map(|half| row.starts[here * groups + half]),
                };
                let scales = halves.map(|half| scales[set * groups + half] * shared);
                *total = dots.add::<B>(*total, codes, &row.codes[here], starts, scales);
                if B::LEAST {
                    for half in 0..groups {
                        let (least, sum) =
                            (least[set * groups + half], row.sums[here * groups + half]);
                        *shift = dots.mul_add(least, sum, *shift);
                    }
                }
            }
        }
    }
    for (output, (total, shift)) in output.iter_mut().zip(totals.into_iter().zip(shifts)) {
        *output = dots.total(total) - shift;
    }
}
