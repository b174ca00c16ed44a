//! One thread's part of a product: which panels are copied, and in which order they are multiplied.

use super::pack::pack;
use super::simd::{Element, Simd, LONGEST};
use super::strip::Strip;
use crate::dispatch::Level;
use crate::scratch;

/// How many terms are added up in registers.
pub(crate) const DEPTH: usize = 256;
/// So many columns of the right side, copied, stay in the second or third cache.
const COLUMNS: usize = 1024;
/// A panel of rows is multiplied in its place where there are at most so many vectors of columns.
const A_IN_PLACE: usize = 8;
/// The right side is multiplied in its place where there are at most so many panels of rows.
const B_IN_PLACE: usize = 6;

/// A matrix to read: the element in row `i` and column `j` is `i * row + j * column` elements from the first.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<T> {
    pub data: *const T,
    pub row: isize,
    pub column: isize,
}

impl<T> Matrix<T> {
    /// The part from a row and a column on.
    ///
    /// # Safety
    /// The matrix must have that row and that column.
    #[inline(always)]
    pub(super) unsafe fn from(self, row: usize, column: usize) -> Self {
        let offset = row as isize * self.row + column as isize * self.column;
        // SAFETY: the caller's promise.
        let data = unsafe { self.data.offset(offset) };
        Matrix { data, ..self }
    }

    pub(super) fn transposed(self) -> Self {
        let Matrix { data, row, column } = self;
        Matrix {
            data,
            row: column,
            column: row,
        }
    }
}

/// A matrix to write.
#[derive(Clone, Copy, Debug)]
pub struct Output<T> {
    pub data: *mut T,
    pub row: isize,
    pub column: isize,
}

impl<T> Output<T> {
    /// The part from a row and a column on.
    ///
    /// # Safety
    /// The matrix must have that row and that column.
    #[inline(always)]
    pub(super) unsafe fn from(self, row: usize, column: usize) -> Self {
        let offset = row as isize * self.row + column as isize * self.column;
        // SAFETY: the caller's promise.
        let data = unsafe { self.data.offset(offset) };
        Output { data, ..self }
    }
}

// SAFETY: a place and two strides; whoever reads or writes there promises that it may.
unsafe impl<T: Sync> Sync for Matrix<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<T> {}

/// `c = alpha * a * b + beta * c`, for `a` of `rows` x `inner` and `b` of `inner` x `columns` numbers. With a
/// `beta` of zero `c` is not read.
#[derive(Clone, Copy, Debug)]
pub struct Work<T> {
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
    pub alpha: T,
    pub a: Matrix<T>,
    pub b: Matrix<T>,
    pub beta: T,
    pub c: Output<T>,
}

impl<T: Element> Work<T> {
    /// The same product, with rows for columns.
    pub(super) fn transposed(self) -> Self {
        Work {
            rows: self.columns,
            columns: self.rows,
            a: self.b.transposed(),
            b: self.a.transposed(),
            c: Output {
                data: self.c.data,
                row: self.c.column,
                column: self.c.row,
            },
            ..self
        }
    }

    /// `c = beta * c`.
    ///
    /// # Safety
    /// `c` must have the size, and nobody else may read or write it.
    pub(super) unsafe fn scale(&self) {
        for i in 0..self.rows {
            for j in 0..self.columns {
                // SAFETY: the caller's promise.
                unsafe {
                    let c = self.c.from(i, j).data;
                    *c = if self.beta == T::ZERO {
                        T::ZERO
                    } else {
                        self.beta.times(*c)
                    };
                }
            }
        }
    }
}

/// Computes a product with at least one row, one column and one term.
///
/// # Safety
/// The matrices must have the sizes that the work names, in memory that nobody writes meanwhile; nobody else may
/// read or write `c`.
pub(super) unsafe fn multiply<T: Element>(work: &Work<T>, level: Level) {
    let depth = DEPTH.min(work.inner);
    let b = depth * COLUMNS.min(work.columns.next_multiple_of(LONGEST));
    let a = depth * LONGEST;
    scratch::with(a + b, |packed_a: *mut T| {
        // SAFETY: the caller's promises; the copy of `b` is behind that of `a`.
        unsafe { T::multiply(work, level, packed_a, packed_a.add(a)) }
    })
}

/// The first row of the `i`-th of so many panels of nearly the same height.
#[inline(always)]
fn first_row(rows: usize, panels: usize, i: usize) -> usize {
    let (height, more) = (rows / panels, rows % panels);
    i * height + i.min(more)
}

/// [`multiply`] on one kind of processor, with memory for copies of the panels.
///
/// # Safety
/// As there; the processor must have the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn multiply_on<S: Simd>(
    work: &Work<S::Number>,
    packed_a: *mut S::Number,
    packed_b: *mut S::Number,
) {
    let panels = work.rows.div_ceil(S::ROWS);
    let in_place = work.b.column == 1 && panels <= B_IN_PLACE;
    let width = S::ROWS.next_multiple_of(S::LANES);
    // What is copied for a single panel of rows is read along its own rows.
    let most = if panels == 1 && work.b.column != 1 {
        2 * S::LANES
    } else {
        COLUMNS
    };
    for column in (0..work.columns).step_by(most) {
        let columns = most.min(work.columns - column);
        for term in (0..work.inner).step_by(DEPTH) {
            let depth = DEPTH.min(work.inner - term);
            for i in 0..panels {
                let row = first_row(work.rows, panels, i);
                let rows = first_row(work.rows, panels, i + 1) - row;
                // SAFETY: the parts are within the matrices, and the copies within their memory.
                unsafe {
                    let mut a = work.a.from(row, term);
                    if columns > A_IN_PLACE * S::LANES {
                        let more = width.min(work.rows - row);
                        pack::<S>(packed_a, a.transposed(), depth, more, width);
                        a = Matrix {
                            data: packed_a,
                            row: 1,
                            column: width as isize,
                        };
                    }
                    let strip = Strip {
                        depth,
                        rows,
                        columns,
                        alpha: work.alpha,
                        a,
                        b: work.b.from(term, column),
                        beta: if term == 0 { work.beta } else { S::Number::ONE },
                        c: work.c.from(row, column),
                    };
                    strip.multiply::<S>(packed_b, in_place, i == 0);
                }
            }
        }
    }
}
