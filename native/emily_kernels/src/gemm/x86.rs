//! Vectors of x86-64.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::kernel::kernels;
use super::matrix::{Kernel, Panel, Target};
use super::simd::{apart, Simd, LONGEST};
use super::stored::Load;

#[derive(Clone, Copy)]
pub(super) struct Avx2<T>(T);

#[derive(Clone, Copy)]
pub(super) struct Avx512<T>(T);

macro_rules! vectors {
    ($simd:ident<$number:ty>, $vector:ty, $lanes:literal, $rows:literal, $features:literal,
        $splat:ident, $load:ident, $store:ident, $multiply:ident, $multiply_add:ident, $turn:ident,
        $first:ident, $load_first:ident, $store_first:ident, $load_lanes:ident, $load_apart:path,
        $($kernels:tt)*) => {
        // SAFETY: the instructions are those of the level.
        unsafe impl Simd for $simd<$number> {
            type Number = $number;
            type Vector = $vector;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;

            #[inline(always)]
            unsafe fn splat(value: $number) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $splat(value) }
            }

            #[inline(always)]
            unsafe fn load(from: *const $number) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(value: $vector, to: *mut $number) {
                // SAFETY: the caller's promise.
                unsafe { $store(to, value) }
            }

            #[inline(always)]
            unsafe fn load_first(from: *const $number, count: usize) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $load_first(from, $first(count)) }
            }

            #[inline(always)]
            unsafe fn store_first(value: $vector, to: *mut $number, count: usize) {
                // SAFETY: the caller's promise.
                unsafe { $store_first(to, $first(count), value) }
            }

            #[inline(always)]
            unsafe fn load_lanes(
                into: $vector,
                from: *const $number,
                first: usize,
                end: usize,
            ) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $load_lanes(into, from, first, end) }
            }

            #[inline(always)]
            unsafe fn load_apart(
                into: $vector,
                from: *const $number,
                step: isize,
                first: usize,
                end: usize,
            ) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $load_apart(into, from, step, first, end) }
            }

            #[inline(always)]
            unsafe fn multiply(a: $vector, b: $vector) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $multiply(a, b) }
            }

            #[inline(always)]
            unsafe fn multiply_add(a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $multiply_add(a, b, c) }
            }

            #[inline(always)]
            unsafe fn turn(square: &mut [$vector; LONGEST]) {
                // SAFETY: the caller's promise.
                unsafe { $turn(square) }
            }

            kernels!($($kernels)*, $features);
        }
    };
}

vectors!(
    Avx2<f32>, __m256, 8, 6, "avx2,fma",
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_mul_ps, _mm256_fmadd_ps, turn_8_floats, first_8, _mm256_maskload_ps, _mm256_maskstore_ps, lanes_of_8, apart::<Self>,
    [1 2 3 4 5 6], [1 2 3], [1]
);
vectors!(
    Avx2<f64>, __m256d, 4, 6, "avx2,fma",
    _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_mul_pd, _mm256_fmadd_pd, turn_4_doubles, first_4, _mm256_maskload_pd, _mm256_maskstore_pd, lanes_of_4, apart::<Self>,
    [1 2 3 4 5 6], [1 2 3], [1]
);
vectors!(
    Avx512<f32>, __m512, 16, 12, "avx512f",
    _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_mul_ps, _mm512_fmadd_ps, turn_16_floats, first_16, load_floats, _mm512_mask_storeu_ps, lanes_of_16, floats_apart,
    [1 2 3 4 5 6 7 8 9 10 11 12], [1 2 3 4 5 6], [1 2 3]
);
vectors!(
    Avx512<f64>, __m512d, 8, 12, "avx512f",
    _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_mul_pd, _mm512_fmadd_pd, turn_8_doubles, first_of_8, load_doubles, _mm512_mask_storeu_pd, lanes_of_8_doubles, apart::<Self>,
    [1 2 3 4 5 6 7 8 9 10 11 12], [1 2 3 4 5 6], [1 2 3]
);

macro_rules! halves {
    ($simd:ident, $type:ty, $from:ident => $vector:expr) => {
        // SAFETY: the instructions are those of the level.
        unsafe impl Load<$type> for $simd<f32> {
            #[inline(always)]
            unsafe fn load_as($from: *const $type) -> Self::Vector {
                // SAFETY: the caller's promise.
                unsafe { $vector }
            }
        }
    };
}

halves!(Avx2, f16, from => _mm256_cvtph_ps(_mm_loadu_si128(from.cast())));
halves!(Avx512, f16, from => _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())));
halves!(Avx2, bf16, from => {
    let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
});
halves!(Avx512, bf16, from => {
    let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
});

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn first_8(count: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), places)
    }
}

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn first_4(count: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let places = _mm256_setr_epi64x(0, 1, 2, 3);
        _mm256_cmpgt_epi64(_mm256_set1_epi64x(count as i64), places)
    }
}

#[inline(always)]
fn first_16(count: usize) -> __mmask16 {
    (1 << count) - 1
}

#[inline(always)]
fn first_of_8(count: usize) -> __mmask8 {
    (1 << count) - 1
}

/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn load_floats(from: *const f32, mask: __mmask16) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn load_doubles(from: *const f64, mask: __mmask8) -> __m512d {
    // SAFETY: the caller's promise.
    unsafe { _mm512_maskz_loadu_pd(mask, from) }
}

/// # Safety
/// The processor must have AVX2, and the numbers of the lanes must be there.
#[inline(always)]
unsafe fn lanes_of_8(into: __m256, from: *const f32, first: usize, end: usize) -> __m256 {
    // SAFETY: the caller's promise; what is masked is not read.
    unsafe {
        let mask = _mm256_andnot_si256(first_8(first), first_8(end));
        _mm256_or_ps(into, _mm256_maskload_ps(from, mask))
    }
}

/// # Safety
/// As above.
#[inline(always)]
unsafe fn lanes_of_4(into: __m256d, from: *const f64, first: usize, end: usize) -> __m256d {
    // SAFETY: the caller's promise; what is masked is not read.
    unsafe {
        let mask = _mm256_andnot_si256(first_4(first), first_4(end));
        _mm256_or_pd(into, _mm256_maskload_pd(from, mask))
    }
}

/// # Safety
/// The processor must have AVX-512, and the numbers of the lanes must be there.
#[inline(always)]
unsafe fn lanes_of_16(into: __m512, from: *const f32, first: usize, end: usize) -> __m512 {
    // SAFETY: the caller's promise; what is masked is not read.
    unsafe { _mm512_mask_loadu_ps(into, lanes(first, end) as u16, from) }
}

/// # Safety
/// As above.
#[inline(always)]
unsafe fn lanes_of_8_doubles(into: __m512d, from: *const f64, first: usize, end: usize) -> __m512d {
    // SAFETY: the caller's promise; what is masked is not read.
    unsafe { _mm512_mask_loadu_pd(into, lanes(first, end) as u8, from) }
}

#[inline(always)]
fn lanes(first: usize, end: usize) -> u32 {
    (1 << end) - (1 << first)
}

/// # Safety
/// As above.
#[inline(always)]
unsafe fn floats_apart(
    into: __m512,
    from: *const f32,
    step: isize,
    first: usize,
    end: usize,
) -> __m512 {
    // SAFETY: the caller's promise. Two vectors hold all of every second number, and nothing behind the last.
    unsafe {
        if step == 2 && end - first == 16 {
            let places =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
            let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(15)));
            return _mm512_permutex2var_ps(low, places, high);
        }
        match i32::try_from(step) {
            Ok(step) if step.unsigned_abs() < 1 << 27 => {
                let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let places = _mm512_mullo_epi32(lane, _mm512_set1_epi32(step));
                let mask = lanes(first, end) as u16;
                _mm512_mask_i32gather_ps::<4>(into, mask, places, from)
            }
            _ => apart::<Avx512<f32>>(into, from, step, first, end),
        }
    }
}

/// Interleaves pairs of floats.
macro_rules! pairs {
    ($unpack:ident, $a:expr, $b:expr, $double:ident, $float:ident) => {
        $float($unpack($double($a), $double($b)))
    };
}

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn turn_8_floats(square: &mut [__m256; LONGEST]) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut pairs = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(square[2 * i], square[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(square[2 * i], square[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for i in [0, 4] {
            for j in [0, 1] {
                fours[i + 2 * j] = pairs!(
                    _mm256_unpacklo_pd,
                    pairs[i + j],
                    pairs[i + j + 2],
                    _mm256_castps_pd,
                    _mm256_castpd_ps
                );
                fours[i + 2 * j + 1] = pairs!(
                    _mm256_unpackhi_pd,
                    pairs[i + j],
                    pairs[i + j + 2],
                    _mm256_castps_pd,
                    _mm256_castpd_ps
                );
            }
        }
        for i in 0..4 {
            square[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            square[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        }
    }
}

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn turn_4_doubles(square: &mut [__m256d; LONGEST]) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut pairs = [_mm256_setzero_pd(); 4];
        for i in 0..2 {
            pairs[2 * i] = _mm256_unpacklo_pd(square[2 * i], square[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_pd(square[2 * i], square[2 * i + 1]);
        }
        for i in 0..2 {
            square[i] = _mm256_permute2f128_pd::<0x20>(pairs[i], pairs[i + 2]);
            square[i + 2] = _mm256_permute2f128_pd::<0x31>(pairs[i], pairs[i + 2]);
        }
    }
}

/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn turn_16_floats(square: &mut [__m512; LONGEST]) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut pairs = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(square[2 * i], square[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(square[2 * i], square[2 * i + 1]);
        }
        let mut fours = [_mm512_setzero_ps(); 16];
        for i in [0, 4, 8, 12] {
            for j in [0, 1] {
                fours[i + 2 * j] = pairs!(
                    _mm512_unpacklo_pd,
                    pairs[i + j],
                    pairs[i + j + 2],
                    _mm512_castps_pd,
                    _mm512_castpd_ps
                );
                fours[i + 2 * j + 1] = pairs!(
                    _mm512_unpackhi_pd,
                    pairs[i + j],
                    pairs[i + j + 2],
                    _mm512_castps_pd,
                    _mm512_castpd_ps
                );
            }
        }
        // The quarters of each vector are now parts of four columns.
        let mut eights = [_mm512_setzero_ps(); 16];
        for i in [0, 1, 2, 3, 8, 9, 10, 11] {
            eights[i] = _mm512_shuffle_f32x4::<0x88>(fours[i], fours[i + 4]);
            eights[i + 4] = _mm512_shuffle_f32x4::<0xdd>(fours[i], fours[i + 4]);
        }
        for i in 0..8 {
            square[i] = _mm512_shuffle_f32x4::<0x88>(eights[i], eights[i + 8]);
            square[i + 8] = _mm512_shuffle_f32x4::<0xdd>(eights[i], eights[i + 8]);
        }
    }
}

/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn turn_8_doubles(square: &mut [__m512d; LONGEST]) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut pairs = [_mm512_setzero_pd(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm512_unpacklo_pd(square[2 * i], square[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_pd(square[2 * i], square[2 * i + 1]);
        }
        let mut fours = [_mm512_setzero_pd(); 8];
        for i in [0, 1, 4, 5] {
            fours[i] = _mm512_shuffle_f64x2::<0x88>(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm512_shuffle_f64x2::<0xdd>(pairs[i], pairs[i + 2]);
        }
        for i in 0..4 {
            square[i] = _mm512_shuffle_f64x2::<0x88>(fours[i], fours[i + 4]);
            square[i + 4] = _mm512_shuffle_f64x2::<0xdd>(fours[i], fours[i + 4]);
        }
    }
}
