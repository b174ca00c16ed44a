//! A panel of rows times the right side.

use super::matrix::{Matrix, Output, Panel, Target};
use super::pack::{pack, pack_panels, PANEL};
use super::simd::Simd;
use super::stored::{Load, Stored};

/// A panel of at most `S::ROWS` rows times at most `DEPTH` rows of the right side.
pub(crate) struct Strip<T: Stored> {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub alpha: T::Number,
    pub a: Matrix<T::Number>,
    pub b: Matrix<T>,
    pub beta: T::Number,
    pub c: Output<T::Number>,
}

impl<T: Stored> Strip<T> {
    /// Multiplies. The right side is read `in_place`, or out of its copy, which is made if this is the `first` use.
    ///
    /// # Safety
    /// The matrices must have the sizes, `packed` the room; the processor the instructions of `S`.
    #[inline(always)]
    pub(crate) unsafe fn multiply<S: Load<T>>(
        &self,
        packed: *mut T::Number,
        in_place: bool,
        first: bool,
    ) {
        if first && !in_place {
            // SAFETY: the caller's promises.
            unsafe { pack_panels::<S, T>(packed, self.b, self.depth, self.columns) }
        }
        let mut done = 0;
        while done < self.columns {
            let left = self.columns - done;
            let vectors = if in_place {
                widest::<S>(self.rows, left)
            } else {
                left.div_ceil(S::LANES).min(PANEL)
            };
            let width = vectors * S::LANES;
            let columns = width.min(left);
            // SAFETY: the parts are within the matrices.
            unsafe {
                let from = self.b.from(0, done);
                let (b, b_row) = match T::as_numbers(from.data) {
                    Some(data) if in_place && columns == width => (data, from.row),
                    _ => {
                        let to = if in_place {
                            pack::<S, T>(packed, from, self.depth, columns, width);
                            packed
                        } else {
                            packed.add(done * self.depth)
                        };
                        (to.cast_const(), width as isize)
                    }
                };
                let panel = Panel {
                    depth: self.depth,
                    a: self.a,
                    b,
                    b_row,
                };
                let target = Target {
                    c: self.c.from(0, done),
                    columns,
                    alpha: self.alpha,
                    beta: self.beta,
                };
                S::kernel(self.rows, vectors)(&panel, &target);
            }
            done += columns;
        }
    }
}

/// How many vectors of so many columns fit into the registers, at least one.
#[inline(always)]
fn widest<S: Simd>(rows: usize, columns: usize) -> usize {
    let fits = |vectors: &usize| rows * vectors <= 2 * S::ROWS && vectors * S::LANES <= columns;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}
