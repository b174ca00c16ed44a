//! Matrices of GGML's blocks, as they lie in a file: products with them, and their numbers.
//!
//! In a product, what is multiplied is rounded to 16 bits with a scale for every 32 numbers, so that a group's sum is one of
//! integers, without rounding: it fits 32 bits, since codes have 8 of them.

use super::formats::{
    Block, Iq4Nl, Iq4Xs, Mxfp4, GROUPS, MOST, Q2K, Q3K, Q4K, Q4_0, Q4_1, Q5K, Q5_0, Q5_1, Q6K, Q8_0,
};
use super::{by_rows, is_plain, many, MANY, PART};
use crate::dispatch::{for_each_level, Level};
use crate::math::Arithmetic;
use crate::pool;

/// So many sums are taken side by side.
const LANES: usize = 8;
/// So many of what is multiplied share a scale.
const SHARED: usize = 32;
/// The greatest of them.
const GREATEST_CODE: f32 = 32767.0;

/// A float whose last digit is one, amid others.
const NEAREST: f32 = 12_582_912.0;

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

    fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.bytes_a_row()..][..self.bytes_a_row()]
    }
}

/// The product of the rows of `x` and a matrix of blocks, as [`multiply`](super::multiply) of packed numbers. Few rows
/// times the matrix's rows are rounded to 16 bits; others are not.
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
    if !transpose || x.len() / blocks.columns >= MANY || !is_plain(x) {
        let unpack = |first, numbers: &mut [f32]| dequantize_as::<B>(level, blocks, first, numbers);
        return many::multiply(level, x, size, unpack, transpose, output);
    }
    let rounded = Rounded::of::<B>(level, x, blocks.columns);
    by_rows(rounded.rows, size, output, |first, output| {
        part::<B>(level, &rounded, blocks, first, output)
    });
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

for_each_level! {
    /// The numbers of blocks.
    fn unpack<B: Block; A>(bytes: &[u8], output: &mut [f32]) {
        let mut codes = [0; MOST];
        let (mut scales, mut least) = ([0.0; GROUPS], [0.0; GROUPS]);
        let blocks = bytes.chunks_exact(B::BYTES).zip(output.chunks_exact_mut(B::NUMBERS));
        for (block, output) in blocks {
            B::codes::<A>(block, &mut codes);
            B::factors::<A>(block, &mut scales, &mut least);
            let groups = output.chunks_exact_mut(B::GROUP).zip(codes.chunks_exact(B::GROUP));
            for (group, (output, codes)) in groups.enumerate() {
                for (out, code) in output.iter_mut().zip(codes) {
                    let number = scales[group] * f32::from(*code);
                    *out = if B::LEAST { number - least[group] } else { number };
                }
            }
        }
    }
}

/// Rows as integers of 16 bits.
struct Rounded {
    rows: usize,
    codes: Vec<i16>,
    /// One for every 32 codes.
    scales: Vec<f32>,
    /// The sum of each group of the blocks', scaled.
    sums: Vec<f32>,
}

impl Rounded {
    fn of<B: Block>(level: Level, x: &[f32], columns: usize) -> Self {
        let mut codes = vec![0; x.len()];
        let mut scales = vec![0.0; x.len() / SHARED];
        round(level, x, &mut codes, &mut scales);
        let mut sums = Vec::new();
        if B::LEAST {
            let groups = codes.chunks_exact(B::GROUP).enumerate();
            sums.extend(groups.map(|(i, group)| {
                let sum: i32 = group.iter().map(|code| i32::from(*code)).sum();
                sum as f32 * scales[i * B::GROUP / SHARED]
            }));
        }
        Rounded {
            rows: x.len() / columns,
            codes,
            scales,
            sums,
        }
    }

    fn row<'a, T>(&self, each: &'a [T], row: usize) -> &'a [T] {
        let length = each.len() / self.rows;
        &each[row * length..][..length]
    }
}

for_each_level! {
    /// Rounds numbers to codes; the greatest of those that share a scale is without error.
    fn round(x: &[f32], codes: &mut [i16], scales: &mut [f32]) {
        let groups = x.chunks_exact(SHARED).zip(codes.chunks_exact_mut(SHARED));
        for ((x, codes), scale) in groups.zip(scales) {
            let greatest = x.iter().fold(0.0f32, |greatest, x| greatest.max(x.abs()));
            *scale = greatest / GREATEST_CODE;
            let inverse = if greatest > 0.0 { GREATEST_CODE / greatest } else { 0.0 };
            // Below what has an inverse, all are zero.
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            for (code, x) in codes.iter_mut().zip(x) {
                // The last digits of such a sum are those of the nearest integer.
                let sum = x * inverse + NEAREST;
                *code = (sum.to_bits() as i32 - NEAREST.to_bits() as i32) as i16;
            }
        }
    }
}

for_each_level! {
    /// The products of all rows with some of the matrix's, from one on.
    fn part<B: Block; A>(x: &Rounded, blocks: &Blocks, first: usize, output: &mut [f32]) {
        for (i, output) in output.chunks_exact_mut(x.rows).enumerate() {
            let bytes = blocks.row(first + i);
            let mut row = 0;
            while row + 4 <= x.rows {
                dots::<B, A, 4>(x, row, bytes, &mut output[row..]);
                row += 4;
            }
            while row < x.rows {
                dots::<B, A, 1>(x, row, bytes, &mut output[row..]);
                row += 1;
            }
        }
    }
}

/// The products of so many rows with one of the matrix's.
#[inline(always)]
fn dots<B: Block, A: Arithmetic, const ROWS: usize>(
    x: &Rounded,
    first: usize,
    bytes: &[u8],
    output: &mut [f32],
) {
    let groups = B::NUMBERS / B::GROUP;
    let rows: [_; ROWS] = std::array::from_fn(|row| {
        let row = first + row;
        let scales = x.row(&x.scales, row);
        let sums = if B::LEAST {
            x.row(&x.sums, row)
        } else {
            scales
        };
        (x.row(&x.codes, row), scales, sums)
    });
    let mut codes = [0; MOST];
    let (mut scales, mut least) = ([0.0; GROUPS], [0.0; GROUPS]);
    let mut totals = [[0.0; LANES]; ROWS];
    let mut shifts = [0.0; ROWS];
    for (at, block) in bytes.chunks_exact(B::BYTES).enumerate() {
        B::codes::<A>(block, &mut codes);
        B::factors::<A>(block, &mut scales, &mut least);
        for ((row, totals), shift) in rows.iter().zip(&mut totals).zip(&mut shifts) {
            let x = &row.0[at * B::NUMBERS..][..B::NUMBERS];
            let shared = &row.1[at * B::NUMBERS / SHARED..][..B::NUMBERS / SHARED];
            for (group, scale) in scales[..groups].iter().enumerate() {
                let here = group * B::GROUP;
                let sums = dot::<A>(&codes[here..][..B::GROUP], &x[here..][..B::GROUP]);
                let scale = scale * shared[here / SHARED];
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total = A::mul_add_single(sum as f32, scale, *total);
                }
            }
            if B::LEAST {
                let sums = &row.2[at * groups..][..groups];
                for (least, sum) in least.iter().zip(sums) {
                    *shift = A::mul_add_single(*least, *sum, *shift);
                }
            }
        }
    }
    for (output, (totals, shift)) in output.iter_mut().zip(totals.iter().zip(shifts)) {
        *output = totals.iter().sum::<f32>() - shift;
    }
}

/// The sums of products, in some order of theirs.
#[inline(always)]
fn dot<A: Arithmetic>(codes: &[i8], x: &[i16]) -> [i32; LANES] {
    let mut sums = [0; LANES];
    let ((codes, _), (x, _)) = (codes.as_chunks(), x.as_chunks());
    for (codes, x) in codes.iter().zip(x) {
        // SAFETY: this is part of a function that is compiled for the level.
        let products = unsafe { A::dot(codes, x) };
        for (sum, products) in sums.iter_mut().zip(products) {
            *sum += products;
        }
    }
    sums
}
