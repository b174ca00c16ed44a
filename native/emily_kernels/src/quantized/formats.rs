//! GGML's blocks: where a block has its numbers' codes, and where their scales.
//!
//! Source: <https://github.com/ggml-org/llama.cpp>, ggml/src/ggml-common.h and ggml-quants.c.

use super::factors::power_of_two;
use crate::math::Arithmetic;

/// No block has more numbers.
pub(super) const MOST: usize = 256;
/// No block has more groups.
pub(super) const GROUPS: usize = 16;

/// What the kernels are compiled for: a number is `scale * code - least`.
pub(super) trait Block: 'static {
    /// How many numbers a block has, and how many bytes.
    const NUMBERS: usize;
    const BYTES: usize;
    /// How many numbers share a scale: 16 or 32.
    const GROUP: usize;
    /// Whether anything is subtracted.
    const LEAST: bool = false;

    /// The numbers' codes, in their order.
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]);

    /// The scale of each group, and what is subtracted.
    fn factors<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]);
}

#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("a block is whole")
}

#[inline(always)]
fn half<A: Arithmetic>(block: &[u8], at: usize) -> f32 {
    // SAFETY: blocks are taken apart by functions that are compiled for the level.
    unsafe { A::half(u16::from_le_bytes(*part(block, at))) }
}

/// Each of the numbers of two slices makes one of the codes.
#[inline(always)]
fn each<const N: usize>(
    codes: &mut [i8],
    (low, high): (&[u8; N], &[u8; N]),
    code: impl Fn(u8, u8) -> u8,
) {
    for ((code_of, low), high) in codes[..N].iter_mut().zip(low).zip(high) {
        *code_of = code(*low, *high) as i8;
    }
}

/// The low halves of bytes, then the high ones, less a number.
#[inline(always)]
fn nibbles<const N: usize>(bytes: &[u8; N], codes: &mut [i8], less: u8) {
    each(codes, (bytes, bytes), |byte, _| {
        (byte & 15).wrapping_sub(less)
    });
    each(&mut codes[N..], (bytes, bytes), |byte, _| {
        (byte >> 4).wrapping_sub(less)
    });
}

/// Adds to 32 codes their fifth bits, which stand in their order, and subtracts a number.
#[inline(always)]
fn add_fifth(block: &[u8], at: usize, codes: &mut [i8; MOST], less: i8) {
    let bytes = part::<4>(block, at);
    for (byte, codes) in bytes.iter().zip(codes.chunks_exact_mut(8)) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = (*code | ((byte >> i & 1) << 4) as i8) - less;
        }
    }
}

pub(super) struct Q4_0;

impl Block for Q4_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        nibbles(part::<16>(block, 2), codes, 8);
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        scales[0] = half::<A>(block, 0);
    }
}

pub(super) struct Q4_1;

impl Block for Q4_1 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        nibbles(part::<16>(block, 4), codes, 0);
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]) {
        (scales[0], least[0]) = (half::<A>(block, 0), -half::<A>(block, 2));
    }
}

pub(super) struct Q5_0;

impl Block for Q5_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        nibbles(part::<16>(block, 6), codes, 0);
        add_fifth(block, 2, codes, 16);
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        scales[0] = half::<A>(block, 0);
    }
}

pub(super) struct Q5_1;

impl Block for Q5_1 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        nibbles(part::<16>(block, 8), codes, 0);
        add_fifth(block, 4, codes, 0);
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]) {
        (scales[0], least[0]) = (half::<A>(block, 0), -half::<A>(block, 2));
    }
}

pub(super) struct Q8_0;

impl Block for Q8_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        let bytes = part::<32>(block, 2);
        each(codes, (bytes, bytes), |byte, _| byte);
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        scales[0] = half::<A>(block, 0);
    }
}

pub(super) struct Q2K;

impl Block for Q2K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
            let bytes = part::<32>(block, 16 + 32 * half);
            for (place, codes) in codes.chunks_exact_mut(32).enumerate() {
                each(codes, (bytes, bytes), |byte, _| byte >> (2 * place) & 3);
            }
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]) {
        let (scale, step) = (half::<A>(block, 80), half::<A>(block, 82));
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

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        let third = part::<32>(block, 0);
        for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
            let bytes = part::<32>(block, 32 + 32 * half);
            for (place, codes) in codes.chunks_exact_mut(32).enumerate() {
                each(codes, (bytes, third), |low, third| {
                    let third = third >> (4 * half + place) & 1;
                    (low >> (2 * place) & 3 | third << 2).wrapping_sub(4)
                });
            }
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        let scale = half::<A>(block, 108);
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
fn six_bits<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]) {
    let (scale, step) = (half::<A>(block, 0), half::<A>(block, 2));
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
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        for (set, codes) in codes.chunks_exact_mut(64).enumerate() {
            nibbles(part::<32>(block, 16 + 32 * set), codes, 0);
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]) {
        six_bits::<A>(block, scales, least);
    }
}

pub(super) struct Q5K;

impl Block for Q5K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const LEAST: bool = true;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        let fifth = part::<32>(block, 16);
        for (set, codes) in codes.chunks_exact_mut(64).enumerate() {
            let bytes = part::<32>(block, 48 + 32 * set);
            for (place, codes) in codes.chunks_exact_mut(32).enumerate() {
                each(codes, (bytes, fifth), |low, fifth| {
                    low >> (4 * place) & 15 | (fifth >> (2 * set + place) & 1) << 4
                });
            }
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(block: &[u8], scales: &mut [f32; GROUPS], least: &mut [f32; GROUPS]) {
        six_bits::<A>(block, scales, least);
    }
}

pub(super) struct Q6K;

impl Block for Q6K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
            let high = part::<32>(block, 128 + 32 * half);
            for (place, codes) in codes.chunks_exact_mut(32).enumerate() {
                let low = part::<32>(block, 64 * half + 32 * (place % 2));
                each(codes, (low, high), |low, high| {
                    let low = low >> (4 * (place / 2)) & 15;
                    (low | (high >> (2 * place) & 3) << 4).wrapping_sub(32)
                });
            }
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        let scale = half::<A>(block, 208);
        for (scale_of, byte) in scales.iter_mut().zip(part::<16>(block, 192)) {
            *scale_of = scale * f32::from(*byte as i8);
        }
    }
}

/// What the codes of IQ4_NL and IQ4_XS stand for.
const UNEVEN: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

#[inline(always)]
fn uneven<A: Arithmetic>(bytes: &[u8; 16], codes: &mut [i8]) {
    nibbles(bytes, codes, 0);
    let (sixteens, _) = codes.as_chunks_mut::<16>();
    for codes in sixteens.iter_mut().take(2) {
        // SAFETY: blocks are taken apart by functions that are compiled for the level.
        *codes = unsafe { A::look_up(&UNEVEN, codes) };
    }
}

pub(super) struct Iq4Nl;

impl Block for Iq4Nl {
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        uneven::<A>(part(block, 2), codes);
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        scales[0] = half::<A>(block, 0);
    }
}

pub(super) struct Iq4Xs;

impl Block for Iq4Xs {
    const NUMBERS: usize = 256;
    const BYTES: usize = 136;
    const GROUP: usize = 32;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        for (set, codes) in codes.chunks_exact_mut(32).enumerate() {
            uneven::<A>(part(block, 8 + 16 * set), codes);
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        let scale = half::<A>(block, 0);
        let high = u16::from_le_bytes(*part(block, 2));
        let low = u32::from_le_bytes(*part(block, 4));
        for (group, scale_of) in scales[..8].iter_mut().enumerate() {
            let code = low >> (4 * group) & 15 | u32::from(high >> (2 * group) & 3) << 4;
            *scale_of = scale * (code as i32 as f32 - 32.0);
        }
    }
}

/// Floats of 4 bits, whose scale is a power of two.
pub(super) struct Mxfp4;

impl Block for Mxfp4 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 17;
    const GROUP: usize = 32;

    #[inline(always)]
    fn codes<A: Arithmetic>(block: &[u8], codes: &mut [i8; MOST]) {
        nibbles(part::<16>(block, 1), codes, 0);
        for code in &mut codes[..32] {
            // Twice the number, which is whole: 0, 1, 2, 3, 4, 6, 8 or 12.
            let size = *code & 7;
            let size = match size {
                0..4 => size,
                4..6 => 2 * size - 4,
                _ => 4 * size - 16,
            };
            *code = if *code & 8 == 0 { size } else { -size };
        }
    }

    #[inline(always)]
    fn factors<A: Arithmetic>(
        block: &[u8],
        scales: &mut [f32; GROUPS],
        _least: &mut [f32; GROUPS],
    ) {
        // Half of the power, which has no infinity.
        scales[0] = match block[0] {
            0 => f32::from_bits(1 << 21),
            exponent => power_of_two(exponent - 1),
        };
    }
}
