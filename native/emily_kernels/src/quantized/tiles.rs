//! Many rows times the rows of a matrix of blocks, some of which stand side by side in a panel, their codes taken out.

use super::dots::{for_each_dots, Block, Dots, CODES, FACTORS};
use super::matrix::Blocks;
use super::rounded::{Strips, SHARED, STRIP};
use crate::dispatch::Level;
use crate::pool::{self, Shared};

/// So many of the matrix's rows are a part: whole panels on each level.
const PART: usize = 16;

pub(super) fn multiply<B: Block>(level: Level, x: &Strips, blocks: &Blocks, output: &mut [f32]) {
    let height = blocks.rows();
    let output = Shared::of(output);
    pool::each(height.div_ceil(PART), |i| {
        let end = height.min((i + 1) * PART);
        part::<B>(level, x, blocks, i * PART, end, &output)
    });
}

for_each_dots! {
    /// The products of all rows with some of the matrix's, whose places in the output nobody else has.
    fn part<B: Block; dots>(x: &Strips, blocks: &Blocks, first: usize, end: usize, output: &Shared<f32>) {
        panels::<B, _>(dots, x, blocks, (first, end), output)
    }
}

#[inline(always)]
fn panels<B: Block, D: Dots>(
    dots: D,
    x: &Strips,
    blocks: &Blocks,
    (first, end): (usize, usize),
    output: &Shared<f32>,
) {
    let height = blocks.rows();
    let mut panel = Panel::new::<B, D>(blocks.columns);
    for first in (first..end).step_by(D::LANES) {
        let count = D::LANES.min(end - first);
        for lane in 0..count {
            panel.fill::<B, D>(dots, lane, blocks.row(first + lane));
        }
        let mut put = |row: usize, products: D::Floats| {
            if row < x.rows {
                let mut lanes = [0.0; PART];
                dots.put(products, &mut lanes[..D::LANES]);
                // SAFETY: these places are this part's alone.
                let output = unsafe { output.part(row * height + first, count) };
                output.copy_from_slice(&lanes[..count]);
            }
        };
        for strip in 0..x.rows.div_ceil(STRIP) {
            for row in (0..STRIP).step_by(D::ROWS) {
                let at = (strip, row);
                match D::ROWS {
                    8 => tile::<B, D, 8>(dots, &panel, x, at, &mut put),
                    _ => tile::<B, D, 4>(dots, &panel, x, at, &mut put),
                }
            }
        }
    }
}

/// Rows of the matrix side by side.
struct Panel {
    /// Four codes of each row, for each four.
    codes: Vec<u8>,
    /// For each group, those of each row.
    scales: Vec<f32>,
    least: Vec<f32>,
}

/// Whether anything is subtracted from the products with a panel's codes.
const fn has_least<B: Block, D: Dots>() -> bool {
    B::LEAST || (B::OFFSET != 0 && !stands_signed::<B, D>())
}

/// Whether codes stand in a panel with their sign.
const fn stands_signed<B: Block, D: Dots>() -> bool {
    D::SIGNED && B::OFFSET == super::dots::WIDE
}

impl Panel {
    #[inline(always)]
    fn new<B: Block, D: Dots>(columns: usize) -> Self {
        let factors = columns / B::GROUP * D::LANES;
        Panel {
            codes: vec![0; columns * D::LANES],
            scales: vec![0.0; factors],
            least: vec![0.0; if has_least::<B, D>() { factors } else { 0 }],
        }
    }

    /// Puts a row of the matrix into a lane.
    #[inline(always)]
    fn fill<B: Block, D: Dots>(&mut self, dots: D, lane: usize, row: &[u8]) {
        let (mut scales, mut least) = ([0.0; FACTORS], [0.0; FACTORS]);
        let groups = B::NUMBERS / B::GROUP;
        let (fours, _) = self.codes.as_chunks_mut::<4>();
        let blocks = row.chunks_exact(B::BYTES);
        for (at, (block, fours)) in blocks
            .zip(fours.chunks_exact_mut(B::NUMBERS / 4 * D::LANES))
            .enumerate()
        {
            for (set, fours) in fours.chunks_exact_mut(CODES / 4 * D::LANES).enumerate() {
                let codes = B::codes(dots, block, set);
                let codes = match stands_signed::<B, D>() {
                    true => dots.turn(codes),
                    false => codes,
                };
                let codes = dots.store(codes);
                let (codes, _) = codes.as_chunks::<4>();
                for (fours, codes) in fours.chunks_exact_mut(D::LANES).zip(codes) {
                    fours[lane] = *codes;
                }
            }
            B::factors(dots, block, &mut scales, &mut least);
            let factors = scales.iter().zip(&least).take(groups);
            for (group, (scale, least)) in factors.enumerate() {
                let place = (at * groups + group) * D::LANES + lane;
                self.scales[place] = *scale;
                if has_least::<B, D>() {
                    let own = if B::LEAST { *least } else { 0.0 };
                    let offset = if stands_signed::<B, D>() {
                        0.0
                    } else {
                        B::OFFSET as f32
                    };
                    self.least[place] = own + offset * scale;
                }
            }
        }
    }
}

/// The products of some rows of a strip with a panel.
#[inline(always)]
fn tile<B: Block, D: Dots, const ROWS: usize>(
    dots: D,
    panel: &Panel,
    x: &Strips,
    (strip, row): (usize, usize),
    put: &mut impl FnMut(usize, D::Floats),
) {
    let (zero, none) = dots.zeros();
    let mut totals = [zero; ROWS];
    let shared = x.strip(&x.scales, strip);
    let groups = panel
        .codes
        .chunks_exact(B::GROUP * D::LANES)
        .zip(panel.scales.chunks_exact(D::LANES))
        .zip(x.strip(&x.codes, strip).chunks_exact(B::GROUP / 4))
        .enumerate();
    for (group, ((codes, scales), x)) in groups {
        let mut sums = [none; ROWS];
        for (codes, x) in codes.chunks_exact(4 * D::LANES).zip(x) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = dots.multiply::<B>(*sum, codes, x[row + i]);
            }
        }
        let scales = dots.floats(scales);
        let shared = &shared[group * B::GROUP / SHARED];
        for (i, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
            *total = dots.scale(*total, sum, scales, shared[row + i]);
        }
    }
    if has_least::<B, D>() {
        let groups = panel.least.chunks_exact(D::LANES);
        for (least, sums) in groups.zip(x.strip(&x.sums, strip)) {
            let least = dots.floats(least);
            for (i, total) in totals.iter_mut().enumerate() {
                *total = dots.add_scaled(*total, least, -sums[row + i]);
            }
        }
    }
    for (i, total) in totals.into_iter().enumerate() {
        put(strip * STRIP + row + i, total);
    }
}
