//! Rows rounded to integers of 16 bits, as they are multiplied with a panel.

use super::dots::Block;
use super::rounded::{greatest, inverse, nearest, SHARED};
use crate::dispatch::{for_each_level, Level};
use crate::pool;
use crate::view::zeros;

/// So many rows of a strip stand side by side.
pub(super) const STRIP: usize = 8;
/// 127 becomes 256 times as much, so that small integers lose nothing.
const GREATEST: f32 = 32_512.0;

/// Rows, `STRIP` at a time, zeros where there are no more.
pub(super) struct Strips {
    pub(super) rows: usize,
    strips: Vec<Strip>,
}

#[derive(Clone, Default)]
pub(super) struct Strip {
    /// Two codes of each row, for each two.
    pub(super) codes: Vec<[[i16; 2]; STRIP]>,
    /// One for every `SHARED` codes.
    pub(super) scales: Vec<[f32; STRIP]>,
    /// The sum of what is multiplied with each group of a block, where anything is added.
    pub(super) sums: Vec<[f32; STRIP]>,
}

impl Strips {
    pub(super) fn of<B: Block>(level: Level, x: &[f32], columns: usize) -> Self {
        let rows = x.len() / columns;
        let mut strips = vec![Strip::default(); rows.div_ceil(STRIP)];
        pool::each_part(&mut strips, 1, |i, strip| {
            let end = rows.min((i + 1) * STRIP);
            let x = &x[i * STRIP * columns..end * columns];
            round::<B>(level, x, columns, &mut strip[0])
        });
        Strips { rows, strips }
    }

    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Strip> {
        self.strips.iter()
    }
}

impl Strip {
    /// The scales for each group of a block.
    #[inline(always)]
    pub(super) fn shared<B: Block>(&self) -> impl Iterator<Item = &[f32; STRIP]> {
        let groups = self.scales.len() * SHARED / B::GROUP;
        (0..groups).map(|group| &self.scales[group * B::GROUP / SHARED])
    }
}

for_each_level! {
    /// Rounds the rows of a strip; the greatest of the numbers that share a scale is without error.
    fn round<B: Block>(x: &[f32], columns: usize, strip: &mut Strip) {
        strip.codes = zeros(columns / 2);
        strip.scales = zeros(columns / SHARED);
        strip.sums = zeros(columns / B::GROUP);
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let (blocks, _) = x.as_chunks::<SHARED>();
            let twos = strip.codes.chunks_exact_mut(SHARED / 2);
            let sums = strip.sums.chunks_exact_mut(SHARED / B::GROUP);
            for (((x, scale), twos), sums) in blocks.iter().zip(&mut strip.scales).zip(twos).zip(sums) {
                let greatest = greatest(x);
                let inverse = inverse(GREATEST, greatest);
                scale[row] = greatest / GREATEST;
                let mut codes = [0; SHARED];
                for (code, x) in codes.iter_mut().zip(x) {
                    *code = nearest(x * inverse);
                }
                for (sum, codes) in sums.iter_mut().zip(codes.chunks_exact(B::GROUP)) {
                    sum[row] = codes.iter().sum::<i32>() as f32 * scale[row];
                }
                for (two, codes) in twos.iter_mut().zip(codes.as_chunks::<2>().0) {
                    two[row] = codes.map(|code| code as i16);
                }
            }
        }
    }
}
