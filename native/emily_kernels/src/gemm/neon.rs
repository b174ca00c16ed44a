//! Vectors of aarch64, where every processor has them.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::kernel::kernels;
use super::matrix::{Kernel, Panel, Target};
use super::simd::{Simd, LONGEST};
use super::stored::Load;

#[derive(Clone, Copy)]
pub(super) struct Neon<T>(T);

macro_rules! neon {
    ($number:ty, $vector:ty, $lanes:literal,
        $splat:ident, $load:ident, $store:ident, $multiply:ident, $multiply_add:ident) => {
        // SAFETY: the instructions are there on every processor.
        unsafe impl Simd for Neon<$number> {
            type Number = $number;
            type Vector = $vector;
            const LANES: usize = $lanes;
            const ROWS: usize = 6;

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
                let mut numbers = [0.0; $lanes];
                // SAFETY: the caller's promise; `count` is below the vector's.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, numbers.as_mut_ptr(), count);
                    $load(numbers.as_ptr())
                }
            }

            #[inline(always)]
            unsafe fn store_first(value: $vector, to: *mut $number, count: usize) {
                let mut numbers = [0.0; $lanes];
                // SAFETY: the caller's promise; `count` is below the vector's.
                unsafe {
                    $store(numbers.as_mut_ptr(), value);
                    std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, count);
                }
            }

            #[inline(always)]
            unsafe fn multiply(a: $vector, b: $vector) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $multiply(a, b) }
            }

            #[inline(always)]
            unsafe fn multiply_add(a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: the caller's promise.
                unsafe { $multiply_add(c, a, b) }
            }

            #[inline(always)]
            unsafe fn turn(square: &mut [$vector; LONGEST]) {
                let mut numbers = [[0.0; $lanes]; $lanes];
                // SAFETY: the caller's promise; a row is as long as a vector.
                unsafe {
                    for i in 0..$lanes {
                        $store(numbers[i].as_mut_ptr(), square[i]);
                    }
                    for i in 0..$lanes {
                        let column: [$number; $lanes] = std::array::from_fn(|j| numbers[j][i]);
                        square[i] = $load(column.as_ptr());
                    }
                }
            }

            kernels!([1 2 3 4 5 6], [1 2 3], [1]);
        }
    };
}

neon!(
    f32,
    float32x4_t,
    4,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vmulq_f32,
    vfmaq_f32
);
neon!(
    f64,
    float64x2_t,
    2,
    vdupq_n_f64,
    vld1q_f64,
    vst1q_f64,
    vmulq_f64,
    vfmaq_f64
);

// SAFETY: the instructions are there on every processor.
unsafe impl Load<f16> for Neon<f32> {}
// SAFETY: as above.
unsafe impl Load<bf16> for Neon<f32> {}
