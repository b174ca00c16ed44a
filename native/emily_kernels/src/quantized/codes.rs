//! Codes in words, and what they stand for.

use super::LANES;

/// What the kernels are compiled for.
pub(super) trait Decode: 'static {
    const BITS: usize;
    /// The fewest whole words that hold whole codes, and how many codes these are: a unit.
    const WORDS: usize = Self::BITS / divisor(Self::BITS);
    const NUMBERS: usize = 32 / divisor(Self::BITS);

    /// What a code of that many bits stands for.
    fn number(code: u32) -> f32;
}

/// The greatest power of two by which the bits can be divided.
const fn divisor(bits: usize) -> usize {
    1 << bits.trailing_zeros()
}

/// A unit has at most so many words.
pub(super) const MOST_WORDS: usize = 5;
pub(super) struct Unsigned<const BITS: usize>;

impl<const B: usize> Decode for Unsigned<B> {
    const BITS: usize = B;

    #[inline(always)]
    fn number(code: u32) -> f32 {
        // What has a sign becomes a vector of floats in one instruction.
        code as i32 as f32
    }
}

pub(super) struct E2m1;

impl Decode for E2m1 {
    const BITS: usize = 4;

    #[inline(always)]
    fn number(code: u32) -> f32 {
        small::<1>(code, 3) * 0.5
    }
}

pub(super) struct E4m3;

impl Decode for E4m3 {
    const BITS: usize = 8;

    #[inline(always)]
    fn number(code: u32) -> f32 {
        e4m3(code)
    }
}

/// The float of 8 bits.
#[inline(always)]
pub(super) fn e4m3(code: u32) -> f32 {
    small::<3>(code, 7) * (1.0 / 512.0)
}

/// A float whose sign is in the bit `sign`, as a multiple of its smallest one, through integers: the floats below the
/// normal ones are slow.
#[inline(always)]
fn small<const MANTISSA: u32>(code: u32, sign: u32) -> f32 {
    let size = code & ((1 << sign) - 1);
    let exponent = size >> MANTISSA;
    let mantissa = size & ((1 << MANTISSA) - 1);
    let normal = (mantissa | (1 << MANTISSA)) << (exponent.max(1) - 1);
    let steps = if exponent == 0 { mantissa } else { normal };
    let float = steps as i32 as f32;
    f32::from_bits(float.to_bits() | ((code >> sign) << 31))
}

/// A code of a unit by its place.
#[inline(always)]
pub(super) fn code<D: Decode>(place: usize, word: impl Fn(usize) -> u32) -> u32 {
    let bit = place * D::BITS;
    let (at, shift) = (bit / 32, bit % 32);
    let mut code = word(at) >> shift;
    if 32 % D::BITS != 0 && shift + D::BITS > 32 {
        code |= word(at + 1) << (32 - shift);
    }
    code & ((1 << D::BITS) - 1)
}

/// A unit for each lane.
pub(super) type Units = [[u32; LANES]; MOST_WORDS];

/// The units of a block, which is the `block`th of a row; zeros where the row has ended.
#[inline(always)]
pub(super) fn units<D: Decode>(row: &[u32], block: usize) -> Units {
    let mut units = [[0; LANES]; MOST_WORDS];
    let words = &row[block * LANES * D::WORDS..];
    if let (1, Some(words)) = (D::WORDS, words.first_chunk()) {
        units[0] = *words;
        return units;
    }
    let lanes = words.chunks_exact(D::WORDS).take(LANES).enumerate();
    for (lane, words) in lanes {
        for (word, bits) in words.iter().enumerate() {
            units[word][lane] = *bits;
        }
    }
    units
}

/// What the codes of all units at one place stand for.
#[inline(always)]
pub(super) fn numbers<D: Decode>(units: &Units, place: usize) -> [f32; LANES] {
    std::array::from_fn(|lane| D::number(code::<D>(place, |word| units[word][lane])))
}
