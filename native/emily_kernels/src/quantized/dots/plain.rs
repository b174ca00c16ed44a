//! What any processor has, in loops that the compiler makes vectors of.

use std::marker::PhantomData;

use super::{Block, Dots, CODES};
use crate::math::Arithmetic;
use crate::quantized::rounded::HIGHER;

/// So many sums are taken side by side.
const LANES: usize = 8;

#[derive(Clone, Copy)]
pub(in crate::quantized) struct Plain<A>(PhantomData<A>);

impl<A> Plain<A> {
    #[inline(always)]
    pub(in crate::quantized) fn new() -> Self {
        Plain(PhantomData)
    }
}

impl<A: Arithmetic + Sync + 'static> Dots for Plain<A> {
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    type Codes = [u8; CODES];
    type Sums = [f32; LANES];
    type Floats = [f32; LANES];
    type Integers = [i32; LANES];

    #[inline(always)]
    fn halves(self, bits: u32) -> [f32; 2] {
        [bits & 0xFFFF, bits >> 16].map(|bits| {
            let size = (bits & 0x7FFF) << 13;
            // The exponent counts from another number, but for what is not finite.
            let number = f32::from_bits(size) * f32::from_bits(239 << 23);
            let endless = if size >= 31 << 23 { 255 << 23 } else { 0 };
            f32::from_bits(number.to_bits() | endless | (bits & 0x8000) << 16)
        })
    }

    #[inline(always)]
    fn many_halves(self, bits: [u32; 8]) -> [[f32; 8]; 2] {
        let mut halves = [[0.0; 8]; 2];
        for (at, bits) in bits.into_iter().enumerate() {
            [halves[0][at], halves[1][at]] = self.halves(bits);
        }
        halves
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        A::mul_add_single(a, b, c)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; CODES]) -> [u8; CODES] {
        *bytes
    }

    #[inline(always)]
    fn store(self, codes: [u8; CODES]) -> [u8; CODES] {
        codes
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; CODES / 2]) -> [u8; CODES] {
        let mut codes = [0; CODES];
        let (low, high) = codes.split_at_mut(CODES / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
        codes
    }

    #[inline(always)]
    fn pick(self, codes: [u8; CODES], shift: u32, mask: u8) -> [u8; CODES] {
        codes.map(|code| code >> shift & mask)
    }

    #[inline(always)]
    fn join(self, mut low: [u8; CODES], high: [u8; CODES], shift: u32) -> [u8; CODES] {
        for (low, high) in low.iter_mut().zip(high) {
            *low |= high << shift;
        }
        low
    }

    #[inline(always)]
    fn bits(self, bits: u32) -> [u8; CODES] {
        std::array::from_fn(|i| (bits >> i & 1) as u8)
    }

    #[inline(always)]
    fn turn(self, codes: [u8; CODES]) -> [u8; CODES] {
        codes.map(|code| code ^ 0x80)
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: [u8; CODES]) -> [u8; CODES] {
        codes.map(|code| table[code as usize & 15])
    }

    #[inline(always)]
    fn none(self) -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    fn add<B: Block>(
        self,
        mut sums: [f32; LANES],
        codes: [u8; CODES],
        x: &[[i8; CODES]; 2],
        starts: &[i32; 8],
        scales: &[f32],
    ) -> [f32; LANES] {
        // The first lanes have the first half.
        let (halves, _) = sums.as_chunks_mut::<{ LANES / 2 }>();
        for (half, sums) in halves.iter_mut().enumerate() {
            let mut integers = [0; LANES / 2];
            integers[0] = starts[half * LANES / 2];
            for at in 0..CODES / 8 {
                for (lane, sum) in integers.iter_mut().enumerate() {
                    let at = half * CODES / 2 + at * LANES / 2 + lane;
                    let (high, low) = (i32::from(x[0][at]), i32::from(x[1][at]));
                    *sum += i32::from(codes[at]) * (high * HIGHER + low);
                }
            }
            for (sum, integer) in sums.iter_mut().zip(integers) {
                *sum = A::mul_add_single(integer as f32, scales[half * scales.len() / 2], *sum);
            }
        }
        sums
    }

    #[inline(always)]
    fn join_sums(self, mut a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
        a
    }

    #[inline(always)]
    fn total(self, sums: [f32; LANES]) -> f32 {
        sums.iter().sum()
    }

    #[inline(always)]
    fn zeros(self) -> ([f32; LANES], [i32; LANES]) {
        ([0.0; LANES], [0; LANES])
    }

    #[inline(always)]
    fn floats(self, from: &[f32]) -> [f32; LANES] {
        *from.first_chunk().expect("a panel is whole")
    }

    #[inline(always)]
    fn put(self, floats: [f32; LANES], to: &mut [f32]) {
        to.copy_from_slice(&floats);
    }

    #[inline(always)]
    fn multiply(self, mut sums: [i32; LANES], codes: &[[i16; 2]], x: [i16; 2]) -> [i32; LANES] {
        for (sum, codes) in sums.iter_mut().zip(codes) {
            for (code, x) in codes.iter().zip(x) {
                *sum += i32::from(*code) * i32::from(x);
            }
        }
        sums
    }

    #[inline(always)]
    fn scale(
        self,
        mut totals: [f32; LANES],
        sums: [i32; LANES],
        scales: [f32; LANES],
        scale: f32,
    ) -> [f32; LANES] {
        for ((total, sum), scale_of) in totals.iter_mut().zip(sums).zip(scales) {
            *total = A::mul_add_single(sum as f32, scale_of * scale, *total);
        }
        totals
    }

    #[inline(always)]
    fn add_scaled(self, mut totals: [f32; LANES], a: [f32; LANES], b: f32) -> [f32; LANES] {
        for (total, a) in totals.iter_mut().zip(a) {
            *total = A::mul_add_single(a, b, *total);
        }
        totals
    }
}
