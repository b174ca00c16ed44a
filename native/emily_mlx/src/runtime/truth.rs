//! Operations of MLX's that say what is untrue of their results' memory, with the truth told. Kernels trust it without a
//! look: they write beyond memory that was counted too large, and pair the wrong elements of what is in another order.
//!
//! A reshape or a view takes what was column-major for column-major still. The LU factorisation counts the memory of its
//! factors in bytes where it means elements.

pub(crate) use own::{lu, reshape, view};

/// With C++ of our own the truth is told after the operation (`cpp/truthful.cpp`).
#[cfg(own_kernels)]
mod own {
    use std::ffi::c_int;

    use mlx_rs::Array;
    use mlx_sys::{mlx_array, mlx_vector_array};

    use crate::runtime::dtype::Dtype;
    use crate::runtime::error::Result;
    use crate::runtime::ffi::{self, mlx, Stream};

    extern "C" {
        fn emily_truthful(result: *mut mlx_array, made: mlx_array) -> c_int;
        fn emily_all_truthful(results: mlx_vector_array, made: mlx_array) -> c_int;
    }

    /// The result of the operation that gave `made`, which is not computed.
    fn told(made: &Array) -> Result<Array> {
        // SAFETY: the handle is live, and what MLX refuses comes back as a status.
        ffi::array(|result| unsafe { emily_truthful(result, made.as_ptr()) })
    }

    pub(crate) fn reshape(x: &Array, shape: &[i32], s: Stream) -> Result<Array> {
        if x.shape() == shape {
            return Ok(x.clone());
        }
        let made = mlx!(mlx_reshape, x.as_ptr(), shape.as_ptr(), shape.len(), s)?;
        told(&made)
    }

    /// The bytes of `x` as another type.
    pub(crate) fn view(x: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
        if Dtype::of(x) == dtype {
            return Ok(x.clone());
        }
        let made = mlx!(mlx_view, x.as_ptr(), dtype.raw(), s)?;
        told(&made)
    }

    /// The factors in one matrix, the row that each row was swapped with, and the row that each row was.
    pub(crate) fn lu(x: &Array, s: Stream) -> Result<Vec<Array>> {
        // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
        let made = ffi::two_arrays(|factors, pivots| unsafe {
            mlx_sys::mlx_linalg_lu_factor(factors, pivots, x.as_ptr(), s)
        })?;
        // SAFETY: as in `told`.
        ffi::arrays(|results| unsafe { emily_all_truthful(*results, made[0].as_ptr()) })
    }
}

/// Elsewhere nothing is column-major before the operation, and the factors are copied after it.
#[cfg(not(own_kernels))]
mod own {
    use mlx_rs::Array;

    use crate::runtime::dtype::Dtype;
    use crate::runtime::error::Result;
    use crate::runtime::ffi::{self, mlx, Stream};

    pub(crate) fn reshape(x: &Array, shape: &[i32], s: Stream) -> Result<Array> {
        let row_major = mlx!(mlx_contiguous, x.as_ptr(), false, s)?;
        mlx!(
            mlx_reshape,
            row_major.as_ptr(),
            shape.as_ptr(),
            shape.len(),
            s
        )
    }

    /// The bytes of `x` as another type.
    pub(crate) fn view(x: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
        let row_major = mlx!(mlx_contiguous, x.as_ptr(), false, s)?;
        mlx!(mlx_view, row_major.as_ptr(), dtype.raw(), s)
    }

    /// The factors in one matrix, the row that each row was swapped with, and the row that each row was. mlx-c gives
    /// the pivots or the rows, of a factorisation each.
    pub(crate) fn lu(x: &Array, s: Stream) -> Result<Vec<Array>> {
        // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
        let made = ffi::two_arrays(|factors, pivots| unsafe {
            mlx_sys::mlx_linalg_lu_factor(factors, pivots, x.as_ptr(), s)
        })?;
        // SAFETY: as above.
        let all = ffi::arrays(|all| unsafe { mlx_sys::mlx_linalg_lu(all, x.as_ptr(), s) })?;
        let factors = mlx!(mlx_contiguous, made[0].as_ptr(), false, s)?;
        Ok(vec![factors, made[1].clone(), all[0].clone()])
    }
}
