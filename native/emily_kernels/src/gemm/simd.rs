//! Vectors of the processors that the products are compiled for.

use super::matrix::Kernel;

/// A type of number that products are computed in: `f32` or `f64`.
pub trait Element: Copy + PartialEq + Send + Sync + 'static {
    const ZERO: Self;
    const ONE: Self;

    fn times(self, other: Self) -> Self;
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

    /// The function [`kernel`](super::kernel::kernel) of at most `ROWS` rows and one, two, four or eight vectors.
    fn kernel(rows: usize, vectors: usize) -> Kernel<Self::Number>;
}

/// [`Simd::load_apart`], one number at a time.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn apart<S: Simd>(
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

macro_rules! element {
    ($number:ty) => {
        impl Element for $number {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn times(self, other: Self) -> Self {
                self * other
            }
        }
    };
}

element!(f32);
element!(f64);
