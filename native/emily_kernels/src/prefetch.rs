//! Memory that is read soon.

/// Asks for the line of the cache at a place, which may be any.
#[inline(always)]
pub(crate) fn prefetch<T>(from: *const T) {
    // Miri does not know the instruction.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every processor of x86-64 has the instruction, which reads nothing that is not there.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = from;
}
