//! Fourier transforms.

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::Args;
use crate::ops::checks;
use crate::runtime::error::Result;
use crate::runtime::ffi;
use crate::runtime::stream::StreamHandle;

type Fft = unsafe extern "C" fn(
    *mut mlx_array,
    mlx_array,
    i32,
    i32,
    mlx_sys::mlx_fft_norm,
    mlx_stream,
) -> i32;

pub(crate) fn fft(function: Fft, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let x = args.array()?;
    let length = args.int()?;
    let axis = args.axis(x)?;
    checks::at_least(args.op, "length", &[length], 1)?;
    let norm = mlx_sys::mlx_fft_norm__MLX_FFT_NORM_BACKWARD;
    // SAFETY: the handles are live, and the axis is within the rank.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), length, axis, norm, s) })
}
