//! Many rows times a packed matrix, whose numbers are unpacked a part at a time.

use super::codes::Decode;
use super::{dequantize_as, Packed};
use crate::dispatch::Level;
use crate::gemm::{multiply_at, Matrix, Output, Work};

/// So many numbers are unpacked at a time.
const UNPACKED: usize = 1 << 21;

pub(super) fn multiply<D: Decode>(
    level: Level,
    x: &[f32],
    packed: &Packed,
    transpose: bool,
    output: &mut [f32],
) {
    let most = (UNPACKED / packed.columns).max(1);
    let mut unpacked = vec![0.0; most.min(packed.rows()) * packed.columns];
    let inner = match transpose {
        true => packed.columns,
        false => packed.rows(),
    };
    let rows = x.len() / inner;
    let columns = output.len() / rows;
    for first in (0..packed.rows()).step_by(most) {
        let count = most.min(packed.rows() - first);
        let unpacked = &mut unpacked[..count * packed.columns];
        dequantize_as::<D>(level, packed, first, unpacked);
        let row = packed.columns as isize;
        let (inner, x, (b_row, b_column), width, at) = match transpose {
            true => (inner, x, (1, row), count, first),
            false => (count, &x[first..], (row, 1), columns, 0),
        };
        let work = Work {
            rows,
            inner,
            columns: width,
            alpha: 1.0,
            a: Matrix {
                data: x.as_ptr(),
                row: if transpose {
                    row
                } else {
                    packed.rows() as isize
                },
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
