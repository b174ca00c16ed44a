//! Copies of panels, in which what is multiplied together follows each other.

use std::ops::Range;

use super::matrix::Matrix;
use super::simd::{Element, LONGEST};
use super::stored::{Load, Stored};
use crate::prefetch::prefetch;

/// A panel of the right side has at most so many vectors of columns.
pub(super) const PANEL: usize = 2;
/// So many panels are copied at once where rows lie in memory: memory is read in long runs.
const GROUP: usize = 8;

/// Copies `depth` rows of so many columns as panels that follow each other.
///
/// # Safety
/// As for [`pack`].
#[inline(always)]
pub(super) unsafe fn pack_panels<S: Load<T>, T: Stored>(
    to: *mut T::Number,
    from: Matrix<T>,
    depth: usize,
    columns: usize,
) {
    let panel = PANEL * S::LANES;
    let grouped = if from.column == 1 {
        columns - columns % (GROUP * panel)
    } else {
        0
    };
    // SAFETY: the caller's promises.
    unsafe {
        for group in (0..grouped).step_by(GROUP * panel) {
            for i in 0..depth {
                let row = from.from(i, group).data;
                for j in (0..GROUP * panel).step_by(S::LANES) {
                    let place = (group + j / panel * panel) * depth + i * panel + j % panel;
                    S::store(S::load_as(row.add(j)), to.add(place));
                }
            }
        }
        for done in (grouped..columns).step_by(panel) {
            let count = panel.min(columns - done);
            let width = count.next_multiple_of(S::LANES);
            pack::<S, T>(
                to.add(done * depth),
                from.from(0, done),
                depth,
                count,
                width,
            );
        }
    }
}

/// Copies `depth` rows of `count` columns, each filled up with zeros to `width` numbers, which whole vectors have.
///
/// # Safety
/// The matrix must have the rows and columns, `to` the room; the processor the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn pack<S: Load<T>, T: Stored>(
    to: *mut T::Number,
    from: Matrix<T>,
    depth: usize,
    count: usize,
    width: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        if from.column == 1 {
            for i in 0..depth {
                let (row, to) = (from.from(i, 0).data, to.add(i * width));
                let vectors = count - count % S::LANES;
                for j in (0..vectors).step_by(S::LANES) {
                    // The next panel's row.
                    prefetch(row.wrapping_add(width + j));
                    S::store(S::load_as(row.add(j)), to.add(j));
                }
                if vectors < count {
                    let last = S::load_first_as(row.add(vectors), count - vectors);
                    S::store(last, to.add(vectors));
                }
                for j in (count.next_multiple_of(S::LANES)..width).step_by(S::LANES) {
                    S::store(S::splat(T::Number::ZERO), to.add(j));
                }
            }
        } else {
            let whole = if from.row == 1 {
                depth - depth % S::LANES
            } else {
                0
            };
            for i in (0..whole).step_by(S::LANES) {
                for j in (0..width).step_by(S::LANES) {
                    let columns = count.saturating_sub(j).min(S::LANES);
                    turn::<S, T>(
                        to.add(i * width + j),
                        width,
                        from.data.add(i),
                        from.column,
                        j,
                        columns,
                    );
                }
            }
            copy(to, from, whole..depth, count, width);
        }
    }
}

/// Copies a square, of which up to `LANES` columns lie as rows, and the others are zeros.
#[inline(always)]
unsafe fn turn<S: Load<T>, T: Stored>(
    to: *mut T::Number,
    width: usize,
    from: *const T,
    step: isize,
    first: usize,
    columns: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut square = [S::splat(T::Number::ZERO); LONGEST];
        for (j, vector) in square[..S::LANES].iter_mut().enumerate() {
            if j < columns {
                *vector = S::load_as(from.offset((first + j) as isize * step));
            }
        }
        S::turn(&mut square);
        for (i, vector) in square[..S::LANES].iter().enumerate() {
            S::store(*vector, to.add(i * width));
        }
    }
}

/// Copies rows one number at a time.
#[inline(always)]
unsafe fn copy<T: Stored>(
    to: *mut T::Number,
    from: Matrix<T>,
    rows: Range<usize>,
    count: usize,
    width: usize,
) {
    for i in rows {
        for j in 0..width {
            // SAFETY: the caller's promises.
            unsafe {
                *to.add(i * width + j) = if j < count {
                    (*from.from(i, j).data).number()
                } else {
                    T::Number::ZERO
                };
            }
        }
    }
}
