//! The loop at the heart of a product.

use super::matrix::{Panel, Target};
use super::simd::{Element, Simd, LONGEST};
use crate::prefetch::prefetch;

/// The rows of a panel are reached from so many pointers, each one's first `STEP`.
const HEADS: usize = 4;
const STEP: usize = 3;
/// So many rows of the right side are asked for ahead.
const AHEAD: isize = 8;

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
                    prefetch(target.c.from(i, v * S::LANES).data);
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
                prefetch(b.wrapping_offset(AHEAD * panel.b_row + (v * S::LANES) as isize));
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

/// The kernels of so many rows, compiled with the features named.
macro_rules! kernels {
    ([$($rows:literal)*], [$($four:literal)*], [$($eight:literal)*] $(, $features:literal)?) => {
        fn kernel(rows: usize, vectors: usize) -> Kernel<Self::Number> {
            $(#[target_feature(enable = $features)])?
            unsafe fn compiled<S: Simd, const ROWS: usize, const VECTORS: usize>(
                panel: &Panel<S::Number>,
                target: &Target<S::Number>,
            ) {
                // SAFETY: the caller's promise.
                unsafe { $crate::gemm::kernel::kernel::<S, ROWS, VECTORS>(panel, target) }
            }
            match (rows, vectors) {
                $(($rows, 1) => compiled::<Self, $rows, 1>,
                ($rows, 2) => compiled::<Self, $rows, 2>,)*
                $(($four, 4) => compiled::<Self, $four, 4>,)*
                $(($eight, 8) => compiled::<Self, $eight, 8>,)*
                _ => unreachable!("there is no kernel of {rows} rows of {vectors} vectors"),
            }
        }
    };
}

pub(super) use kernels;
