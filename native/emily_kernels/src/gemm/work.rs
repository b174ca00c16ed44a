//! A product to compute.

use super::matrix::{Matrix, Output};
use super::simd::Element;
use super::stored::Stored;

/// How many terms are added up in registers.
pub(crate) const DEPTH: usize = 256;
/// A number that is read takes as long as so many products.
pub(super) const READ: usize = 16;
/// So few columns are computed as rows, which fill vectors.
const FEW_COLUMNS: usize = 6;

/// `c = alpha * a * b + beta * c`, for `a` of `rows` x `inner` and `b` of `inner` x `columns` numbers. With a
/// `beta` of zero `c` is not read.
#[derive(Clone, Copy, Debug)]
pub struct Work<T: Stored, C = <T as Stored>::Number> {
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
    pub alpha: T::Number,
    pub a: Matrix<T>,
    pub b: Matrix<T>,
    pub beta: T::Number,
    pub c: Output<C>,
}

impl<T: Stored, C> Work<T, C> {
    /// What it takes, in products of numbers in registers.
    pub(super) fn cost(&self) -> usize {
        let Work {
            rows,
            inner,
            columns,
            ..
        } = *self;
        let reads = (rows.saturating_add(columns)).saturating_mul(READ);
        let products = rows.saturating_mul(columns);
        products.saturating_add(reads).saturating_mul(inner)
    }

    /// The same product, so that vectors along the columns have something to hold.
    pub(super) fn along_vectors(self) -> Self {
        if self.columns > FEW_COLUMNS || self.columns >= self.rows {
            return self;
        }
        Work {
            rows: self.columns,
            columns: self.rows,
            a: self.b.transposed(),
            b: self.a.transposed(),
            c: Output {
                data: self.c.data,
                row: self.c.column,
                column: self.c.row,
            },
            ..self
        }
    }

    /// The same product, written elsewhere.
    pub(super) fn to<D>(&self, c: Output<D>) -> Work<T, D> {
        Work {
            rows: self.rows,
            inner: self.inner,
            columns: self.columns,
            alpha: self.alpha,
            a: self.a,
            b: self.b,
            beta: self.beta,
            c,
        }
    }
}

impl<T: Stored> Work<T> {
    /// `c = beta * c`.
    ///
    /// # Safety
    /// `c` must have the size, and nobody else may read or write it.
    pub(super) unsafe fn scale(&self) {
        for i in 0..self.rows {
            for j in 0..self.columns {
                // SAFETY: the caller's promise.
                unsafe {
                    let c = self.c.from(i, j).data;
                    *c = if self.beta == T::Number::ZERO {
                        T::Number::ZERO
                    } else {
                        self.beta.times(*c)
                    };
                }
            }
        }
    }
}
