//! One thread's part of a product: which panels are copied, and in which order they are multiplied.

use super::few;
use super::matrix::Matrix;
use super::pack::pack;
use super::scratch::{with_scratch, Scratch};
use super::simd::{Element, LONGEST};
use super::stored::{Load, Stored, Vectors};
use super::strip::Strip;
use super::work::{Work, DEPTH};
use crate::dispatch::Level;

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
        unsafe {
            T::on(
                level,
                Product {
                    work,
                    packed_a,
                    packed_b: packed_a.add(a),
                },
            )
        }
    })
}

/// A product, and memory for copies of its panels.
struct Product<'a, T: Stored> {
    work: &'a Work<T>,
    packed_a: *mut T::Number,
    packed_b: *mut T::Number,
}

impl<T: Stored> Vectors<T> for Product<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Load<T>>(self) {
        // SAFETY: the caller's promises.
        unsafe { multiply_on::<S, T>(self.work, self.packed_a, self.packed_b) }
    }
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
unsafe fn multiply_on<S: Load<T>, T: Stored>(
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
