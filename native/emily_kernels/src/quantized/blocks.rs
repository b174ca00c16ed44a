//! Matrices of GGML's blocks, as they lie in a file: products with them, and their numbers.
//!
//! In a product with a matrix's rows, what is multiplied is rounded to integers with a scale for every 32 numbers, so that a
//! group's sums are ones of integers, without rounding: few rows to 15 bits, as two integers of 8 bits each, many to 16. One of
//! 8 bits, as GGML has it, would cost a language model digits: SmolLM2-135M's logits are off by up to 0.8 then.

use super::dots::{for_each_dots, has_products_of_pairs, Block, CODES, FACTORS};
use super::matrix::by_type;
pub use super::matrix::{Blocks, Type};
use super::rounded::Rounded;
use super::strips::Strips;
use super::{by_rows, few, is_plain, many, tiles, PART};
use crate::dispatch::Level;
use crate::pool;

/// From so many rows on, codes are taken out once for all of them.
const TILED: usize = 8;

/// The product of the rows of `x` and a matrix of blocks, as [`multiply`](super::multiply) of packed numbers. Times the
/// matrix's rows, `x` is rounded to 15 bits or more; times its columns, it is not.
pub fn multiply(level: Level, x: &[f32], blocks: &Blocks, transpose: bool, output: &mut [f32]) {
    by_type!(blocks.of, multiply_as(level, x, blocks, transpose, output))
}

fn multiply_as<B: Block>(
    level: Level,
    x: &[f32],
    blocks: &Blocks,
    transpose: bool,
    output: &mut [f32],
) {
    let size = (blocks.rows(), blocks.columns);
    let is_tiled = x.len() / blocks.columns.max(1) >= TILED;
    if !transpose || !is_plain(x) || (is_tiled && !has_products_of_pairs(level)) {
        let unpack = |first, numbers: &mut [f32]| dequantize_as::<B>(level, blocks, first, numbers);
        return many::multiply(level, x, size, unpack, transpose, output);
    }
    if is_tiled {
        let strips = Strips::of::<B>(level, x, blocks.columns);
        return tiles::multiply::<B>(level, &strips, blocks, output);
    }
    let rounded = Rounded::of::<B>(level, x, blocks.columns);
    let rows = few::Row::all::<B>(level, &rounded);
    by_rows(rows.len(), size, output, |first, output| {
        few::part::<B>(level, &rows, blocks, first, output)
    })
}

/// The numbers of a matrix of blocks, each rounded as GGML does: the scale, the product and the difference.
pub fn dequantize(level: Level, blocks: &Blocks, output: &mut [f32]) {
    by_type!(blocks.of, dequantize_as(level, blocks, 0, output))
}

/// The numbers of as many rows as the output holds, from one on.
fn dequantize_as<B: Block>(level: Level, blocks: &Blocks, first: usize, output: &mut [f32]) {
    let rows = (PART / blocks.columns).max(1);
    pool::each_part(output, rows * blocks.columns, |i, output| {
        let bytes = &blocks.bytes[(first + i * rows) * blocks.bytes_a_row()..];
        unpack::<B>(level, bytes, output)
    });
}

for_each_dots! {
    /// The numbers of blocks.
    fn unpack<B: Block; dots>(bytes: &[u8], output: &mut [f32]) {
        let (mut scales, mut least) = ([0.0; FACTORS], [0.0; FACTORS]);
        let blocks = bytes.chunks_exact(B::BYTES).zip(output.chunks_exact_mut(B::NUMBERS));
        for (block, output) in blocks {
            B::factors(dots, block, &mut scales, &mut least);
            for (at, output) in output.chunks_exact_mut(CODES).enumerate() {
                let codes = dots.store(B::codes(dots, block, at));
                let groups = output.chunks_exact_mut(B::GROUP).zip(codes.chunks_exact(B::GROUP));
                for (group, (output, codes)) in groups.enumerate() {
                    let group = at * CODES / B::GROUP + group;
                    for (out, code) in output.iter_mut().zip(codes) {
                        let number = scales[group] * (i32::from(*code) - B::OFFSET) as f32;
                        *out = if B::LEAST { number - least[group] } else { number };
                    }
                }
            }
        }
    }
}
