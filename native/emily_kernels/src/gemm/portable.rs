//! Vectors of any processor.

use half::{bf16, f16};

use super::kernel::kernels;
use super::matrix::{Kernel, Panel, Target};
use super::simd::{Simd, LONGEST};
use super::stored::Load;

#[derive(Clone, Copy)]
pub(super) struct Portable<T>(T);

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

// SAFETY: needs no instructions of its own.
unsafe impl Load<f16> for Portable<f32> {}
// SAFETY: as above.
unsafe impl Load<bf16> for Portable<f32> {}
