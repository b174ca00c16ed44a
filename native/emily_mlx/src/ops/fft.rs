//! Fourier transforms.

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::Args;
use crate::ops::cast::cast;
use crate::ops::checks;
use crate::ops::shape::cut;
use crate::runtime::dtype::Dtype;
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

/// What is transformed along an axis, of which so many numbers are taken.
struct Transform<'a> {
    x: &'a Array,
    length: i32,
    axis: i32,
}

impl<'a> Transform<'a> {
    fn of(args: &'a Args) -> Result<Self> {
        let x = args.array()?;
        let length = args.int()?;
        let axis = args.axis(x)?;
        checks::at_least(args.op, "length", &[length], 1)?;
        Ok(Transform { x, length, axis })
    }

    fn add(&self, function: Fft, stream: &StreamHandle) -> Result<Array> {
        let (x, s) = (self.x.as_ptr(), stream.raw());
        let norm = mlx_sys::mlx_fft_norm__MLX_FFT_NORM_BACKWARD;
        // SAFETY: the handles are live, and the axis is within the rank.
        ffi::array(|result| unsafe { function(result, x, self.length, self.axis, norm, s) })
    }
}

pub(crate) fn fft(function: Fft, args: &Args, stream: &StreamHandle) -> Result<Array> {
    Transform::of(args)?.add(function, stream)
}

/// Memory of no more bytes lies wherever there is room (MLX 0.32.4), and cuFFT refuses two real numbers that do not lie as it
/// wants them.
const SMALL: usize = 8;

/// `{:rfft, x, length, axis}`
pub(crate) fn rfft(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let real = Transform::of(args)?;
    if stream.is_cpu() || real.x.nbytes() > SMALL {
        return real.add(mlx_sys::mlx_fft_rfft, stream);
    }
    let x = &cast(real.x, Dtype::C64, stream.raw())?;
    let whole = Transform { x, ..real }.add(mlx_sys::mlx_fft_fft, stream)?;
    cut(&whole, real.axis, &(0..real.length / 2 + 1), stream.raw())
}
