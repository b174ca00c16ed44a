//! AVX2, and the dot products of AVX-VNNI and AVX-512 VNNI.

use std::arch::x86_64::*;

use crate::quantized::rounded::{HIGHER, HIGHER_BITS};

use super::{Block, Dots, CODES, WIDE};

/// Products of pairs in 16 bits: without VNNI.
#[derive(Clone, Copy)]
pub(in crate::quantized) struct Avx2(());

/// AVX2 with AVX-VNNI.
#[derive(Clone, Copy)]
pub(in crate::quantized) struct Vnni256(());

/// AVX-512 with its VNNI.
#[derive(Clone, Copy)]
pub(in crate::quantized) struct Vnni512(());

macro_rules! new {
    ($type:ident) => {
        impl $type {
            /// # Safety
            /// The processor has the instructions.
            #[inline(always)]
            pub(in crate::quantized) unsafe fn new() -> Self {
                $type(())
            }
        }
    };
}

new!(Avx2);
new!(Vnni256);
new!(Vnni512);

/// A vector that begins with these bits. The compiler would put the lowest of them into a register that is in use, and
/// wait for what was in there.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn moved(bits: u32) -> __m128i {
    let vector;
    // SAFETY: the caller's promise; one instruction, which touches nothing else.
    unsafe {
        std::arch::asm!(
            "vmovd {vector}, {bits:e}",
            vector = lateout(xmm_reg) vector,
            bits = in(reg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    vector
}

/// Two integers as they lie side by side.
#[inline(always)]
fn both([first, second]: [i16; 2]) -> i32 {
    i32::from(first as u16) | i32::from(second) << 16
}

/// Adds integers. The compiler would add up many in another order, for which there are not registers enough.
#[inline]
#[target_feature(enable = "avx2")]
fn add_in_order(mut sums: __m256i, more: __m256i) -> __m256i {
    // SAFETY: one instruction, which touches nothing else.
    unsafe {
        std::arch::asm!(
            "vpaddd {sums}, {sums}, {more}",
            sums = inout(ymm_reg) sums,
            more = in(ymm_reg) more,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// What all have alike: codes in a vector of 256 bits.
macro_rules! codes {
    () => {
        type Codes = __m256i;
        type Sums = __m256;

        #[inline(always)]
        fn halves(self, bits: u32) -> [f32; 2] {
            // SAFETY: who has such a value has F16C.
            unsafe {
                let numbers = _mm_cvtph_ps(moved(bits));
                let second = _mm_movehdup_ps(numbers);
                [_mm_cvtss_f32(numbers), _mm_cvtss_f32(second)]
            }
        }

        #[inline(always)]
        fn many_halves(self, bits: [u32; 8]) -> [[f32; 8]; 2] {
            let [a, b, c, d, e, f, g, h] = bits.map(|bits| bits as i32);
            let mut halves = [[0.0; 8]; 2];
            // SAFETY: as above, and AVX2.
            unsafe {
                let bits = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
                let first = _mm256_and_si256(bits, _mm256_set1_epi32(0xFFFF));
                let second = _mm256_srli_epi32(bits, 16);
                // Four of each, and four of each again.
                let both = _mm256_packus_epi32(first, second);
                let both = _mm256_permute4x64_epi64(both, 0b11_01_10_00);
                let first = _mm256_cvtph_ps(_mm256_castsi256_si128(both));
                let second = _mm256_cvtph_ps(_mm256_extracti128_si256(both, 1));
                _mm256_storeu_ps(halves[0].as_mut_ptr(), first);
                _mm256_storeu_ps(halves[1].as_mut_ptr(), second);
            }
            halves
        }

        #[inline(always)]
        fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }

        #[inline(always)]
        fn load(self, bytes: &[u8; CODES]) -> __m256i {
            // SAFETY: so many bytes are a vector; who has such a value has AVX2, here and below.
            unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, codes: __m256i) -> [u8; CODES] {
            let mut bytes = [0; CODES];
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), codes) };
            bytes
        }

        #[inline(always)]
        fn nibbles(self, bytes: &[u8; CODES / 2]) -> __m256i {
            // SAFETY: as above; 16 bytes are half a vector.
            unsafe {
                let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
                let each = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
                _mm256_and_si256(each, _mm256_set1_epi8(15))
            }
        }

        #[inline(always)]
        fn pick(self, codes: __m256i, shift: u32, mask: u8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let shifted = _mm256_srl_epi16(codes, _mm_cvtsi32_si128(shift as i32));
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
            }
        }

        #[inline(always)]
        fn join(self, low: __m256i, high: __m256i, shift: u32) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let shifted = _mm256_sll_epi16(high, _mm_cvtsi32_si128(shift as i32));
                _mm256_or_si256(low, shifted)
            }
        }

        #[inline(always)]
        fn bits(self, bits: u32) -> __m256i {
            // SAFETY: as above.
            unsafe {
                // Each byte of the bits eight times, of which each keeps another bit.
                let eight = _mm256_setr_epi64x(
                    0,
                    0x0101_0101_0101_0101,
                    0x0202_0202_0202_0202,
                    0x0303_0303_0303_0303,
                );
                let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), eight);
                let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, own), own);
                _mm256_and_si256(is_set, _mm256_set1_epi8(1))
            }
        }

        #[inline(always)]
        fn turn(self, codes: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN)) }
        }

        #[inline(always)]
        fn look_up(self, table: &[u8; 16], codes: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                _mm256_shuffle_epi8(table, codes)
            }
        }

        #[inline(always)]
        fn none(self) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        fn add<B: Block>(
            self,
            sums: __m256,
            codes: __m256i,
            x: &[[i8; CODES]; 2],
            starts: &[i32; 8],
            scales: &[f32],
        ) -> __m256 {
            // SAFETY: as above; eight integers are a vector.
            unsafe {
                let x = [&x[0], &x[1]].map(|x| _mm256_loadu_si256(x.as_ptr().cast()));
                let starts = _mm256_loadu_si256(starts.as_ptr().cast());
                let products = self.products::<B>(codes, x, starts);
                let scales = match B::GROUP {
                    CODES => _mm256_set1_ps(scales[0]),
                    _ => _mm256_set_m128(_mm_set1_ps(scales[1]), _mm_set1_ps(scales[0])),
                };
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scales, sums)
            }
        }

        #[inline(always)]
        fn join_sums(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn total(self, sums: __m256) -> f32 {
            // SAFETY: as above.
            unsafe {
                let sums = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
                let sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
                _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)))
            }
        }
    };
}

/// A panel's rows in a vector of 256 bits.
macro_rules! lanes {
    () => {
        const LANES: usize = 8;
        const ROWS: usize = 4;
        type Floats = __m256;
        type Integers = __m256i;

        #[inline(always)]
        fn zeros(self) -> (__m256, __m256i) {
            // SAFETY: as above.
            unsafe { (_mm256_setzero_ps(), _mm256_setzero_si256()) }
        }

        #[inline(always)]
        fn floats(self, from: &[f32]) -> __m256 {
            let from: &[f32; 8] = from.first_chunk().expect("a panel is whole");
            // SAFETY: as above; eight are a vector.
            unsafe { _mm256_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn put(self, floats: __m256, to: &mut [f32]) {
            let to: &mut [f32; 8] = to.first_chunk_mut().expect("a panel is whole");
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), floats) }
        }

        #[inline(always)]
        fn multiply(self, sums: __m256i, codes: &[[i16; 2]], x: [i16; 2]) -> __m256i {
            let codes: &[[i16; 2]; 8] = codes.first_chunk().expect("a panel is whole");
            // SAFETY: as above.
            unsafe {
                let codes = _mm256_loadu_si256(codes.as_ptr().cast());
                self.pairs(sums, codes, _mm256_set1_epi32(both(x)))
            }
        }

        #[inline(always)]
        fn scale(self, totals: __m256, sums: __m256i, scales: __m256, scale: f32) -> __m256 {
            // SAFETY: as above.
            unsafe {
                let scales = _mm256_mul_ps(scales, _mm256_set1_ps(scale));
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scales, totals)
            }
        }

        #[inline(always)]
        fn add_scaled(self, totals: __m256, a: __m256, b: f32) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(a, _mm256_set1_ps(b), totals) }
        }
    };
}

/// Sums of four products each, by what adds four products of 8 bits.
macro_rules! vnni {
    () => {
        #[inline(always)]
        unsafe fn products<B: Block>(
            self,
            codes: __m256i,
            [high, low]: [__m256i; 2],
            starts: __m256i,
        ) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe {
                let high = self.dots(_mm256_setzero_si256(), codes, high);
                let mut sums = _mm256_slli_epi32(high, HIGHER_BITS);
                if B::OFFSET != 0 {
                    sums = _mm256_add_epi32(sums, starts);
                }
                self.dots(sums, codes, low)
            }
        }
    };
}

impl Avx2 {
    #[inline(always)]
    unsafe fn pairs(self, sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { add_in_order(sums, _mm256_madd_epi16(codes, x)) }
    }

    /// The sums of four products each.
    #[inline(always)]
    unsafe fn products<B: Block>(
        self,
        codes: __m256i,
        [first, second]: [__m256i; 2],
        starts: __m256i,
    ) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            if B::OFFSET == WIDE {
                // With signs, and 256 times as much; four products of 23 bits are still within 32.
                let codes = _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN));
                let even = _mm256_madd_epi16(_mm256_slli_epi16(codes, 8), first);
                let odd = _mm256_and_si256(codes, _mm256_set1_epi16(-256));
                let odd = _mm256_madd_epi16(odd, second);
                return _mm256_srai_epi32(_mm256_add_epi32(even, odd), 8);
            }
            let high = _mm256_maddubs_epi16(codes, first);
            let high = _mm256_madd_epi16(high, _mm256_set1_epi16(HIGHER as i16));
            let low = _mm256_maddubs_epi16(codes, second);
            let low = _mm256_madd_epi16(low, _mm256_set1_epi16(1));
            let sums = _mm256_add_epi32(high, low);
            if B::OFFSET == 0 {
                return sums;
            }
            _mm256_add_epi32(sums, starts)
        }
    }
}

impl Dots for Avx2 {
    codes!();
    lanes!();

    /// Wide codes are multiplied with integers of 16 bits: those in the even places, and the others.
    #[inline(always)]
    fn arrange<B: Block>(self, x: [[i8; CODES]; 2]) -> [[i8; CODES]; 2] {
        if B::OFFSET != WIDE {
            return x;
        }
        let mut arranged = [[0; CODES]; 2];
        for at in 0..CODES {
            let [high, low] = x.map(|x| i32::from(x[at]));
            let bytes = ((high * HIGHER + low) as i16).to_le_bytes();
            let place = at - at % 2;
            arranged[at % 2][place] = bytes[0] as i8;
            arranged[at % 2][place + 1] = bytes[1] as i8;
        }
        arranged
    }
}

impl Vnni256 {
    #[inline(always)]
    unsafe fn pairs(self, sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: who has such a value has AVX-VNNI.
        unsafe { _mm256_dpwssd_avx_epi32(sums, codes, x) }
    }

    #[inline(always)]
    unsafe fn dots(self, sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_dpbusd_avx_epi32(sums, codes, x) }
    }

    vnni!();
}

impl Dots for Vnni256 {
    codes!();
    lanes!();
}

impl Vnni512 {
    #[inline(always)]
    unsafe fn dots(self, sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: who has such a value has AVX-512 VNNI.
        unsafe { _mm256_dpbusd_epi32(sums, codes, x) }
    }

    vnni!();
}

impl Dots for Vnni512 {
    const LANES: usize = 16;
    const ROWS: usize = 8;
    type Floats = __m512;
    type Integers = __m512i;
    codes!();

    #[inline(always)]
    fn zeros(self) -> (__m512, __m512i) {
        // SAFETY: who has such a value has AVX-512, here and below.
        unsafe { (_mm512_setzero_ps(), _mm512_setzero_si512()) }
    }

    #[inline(always)]
    fn floats(self, from: &[f32]) -> __m512 {
        let from: &[f32; 16] = from.first_chunk().expect("a panel is whole");
        // SAFETY: as above; 16 are a vector.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn put(self, floats: __m512, to: &mut [f32]) {
        let to: &mut [f32; 16] = to.first_chunk_mut().expect("a panel is whole");
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), floats) }
    }

    #[inline(always)]
    fn multiply(self, sums: __m512i, codes: &[[i16; 2]], x: [i16; 2]) -> __m512i {
        let codes: &[[i16; 2]; 16] = codes.first_chunk().expect("a panel is whole");
        // SAFETY: as above, and its VNNI.
        unsafe {
            let codes = _mm512_loadu_si512(codes.as_ptr().cast());
            _mm512_dpwssd_epi32(sums, codes, _mm512_set1_epi32(both(x)))
        }
    }

    #[inline(always)]
    fn scale(self, totals: __m512, sums: __m512i, scales: __m512, scale: f32) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let scales = _mm512_mul_ps(scales, _mm512_set1_ps(scale));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scales, totals)
        }
    }

    #[inline(always)]
    fn add_scaled(self, totals: __m512, a: __m512, b: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, _mm512_set1_ps(b), totals) }
    }
}
