//! MLX's allocator: figures in bytes, and limits.

use std::sync::atomic::{AtomicUsize, Ordering};

use mlx_rs::memory;

use crate::runtime::device::gpus;
use crate::runtime::error::Result;
use crate::runtime::ffi::wrapped;
use crate::runtime::graph::graph;
#[cfg(target_os = "linux")]
use crate::runtime::pools;
use crate::runtime::shelf;

/// What the allocator holds.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Bytes in arrays.
    pub active: usize,
    /// Bytes freed by arrays and kept for the next.
    pub cache: usize,
    /// The most bytes that were in arrays at once.
    pub peak: usize,
    pub limit: usize,
}

pub fn figures() -> Result<Figures> {
    Ok(Figures {
        active: wrapped(memory::active_memory)?,
        cache: wrapped(memory::cache_memory)?.saturating_add(shelf::kept()),
        peak: wrapped(memory::peak_memory)?,
        limit: wrapped(memory::memory_limit)?,
    })
}

/// Sets the limit above which allocations wait for memory to come free; returns the one before.
pub fn set_limit(bytes: usize) -> Result<usize> {
    wrapped(|| memory::set_memory_limit(bytes))
}

/// Sets how many freed bytes are kept, of a GPU's where there is one; returns the limit before. Waits for the streams of the CPU.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    if gpus() == 0 {
        return Ok(shelf::set_limit(bytes));
    }
    let _graph = graph();
    wrapped(|| memory::set_cache_limit(bytes))
}

/// Gives the kept bytes back, MLX's and the C library's. Waits for the streams of the CPU.
pub fn clear_cache() -> Result<()> {
    let graph = graph();
    wrapped(memory::clear_cache)?;
    drop(graph);
    shelf::clear();
    trim();
    #[cfg(target_os = "linux")]
    pools::trim();
    Ok(())
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: any thread may call it at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

pub fn reset_peak() -> Result<()> {
    wrapped(memory::reset_peak_memory)
}

/// How thorough a collection of garbage is.
#[derive(Clone, Copy)]
pub enum Collection {
    Young,
    Full,
}

/// The active bytes after the last young and the last full collection, or the fewest seen since.
static SETTLED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Whether arrays have taken more than `allowed` bytes since a collection.
pub fn has_grown(since: Collection, allowed: usize) -> Result<bool> {
    let active = wrapped(memory::active_memory)?;
    let settled = SETTLED[since as usize].fetch_min(active, Ordering::Relaxed);
    Ok(active > settled.saturating_add(allowed))
}

/// Called after a collection: what is active now counts as in use. A full one is a young one too.
pub fn settle(after: Collection) -> Result<()> {
    let active = wrapped(memory::active_memory)?;
    SETTLED[..=after as usize]
        .iter()
        .for_each(|settled| settled.store(active, Ordering::Relaxed));
    Ok(())
}

/// Has the C library keep what MLX frees, up to 64 MiB, and take arrays of up to 32 MiB from it. By itself
/// glibc comes to these numbers as a program frees arrays, but the BEAM fixes lower ones, with which
/// every result is fresh memory that the kernel has to clear. Whoever has set them is left alone. What is larger is on the
/// `shelf`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed() {
    let is_set = |name| std::env::var_os(name).is_some();
    if [
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_MMAP_THRESHOLD_",
        "GLIBC_TUNABLES",
    ]
    .into_iter()
    .any(is_set)
    {
        return;
    }
    // SAFETY: changes two numbers under the allocator's lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed() {}
