//! Memory that is not there.

use crate::support::*;

#[test]
fn nobody_looks_at_what_malloc_answers() {
    let end = apart("memory::nobody_looks_at_what_malloc_answers", || {
        let most = libc::rlimit {
            rlim_cur: 8 << 30,
            rlim_max: 8 << 30,
        };
        // SAFETY: the limit is read from a place that is there.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &most) };
        let shape = [1 << 20, 1 << 20];
        let dtype = mlx_sys::mlx_dtype__MLX_UINT8;
        let zeros = raw!(mlx_zeros, shape.as_ptr(), shape.len(), dtype);
        let all = raw!(mlx_contiguous, zeros.as_ptr(), false);
        computed(&all).is_ok()
    });
    let files = [
        "native/emily_mlx/src/runtime/allocator.rs",
        "native/emily_mlx/src/runtime/limits.rs",
        "native/emily_mlx/cpp/allocator.cpp",
    ];
    leans_on(
        end == End::Signal(libc::SIGSEGV),
        "memory that is not there",
        None,
        &files,
    );
}
