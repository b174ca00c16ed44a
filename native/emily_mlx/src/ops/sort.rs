//! Sorting.

use std::borrow::Cow;

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::Args;
use crate::runtime::contiguous::contiguous;
use crate::runtime::device::Device;
use crate::runtime::error::Result;
use crate::runtime::ffi;
use crate::runtime::stream::StreamHandle;

type Sort = unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, mlx_stream) -> i32;

pub(crate) fn sort(function: Sort, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let axis = args.axis(x)?;
    // MLX's kernels for a GPU (0.32.2, #4366) mistake the order of what is not row-major.
    let x = match stream.device() {
        Device::Cpu => Cow::Borrowed(x),
        Device::Gpu => Cow::Owned(contiguous(x, stream)?),
    };
    // SAFETY: the handles are live, and the axis is within the rank.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, stream.raw()) })
}
