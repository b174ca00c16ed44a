//! What MLX asks before it takes memory. Its own allocator does not look at what the C library answers, and the
//! kernel promises more than it has and ends the process when that is touched: so what is not there is refused
//! here, as an error of whoever asked for the work.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::runtime::graph::is_scheduling;
use crate::runtime::limits::Bound;
use crate::runtime::queue::finish_all;
use crate::runtime::room;

/// Up to so many bytes are never refused: what little an error needs on its way must be there.
const SMALL: usize = 4096;

/// How many bytes are taken before the system is asked again what is left.
const LOOK_EVERY: usize = 32 << 20;

/// What may be taken before the next look.
static ALLOWANCE: AtomicUsize = AtomicUsize::new(0);

/// What was admitted and is about to be taken.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// Admits memory, or says why not.
fn admit(bytes: usize) -> Result<(), String> {
    let others = PENDING.fetch_add(bytes, Ordering::Relaxed);
    let left = |left: usize| left.checked_sub(bytes);
    let taken = ALLOWANCE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    if bytes <= SMALL || taken.is_ok() || look(bytes, others).is_ok() {
        return Ok(());
    }
    if is_scheduling() {
        finish_all();
    }
    // SAFETY: any thread may call it; nobody holds the allocator's lock here.
    unsafe { mlx_sys::mlx_clear_cache() };
    look(bytes, others).map_err(|bound| {
        PENDING.fetch_sub(bytes, Ordering::Relaxed);
        format!(
            "no memory for {bytes} bytes: {} bytes are left of the {}'s {}",
            bound.room(),
            bound.whose,
            bound.limit
        )
    })
}

/// Looks at what is left; an error where that is less than `bytes`.
fn look(bytes: usize, pending: usize) -> Result<(), Bound> {
    let left = room::look(pending, bytes);
    let allowance = left.as_ref().map_or(0, |left| *left).min(LOOK_EVERY);
    ALLOWANCE.store(allowance, Ordering::Relaxed);
    left.map(|_| ())
}

/// The hook in MLX's way to its allocator, which `cpp/allocator.cpp` is the other side of.
#[cfg(own_kernels)]
mod hook {
    use std::ffi::{c_char, c_void};
    use std::sync::atomic::Ordering;

    use super::{admit, PENDING};

    extern "C" {
        fn emily_allocator() -> *mut c_void;
    }

    /// `mlx::core::allocator::allocator()`. The library that loads MLX comes before MLX where the dynamic linker
    /// looks for a function, so that MLX calls this one.
    #[export_name = "_ZN3mlx4core9allocator9allocatorEv"]
    pub extern "C" fn allocator() -> *mut c_void {
        // SAFETY: the function takes nothing, and what it gives lives as long as the process.
        unsafe { emily_allocator() }
    }

    /// Whether `bytes` may be taken; else the reason is written to `refusal`, which ends with a zero.
    #[no_mangle]
    extern "C" fn emily_admit(bytes: usize, refusal: *mut c_char, capacity: usize) -> bool {
        let Err(reason) = admit(bytes) else {
            return true;
        };
        let length = reason.len().min(capacity.saturating_sub(1));
        // SAFETY: the caller's buffer has `capacity` bytes, which are at least one.
        unsafe {
            std::ptr::copy_nonoverlapping(reason.as_ptr(), refusal.cast(), length);
            *refusal.add(length) = 0;
        }
        false
    }

    /// What was admitted has been taken, or was not to be had.
    #[no_mangle]
    extern "C" fn emily_admitted(bytes: usize) {
        PENDING.fetch_sub(bytes, Ordering::Relaxed);
    }
}
