//! Totals of one row, and of some side by side, in lanes.

use super::{Operation, Total, FEW, LANES, PIECE, STREAMS, WIDTH};
use crate::dispatch::for_each_level;
use crate::lanes::{in_lanes, into_lanes};
use crate::view::{Axis, Elements};

#[inline(always)]
pub(super) fn row<F: Operation>(
    x: &Elements<f32>,
    at: isize,
    Axis { size, stride }: Axis,
    total: F::Total,
) -> F::Total {
    if stride == 1 && size >= 2 * LANES {
        return in_row::<F, LANES>(x.row(at, size), total);
    }
    if stride == 1 && size >= FEW {
        return in_row::<F, WIDTH>(x.row(at, size), total);
    }
    let along = |i: usize| F::Total::of_f32(x.at(at + i as isize * stride));
    if size < 2 * LANES {
        return (0..size).fold(total, |total, i| F::of(total, along(i)));
    }
    let mut lanes = [F::IDENTITY; 2 * WIDTH];
    let whole = size - size % lanes.len();
    for i in (0..whole).step_by(2 * WIDTH) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total = F::of(*total, along(i + lane));
        }
    }
    let total = F::of(total, folded::<F>(&mut lanes));
    (whole..size).fold(total, |total, i| F::of(total, along(i)))
}

/// The total of elements in a row: so many lanes at a time, and those left over one by one.
#[inline(always)]
fn in_row<F: Operation, const COUNT: usize>(x: &[f32], total: F::Total) -> F::Total {
    let take = |total, x| F::of(total, F::Total::of_f32(x));
    let (mut lanes, rest) = in_lanes(x, [F::IDENTITY; COUNT], take);
    let total = F::of(total, folded::<F>(&mut lanes));
    rest.iter().fold(total, |total, x| take(total, *x))
}

for_each_level! {
    /// The totals of rows.
    pub(super) fn side_by_side<F: Operation>(rows: &[&[f32]; STREAMS], totals: &mut [F::Total]) {
        totals.fill(F::IDENTITY);
        in_rows::<F>(rows, totals);
    }
}

/// What `in_row` gives for each of some rows, which are as long as each other.
#[inline(always)]
pub(super) fn in_rows<F: Operation>(rows: &[&[f32]; STREAMS], totals: &mut [F::Total]) {
    let take = |total, x| F::of(total, F::Total::of_f32(x));
    let mut lanes = [[F::IDENTITY; LANES]; STREAMS];
    for start in (0..rows[0].len()).step_by(PIECE) {
        for (row, lanes) in rows.iter().zip(&mut lanes) {
            into_lanes(&row[start..row.len().min(start + PIECE)], lanes, take);
        }
    }
    for ((row, lanes), total) in rows.iter().zip(&mut lanes).zip(totals) {
        let rest = &row[row.len() - row.len() % LANES..];
        let start = F::of(*total, folded::<F>(lanes));
        *total = rest.iter().fold(start, |total, x| take(total, *x));
    }
}

/// Lanes in one, halves onto halves down to a vector, and its four in pairs.
#[inline(always)]
pub(crate) fn folded<F: Operation>(lanes: &mut [F::Total]) -> F::Total {
    let mut half = lanes.len() / 2;
    while half >= WIDTH {
        for i in 0..half {
            lanes[i] = F::of(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    F::of(F::of(lanes[0], lanes[1]), F::of(lanes[2], lanes[3]))
}
