//! The types of numbers on the levels of processors.

use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
use super::stored::{Stored, Vectors};
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use crate::dispatch::{for_each_level, Kind, Level};
use crate::real::Real;

for_each_level! {
    /// Rounds numbers.
    pub(super) fn round<T: Stored>(numbers: &[T::Number], to: &mut [T]) {
        for (number, to) in numbers.iter().zip(to) {
            *to = T::nearest(*number);
        }
    }
}

macro_rules! stored {
    ($type:ty, $number:ty, $widen:path, $round:path, $as_numbers:expr, $as_floats:expr) => {
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

            #[inline(always)]
            fn as_floats(from: *const Self) -> Option<*const f32> {
                $as_floats(from)
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
                        Kind::Avx512 | Kind::Avx512Vnni | Kind::Avx512Amx => avx512(work),
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

stored!(f32, f32, f32::wide, f32::narrow, Some, Some);
stored!(f64, f64, f64::from, f64::from, Some, no_numbers);
stored!(f16, f32, f16::wide, f16::narrow, no_numbers, no_numbers);
stored!(bf16, f32, bf16::wide, bf16::narrow, no_numbers, no_numbers);

fn no_numbers<T>(_from: *const T) -> Option<*const f32> {
    None
}
