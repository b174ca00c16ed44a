//! A panel of rows times the right side, and the loop at the heart of it.

use super::pack::{pack, pack_panels, PANEL};
use super::simd::{Element, Simd, LONGEST};
use super::stored::{Load, Stored};
use super::work::{Matrix, Output};

/// What one call of the kernel reads: `depth` columns of a few rows, and as many rows of a few vectors.
pub struct Panel<T> {
    depth: usize,
    a: Matrix<T>,
    b: *const T,
    b_row: isize,
}

/// What one call of the kernel writes: at most as many columns as the vectors have numbers.
pub struct Target<T> {
    pub c: Output<T>,
    pub columns: usize,
    pub alpha: T,
    pub beta: T,
}

/// The rows of a panel are reached from so many pointers, each one's first `STEP`.
const HEADS: usize = 4;
const STEP: usize = 3;
const AHEAD: isize = 8;

pub type Kernel<T> = unsafe fn(&Panel<T>, &Target<T>);

/// `ROWS` rows times `VECTORS` vectors, added up in registers, each element's terms in their order.
///
/// # Safety
/// The panel and the target must have the rows and columns; the processor the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn kernel<S: Simd, const ROWS: usize, const VECTORS: usize>(
    panel: &Panel<S::Number>,
    target: &Target<S::Number>,
) {
    // SAFETY: the caller's promises; `row` is as long as the longest row.
    unsafe {
        if target.beta != S::Number::ZERO {
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    S::prefetch(target.c.from(i, v * S::LANES).data);
                }
            }
        }
        let mut sums = [[S::splat(S::Number::ZERO); VECTORS]; ROWS];
        // Several pointers, because one that steps from row to row takes longer than the products.
        let mut heads = [panel.a.data; HEADS];
        for (i, head) in heads.iter_mut().enumerate() {
            *head = head.wrapping_offset((i * STEP) as isize * panel.a.row);
        }
        let mut b = panel.b;
        for _ in 0..panel.depth {
            let mut right = [S::splat(S::Number::ZERO); VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                *right = S::load(b.add(v * S::LANES));
                S::prefetch(b.wrapping_offset(AHEAD * panel.b_row + (v * S::LANES) as isize));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = heads[i / STEP].offset((i % STEP) as isize * panel.a.row);
                let left = S::splat(*left);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = S::multiply_add(left, right, *sum);
                }
            }
            for head in &mut heads {
                *head = head.wrapping_offset(panel.a.column);
            }
            b = b.wrapping_offset(panel.b_row);
        }

        for (i, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                target.write::<S>(sum, i, v * S::LANES);
            }
        }
    }
}

impl<T: Element> Target<T> {
    /// Writes a vector of sums, or what of it is in the target's columns.
    ///
    /// # Safety
    /// As for [`kernel`].
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd<Number = T>>(
        &self,
        sums: S::Vector,
        row: usize,
        column: usize,
    ) {
        if column >= self.columns {
            return;
        }
        let count = S::LANES.min(self.columns - column);
        // SAFETY: the caller's promises; `numbers` is as long as the longest vector.
        unsafe {
            let c = self.c.from(row, column);
            let mut numbers = [T::ZERO; LONGEST];
            let mut result = S::multiply(S::splat(self.alpha), sums);
            if self.beta != T::ZERO {
                let old = if c.column != 1 {
                    for (j, number) in numbers[..count].iter_mut().enumerate() {
                        *number = *c.from(0, j).data;
                    }
                    S::load(numbers.as_ptr())
                } else if count == S::LANES {
                    S::load(c.data)
                } else {
                    S::load_first(c.data, count)
                };
                result = S::multiply_add(S::splat(self.beta), old, result);
            }
            if c.column != 1 {
                S::store(result, numbers.as_mut_ptr());
                for (j, number) in numbers[..count].iter().enumerate() {
                    *c.from(0, j).data = *number;
                }
            } else if count == S::LANES {
                S::store(result, c.data);
            } else {
                S::store_first(result, c.data, count);
            }
        }
    }
}

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
