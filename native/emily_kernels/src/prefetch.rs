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

/// Asks for so many bytes, and for no nearer cache than the second: they are not read next.
#[inline(always)]
pub(crate) fn prefetch_later(from: *const u8, bytes: usize) {
    const LINE: usize = 64;
    // Miri does not know the instruction.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..bytes).step_by(LINE) {
        // SAFETY: every processor of x86-64 has the instruction, which reads nothing that is not there.
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T1};
            _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(at).cast())
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (from, bytes, LINE);
}
