//! A factorisation by MLX, which says what is untrue of its result's memory, with the truth told. Kernels trust it
//! without a look: they write beyond memory that was counted too large.

use mlx_rs::Array;

use crate::runtime::error::Result;
use crate::runtime::ffi::{self, mlx, Stream};

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
