//! Many rows times a packed matrix, whose numbers are unpacked a part at a time.

use crate::dispatch::Level;
use crate::gemm::{multiply_at, Matrix, Output, Work};
use crate::view::zeros;

/// So many numbers are unpacked at a time.
const UNPACKED: usize = 1 << 21;

/// `unpack` gives the numbers of as many of the matrix's rows as it is given room for, from one on.
pub(super) fn multiply(
    level: Level,
    x: &[f32],
    (height, width): (usize, usize),
    unpack: impl Fn(usize, &mut [f32]),
    transpose: bool,
    output: &mut [f32],
) {
    let most = (UNPACKED / width).max(1);
    let mut unpacked = zeros(most.min(height) * width);
    let inner = if transpose { width } else { height };
    let rows = x.len() / inner;
    let columns = output.len() / rows;
    for first in (0..height).step_by(most) {
        let count = most.min(height - first);
        let unpacked = &mut unpacked[..count * width];
        unpack(first, unpacked);
        let row = width as isize;
        let (inner, x, (b_row, b_column), outer, at) = match transpose {
            true => (inner, x, (1, row), count, first),
            false => (count, &x[first..], (row, 1), columns, 0),
        };
        let work = Work {
            rows,
            inner,
            columns: outer,
            alpha: 1.0,
            a: Matrix {
                data: x.as_ptr(),
                row: if transpose { row } else { height as isize },
                column: 1,
            },
            b: Matrix {
                data: unpacked.as_ptr(),
                row: b_row,
                column: b_column,
            },
            beta: if transpose || first == 0 { 0.0 } else { 1.0 },
            c: Output {
                data: output[at..].as_mut_ptr(),
                row: columns as isize,
                column: 1,
            },
        };
        // SAFETY: a part of the inner numbers of `x`, as many unpacked rows, and the columns of the output that they
        // give lie in the slices, which are this call's alone.
        unsafe { multiply_at(work, level) }
    }
}
