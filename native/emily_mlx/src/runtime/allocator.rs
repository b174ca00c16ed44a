//! What MLX asks before it takes memory. Its own allocator does not look at what the C library answers, and the
//! kernel promises more than it has and ends the process when that is touched: so what is not there is refused
//! here, as an error of whoever asked for the work.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlx_rs::Array;

use crate::runtime::error::{refuse, Result};
use crate::runtime::limits::{self, Bound};
use crate::runtime::stream;

/// Up to so many bytes are never refused: what little an error needs on its way must be there.
const SMALL: usize = 4096;

/// How many bytes are taken before the system is asked again what is left.
const LOOK_EVERY: usize = 32 << 20;

/// What may be taken before the next look, what was left at the last one, and the least limit then.
static ALLOWANCE: AtomicUsize = AtomicUsize::new(0);
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
static LIMIT: AtomicUsize = AtomicUsize::new(0);

/// What was admitted and is about to be taken.
static PENDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SCHEDULING: Cell<bool> = const { Cell::new(false) };
}

/// Runs what has MLX schedule work. Where memory is short meanwhile, the thread waits for what was scheduled
/// before: that frees memory, and MLX frees what it has prepared for an operation that fails while the
/// operation's first steps may still read it.
pub(crate) fn scheduling<T>(schedule: impl FnOnce() -> T) -> T {
    let before = SCHEDULING.replace(true);
    let scheduled = schedule();
    SCHEDULING.set(before);
    scheduled
}

/// Whether there is much more room than `bytes`, as far as the last look knows.
pub(crate) fn is_ample(bytes: usize) -> bool {
    LEFT.load(Ordering::Relaxed) / 16 > bytes
}

/// The size above which no array can be held, in bytes.
pub(crate) fn limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => least(0).limit,
        limit => limit,
    }
}

/// Refuses a result that no memory could hold before anything is computed for it.
pub(crate) fn fits(op: &str, array: &Array) -> Result<()> {
    let (bytes, limit) = (array.nbytes(), limit());
    if bytes > limit {
        refuse!(
            "{op}: the result of shape {:?} would take {bytes} bytes, more than the {limit} bytes of memory",
            array.shape()
        )
    }
    Ok(())
}

/// Admits memory, or says why not.
fn admit(bytes: usize) -> std::result::Result<(), String> {
    let others = PENDING.fetch_add(bytes, Ordering::Relaxed);
    let left = |left: usize| left.checked_sub(bytes);
    let taken = ALLOWANCE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    if bytes <= SMALL || taken.is_ok() || look(bytes, others).is_ok() {
        return Ok(());
    }
    if SCHEDULING.get() {
        stream::finish_all();
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
fn look(bytes: usize, pending: usize) -> std::result::Result<(), Bound> {
    let bound = least(pending);
    let left = bound.room().checked_sub(bytes);
    LEFT.store(left.unwrap_or(0), Ordering::Relaxed);
    ALLOWANCE.store(left.unwrap_or(0).min(LOOK_EVERY), Ordering::Relaxed);
    left.map(|_| ()).ok_or(bound)
}

/// The bound that leaves the least.
fn least(pending: usize) -> Bound {
    let (mut active, mut cache) = (0, 0);
    // SAFETY: both write a number to what they are given.
    unsafe {
        mlx_sys::mlx_get_active_memory(&mut active);
        mlx_sys::mlx_get_cache_memory(&mut cache);
    }
    let bounds = limits::bounds(active.saturating_add(cache), pending);
    let limit = bounds.iter().map(|bound| bound.limit).min();
    LIMIT.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
    let unbounded = Bound {
        whose: "machine",
        limit: usize::MAX,
        taken: 0,
    };
    let least = bounds.into_iter().min_by_key(Bound::room);
    least.unwrap_or(unbounded)
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
