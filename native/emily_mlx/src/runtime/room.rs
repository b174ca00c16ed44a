//! How much room there is for arrays: what bounds the process, less what MLX was promised.

use std::sync::atomic::{AtomicUsize, Ordering};

use mlx_rs::Array;

use crate::runtime::error::{refuse, Result};
use crate::runtime::limits::{self, Bound};
use crate::runtime::shelf;

/// What was left at the last look, and the least limit then.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
static LIMIT: AtomicUsize = AtomicUsize::new(0);

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

/// How many bytes are left once `bytes` more are taken, beside those that are `pending`; the bound where there are not
/// so many.
pub(crate) fn look(pending: usize, bytes: usize) -> std::result::Result<usize, Bound> {
    let bound = least(pending);
    let left = bound.room().checked_sub(bytes);
    LEFT.store(left.unwrap_or(0), Ordering::Relaxed);
    left.ok_or(bound)
}

/// The bound that leaves the least.
fn least(pending: usize) -> Bound {
    let (mut active, mut cache) = (0, 0);
    // SAFETY: both write a number to what they are given.
    unsafe {
        mlx_sys::mlx_get_active_memory(&mut active);
        mlx_sys::mlx_get_cache_memory(&mut cache);
    }
    let held = active.saturating_add(cache).saturating_add(shelf::kept());
    let bounds = limits::bounds(held, pending);
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
