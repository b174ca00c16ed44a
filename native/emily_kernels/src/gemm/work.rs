//! One thread's part of a product: which panels are copied, and in which order they are multiplied.

use std::cell::RefCell;
use std::thread::LocalKey;

use super::few;
use super::pack::pack;
use super::simd::{Element, LONGEST};
use super::stored::{Load, Stored};
use super::strip::Strip;
use crate::dispatch::Level;

/// How many terms are added up in registers.
pub(crate) const DEPTH: usize = 256;
/// So many columns of the right side, copied, stay in the second or third cache.
const COLUMNS: usize = 1024;
/// A panel of rows is multiplied in its place where there are at most so many vectors of columns, and where its rows lie
/// along memory, but not so far apart that all take the same places of the nearest cache.
const A_IN_PLACE: usize = 8;
const SAME_PLACES: usize = 4096;
/// The right side is multiplied in its place where there are at most so many panels of rows.
const B_IN_PLACE: usize = 6;
/// So many numbers stay in the second cache.
const NEAR: usize = 1 << 18;

/// A number that is read takes as long as so many products.
pub(super) const READ: usize = 16;
/// So few columns are computed as rows, which fill vectors.
const FEW_COLUMNS: usize = 6;

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
pub struct Work<T: Stored, C = <T as Stored>::Number> {
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
    pub alpha: T::Number,
    pub a: Matrix<T>,
    pub b: Matrix<T>,
    pub beta: T::Number,
    pub c: Output<C>,
}

impl<T: Stored, C> Work<T, C> {
    /// What it takes, in products of numbers in registers.
    pub(super) fn cost(&self) -> usize {
        let Work {
            rows,
            inner,
            columns,
            ..
        } = *self;
        let reads = (rows.saturating_add(columns)).saturating_mul(READ);
        let products = rows.saturating_mul(columns);
        products.saturating_add(reads).saturating_mul(inner)
    }

    /// The same product, so that vectors along the columns have something to hold.
    pub(super) fn along_vectors(self) -> Self {
        if self.columns > FEW_COLUMNS || self.columns >= self.rows {
            return self;
        }
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

    /// The same product, written elsewhere.
    pub(super) fn to<D>(&self, c: Output<D>) -> Work<T, D> {
        Work {
            rows: self.rows,
            inner: self.inner,
            columns: self.columns,
            alpha: self.alpha,
            a: self.a,
            b: self.b,
            beta: self.beta,
            c,
        }
    }
}

impl<T: Stored> Work<T> {
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
                    *c = if self.beta == T::Number::ZERO {
                        T::Number::ZERO
                    } else {
                        self.beta.times(*c)
                    };
                }
            }
        }
    }
}

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

/// Memory that a thread keeps for what it computes with.
pub(crate) struct Scratch(RefCell<Vec<Line>>);

impl Scratch {
    pub(crate) const fn new() -> Self {
        Scratch(RefCell::new(Vec::new()))
    }
}

/// Calls a function with memory for so many numbers, which are anything, aligned to a line of the cache.
pub(crate) fn with_scratch<T: Element, R>(
    scratch: &'static LocalKey<Scratch>,
    count: usize,
    f: impl FnOnce(*mut T) -> R,
) -> R {
    scratch.with(|Scratch(lines)| {
        let mut lines = lines.borrow_mut();
        let wanted = (count * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines.len() < wanted {
            lines.resize(wanted, Line([0; 64]));
        }
        f(lines.as_mut_ptr().cast())
    })
}

thread_local! {
    static PANELS: Scratch = const { Scratch::new() };
}

/// Computes a product with at least one row, one column and one term.
///
/// # Safety
/// The matrices must have the sizes that the work names, in memory that nobody writes meanwhile; nobody else may
/// read or write `c`.
pub(super) unsafe fn multiply<T: Stored>(work: &Work<T>, level: Level) {
    let (a, b) = if few::fits(work) {
        (work.rows * few::TERMS.min(work.inner), few::SUMS)
    } else {
        let depth = DEPTH.min(work.inner);
        let columns = COLUMNS.min(work.columns.next_multiple_of(LONGEST));
        (depth * LONGEST, depth * columns)
    };
    let a = a.next_multiple_of(LONGEST);
    with_scratch(&PANELS, a + b, |packed_a: *mut T::Number| {
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
pub(super) unsafe fn multiply_on<S: Load<T>, T: Stored>(
    work: &Work<T>,
    packed_a: *mut T::Number,
    packed_b: *mut T::Number,
) {
    if few::fits(work) {
        // SAFETY: the caller's promises.
        return unsafe { few::multiply::<S, T>(work, packed_a, packed_b) };
    }
    let panels = work.rows.div_ceil(S::ROWS);
    let is_number = T::as_numbers(work.b.data).is_some();
    let is_near = work.inner * work.columns <= NEAR;
    let in_place = work.b.column == 1 && panels <= B_IN_PLACE && is_number && is_near;
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
                    let from = work.a.from(row, term);
                    let in_rows = from.column == 1
                        && !(from.row.unsigned_abs() * size_of::<T>()).is_multiple_of(SAME_PLACES);
                    let a = match T::as_numbers(from.data) {
                        Some(data) if in_rows || columns <= A_IN_PLACE * S::LANES => Matrix {
                            data,
                            row: from.row,
                            column: from.column,
                        },
                        _ => {
                            pack::<S, T>(packed_a, from.transposed(), depth, rows, width);
                            Matrix {
                                data: packed_a,
                                row: 1,
                                column: width as isize,
                            }
                        }
                    };
                    let strip = Strip {
                        depth,
                        rows,
                        columns,
                        alpha: work.alpha,
                        a,
                        b: work.b.from(term, column),
                        beta: if term == 0 { work.beta } else { T::Number::ONE },
                        c: work.c.from(row, column),
                    };
                    strip.multiply::<S>(packed_b, in_place, i == 0);
                }
            }
        }
    }
}
