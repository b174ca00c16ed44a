//! Sums and products of f32 and products of small matrices of f32, taken in f64 by kernels of `cpp/` on a CPU.
//! Elsewhere, and for everything else, there are MLX's.

use mlx_rs::Array;

use crate::device::Device;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::op::Op;
use crate::stream::StreamHandle;

/// Up to so many products of numbers a matrix product takes no longer here than in BLAS, in batches too. That of
/// two vectors never does.
const FEW_PRODUCTS: i64 = 8 * 8 * 8;

/// The reduction over `axes`, each named once and within the rank, if there is a kernel for it.
pub(crate) fn reduce(
    op: Op,
    x: &Array,
    axes: &[i32],
    keep: bool,
    stream: &StreamHandle,
) -> Option<Result<Array>> {
    if Dtype::of(x) != Dtype::F32 || axes.is_empty() || stream.device() != Device::Cpu {
        return None;
    }
    own::reduce(op, x, axes, keep, stream)
}

/// The product of two batches of matrices, where they are small and there is a kernel for it.
pub(crate) fn matmul(a: &Array, b: &Array, stream: &StreamHandle) -> Option<Result<Array>> {
    let f32s = Dtype::of(a) == Dtype::F32 && Dtype::of(b) == Dtype::F32;
    let rank = a.ndim();
    if !f32s || stream.device() != Device::Cpu || rank < 2 || b.ndim() != rank {
        return None;
    }
    let (rows, inner, columns) = (a.dim(-2), a.dim(-1), b.dim(-1));
    let products = i64::from(rows)
        .saturating_mul(inner.into())
        .saturating_mul(columns.into());
    let same_batch = a.shape()[..rank - 2] == b.shape()[..rank - 2];
    let vectors = rows == 1 && columns == 1;
    if same_batch && inner == b.dim(-2) && (vectors || products <= FEW_PRODUCTS) {
        own::matmul(a, b, stream)
    } else {
        None
    }
}

#[cfg(cpp_kernels)]
mod own {
    use std::ffi::{c_char, c_int, c_void, CStr};

    use mlx_rs::Array;
    use mlx_sys::{mlx_array, mlx_stream};
    use once_cell::sync::Lazy;

    use crate::error::Result;
    use crate::ffi;
    use crate::op::Op;
    use crate::stream::StreamHandle;

    extern "C" {
        fn emily_find_reduction(name: *const c_char) -> *const c_void;
        fn emily_has_matmul() -> bool;
        fn emily_reduce(
            result: *mut mlx_array,
            kernel: *const c_void,
            input: mlx_array,
            axes: *const c_int,
            count: usize,
            keep: bool,
            on: mlx_stream,
        ) -> c_int;
        fn emily_matmul(
            result: *mut mlx_array,
            a: mlx_array,
            b: mlx_array,
            on: mlx_stream,
        ) -> c_int;
    }

    #[derive(Clone, Copy)]
    struct Reduction(*const c_void);

    // SAFETY: the pointers are to constants of the library.
    unsafe impl Send for Reduction {}
    // SAFETY: as above.
    unsafe impl Sync for Reduction {}

    fn find(name: &CStr) -> Option<Reduction> {
        // SAFETY: the name ends with a zero and lives through the call.
        let kernel = unsafe { emily_find_reduction(name.as_ptr()) };
        (!kernel.is_null()).then_some(Reduction(kernel))
    }

    static SUM: Lazy<Option<Reduction>> = Lazy::new(|| find(c"sum"));
    static PROD: Lazy<Option<Reduction>> = Lazy::new(|| find(c"prod"));

    pub(super) fn reduce(
        op: Op,
        x: &Array,
        axes: &[i32],
        keep: bool,
        stream: &StreamHandle,
    ) -> Option<Result<Array>> {
        let Reduction(kernel) = match op {
            Op::Sum => (*SUM)?,
            Op::Prod => (*PROD)?,
            _ => return None,
        };
        let (x, s) = (x.as_ptr(), stream.raw());
        // SAFETY: the handles are live, the axes are within the rank and outlive the call, and what MLX refuses
        // comes back as a status.
        Some(ffi::array(|result| unsafe {
            emily_reduce(result, kernel, x, axes.as_ptr(), axes.len(), keep, s)
        }))
    }

    pub(super) fn matmul(a: &Array, b: &Array, stream: &StreamHandle) -> Option<Result<Array>> {
        // SAFETY: it only looks at the processor.
        if !unsafe { emily_has_matmul() } {
            return None;
        }
        // SAFETY: as in `reduce`; the matrices fit each other.
        Some(ffi::array(|result| unsafe {
            emily_matmul(result, a.as_ptr(), b.as_ptr(), stream.raw())
        }))
    }
}

/// A build without kernels of its own.
#[cfg(not(cpp_kernels))]
mod own {
    use mlx_rs::Array;

    use crate::error::Result;
    use crate::op::Op;
    use crate::stream::StreamHandle;

    pub(super) fn reduce(
        _op: Op,
        _x: &Array,
        _axes: &[i32],
        _keep: bool,
        _stream: &StreamHandle,
    ) -> Option<Result<Array>> {
        None
    }

    pub(super) fn matmul(_a: &Array, _b: &Array, _stream: &StreamHandle) -> Option<Result<Array>> {
        None
    }
}
