//! Matrices of GGML's blocks, as they lie in a file: products with them, and their numbers.
//!
//! In a product with a matrix's rows, what is multiplied is rounded to 15 bits with a scale for every 32 numbers, as two
//! integers of 8 bits each, so that a group's sums are ones of integers, without rounding. One of 8 bits, as GGML has it, would
//! cost a language model digits: SmolLM2-135M's logits are off by up to 0.8 then.

use super::dots::{for_each_dots, CODES};
use super::formats::{
    Block, Iq4Nl, Iq4Xs, Mxfp4, GROUPS, Q2K, Q3K, Q4K, Q4_0, Q4_1, Q5K, Q5_0, Q5_1, Q6K, Q8_0,
};
use super::rounded::{Rounded, Strips};
use super::{by_rows, few, is_plain, many, tiles, PART};
use crate::dispatch::Level;
use crate::pool;

/// From so many rows on, codes are taken out once for all of them.
const TILED: usize = 8;

/// GGML's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// Calls a function of the kernels' with the type that takes blocks apart.
macro_rules! by_type {
    ($type:expr, $function:ident ($($argument:expr),*)) => {
        match $type {
            Type::Q4_0 => $function::<Q4_0>($($argument),*),
            Type::Q4_1 => $function::<Q4_1>($($argument),*),
            Type::Q5_0 => $function::<Q5_0>($($argument),*),
            Type::Q5_1 => $function::<Q5_1>($($argument),*),
            Type::Q8_0 => $function::<Q8_0>($($argument),*),
            Type::Q2K => $function::<Q2K>($($argument),*),
            Type::Q3K => $function::<Q3K>($($argument),*),
            Type::Q4K => $function::<Q4K>($($argument),*),
            Type::Q5K => $function::<Q5K>($($argument),*),
            Type::Q6K => $function::<Q6K>($($argument),*),
            Type::Iq4Nl => $function::<Iq4Nl>($($argument),*),
            Type::Iq4Xs => $function::<Iq4Xs>($($argument),*),
            Type::Mxfp4 => $function::<Mxfp4>($($argument),*),
        }
    };
}

impl Type {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Type); 13] = [
        ("q4_0", Type::Q4_0),
        ("q4_1", Type::Q4_1),
        ("q5_0", Type::Q5_0),
        ("q5_1", Type::Q5_1),
        ("q8_0", Type::Q8_0),
        ("q2_k", Type::Q2K),
        ("q3_k", Type::Q3K),
        ("q4_k", Type::Q4K),
        ("q5_k", Type::Q5K),
        ("q6_k", Type::Q6K),
        ("iq4_nl", Type::Iq4Nl),
        ("iq4_xs", Type::Iq4Xs),
        ("mxfp4", Type::Mxfp4),
    ];

    /// The type of that name.
    pub fn named(name: &str) -> Option<Type> {
        let mut all = Type::ALL.into_iter();
        all.find_map(|(own, found)| (own == name).then_some(found))
    }

    /// How many numbers a block has, and how many bytes.
    pub fn block(self) -> (usize, usize) {
        fn sizes<B: Block>() -> (usize, usize) {
            (B::NUMBERS, B::BYTES)
        }
        by_type!(self, sizes())
    }
}

/// A matrix of blocks, in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    pub of: Type,
    /// How many numbers a row has: whole blocks.
    pub columns: usize,
    pub bytes: &'a [u8],
}

impl<'a> Blocks<'a> {
    pub fn rows(&self) -> usize {
        self.bytes.len() / self.bytes_a_row()
    }

    fn bytes_a_row(&self) -> usize {
        let (numbers, bytes) = self.of.block();
        self.columns / numbers * bytes
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.bytes_a_row()..][..self.bytes_a_row()]
    }
}

/// The product of the rows of `x` and a matrix of blocks, as [`multiply`](super::multiply) of packed numbers. Times the
/// matrix's rows, `x` is rounded to 15 bits; times its columns, it is not.
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
    if !transpose || !is_plain(x) {
        let unpack = |first, numbers: &mut [f32]| dequantize_as::<B>(level, blocks, first, numbers);
        return many::multiply(level, x, size, unpack, transpose, output);
    }
    let rounded = Rounded::of::<B>(level, x, blocks.columns);
    let mut halves = vec![0.0; 2 * output.len()];
    if rounded.rows >= TILED {
        tiles::multiply::<B>(level, &Strips::of(&rounded), blocks, &mut halves);
    } else {
        by_rows(rounded.rows, size, &mut halves, |first, halves| {
            few::part::<B>(level, &rounded, blocks, first, halves)
        });
    }
    let rows = output.chunks_exact_mut(size.0);
    for (output, halves) in rows.zip(halves.chunks_exact(2 * size.0)) {
        let (high, low) = halves.split_at(size.0);
        for ((output, high), low) in output.iter_mut().zip(high).zip(low) {
            *output = high + low;
        }
    }
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
        let (mut scales, mut least) = ([0.0; GROUPS], [0.0; GROUPS]);
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
