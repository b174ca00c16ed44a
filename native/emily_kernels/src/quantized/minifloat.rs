//! Numbers as small floats with a scale for each group, rounded as MLX does on a CPU: in the numbers' own type after
//! each step, to the first of the nearest codes.

use half::{bf16, f16};

use super::codes::{e4m3, Decode, E2m1};
use super::factors::power_of_two;
use super::{Code, Factor, Packing, PART};
use crate::pool;
use crate::view::typed;

/// The types of numbers that can be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    F32,
    F16,
    Bf16,
}

impl Of {
    pub fn bytes(self) -> usize {
        match self {
            Of::F32 => 4,
            Of::F16 | Of::Bf16 => 2,
        }
    }

    fn get(self, bytes: &[u8], i: usize) -> f32 {
        match self {
            Of::F32 => typed::<f32>(bytes)[i],
            Of::F16 => f16::from_bits(typed::<u16>(bytes)[i]).to_f32(),
            Of::Bf16 => bf16::from_bits(typed::<u16>(bytes)[i]).to_f32(),
        }
    }

    fn rounded(self, x: f32) -> f32 {
        match self {
            Of::F32 => x,
            Of::F16 => f16::from_f32(x).to_f32(),
            Of::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }
}

/// The scale of each group of numbers, as a byte.
pub fn float_scales(numbers: &[u8], of: Of, packing: &Packing, scales: &mut [u8]) {
    let most = match packing.code {
        Code::E2m1 => 6.0,
        _ => 448.0,
    };
    let group = packing.group * of.bytes();
    let groups = PART / packing.group;
    pool::each_chunk(scales, groups, |i, scales| {
        let numbers = numbers[i * groups * group..].chunks_exact(group);
        for (numbers, scale) in numbers.zip(scales) {
            // A NaN is passed on: no scale is above it.
            let greatest = (0..packing.group).fold(0.0, |most: f32, i| {
                let size = of.get(numbers, i).abs();
                if size > most || size.is_nan() {
                    size
                } else {
                    most
                }
            });
            let wanted = of.rounded(greatest / most);
            *scale = match packing.factor {
                Factor::E4m3 => to_e4m3(wanted),
                _ => exponent(wanted, of),
            };
        }
    });
}

/// The exponent of the least power of two that is no less, plus 127. Zero has that of one, and what is not finite that of
/// infinity.
fn exponent(scale: f32, of: Of) -> u8 {
    if scale == 0.0 {
        return 127;
    }
    if !scale.is_finite() {
        return 255;
    }
    let exponent = of.rounded(scale.log2()).ceil();
    (exponent + 127.0).clamp(0.0, 254.0) as u8
}

/// The words of numbers whose groups have these scales.
pub fn float_codes(numbers: &[u8], of: Of, packing: &Packing, scales: &[u8], words: &mut [u32]) {
    let bits = packing.code.bits();
    let (a_word, words_a_group) = (32 / bits, packing.group * bits / 32);
    let groups = PART / packing.group;
    pool::each_chunk(words, groups * words_a_group, |part, words| {
        for (i, words) in words.chunks_exact_mut(words_a_group).enumerate() {
            let group = part * groups + i;
            let scale = match packing.factor {
                Factor::E4m3 => e4m3(scales[group].into()),
                _ => power_of_two(scales[group]),
            };
            let scale = of.rounded(scale);
            for (at, word) in words.iter_mut().enumerate() {
                *word = (0..a_word).fold(0, |word, place| {
                    let i = group * packing.group + at * a_word + place;
                    let number = of.rounded(of.get(numbers, i) / scale);
                    let code = match packing.code {
                        Code::E2m1 => to_e2m1(number, of),
                        _ => to_e4m3(number).into(),
                    };
                    word | code << (place * bits)
                });
            }
        }
    });
}

/// The first of the codes that are nearest; 0 for NaN.
fn to_e2m1(x: f32, of: Of) -> u32 {
    let distance = |code: u32| of.rounded((x - E2m1::number(code)).abs());
    (1..16).fold(0, |best, code| {
        if distance(code) < distance(best) {
            code
        } else {
            best
        }
    })
}

/// The nearest float of 8 bits, the even one of two; the greatest, 448, for what is beyond it and for NaN.
fn to_e4m3(x: f32) -> u8 {
    /// `2^14`, whose last digits are those of the floats below the normal ones.
    const SHIFT: u32 = 141 << 23;
    let sign = x.to_bits() & 1 << 31;
    let size = x.to_bits() ^ sign;
    let code = if size >= 543 << 21 {
        0x7E
    } else if size < 121 << 23 {
        (f32::from_bits(size) + f32::from_bits(SHIFT)).to_bits() - SHIFT
    } else {
        let odd = size >> 20 & 1;
        (size - (120 << 23) + 0x7_FFFF + odd) >> 20
    };
    (code | sign >> 24) as u8
}
