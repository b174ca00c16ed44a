//! Operations of MLX's that say what is untrue of their results' memory, with the truth told. Kernels trust it without a
//! look: they write beyond memory that was counted too large, and pair the wrong elements of what is in another order.

use std::borrow::Cow;

use mlx_rs::Array;

use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::{self, mlx, Stream};

/// What a reshape or a view may take. MLX 0.32.2, which mlx-sys builds itself, takes what was column-major for
/// column-major still after them: there nothing is before them.
fn taken(x: &Array, s: Stream) -> Result<Cow<'_, Array>> {
    match cfg!(own_kernels) {
        true => Ok(Cow::Borrowed(x)),
        false => mlx!(mlx_contiguous, x.as_ptr(), false, s).map(Cow::Owned),
    }
}

pub(crate) fn reshape(x: &Array, shape: &[i32], s: Stream) -> Result<Array> {
    let x = taken(x, s)?;
    mlx!(mlx_reshape, x.as_ptr(), shape.as_ptr(), shape.len(), s)
}

/// The bytes of `x` as another type.
pub(crate) fn view(x: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
    let x = taken(x, s)?;
    mlx!(mlx_view, x.as_ptr(), dtype.raw(), s)
}

/// The factors in one matrix, the row that each row was swapped with, and the row that each row was. MLX 0.32.4 counts the
/// memory of the factors in bytes where it means elements, so they are copied.
pub(crate) fn lu(x: &Array, s: Stream) -> Result<[Array; 3]> {
    // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
    let [factors, pivots] = ffi::two_arrays(|factors, pivots| unsafe {
        mlx_sys::mlx_linalg_lu_factor(factors, pivots, x.as_ptr(), s)
    })?;
    let rows = rows(x, &factors, s)?;
    let factors = mlx!(mlx_contiguous, factors.as_ptr(), false, s)?;
    Ok([factors, pivots, rows])
}

/// mlx-c gives the factors with the pivots alone, beside which the rows are computed.
#[cfg(own_kernels)]
fn rows(_x: &Array, factors: &Array, _s: Stream) -> Result<Array> {
    use crate::runtime::error::Error;
    use crate::runtime::inspect::Node;

    let rows = Node::of(factors).siblings().nth(1).map(Node::to_array);
    rows.unwrap_or_else(|| Err(Error::Mlx("lu: MLX gave no rows".to_owned())))
}

/// Those of a factorisation of its own, where what is computed beside the factors is out of reach.
#[cfg(not(own_kernels))]
fn rows(x: &Array, _factors: &Array, s: Stream) -> Result<Array> {
    // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
    let all = ffi::arrays(|all| unsafe { mlx_sys::mlx_linalg_lu(all, x.as_ptr(), s) })?;
    Ok(all[0].clone())
}
