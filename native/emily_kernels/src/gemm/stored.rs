//! The types of numbers that matrices hold.

use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::simd::{Element, Portable, Simd, LONGEST};
use super::work::{multiply_on, Work};
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use crate::dispatch::{for_each_level, Kind, Level};
use crate::real::Real;
use crate::view;

/// A type of numbers to multiply: `f32`, `f64`, or a float of 16 bits, which is computed in `f32`.
pub trait Stored: view::Element {
    type Number: Element;

    /// The value, exactly.
    fn number(self) -> Self::Number;

    /// The nearest value, the even one of two.
    fn nearest(number: Self::Number) -> Self;

    /// The address of numbers as they are computed with, where they are stored so.
    fn as_numbers(from: *const Self) -> Option<*const Self::Number>;

    /// [`multiply_on`] the level.
    ///
    /// # Safety
    /// As there.
    unsafe fn multiply(work: &Work<Self>, level: Level, a: *mut Self::Number, b: *mut Self::Number);

    /// Runs work with the vectors of the level.
    ///
    /// # Safety
    /// As for [`Vectors::run`].
    unsafe fn on<W: Vectors<Self>>(level: Level, work: W);
}

/// Work that is written for the vectors of any processor.
pub trait Vectors<T: Stored> {
    /// # Safety
    /// The processor must have the instructions of `S`, and the work may promise more.
    unsafe fn run<S: Load<T>>(self);
}

/// Vectors of numbers as they are computed with, from memory that holds others.
///
/// # Safety
/// As for [`Simd`].
pub unsafe trait Load<T: Stored>: Simd<Number = T::Number> {
    /// As many numbers as a vector has.
    #[inline(always)]
    unsafe fn load_as(from: *const T) -> Self::Vector {
        let mut numbers = [Self::Number::ZERO; LONGEST];
        // SAFETY: the caller's promise; `numbers` is as long as the longest vector.
        unsafe {
            for (j, number) in numbers[..Self::LANES].iter_mut().enumerate() {
                *number = (*from.add(j)).number();
            }
            Self::load(numbers.as_ptr())
        }
    }

    /// The first numbers, fewer than a vector has, and zeros behind them.
    #[inline(always)]
    unsafe fn load_first_as(from: *const T, count: usize) -> Self::Vector {
        let mut numbers = [Self::Number::ZERO; LONGEST];
        // SAFETY: as in `load_as`.
        unsafe {
            for (j, number) in numbers[..count].iter_mut().enumerate() {
                *number = (*from.add(j)).number();
            }
            Self::load(numbers.as_ptr())
        }
    }
}

// SAFETY: the same numbers.
unsafe impl<S: Simd<Number = f32>> Load<f32> for S {
    #[inline(always)]
    unsafe fn load_as(from: *const f32) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { Self::load(from) }
    }

    #[inline(always)]
    unsafe fn load_first_as(from: *const f32, count: usize) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { Self::load_first(from, count) }
    }
}

// SAFETY: the same numbers.
unsafe impl<S: Simd<Number = f64>> Load<f64> for S {
    #[inline(always)]
    unsafe fn load_as(from: *const f64) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { Self::load(from) }
    }

    #[inline(always)]
    unsafe fn load_first_as(from: *const f64, count: usize) -> Self::Vector {
        // SAFETY: the caller's promise.
        unsafe { Self::load_first(from, count) }
    }
}

// SAFETY: needs no instructions of its own.
unsafe impl Load<f16> for Portable<f32> {}
// SAFETY: as above.
unsafe impl Load<bf16> for Portable<f32> {}
#[cfg(target_arch = "aarch64")]
// SAFETY: as above.
unsafe impl Load<f16> for Neon<f32> {}
#[cfg(target_arch = "aarch64")]
// SAFETY: as above.
unsafe impl Load<bf16> for Neon<f32> {}

for_each_level! {
    /// Rounds numbers.
    pub(super) fn round<T: Stored>(numbers: &[T::Number], to: &mut [T]) {
        for (number, to) in numbers.iter().zip(to) {
            *to = T::nearest(*number);
        }
    }
}

macro_rules! stored {
    ($type:ty, $number:ty, $widen:path, $round:path, $as_numbers:expr) => {
        impl Stored for $type {
            type Number = $number;

            #[inline(always)]
            fn number(self) -> $number {
                $widen(self)
            }

            #[inline(always)]
            fn nearest(number: $number) -> Self {
                $round(number)
            }

            #[inline(always)]
            fn as_numbers(from: *const Self) -> Option<*const $number> {
                $as_numbers(from)
            }

            unsafe fn multiply(
                work: &Work<Self>,
                level: Level,
                packed_a: *mut $number,
                packed_b: *mut $number,
            ) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx2,fma,f16c")]
                unsafe fn avx512(work: &Work<$type>, a: *mut $number, b: *mut $number) {
                    // SAFETY: the caller's promise.
                    unsafe { multiply_on::<Avx512<$number>, $type>(work, a, b) }
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,f16c")]
                unsafe fn avx2(work: &Work<$type>, a: *mut $number, b: *mut $number) {
                    // SAFETY: the caller's promise.
                    unsafe { multiply_on::<Avx2<$number>, $type>(work, a, b) }
                }

                // SAFETY: the caller's promise.
                unsafe {
                    match level.0 {
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx512 | Kind::Avx512Vnni => avx512(work, packed_a, packed_b),
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 | Kind::AvxVnni => avx2(work, packed_a, packed_b),
                        #[cfg(target_arch = "aarch64")]
                        Kind::Neon => multiply_on::<Neon<$number>, $type>(work, packed_a, packed_b),
                        Kind::Portable => {
                            multiply_on::<Portable<$number>, $type>(work, packed_a, packed_b)
                        }
                    }
                }
            }

            unsafe fn on<W: Vectors<Self>>(level: Level, work: W) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx2,fma,f16c")]
                unsafe fn avx512<W: Vectors<$type>>(work: W) {
                    // SAFETY: the caller's promise.
                    unsafe { work.run::<Avx512<$number>>() }
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,f16c")]
                unsafe fn avx2<W: Vectors<$type>>(work: W) {
                    // SAFETY: the caller's promise.
                    unsafe { work.run::<Avx2<$number>>() }
                }

                // SAFETY: the caller's promise.
                unsafe {
                    match level.0 {
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx512 | Kind::Avx512Vnni => avx512(work),
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 | Kind::AvxVnni => avx2(work),
                        #[cfg(target_arch = "aarch64")]
                        Kind::Neon => work.run::<Neon<$number>>(),
                        Kind::Portable => work.run::<Portable<$number>>(),
                    }
                }
            }
        }
    };
}

stored!(f32, f32, f32::wide, f32::narrow, Some);
stored!(f64, f64, f64::from, f64::from, Some);
stored!(f16, f32, f16::wide, f16::narrow, no_numbers);
stored!(bf16, f32, bf16::wide, bf16::narrow, no_numbers);

fn no_numbers<T>(_from: *const T) -> Option<*const f32> {
    None
}
