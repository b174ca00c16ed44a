//! Matrices, and the parts of them that a kernel has, as places and strides.

/// A matrix to read: the element in row `i` and column `j` is `i * row + j * column` elements from the first.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<T> {
    pub data: *const T,
    pub row: isize,
    pub column: isize,
}

impl<T> Matrix<T> {
    /// The part from a row and a column on.
    ///
    /// # Safety
    /// The matrix must have that row and that column.
    #[inline(always)]
    pub(super) unsafe fn from(self, row: usize, column: usize) -> Self {
        let offset = row as isize * self.row + column as isize * self.column;
        // SAFETY: the caller's promise.
        let data = unsafe { self.data.offset(offset) };
        Matrix { data, ..self }
    }

    pub(super) fn transposed(self) -> Self {
        let Matrix { data, row, column } = self;
        Matrix {
            data,
            row: column,
            column: row,
        }
    }
}

/// A matrix to write.
#[derive(Clone, Copy, Debug)]
pub struct Output<T> {
    pub data: *mut T,
    pub row: isize,
    pub column: isize,
}

impl<T> Output<T> {
    /// The part from a row and a column on.
    ///
    /// # Safety
    /// The matrix must have that row and that column.
    #[inline(always)]
    pub(super) unsafe fn from(self, row: usize, column: usize) -> Self {
        let offset = row as isize * self.row + column as isize * self.column;
        // SAFETY: the caller's promise.
        let data = unsafe { self.data.offset(offset) };
        Output { data, ..self }
    }
}

// SAFETY: a place and two strides; whoever reads or writes there promises that it may.
unsafe impl<T: Sync> Sync for Matrix<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<T> {}

/// What one call of the kernel reads: `depth` columns of a few rows, and as many rows of a few vectors.
pub struct Panel<T> {
    pub depth: usize,
    pub a: Matrix<T>,
    pub b: *const T,
    pub b_row: isize,
}

/// What one call of the kernel writes: at most as many columns as the vectors have numbers.
pub struct Target<T> {
    pub c: Output<T>,
    pub columns: usize,
    pub alpha: T,
    pub beta: T,
}

pub type Kernel<T> = unsafe fn(&Panel<T>, &Target<T>);
