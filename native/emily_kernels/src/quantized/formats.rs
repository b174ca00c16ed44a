//! GGML's blocks: where a block has its numbers' codes, and where their scales.
//!
//! Source: <https://github.com/ggml-org/llama.cpp>, ggml/src/ggml-common.h and ggml-quants.c.

use super::dots::{Block, Dots, CODES, FACTORS, WIDE};
use super::factors::power_of_two;

#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("a block is whole")
}

#[inline(always)]
fn half<D: Dots>(dots: D, block: &[u8], at: usize) -> f32 {
    let [half, _] = dots.halves(u16::from_le_bytes(*part(block, at)).into());
    half
}

/// Two that follow each other.
#[inline(always)]
fn halves<D: Dots>(dots: D, block: &[u8], at: usize) -> [f32; 2] {
    dots.halves(u32::from_le_bytes(*part(block, at)))
}

/// Two at the beginning of each block of a type.
#[inline(always)]
fn at_beginnings<B: Block, D: Dots>(dots: D, blocks: &[u8]) -> [[f32; 8]; 2] {
    let mut bits = [0; 8];
    if blocks.len() == B::BYTES {
        let [first, second] = halves(dots, blocks, 0);
        return [first, second].map(|half| [half, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
    if blocks.len() == 8 * B::BYTES {
        for (at, bits) in bits.iter_mut().enumerate() {
            *bits = u32::from_le_bytes(*part(blocks, at * B::BYTES));
        }
    } else {
        for (block, bits) in blocks.chunks_exact(B::BYTES).zip(&mut bits) {
            *bits = u32::from_le_bytes(*part(block, 0));
        }
    }
    dots.many_halves(bits)
}

/// One scale at the beginning of each block.
#[inline(always)]
fn scales_of<B: Block, D: Dots>(dots: D, blocks: &[u8], scales: &mut [f32; FACTORS]) {
    let [first, _] = at_beginnings::<B, D>(dots, blocks);
    scales[..8].copy_from_slice(&first);
}

/// A scale at the beginning of each block, and what is added behind it.
#[inline(always)]
fn pairs_of<B: Block, D: Dots>(
    dots: D,
    blocks: &[u8],
    scales: &mut [f32; FACTORS],
    least: &mut [f32; FACTORS],
) {
    let [first, second] = at_beginnings::<B, D>(dots, blocks);
    for at in 0..8 {
        (scales[at], least[at]) = (first[at], -second[at]);
    }
}

#[inline(always)]
fn load<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
    dots.load(part::<CODES>(block, at))
}

/// Codes with their fifth bits, which stand in their order.
#[inline(always)]
fn with_fifth<D: Dots>(dots: D, block: &[u8], at: usize, codes: D::Codes) -> D::Codes {
    let bits = dots.bits(u32::from_le_bytes(*part(block, at)));
    dots.join(codes, bits, 4)
}

pub(super) struct Q4_0;

impl Block for Q4_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        dots.nibbles(part(block, 2))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        scales_of::<Self, D>(dots, block, scales);
    }
}

pub(super) struct Q4_1;

impl Block for Q4_1 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        dots.nibbles(part(block, 4))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        least: &mut [f32; FACTORS],
    ) {
        pairs_of::<Self, D>(dots, block, scales, least);
    }
}

pub(super) struct Q5_0;

impl Block for Q5_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;
    const OFFSET: i32 = 16;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        with_fifth(dots, block, 2, dots.nibbles(part(block, 6)))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        scales_of::<Self, D>(dots, block, scales);
    }
}

pub(super) struct Q5_1;

impl Block for Q5_1 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        with_fifth(dots, block, 4, dots.nibbles(part(block, 8)))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        least: &mut [f32; FACTORS],
    ) {
        pairs_of::<Self, D>(dots, block, scales, least);
    }
}

pub(super) struct Q8_0;

impl Block for Q8_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const OFFSET: i32 = WIDE;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        // Their sign turned is what is above the least of them.
        let wide = load(dots, block, 2);
        dots.turn(wide)
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        scales_of::<Self, D>(dots, block, scales);
    }
}

pub(super) struct Q2K;

impl Block for Q2K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
        dots.pick(
            load(dots, block, 16 + 32 * (at / 4)),
            2 * (at as u32 % 4),
            3,
        )
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        least: &mut [f32; FACTORS],
    ) {
        let [scale, step] = halves(dots, block, 80);
        let bytes = part::<16>(block, 0);
        for group in 0..16 {
            scales[group] = scale * f32::from(bytes[group] & 15);
            least[group] = step * f32::from(bytes[group] >> 4);
        }
    }
}

pub(super) struct Q3K;

impl Block for Q3K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const OFFSET: i32 = 4;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
        let low = dots.pick(
            load(dots, block, 32 + 32 * (at / 4)),
            2 * (at as u32 % 4),
            3,
        );
        let third = dots.pick(load(dots, block, 0), at as u32, 1);
        dots.join(low, third, 2)
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        let scale = half(dots, block, 108);
        let bytes = part::<12>(block, 96);
        for (group, scale_of) in scales.iter_mut().enumerate() {
            let low = bytes[group % 8] >> (group / 8 * 4) & 15;
            let high = bytes[8 + group % 4] >> (group / 4 * 2) & 3;
            *scale_of = scale * (f32::from(low | high << 4) - 32.0);
        }
    }
}

/// The scales and steps of Q4_K and Q5_K, six bits each.
#[inline(always)]
fn six_bits<D: Dots>(
    dots: D,
    block: &[u8],
    scales: &mut [f32; FACTORS],
    least: &mut [f32; FACTORS],
) {
    let [scale, step] = halves(dots, block, 0);
    let bytes = part::<12>(block, 4);
    for i in 0..4 {
        scales[i] = scale * f32::from(bytes[i] & 63);
        least[i] = step * f32::from(bytes[i + 4] & 63);
        scales[i + 4] = scale * f32::from(bytes[i + 8] & 15 | bytes[i] >> 6 << 4);
        least[i + 4] = step * f32::from(bytes[i + 8] >> 4 | bytes[i + 4] >> 6 << 4);
    }
}

pub(super) struct Q4K;

impl Block for Q4K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
        dots.pick(
            load(dots, block, 16 + 32 * (at / 2)),
            4 * (at as u32 % 2),
            15,
        )
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        least: &mut [f32; FACTORS],
    ) {
        six_bits(dots, block, scales, least);
    }
}

pub(super) struct Q5K;

impl Block for Q5K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
        let low = dots.pick(
            load(dots, block, 48 + 32 * (at / 2)),
            4 * (at as u32 % 2),
            15,
        );
        let fifth = dots.pick(load(dots, block, 16), at as u32, 1);
        dots.join(low, fifth, 4)
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        least: &mut [f32; FACTORS],
    ) {
        six_bits(dots, block, scales, least);
    }
}

pub(super) struct Q6K;

impl Block for Q6K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
        let (half, place) = (at / 4, at % 4);
        let low = load(dots, block, 64 * half + 32 * (place % 2));
        let low = dots.pick(low, 4 * (place as u32 / 2), 15);
        let high = dots.pick(load(dots, block, 128 + 32 * half), 2 * place as u32, 3);
        dots.join(low, high, 4)
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        let scale = half(dots, block, 208);
        for (scale_of, byte) in scales.iter_mut().zip(part::<16>(block, 192)) {
            *scale_of = scale * f32::from(*byte as i8);
        }
    }
}

/// What the codes of IQ4_NL and IQ4_XS stand for, and `WIDE` more.
const UNEVEN: [u8; 16] = [
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
];

pub(super) struct Iq4Nl;

impl Block for Iq4Nl {
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: i32 = WIDE;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        dots.look_up(&UNEVEN, dots.nibbles(part(block, 2)))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        scales_of::<Self, D>(dots, block, scales);
    }
}

pub(super) struct Iq4Xs;

impl Block for Iq4Xs {
    const NUMBERS: usize = 256;
    const BYTES: usize = 136;
    const GROUP: usize = 32;
    const OFFSET: i32 = WIDE;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes {
        dots.look_up(&UNEVEN, dots.nibbles(part(block, 8 + 16 * at)))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        let scale = half(dots, block, 0);
        let high = u16::from_le_bytes(*part(block, 2));
        let low = u32::from_le_bytes(*part(block, 4));
        for (group, scale_of) in scales[..8].iter_mut().enumerate() {
            let code = low >> (4 * group) & 15 | u32::from(high >> (2 * group) & 3) << 4;
            *scale_of = scale * (code as i32 as f32 - 32.0);
        }
    }
}

/// Twice the floats of 4 bits, which are whole, and 12 more.
const TWICE: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// Floats of 4 bits, whose scale is a power of two.
pub(super) struct Mxfp4;

impl Block for Mxfp4 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 17;
    const GROUP: usize = 32;
    const OFFSET: i32 = 12;

    #[inline(always)]
    fn codes<D: Dots>(dots: D, block: &[u8], _at: usize) -> D::Codes {
        dots.look_up(&TWICE, dots.nibbles(part(block, 1)))
    }

    #[inline(always)]
    fn factors<D: Dots>(
        _dots: D,
        block: &[u8],
        scales: &mut [f32; FACTORS],
        _least: &mut [f32; FACTORS],
    ) {
        for (scale, block) in scales.iter_mut().zip(block.chunks_exact(Self::BYTES)) {
            // Half of the power, which has no infinity.
            *scale = match block[0] {
                0 => f32::from_bits(1 << 21),
                exponent => power_of_two(exponent - 1),
            };
        }
    }
}
