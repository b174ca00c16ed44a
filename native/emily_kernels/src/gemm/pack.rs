//! Copies of panels, in which what is multiplied together follows each other.

use std::ops::Range;

use super::simd::{Element, Simd, LONGEST};
use super::work::Matrix;

/// Copies `depth` rows of `count` columns, each filled up with zeros to `width` numbers.
///
/// # Safety
/// The matrix must have the rows and columns, `to` the room; the processor the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn pack<S: Simd>(
    to: *mut S::Number,
    from: Matrix<S::Number>,
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
                    S::store(S::load(row.add(j)), to.add(j));
                }
                for j in vectors..width {
                    *to.add(j) = if j < count {
                        *row.add(j)
                    } else {
                        S::Number::ZERO
                    };
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
                    turn::<S>(
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
unsafe fn turn<S: Simd>(
    to: *mut S::Number,
    width: usize,
    from: *const S::Number,
    step: isize,
    first: usize,
    columns: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut square = [S::splat(S::Number::ZERO); LONGEST];
        for (j, vector) in square[..S::LANES].iter_mut().enumerate() {
            if j < columns {
                *vector = S::load(from.offset((first + j) as isize * step));
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
unsafe fn copy<T: Element>(
    to: *mut T,
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
                    *from.from(i, j).data
                } else {
                    T::ZERO
                };
            }
        }
    }
}
