//! The products of matrices that MLX asks BLAS for, on Linux.
//!
//! The loader looks for what `libmlx.so` calls in the library or program first that brought it, which is the one that
//! this crate is in. So MLX's own products, its convolutions and all else that calls `cblas_sgemm` and `cblas_dgemm`
//! land here, and OpenBLAS keeps the rest: LAPACK and complex products, on one thread, since its threads spin for
//! each other wherever the machine has other work.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use emily_kernels::gemm::{multiply, Matrix, Output, Stored, Work};

const ROW_MAJOR: c_int = 101;
const NO_TRANSPOSE: c_int = 111;

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// How many products MLX has asked for.
pub fn calls() -> usize {
    CALLS.load(Ordering::Relaxed)
}

/// Has OpenBLAS compute on the calling thread alone, where it is OpenBLAS that is loaded.
pub(crate) fn one_thread() {
    // SAFETY: the name ends with a zero; a function of that name is OpenBLAS's, which takes a number.
    unsafe {
        let function = libc::dlsym(libc::RTLD_DEFAULT, c"openblas_set_num_threads".as_ptr());
        if !function.is_null() {
            std::mem::transmute::<*mut c_void, extern "C" fn(c_int)>(function)(1);
        }
    }
}

/// A matrix as BLAS names it: its numbers, whether it lies the other way round, and how far its lines are apart.
struct Operand<T>(*const T, c_int, c_int);

impl<T> Operand<T> {
    fn matrix(self, row_major: bool) -> Matrix<T> {
        let Operand(data, transpose, line) = self;
        let line = line as isize;
        if (transpose == NO_TRANSPOSE) == row_major {
            Matrix {
                data,
                row: line,
                column: 1,
            }
        } else {
            Matrix {
                data,
                row: 1,
                column: line,
            }
        }
    }
}

/// # Safety
/// As BLAS has it: the matrices have the sizes, and nobody else uses `c`.
#[allow(clippy::too_many_arguments)]
unsafe fn gemm<T: Stored<Number = T>>(
    order: c_int,
    (rows, columns, inner): (c_int, c_int, c_int),
    alpha: T,
    a: Operand<T>,
    b: Operand<T>,
    beta: T,
    c: *mut T,
    c_line: c_int,
) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let row_major = order == ROW_MAJOR;
    let size = |count: c_int| usize::try_from(count).unwrap_or(0);
    let line = c_line as isize;
    let work = Work {
        rows: size(rows),
        inner: size(inner),
        columns: size(columns),
        alpha,
        a: a.matrix(row_major),
        b: b.matrix(row_major),
        beta,
        c: if row_major {
            Output {
                data: c,
                row: line,
                column: 1,
            }
        } else {
            Output {
                data: c,
                row: 1,
                column: line,
            }
        },
    };
    // SAFETY: the caller's promise.
    unsafe { multiply(work) }
}

macro_rules! export {
    ($name:ident, $number:ty) => {
        /// BLAS's product of two matrices: `c = alpha * a * b + beta * c`.
        ///
        /// # Safety
        /// The matrices must have the sizes named, and nobody else may use `c` meanwhile.
        #[no_mangle]
        pub unsafe extern "C" fn $name(
            order: c_int,
            a_transpose: c_int,
            b_transpose: c_int,
            rows: c_int,
            columns: c_int,
            inner: c_int,
            alpha: $number,
            a: *const $number,
            a_line: c_int,
            b: *const $number,
            b_line: c_int,
            beta: $number,
            c: *mut $number,
            c_line: c_int,
        ) {
            let (a, b) = (
                Operand(a, a_transpose, a_line),
                Operand(b, b_transpose, b_line),
            );
            // SAFETY: the caller's promise.
            unsafe { gemm(order, (rows, columns, inner), alpha, a, b, beta, c, c_line) }
        }
    };
}

export!(cblas_sgemm, f32);
export!(cblas_dgemm, f64);
