//! Operations of MLX's that say what is untrue of their results' memory, with the truth told. Kernels trust it without a
//! look: they write beyond memory that was counted too large, and pair the wrong elements of what is in another order.
//!
//! A reshape or a view takes what was column-major for column-major still. The LU factorisation counts the memory of its
//! factors in bytes where it means elements.

pub(crate) use own::{lu, reshape, view};

/// With C++ of our own the truth is told after the operation (`cpp/node.cpp`).
#[cfg(own_kernels)]
mod own {
    use std::ffi::{c_int, c_void};

    use mlx_rs::Array;

    use crate::runtime::dtype::Dtype;
    use crate::runtime::error::Result;
    use crate::runtime::ffi::{self, mlx, Stream};
    use crate::runtime::graph::{Memory, Node};

    /// As in `cpp/node.cpp`.
    #[repr(C)]
    struct Truth {
        data_size: usize,
        contiguous: bool,
        row_contiguous: bool,
        col_contiguous: bool,
    }

    extern "C" {
        fn emily_tell(made: *const c_void) -> c_int;
    }

    /// The operation that gave `made`, which is not computed, tells the truth from now on.
    fn told(made: &Array) -> Result<()> {
        // SAFETY: the array is live and new, so that nobody else looks at it, and what MLX refuses comes back as a status.
        ffi::status(|| unsafe { emily_tell(made.as_ptr().ctx) })
    }

    /// What the strides say.
    #[no_mangle]
    extern "C" fn emily_tell_truth(memory: &Memory) -> Truth {
        // SAFETY: C++ passes the memory of an array that lives through the call.
        let (shape, strides) = unsafe { memory.axes() };
        let axes = || {
            shape
                .iter()
                .map(|&size| i64::from(size))
                .zip(strides.iter().copied())
        };
        // Whether each axis, from the nearest on, steps over what those before it fill.
        fn packed(axes: impl Iterator<Item = (i64, i64)>) -> bool {
            let mut step = 1i64;
            let mut steps = axes.map(|(size, stride)| {
                let fits = size == 1 || stride == step;
                step = step.wrapping_mul(size);
                fits
            });
            steps.all(|fits| fits)
        }
        let distinct: i64 = axes()
            .filter(|axis| axis.1 > 0)
            .map(|axis| axis.0)
            .product();
        let reach: i64 = axes().map(|(size, stride)| stride.abs() * (size - 1)).sum();
        Truth {
            data_size: (reach + 1) as usize,
            contiguous: distinct == reach + 1,
            row_contiguous: packed(axes().rev()),
            col_contiguous: packed(axes()),
        }
    }

    pub(crate) fn reshape(x: &Array, shape: &[i32], s: Stream) -> Result<Array> {
        if x.shape() == shape {
            return Ok(x.clone());
        }
        let made = mlx!(mlx_reshape, x.as_ptr(), shape.as_ptr(), shape.len(), s)?;
        told(&made)?;
        Ok(made)
    }

    /// The bytes of `x` as another type.
    pub(crate) fn view(x: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
        if Dtype::of(x) == dtype {
            return Ok(x.clone());
        }
        let made = mlx!(mlx_view, x.as_ptr(), dtype.raw(), s)?;
        told(&made)?;
        Ok(made)
    }

    /// The factors in one matrix, the row that each row was swapped with, and the row that each row was. mlx-c gives the
    /// first two, beside which the third is computed.
    pub(crate) fn lu(x: &Array, s: Stream) -> Result<Vec<Array>> {
        // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
        let mut made = ffi::two_arrays(|factors, pivots| unsafe {
            mlx_sys::mlx_linalg_lu_factor(factors, pivots, x.as_ptr(), s)
        })?;
        told(&made[0])?;
        let rows = Node::of(&made[0]).siblings().nth(1).map(Node::to_array);
        made.extend(rows.transpose()?);
        Ok(made)
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
