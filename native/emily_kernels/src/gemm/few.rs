//! A few rows times a large right side, each number of which is read once, where it lies.

use super::matrix::{Matrix, Target};
use super::simd::{Element, LONGEST};
use super::stored::{Load, Stored};
use super::work::{Work, DEPTH};

/// No more rows are few.
pub(super) const ROWS: usize = 16;
/// The left side is copied for so many terms.
pub(super) const TERMS: usize = 4096;
/// So many sums stay in the second cache, and so many of a row in the nearest.
pub(super) const SUMS: usize = 16384;
const ROW: usize = 4096;
/// A sum goes back to memory once so many terms are added to it.
const STEP: usize = 8;

/// Whether a product is computed here.
#[inline(always)]
pub(super) fn fits<T: Stored>(work: &Work<T>) -> bool {
    work.rows <= ROWS && (work.b.row == 1 || work.b.column == 1)
}

/// A part of the product: one chain of terms.
struct Part<'a, T: Stored> {
    rows: usize,
    depth: usize,
    columns: usize,
    /// The left side's rows, and how far they are apart.
    a: *const T::Number,
    a_row: usize,
    b: Matrix<T>,
    /// Rows of sums.
    sums: &'a mut [T::Number],
    width: usize,
}

/// Computes a product with at least one row, one column and one term.
///
/// # Safety
/// The work must be one that [`fits`], its matrices as [`super::product::multiply`] has them. `copy` needs room for the rows
/// of `TERMS` terms, `sums` for `SUMS`; the processor the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn multiply<S: Load<T>, T: Stored>(
    work: &Work<T>,
    copy: *mut T::Number,
    sums: *mut T::Number,
) {
    let in_rows = work.b.column == 1;
    let width = if in_rows {
        ROW.min(SUMS / work.rows / S::LANES * S::LANES)
    } else {
        S::LANES
    };
    for first in (0..work.inner).step_by(TERMS) {
        let terms = TERMS.min(work.inner - first);
        // SAFETY: the parts are within the matrices, the copy and the sums within their memory.
        unsafe {
            for i in 0..work.rows {
                for k in 0..terms {
                    *copy.add(i * terms + k) = (*work.a.from(i, first + k).data).number();
                }
            }
            for column in (0..work.columns).step_by(width) {
                let columns = width.min(work.columns - column);
                for term in (0..terms).step_by(DEPTH) {
                    let sums = std::slice::from_raw_parts_mut(sums, work.rows * width);
                    sums.fill(T::Number::ZERO);
                    let mut part = Part {
                        rows: work.rows,
                        depth: DEPTH.min(terms - term),
                        columns,
                        a: copy.add(term),
                        a_row: terms,
                        b: work.b.from(first + term, column),
                        sums,
                        width,
                    };
                    if in_rows {
                        part.add_rows::<S>();
                    } else {
                        part.add_columns::<S>();
                    }
                    let target = Target {
                        c: work.c.from(0, column),
                        columns,
                        alpha: work.alpha,
                        beta: if first + term == 0 {
                            work.beta
                        } else {
                            T::Number::ONE
                        },
                    };
                    for i in 0..work.rows {
                        for j in (0..columns).step_by(S::LANES) {
                            let sum = S::load(part.sums[i * width + j..].as_ptr());
                            target.write::<S>(sum, i, j);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Stored> Part<'_, T> {
    /// Adds up a right side whose rows lie in memory.
    ///
    /// # Safety
    /// The matrices must have the sizes; the processor the instructions of `S`.
    #[inline(always)]
    unsafe fn add_rows<S: Load<T>>(&mut self) {
        let whole = self.depth - self.depth % STEP;
        // SAFETY: the caller's promises.
        unsafe {
            for k in (0..whole).step_by(STEP) {
                self.add_some_rows::<S, STEP>(k);
            }
            for k in whole..self.depth {
                self.add_some_rows::<S, 1>(k);
            }
        }
    }

    /// # Safety
    /// As for `add_rows`.
    #[inline(always)]
    unsafe fn add_some_rows<S: Load<T>, const COUNT: usize>(&mut self, k: usize) {
        // SAFETY: the caller's promises; the rows of sums are as long as whole vectors.
        unsafe {
            for j in (0..self.columns).step_by(S::LANES) {
                let count = S::LANES.min(self.columns - j);
                let mut right = [S::splat(T::Number::ZERO); COUNT];
                for (i, right) in right.iter_mut().enumerate() {
                    let from = self.b.from(k + i, j).data;
                    S::prefetch(from.wrapping_offset(COUNT as isize * self.b.row));
                    *right = if count == S::LANES {
                        S::load_as(from)
                    } else {
                        S::load_first_as(from, count)
                    };
                }
                for i in 0..self.rows {
                    let a = self.a.add(i * self.a_row + k);
                    self.add::<S, COUNT>(i, j, a, right);
                }
            }
        }
    }

    /// Adds up a right side whose columns lie in memory, no more than a vector has numbers.
    ///
    /// # Safety
    /// As for `add_rows`.
    #[inline(always)]
    unsafe fn add_columns<S: Load<T>>(&mut self) {
        let whole = self.depth - self.depth % S::LANES;
        // SAFETY: the caller's promises.
        unsafe {
            for k in (0..whole).step_by(S::LANES) {
                let mut square = [S::splat(T::Number::ZERO); LONGEST];
                for (j, column) in square[..S::LANES].iter_mut().enumerate() {
                    if j < self.columns {
                        let from = self.b.from(k, j).data;
                        // The columns that come next.
                        S::prefetch(from.wrapping_offset(S::LANES as isize * self.b.column));
                        *column = S::load_as(from);
                    }
                }
                S::turn(&mut square);
                for i in 0..self.rows {
                    let mut sum = S::load(self.sums.as_ptr().add(i * self.width));
                    for (l, right) in square[..S::LANES].iter().enumerate() {
                        let left = S::splat(*self.a.add(i * self.a_row + k + l));
                        sum = S::multiply_add(left, *right, sum);
                    }
                    S::store(sum, self.sums.as_mut_ptr().add(i * self.width));
                }
            }
            for k in whole..self.depth {
                let right = gathered::<S, T>(self.b.from(k, 0), self.columns);
                for i in 0..self.rows {
                    let a = self.a.add(i * self.a_row + k);
                    self.add::<S, 1>(i, 0, a, [right]);
                }
            }
        }
    }

    /// Adds terms to a vector of sums, one after the other.
    ///
    /// # Safety
    /// There must be as many numbers of the left side; the processor must have the instructions of `S`.
    #[inline(always)]
    unsafe fn add<S: Load<T>, const COUNT: usize>(
        &mut self,
        row: usize,
        column: usize,
        a: *const T::Number,
        right: [S::Vector; COUNT],
    ) {
        // SAFETY: the caller's promises; the rows of sums are as long as whole vectors.
        unsafe {
            let place = self.sums.as_mut_ptr().add(row * self.width + column);
            let mut sum = S::load(place);
            for (i, right) in right.into_iter().enumerate() {
                sum = S::multiply_add(S::splat(*a.add(i)), right, sum);
            }
            S::store(sum, place);
        }
    }
}

/// The first numbers of a row, no more than a vector has, and zeros behind them.
///
/// # Safety
/// There must be so many; the processor must have the instructions of `S`.
#[inline(always)]
unsafe fn gathered<S: Load<T>, T: Stored>(row: Matrix<T>, count: usize) -> S::Vector {
    let mut numbers = [T::Number::ZERO; LONGEST];
    // SAFETY: the caller's promise; `numbers` is as long as the longest vector.
    unsafe {
        for (j, number) in numbers[..count].iter_mut().enumerate() {
            *number = (*row.from(0, j).data).number();
        }
        S::load(numbers.as_ptr())
    }
}
