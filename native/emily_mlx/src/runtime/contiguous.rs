//! Arrays in row-major order.

use mlx_rs::Array;

use crate::runtime::error::Result;
use crate::runtime::ffi::mlx;
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// The same elements in row-major order: the array itself where they are. MLX's copy on CUDA writes nothing
/// for a scalar that is a part of a larger array, so that goes as a vector of one. What no memory holds is refused: where
/// there is a GPU MLX asks CUDA for a CPU's memory too, which promises any.
pub(crate) fn contiguous(x: &Array, stream: &StreamHandle) -> Result<Array> {
    room::fits("copy", x)?;
    let s = stream.raw();
    if x.ndim() > 0 || stream.is_cpu() {
        return mlx!(mlx_contiguous, x.as_ptr(), false, s);
    }
    let one = [1];
    let vector = mlx!(mlx_reshape, x.as_ptr(), one.as_ptr(), one.len(), s)?;
    let copy = mlx!(mlx_contiguous, vector.as_ptr(), false, s)?;
    mlx!(mlx_reshape, copy.as_ptr(), std::ptr::null(), 0, s)
}

/// The same elements in row-major order, in memory that the processor may read once they are computed. On a
/// CPU that is the array itself where it is row-major. Of a GPU MLX moves the memory that is read, and
/// frees it under whatever computes with it meanwhile: so it is always a copy.
pub(crate) fn readable(x: &Array, stream: &StreamHandle) -> Result<Array> {
    if stream.is_cpu() {
        return contiguous(x, stream);
    }
    copy(x, stream)
}

/// The same elements in row-major order, in memory that nobody else has. Whoever holds `x` keeps it until they are
/// computed.
pub(crate) fn copy(x: &Array, stream: &StreamHandle) -> Result<Array> {
    room::fits("copy", x)?;
    let always = Array::from_bool(true);
    // A choice has memory of its own, which a copy need not. Of what is one element in memory it is one element too,
    // which is written out then.
    let chosen = mlx!(
        mlx_where,
        always.as_ptr(),
        x.as_ptr(),
        x.as_ptr(),
        stream.raw()
    )?;
    mlx!(mlx_contiguous, chosen.as_ptr(), false, stream.raw())
}
