//! Vectors of the processors that the products are compiled for.

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::strip::{kernel, Kernel, Panel, Target};
use super::work::{multiply_on, Work};
use crate::dispatch::{Kind, Level};

/// A type of number that products are made of: `f32` or `f64`.
pub trait Element: Copy + PartialEq + Send + Sync + 'static {
    const ZERO: Self;
    const ONE: Self;

    fn times(self, other: Self) -> Self;

    /// [`multiply_on`] the level.
    ///
    /// # Safety
    /// As there.
    unsafe fn multiply(work: &Work<Self>, level: Level, packed_a: *mut Self, packed_b: *mut Self);

    /// Runs work with the vectors of the level.
    ///
    /// # Safety
    /// As for [`Vectors::run`].
    unsafe fn on<W: Vectors<Self>>(level: Level, work: W);
}

/// Work that is written for the vectors of any processor.
pub trait Vectors<T> {
    /// # Safety
    /// The processor must have the instructions of `S`, and the work may promise more.
    unsafe fn run<S: Simd<Number = T>>(self);
}

/// No vector has more numbers.
pub const LONGEST: usize = 16;

/// Vectors of one processor and one type of number.
///
/// # Safety
/// Its functions may be called where the processor has the instructions, with pointers to as many numbers as a
/// vector has.
pub unsafe trait Simd: Copy + 'static {
    type Number: Element;
    type Vector: Copy;
    const LANES: usize;
    /// How many rows of two vectors fit into the registers, beside what is multiplied.
    const ROWS: usize;

    unsafe fn splat(value: Self::Number) -> Self::Vector;
    unsafe fn load(from: *const Self::Number) -> Self::Vector;
    unsafe fn store(value: Self::Vector, to: *mut Self::Number);
    /// The first numbers, fewer than a vector has, and zeros behind them.
    unsafe fn load_first(from: *const Self::Number, count: usize) -> Self::Vector;
    unsafe fn store_first(value: Self::Vector, to: *mut Self::Number, count: usize);
    /// The numbers of `into`, which are zeros from lane `first` to below lane `end`, and there those that lie as many
    /// behind `from`.
    #[inline(always)]
    unsafe fn load_lanes(
        into: Self::Vector,
        from: *const Self::Number,
        first: usize,
        end: usize,
    ) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { Self::load_apart(into, from, 1, first, end) }
    }
    /// As `load_lanes`, of numbers that lie `step` apart.
    #[inline(always)]
    unsafe fn load_apart(
        into: Self::Vector,
        from: *const Self::Number,
        step: isize,
        first: usize,
        end: usize,
    ) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { apart::<Self>(into, from, step, first, end) }
    }
    unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`.
    unsafe fn multiply_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Makes columns of the first `LANES` rows.
    unsafe fn turn(square: &mut [Self::Vector; LONGEST]);

    /// The function [`kernel`] of at most `ROWS` rows and one, two, four or eight vectors.
    fn kernel(rows: usize, vectors: usize) -> Kernel<Self::Number>;
}

/// [`Simd::load_apart`], one number at a time.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn apart<S: Simd>(
    into: S::Vector,
    from: *const S::Number,
    step: isize,
    first: usize,
    end: usize,
) -> S::Vector {
    let mut numbers = [S::Number::ZERO; LONGEST];
    // SAFETY: the caller's promise; no vector is longer than the longest.
    unsafe {
        S::store(into, numbers.as_mut_ptr());
        for (lane, number) in numbers[..end].iter_mut().enumerate().skip(first) {
            *number = *from.wrapping_offset(lane as isize * step);
        }
        S::load(numbers.as_ptr())
    }
}

/// The kernels of so many rows, compiled with the features named.
macro_rules! kernels {
    ([$($rows:literal)*], [$($four:literal)*], [$($eight:literal)*] $(, $features:literal)?) => {
        fn kernel(rows: usize, vectors: usize) -> Kernel<Self::Number> {
            $(#[target_feature(enable = $features)])?
            unsafe fn compiled<S: Simd, const ROWS: usize, const VECTORS: usize>(
                panel: &Panel<S::Number>,
                target: &Target<S::Number>,
            ) {
                // SAFETY: the caller's promise.
                unsafe { kernel::<S, ROWS, VECTORS>(panel, target) }
            }
            match (rows, vectors) {
                $(($rows, 1) => compiled::<Self, $rows, 1>,
                ($rows, 2) => compiled::<Self, $rows, 2>,)*
                $(($four, 4) => compiled::<Self, $four, 4>,)*
                $(($eight, 8) => compiled::<Self, $eight, 8>,)*
                _ => unreachable!("there is no kernel of {rows} rows of {vectors} vectors"),
            }
        }
    };
}

#[cfg(target_arch = "aarch64")]
pub(super) use kernels;

#[derive(Clone, Copy)]
struct Portable<T>(T);

macro_rules! portable {
    ($number:ty, $lanes:literal) => {
        // SAFETY: needs no instructions of its own.
        unsafe impl Simd for Portable<$number> {
            type Number = $number;
            type Vector = [$number; $lanes];
            const LANES: usize = $lanes;
            const ROWS: usize = 6;

            #[inline(always)]
            unsafe fn splat(value: $number) -> Self::Vector {
                [value; $lanes]
            }

            #[inline(always)]
            unsafe fn load(from: *const $number) -> Self::Vector {
                // SAFETY: the caller's promise.
                unsafe { from.cast::<Self::Vector>().read_unaligned() }
            }

            #[inline(always)]
            unsafe fn store(value: Self::Vector, to: *mut $number) {
                // SAFETY: the caller's promise.
                unsafe { to.cast::<Self::Vector>().write_unaligned(value) }
            }

            #[inline(always)]
            unsafe fn load_first(from: *const $number, count: usize) -> Self::Vector {
                let mut value = [0.0; $lanes];
                // SAFETY: the caller's promise.
                unsafe { std::ptr::copy_nonoverlapping(from, value.as_mut_ptr(), count) };
                value
            }

            #[inline(always)]
            unsafe fn store_first(value: Self::Vector, to: *mut $number, count: usize) {
                // SAFETY: the caller's promise.
                unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), to, count) }
            }

            #[inline(always)]
            unsafe fn multiply(a: Self::Vector, b: Self::Vector) -> Self::Vector {
                std::array::from_fn(|i| a[i] * b[i])
            }

            #[inline(always)]
            unsafe fn multiply_add(
                a: Self::Vector,
                b: Self::Vector,
                c: Self::Vector,
            ) -> Self::Vector {
                // On x86-64 without the instruction, `mul_add` is a slow call.
                std::array::from_fn(|i| {
                    if cfg!(target_arch = "aarch64") {
                        a[i].mul_add(b[i], c[i])
                    } else {
                        a[i] * b[i] + c[i]
                    }
                })
            }

            #[inline(always)]
            unsafe fn turn(square: &mut [Self::Vector; LONGEST]) {
                for i in 0..$lanes {
                    for j in 0..i {
                        (square[i][j], square[j][i]) = (square[j][i], square[i][j]);
                    }
                }
            }

            kernels!([1 2 3 4 5 6], [1 2 3], [1]);
        }
    };
}

portable!(f32, 4);
portable!(f64, 2);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

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
    unsafe fn lanes_of_8_doubles(
        into: __m512d,
        from: *const f64,
        first: usize,
        end: usize,
    ) -> __m512d {
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
                    let lane =
                        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
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
}

macro_rules! element {
    ($number:ty) => {
        impl Element for $number {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn times(self, other: Self) -> Self {
                self * other
            }

            unsafe fn multiply(
                work: &Work<Self>,
                level: Level,
                packed_a: *mut Self,
                packed_b: *mut Self,
            ) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f")]
                unsafe fn avx512(work: &Work<$number>, a: *mut $number, b: *mut $number) {
                    // SAFETY: the caller's promise.
                    unsafe { multiply_on::<x86::Avx512<$number>>(work, a, b) }
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2(work: &Work<$number>, a: *mut $number, b: *mut $number) {
                    // SAFETY: the caller's promise.
                    unsafe { multiply_on::<x86::Avx2<$number>>(work, a, b) }
                }

                // SAFETY: the caller's promise.
                unsafe {
                    match level.0 {
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx512 => avx512(work, packed_a, packed_b),
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 => avx2(work, packed_a, packed_b),
                        #[cfg(target_arch = "aarch64")]
                        Kind::Neon => multiply_on::<Neon<$number>>(work, packed_a, packed_b),
                        Kind::Portable => {
                            multiply_on::<Portable<$number>>(work, packed_a, packed_b)
                        }
                    }
                }
            }

            unsafe fn on<W: Vectors<Self>>(level: Level, work: W) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f")]
                unsafe fn avx512<W: Vectors<$number>>(work: W) {
                    // SAFETY: the caller's promise.
                    unsafe { work.run::<x86::Avx512<$number>>() }
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2<W: Vectors<$number>>(work: W) {
                    // SAFETY: the caller's promise.
                    unsafe { work.run::<x86::Avx2<$number>>() }
                }

                // SAFETY: the caller's promise.
                unsafe {
                    match level.0 {
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx512 => avx512(work),
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 => avx2(work),
                        #[cfg(target_arch = "aarch64")]
                        Kind::Neon => work.run::<Neon<$number>>(),
                        Kind::Portable => work.run::<Portable<$number>>(),
                    }
                }
            }
        }
    };
}

element!(f32);
element!(f64);
