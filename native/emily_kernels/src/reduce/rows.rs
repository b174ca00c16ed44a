//! Totals of rows that come one after the other, or piece by piece: those that [`reduce`](super::reduce) gives of them.

use super::row::folded;
use super::{elements, take, Greatest, Least, Lines, Operation, Product, Sum, Total};
use super::{Reduction, LANES, PART};
use crate::dispatch::{for_each_level, Level};
use crate::lanes::in_lanes;
use crate::view::Axis;

/// Rows of more elements are added up in parts.
pub(crate) const LONGEST: usize = PART;
/// Pieces but a row's last have a multiple of so many elements, and whoever takes them has two times as many.
pub(crate) const STEP: usize = LANES;

/// The totals of rows, one kind of them.
pub(crate) trait Totals {
    /// The total of each whole row, of which the output says how many there are.
    fn of_rows(&self, level: Level, rows: &[f32], output: &mut [f32]);

    /// Begins a row that comes in pieces, which has `2 * STEP` elements at least.
    fn begin(&mut self);

    /// Takes a piece of it.
    fn take(&mut self, level: Level, piece: &[f32]);

    /// Takes the last piece, and gives the total.
    fn end(&mut self, level: Level, piece: &[f32]) -> f32;
}

pub(crate) fn totals(reduction: Reduction) -> Box<dyn Totals> {
    match reduction {
        Reduction::Sum => Box::new(InLanes::<Sum>::new()),
        Reduction::Product => Box::new(InLanes::<Product>::new()),
        Reduction::Greatest => Box::new(InLanes::<Greatest>::new()),
        Reduction::Least => Box::new(InLanes::<Least>::new()),
    }
}

struct InLanes<F: Operation> {
    lanes: [F::Total; LANES],
}

impl<F: Operation> InLanes<F> {
    fn new() -> Self {
        let lanes = [F::IDENTITY; LANES];
        InLanes { lanes }
    }
}

impl<F: Operation> Totals for InLanes<F> {
    fn of_rows(&self, level: Level, rows: &[f32], output: &mut [f32]) {
        const AT_ONCE: usize = 64;
        let columns = rows.len() / output.len().max(1);
        let mut totals = [F::IDENTITY; AT_ONCE];
        let groups = rows.chunks(AT_ONCE * columns);
        for (rows, output) in groups.zip(output.chunks_mut(AT_ONCE)) {
            let totals = &mut totals[..output.len()];
            let lines = Lines {
                kept: Axis {
                    size: output.len(),
                    stride: columns as isize,
                },
                reduced: Axis {
                    size: columns,
                    stride: 1,
                },
            };
            take::<F>(level, &elements(rows), 0, totals, lines, true);
            for (out, total) in output.iter_mut().zip(totals) {
                *out = total.rounded();
            }
        }
    }

    fn begin(&mut self) {
        self.lanes = [F::IDENTITY; LANES];
    }

    fn take(&mut self, level: Level, piece: &[f32]) {
        assert!(piece.len().is_multiple_of(STEP));
        into_lanes::<F>(level, piece, &mut self.lanes);
    }

    fn end(&mut self, level: Level, piece: &[f32]) -> f32 {
        into_lanes::<F>(level, piece, &mut self.lanes);
        let rest = &piece[piece.len() - piece.len() % LANES..];
        let total = F::of(F::IDENTITY, folded::<F>(&mut self.lanes));
        let take = |total, x: &f32| F::of(total, F::Total::of_f32(*x));
        rest.iter().fold(total, take).rounded()
    }
}

for_each_level! {
    /// Takes what fills all lanes.
    fn into_lanes<F: Operation>(x: &[f32], lanes: &mut [F::Total; LANES]) {
        *lanes = in_lanes(x, *lanes, |total, x| F::of(total, F::Total::of_f32(x))).0;
    }
}
