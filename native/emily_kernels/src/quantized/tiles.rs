//! Many rows times the rows of a matrix of blocks, some of which stand side by side in a panel, their codes taken out.

use super::dots::{for_each_dots, Block, Dots, CODES, FACTORS, NUMBERS, PANEL};
use super::matrix::Blocks;
use super::strips::{Strip, Strips, STRIP};
use crate::dispatch::Level;
use crate::pool::{self, Shared};
use crate::view::zeros;

pub(super) fn multiply<B: Block>(level: Level, x: &Strips, blocks: &Blocks, output: &mut [f32]) {
    let output = Shared::of(output);
    pool::each(blocks.rows().div_ceil(PANEL), |i| {
        part::<B>(level, x, blocks, i * PANEL, &output)
    });
}

for_each_dots! {
    /// The products of all rows with a panel of the matrix's, whose places in the output nobody else has.
    fn part<B: Block; dots>(x: &Strips, blocks: &Blocks, first: usize, output: &Shared<f32>) {
        match D::ROWS {
            8 => products::<B, _, 8, { PANEL / 16 }>(dots, x, blocks, first, output),
            _ => products::<B, _, 4, { PANEL / 8 }>(dots, x, blocks, first, output),
        }
    }
}

#[inline(always)]
fn products<B: Block, D: Dots, const ROWS: usize, const VECTORS: usize>(
    dots: D,
    x: &Strips,
    blocks: &Blocks,
    first: usize,
    output: &Shared<f32>,
) {
    let height = blocks.rows();
    let count = PANEL.min(height - first);
    let mut panel = Panel::new::<B>(blocks.columns);
    for lane in 0..count {
        panel.fill::<B, D>(dots, lane, blocks.row(first + lane));
    }
    for (at, strip) in x.iter().enumerate() {
        let rows = STRIP.min(x.rows - at * STRIP);
        for row in (0..rows).step_by(ROWS) {
            let totals = tile::<B, D, ROWS, VECTORS>(dots, &panel, strip, row);
            for (i, totals) in totals.iter().enumerate().take(rows - row) {
                let mut lanes = [0.0; PANEL];
                for (total, lanes) in totals.iter().zip(lanes.chunks_exact_mut(D::LANES)) {
                    dots.put(*total, lanes);
                }
                // SAFETY: these places are this part's alone.
                let output = unsafe { output.part((at * STRIP + row + i) * height + first, count) };
                match output.first_chunk_mut() {
                    Some(output) => *output = lanes,
                    None => output.copy_from_slice(&lanes[..count]),
                }
            }
        }
    }
}

/// Rows of the matrix side by side, zeros where there are no more.
struct Panel {
    /// Two codes of each row less the blocks' offset, for each two.
    codes: Vec<[[i16; 2]; PANEL]>,
    /// For each group, those of each row.
    scales: Vec<[f32; PANEL]>,
    least: Vec<[f32; PANEL]>,
}

impl Panel {
    #[inline(always)]
    fn new<B: Block>(columns: usize) -> Self {
        let groups = columns / B::GROUP;
        Panel {
            codes: zeros(columns / 2),
            scales: zeros(groups),
            least: zeros(if B::LEAST { groups } else { 0 }),
        }
    }

    /// Puts a row of the matrix into a lane, as many blocks at a time as have their scales made together.
    #[inline(always)]
    fn fill<B: Block, D: Dots>(&mut self, dots: D, lane: usize, row: &[u8]) {
        let (mut scales, mut least) = ([0.0; FACTORS], [0.0; FACTORS]);
        let parts = row.chunks(NUMBERS / B::NUMBERS * B::BYTES);
        let parts = parts
            .zip(self.codes.chunks_mut(NUMBERS / 2))
            .zip(self.scales.chunks_mut(NUMBERS / B::GROUP));
        for (at, ((blocks, twos), scales_of)) in parts.enumerate() {
            for (set, twos) in twos.chunks_exact_mut(CODES / 2).enumerate() {
                let block = &blocks[set / B::SETS * B::BYTES..];
                let codes = dots.store(B::codes(dots, block, set % B::SETS));
                for (two, codes) in twos.iter_mut().zip(codes.as_chunks::<2>().0) {
                    two[lane] = codes.map(|code| i16::from(code) - B::OFFSET as i16);
                }
            }
            B::factors(dots, blocks, &mut scales, &mut least);
            for (to, scale) in scales_of.iter_mut().zip(&scales) {
                to[lane] = *scale;
            }
            if B::LEAST {
                let to = self.least[at * (NUMBERS / B::GROUP)..].iter_mut();
                for (to, least) in to.zip(&least) {
                    to[lane] = *least;
                }
            }
        }
    }
}

/// The products of some rows of a strip with a panel.
// By their numbers the compiler keeps the sums in registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn tile<B: Block, D: Dots, const ROWS: usize, const VECTORS: usize>(
    dots: D,
    panel: &Panel,
    x: &Strip,
    row: usize,
) -> [[D::Floats; VECTORS]; ROWS] {
    let (zero, none) = dots.zeros();
    let mut totals = [[zero; VECTORS]; ROWS];
    let groups = panel
        .codes
        .chunks_exact(B::GROUP / 2)
        .zip(x.codes.chunks_exact(B::GROUP / 2))
        .zip(&panel.scales)
        .zip(x.shared::<B>());
    for (((codes, twos), scales), shared) in groups {
        let mut sums = [[none; VECTORS]; ROWS];
        // Two at a time: a loop's own instructions are a tenth of so few.
        let (codes, twos) = (codes.as_chunks::<2>().0, twos.as_chunks::<2>().0);
        for (codes, twos) in codes.iter().zip(twos) {
            for (codes, twos) in codes.iter().zip(twos) {
                let twos: &[[i16; 2]; ROWS] = some(twos, row);
                for i in 0..ROWS {
                    for j in 0..VECTORS {
                        let codes = &codes[j * D::LANES..];
                        sums[i][j] = dots.multiply(sums[i][j], codes, twos[i]);
                    }
                }
            }
        }
        let shared: &[f32; ROWS] = some(shared, row);
        for i in 0..ROWS {
            for j in 0..VECTORS {
                let scales = dots.floats(&scales[j * D::LANES..]);
                totals[i][j] = dots.scale(totals[i][j], sums[i][j], scales, shared[i]);
            }
        }
    }
    for (least, sums) in panel.least.iter().zip(&x.sums) {
        let sums: &[f32; ROWS] = some(sums, row);
        for i in 0..ROWS {
            for j in 0..VECTORS {
                let least = dots.floats(&least[j * D::LANES..]);
                totals[i][j] = dots.add_scaled(totals[i][j], least, -sums[i]);
            }
        }
    }
    totals
}

/// So many from one on.
#[inline(always)]
fn some<T, const COUNT: usize>(all: &[T; STRIP], first: usize) -> &[T; COUNT] {
    all[first..].first_chunk().expect("a strip is whole")
}
