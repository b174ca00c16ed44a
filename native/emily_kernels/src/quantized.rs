//! Matrices of packed numbers: products with them, and their numbers.
//!
//! A row's numbers are codes of a few bits in words of 32, the lowest bits first, and groups of a row share a scale, and
//! a bias where there are biases: a number is `scale * code + bias`. Products take what is multiplied in f32 as it is; it
//! is not rounded to the codes' width.

pub mod blocks;
mod codes;
mod columns;
mod dots;
mod factors;
mod few;
mod formats;
mod many;
mod matrix;
mod minifloat;
mod rounded;
mod rows;
mod strips;
mod tiles;

use std::ops::Range;

use crate::dispatch::{for_each_level, Level};
use crate::math::Arithmetic;
use crate::pool;
use crate::view::zeros;
use codes::{Decode, E2m1, E4m3, Unsigned};

pub use factors::Factor;
use factors::Factors;
pub use minifloat::{float_codes, float_scales, Of};

/// So many lanes work side by side, each on words of its own.
const LANES: usize = 16;
/// How many numbers are worth a part of their own, about ten microseconds' work; under Miri, which takes seconds, fewer.
const PART: usize = if cfg!(miri) { 1 << 9 } else { 1 << 18 };
/// How many are worth giving to another thread, and how many parts each takes at most.
const FEW: usize = PART >> 3;
const PARTS_EACH: usize = 4;
/// From so many rows on, numbers are unpacked once for all of them.
const MANY: usize = 16;
/// Beyond it, or without an end, a number times a code is not the number times what the code stands for.
const GREATEST: f32 = 1e30;

/// What a code stands for, before it is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Itself, of so many bits: 2, 3, 4, 5, 6 or 8.
    Unsigned(usize),
    /// A float of 4 bits: one for the sign, two for the exponent, one for the mantissa.
    E2m1,
    /// A float of 8 bits: one, four, three. All bits of both set are 480, as in MLX.
    E4m3,
}

impl Code {
    pub fn bits(self) -> usize {
        match self {
            Code::Unsigned(bits) => bits,
            Code::E2m1 => 4,
            Code::E4m3 => 8,
        }
    }
}

/// How numbers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    pub code: Code,
    /// How many numbers of a row share a scale: a multiple of what whole words hold.
    pub group: usize,
    /// The type of the scales and biases.
    pub factor: Factor,
}

/// A matrix of packed numbers, in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    pub packing: Packing,
    /// How many numbers a row has: a multiple of the group.
    pub columns: usize,
    pub words: &'a [u32],
    pub scales: &'a [u8],
    pub biases: Option<&'a [u8]>,
}

impl<'a> Packed<'a> {
    pub fn rows(&self) -> usize {
        self.words.len() / self.words_a_row()
    }

    fn words_a_row(&self) -> usize {
        self.columns * self.packing.code.bits() / 32
    }

    fn groups(&self) -> usize {
        self.columns / self.packing.group
    }

    fn words(&self, row: usize) -> &'a [u32] {
        &self.words[row * self.words_a_row()..][..self.words_a_row()]
    }

    /// Reads the scales of some groups of a row.
    fn scales(&self, row: usize, groups: Range<usize>, factors: &mut [f32]) {
        let at = row * self.groups();
        self.packing
            .factor
            .read(self.scales, at + groups.start..at + groups.end, factors);
    }

    /// Reads the biases of some groups of a row, if there are any.
    fn biases(&self, row: usize, groups: Range<usize>, factors: &mut [f32]) -> bool {
        let at = row * self.groups();
        self.biases.is_some_and(|biases| {
            self.packing
                .factor
                .read(biases, at + groups.start..at + groups.end, factors);
            true
        })
    }
}

/// Calls a function of the kernels' with the type that decodes.
macro_rules! by_code {
    ($code:expr, $function:ident ($($argument:expr),*)) => {
        match $code {
            Code::Unsigned(2) => $function::<Unsigned<2>>($($argument),*),
            Code::Unsigned(3) => $function::<Unsigned<3>>($($argument),*),
            Code::Unsigned(4) => $function::<Unsigned<4>>($($argument),*),
            Code::Unsigned(5) => $function::<Unsigned<5>>($($argument),*),
            Code::Unsigned(6) => $function::<Unsigned<6>>($($argument),*),
            Code::Unsigned(8) => $function::<Unsigned<8>>($($argument),*),
            Code::Unsigned(bits) => panic!("there are no codes of {bits} bits"),
            Code::E2m1 => $function::<E2m1>($($argument),*),
            Code::E4m3 => $function::<E4m3>($($argument),*),
        }
    };
}

/// The product of the rows of `x` and a packed matrix: with `transpose` each row times each of the matrix's rows, else
/// each row times each of its columns. The output is in row-major order.
pub fn multiply(level: Level, x: &[f32], packed: &Packed, transpose: bool, output: &mut [f32]) {
    by_code!(
        packed.packing.code,
        multiply_as(level, x, packed, transpose, output)
    )
}

fn multiply_as<D: Decode>(
    level: Level,
    x: &[f32],
    packed: &Packed,
    transpose: bool,
    output: &mut [f32],
) {
    let inner = match transpose {
        true => packed.columns,
        false => packed.rows(),
    };
    if x.len() / inner >= MANY || !is_plain(x) {
        let size = (packed.rows(), packed.columns);
        let unpack = |first, numbers: &mut [f32]| dequantize_as::<D>(level, packed, first, numbers);
        many::multiply(level, x, size, unpack, transpose, output);
    } else if transpose {
        rows::multiply::<D>(level, x, packed, output);
    } else {
        columns::multiply::<D>(level, x, packed, output);
    }
}

/// Whether sums over codes hold such numbers.
fn is_plain(x: &[f32]) -> bool {
    // Without a way out amid them, which would be one number at a time.
    x.iter()
        .fold(true, |plain, x| plain & (x.abs() <= GREATEST))
}

/// Calls `part` for the products of so many rows with some of a matrix's, from one on; each of the matrix's has a
/// product for each row, one after the other.
fn by_rows(
    rows: usize,
    (height, columns): (usize, usize),
    output: &mut [f32],
    part: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows_a_part = rows_a_part(height, columns);
    if rows == 1 {
        return pool::each_part(output, rows_a_part, |i, output| {
            part(i * rows_a_part, output)
        });
    }
    // With a row for each of the matrix's, in which parts are apart.
    let mut turned = zeros(output.len());
    pool::each_part(&mut turned, rows_a_part * rows, |i, turned| {
        part(i * rows_a_part, turned)
    });
    for (column, turned) in turned.chunks_exact(rows).enumerate() {
        for (row, x) in turned.iter().enumerate() {
            output[row * height + column] = *x;
        }
    }
}

/// How many rows each thread takes at a time: all parts are alike, so that none waits for another's last.
fn rows_a_part(height: usize, columns: usize) -> usize {
    let parts = (height * columns / FEW).clamp(1, PARTS_EACH * pool::threads());
    height.div_ceil(parts).max(1)
}

/// The numbers of a packed matrix, each rounded as the product and the sum are.
pub fn dequantize(level: Level, packed: &Packed, output: &mut [f32]) {
    by_code!(packed.packing.code, dequantize_as(level, packed, 0, output))
}

/// The numbers of as many rows as the output holds, from one on.
fn dequantize_as<D: Decode>(level: Level, packed: &Packed, first: usize, output: &mut [f32]) {
    let rows = (PART / packed.columns).max(1);
    pool::each_part(output, rows * packed.columns, |i, output| {
        unpack::<D>(level, packed, first + i * rows, output)
    });
}

/// `totals += x * y`.
#[inline(always)]
fn add<A: Arithmetic>(totals: &mut [f32; LANES], x: &[f32; LANES], y: &[f32; LANES]) {
    for lane in 0..LANES {
        totals[lane] = A::mul_add_single(x[lane], y[lane], totals[lane]);
    }
}

for_each_level! {
    /// The numbers of as many rows as the output holds, from one on.
    fn unpack<D: Decode>(packed: &Packed, first: usize, output: &mut [f32]) {
        let group = packed.packing.group;
        let mut factors = Factors::of(packed);
        for (i, output) in output.chunks_exact_mut(packed.columns).enumerate() {
            factors.read(packed, first + i);
            let words = packed.words(first + i).chunks_exact(group * D::BITS / 32);
            let groups = words.zip(output.chunks_exact_mut(group));
            for ((words, output), (scale, bias)) in groups.zip(factors.iter()) {
                let units = words.chunks_exact(D::WORDS).zip(output.chunks_exact_mut(D::NUMBERS));
                for (words, output) in units {
                    for (place, out) in output.iter_mut().enumerate() {
                        let code = codes::code::<D>(place, |word| words[word]);
                        *out = scale * D::number(code) + bias;
                    }
                }
            }
        }
    }
}
