//! The types of numbers that matrices hold.

use super::simd::{Element, Simd, LONGEST};
use crate::dispatch::Level;
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

    /// The address of numbers that are `f32`.
    fn as_floats(from: *const Self) -> Option<*const f32>;

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
