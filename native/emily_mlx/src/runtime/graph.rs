//! MLX's scheduling, which one thread does at a time.

use std::cell::Cell;

use mlx_rs::Array;
use parking_lot::{Mutex, MutexGuard};

use crate::runtime::error::Result;
use crate::runtime::ffi::{self, Arrays};

/// MLX's scheduling walks and changes the graph, which arrays of several streams may share: one
/// thread at a time. Also held while arrays that were computed together are freed before they were
/// computed, since MLX counts their references without a lock.
static GRAPH: Mutex<()> = Mutex::new(());

/// Keeps jobs from being scheduled. While a job that may fail is, whoever else waits for streams
/// would take its failure.
pub(crate) fn graph() -> MutexGuard<'static, ()> {
    GRAPH.lock()
}

/// `graph`, where nobody else has it.
pub(crate) fn try_graph() -> Option<MutexGuard<'static, ()>> {
    GRAPH.try_lock()
}

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

/// Whether the thread schedules work.
pub(crate) fn is_scheduling() -> bool {
    SCHEDULING.get()
}

/// Starts computing arrays.
pub(crate) fn schedule(arrays: &[Array]) -> Result<()> {
    let vector = Arrays::new(arrays)?;
    async_eval(&vector, &graph())
}

pub(crate) fn async_eval(arrays: &Arrays, _graph: &MutexGuard<()>) -> Result<()> {
    // SAFETY: the vector is live; the lock keeps every other thread from changing a graph.
    ffi::status(|| scheduling(|| unsafe { mlx_sys::mlx_async_eval(arrays.as_ptr()) }))
}
