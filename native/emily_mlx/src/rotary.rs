//! Rotary embeddings of f32, by a kernel of `cpp/` on a CPU. MLX composes them there of a dozen operations.

use mlx_rs::Array;

use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::fused::Rope;
use crate::stream::StreamHandle;

/// The turned rows, if there is a kernel for them. The arguments fit each other.
pub(crate) fn rotate(x: &Array, rope: &Rope, stream: &StreamHandle) -> Option<Result<Array>> {
    let f32s = [Some(x), rope.freqs].into_iter().flatten();
    if f32s.map(Dtype::of).any(|dtype| dtype != Dtype::F32) || stream.device() != Device::Cpu {
        return None;
    }
    own::rotate(x, rope, stream)
}

#[cfg(cpp_kernels)]
mod own {
    use std::ffi::c_int;

    use mlx_rs::Array;
    use mlx_sys::{mlx_array, mlx_stream};

    use crate::dtype::Dtype;
    use crate::error::Result;
    use crate::ffi::{self, mlx};
    use crate::fused::Rope;
    use crate::stream::StreamHandle;

    extern "C" {
        fn emily_has_rope() -> bool;
        fn emily_rope(
            result: *mut mlx_array,
            x: mlx_array,
            offset: mlx_array,
            periods: mlx_array,
            dims: c_int,
            traditional: bool,
            base: f64,
            scale: f64,
            on: mlx_stream,
        ) -> c_int;
    }

    pub(super) fn rotate(x: &Array, rope: &Rope, stream: &StreamHandle) -> Option<Result<Array>> {
        // SAFETY: it only looks at the processor.
        if !unsafe { emily_has_rope() } {
            return None;
        }
        let s = stream.raw();
        let offset = mlx!(mlx_astype, rope.offset.as_ptr(), Dtype::S32.raw(), s);
        Some(offset.and_then(|offset| {
            let none = mlx_array {
                ctx: std::ptr::null_mut(),
            };
            let periods = rope.freqs.map_or(none, Array::as_ptr);
            // SAFETY: the handles are live; a row has `dims` elements at least, there are `dims / 2` periods, and
            // one offset or one for each of the first axis.
            ffi::array(|result| unsafe {
                emily_rope(
                    result,
                    x.as_ptr(),
                    offset.as_ptr(),
                    periods,
                    rope.dims,
                    rope.traditional,
                    rope.base.unwrap_or(1.0),
                    rope.scale,
                    s,
                )
            })
        }))
    }
}

/// A build without kernels of its own.
#[cfg(not(cpp_kernels))]
mod own {
    use mlx_rs::Array;

    use crate::error::Result;
    use crate::fused::Rope;
    use crate::stream::StreamHandle;

    pub(super) fn rotate(
        _x: &Array,
        _rope: &Rope,
        _stream: &StreamHandle,
    ) -> Option<Result<Array>> {
        None
    }
}
