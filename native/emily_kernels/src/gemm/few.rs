//! A few rows times a large right side, each number of which is read once, where it lies.

use super::matrix::{Matrix, Target};
use super::simd::{Element, LONGEST};
use super::stored::{Load, Stored};
use super::work::{Work, DEPTH};
use crate::prefetch::prefetch;

/// No more rows are few.
pub(super) const ROWS: usize = 16;
/// The left side is copied for so many terms.
pub(super) const TERMS: usize = 4096;
/// So many sums stay in the nearest cache, of one or two rows, which are read at the memory's pace, and of each of more,
/// with the numbers that they meet.
pub(super) const SUMS: usize = 8192;
const ROW: usize = 4096;
const ROW_OF_MORE: usize = 256;
/// A sum goes back to memory once so many terms are added to it.
const STEP: usize = 8;
/// So many rows' sums are added to at once, which do not wait for each other.
const TOGETHER: usize = 4;

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
        if work.rows > 2 {
            ROW_OF_MORE
        } else {
            ROW
        }
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
        // With more rows the products take longer than the memory, and a number of the left side meets two vectors.
        // SAFETY: the caller's promises.
        unsafe {
            match (self.rows > 2, S::ROWS > 6) {
                (false, _) => self.add_rows_by::<S, STEP, 1>(),
                (true, true) => self.add_rows_by::<S, STEP, 2>(),
                // There are half as many registers.
                (true, false) => self.add_rows_by::<S, { STEP / 2 }, 2>(),
            }
        }
    }

    /// # Safety
    /// As for `add_rows`.
    #[inline(always)]
    unsafe fn add_rows_by<S: Load<T>, const COUNT: usize, const VECTORS: usize>(&mut self) {
        let whole = self.depth - self.depth % COUNT;
        // SAFETY: the caller's promises.
        unsafe {
            for k in (0..whole).step_by(COUNT) {
                self.add_some_rows::<S, COUNT, VECTORS>(k);
            }
            for k in whole..self.depth {
                self.add_some_rows::<S, 1, VECTORS>(k);
            }
        }
    }

    /// # Safety
    /// As for `add_rows`.
    #[inline(always)]
    unsafe fn add_some_rows<S: Load<T>, const COUNT: usize, const VECTORS: usize>(
        &mut self,
        k: usize,
    ) {
        let vectors = self.columns - self.columns % S::LANES;
        let whole = self.columns - self.columns % (VECTORS * S::LANES);
        // SAFETY: the caller's promises.
        unsafe {
            for j in (0..whole).step_by(VECTORS * S::LANES) {
                self.add_a_block::<S, COUNT, VECTORS>(k, j, S::LANES);
            }
            for j in (whole..vectors).step_by(S::LANES) {
                self.add_a_block::<S, COUNT, 1>(k, j, S::LANES);
            }
            if vectors < self.columns {
                self.add_a_block::<S, COUNT, 1>(k, vectors, self.columns - vectors);
            }
        }
    }

    /// Adds up some rows of a few vectors, of which each has so many numbers.
    ///
    /// # Safety
    /// As for `add_rows`.
    #[inline(always)]
    unsafe fn add_a_block<S: Load<T>, const COUNT: usize, const VECTORS: usize>(
        &mut self,
        k: usize,
        j: usize,
        count: usize,
    ) {
        // SAFETY: the caller's promises; the rows of sums are as long as whole vectors.
        unsafe {
            let mut right = [[S::splat(T::Number::ZERO); VECTORS]; COUNT];
            for (i, right) in right.iter_mut().enumerate() {
                for (v, right) in right.iter_mut().enumerate() {
                    let from = self.b.from(k + i, j + v * S::LANES).data;
                    // Long runs are asked for by the processor itself.
                    if VECTORS > 1 {
                        prefetch(from.wrapping_offset(COUNT as isize * self.b.row));
                    }
                    *right = if count == S::LANES {
                        S::load_as(from)
                    } else {
                        S::load_first_as(from, count)
                    };
                }
            }
            let whole = self.rows - self.rows % TOGETHER;
            for i in (0..whole).step_by(TOGETHER) {
                self.add::<S, TOGETHER, COUNT, VECTORS>(i, j, k, right);
            }
            for i in whole..self.rows {
                self.add::<S, 1, COUNT, VECTORS>(i, j, k, right);
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
                        prefetch(from.wrapping_offset(S::LANES as isize * self.b.column));
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
                    self.add::<S, 1, 1, 1>(i, 0, k, [[right]]);
                }
            }
        }
    }

    /// Adds terms to vectors of sums of some rows, one after the other.
    ///
    /// # Safety
    /// The rows, columns and terms must be there; the processor must have the instructions of `S`.
    #[inline(always)]
    unsafe fn add<S: Load<T>, const ROWS: usize, const COUNT: usize, const VECTORS: usize>(
        &mut self,
        row: usize,
        column: usize,
        term: usize,
        right: [[S::Vector; VECTORS]; COUNT],
    ) {
        // SAFETY: the caller's promises; the rows of sums are as long as whole vectors.
        unsafe {
            let place = self.sums.as_mut_ptr().add(row * self.width + column);
            let mut sums = [[S::splat(T::Number::ZERO); VECTORS]; ROWS];
            for (i, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(place.add(i * self.width + v * S::LANES));
                }
            }
            let a = self.a.add(row * self.a_row + term);
            for (k, right) in right.into_iter().enumerate() {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = S::splat(*a.add(i * self.a_row + k));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = S::multiply_add(left, right, *sum);
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    S::store(sum, place.add(i * self.width + v * S::LANES));
                }
            }
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
