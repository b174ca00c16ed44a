//! What a worker is asked to do.

use std::panic::{catch_unwind, AssertUnwindSafe};

use mlx_rs::Array;

use crate::runtime::error::Result;

/// What is told of a job's end, on the worker's thread.
pub type Done = Box<dyn FnOnce(Result<Vec<Array>>) + Send>;

pub enum Job {
    /// Compute the arrays and wait for them, unless nobody wants them any more.
    Evaluate {
        arrays: Vec<Array>,
        /// Whether linear algebra is among the work. MLX keeps its failure for the stream (0.32.4, #4329),
        /// not for the array, so such a job runs alone.
        may_fail: bool,
        wanted: Box<dyn Fn() -> bool + Send>,
        done: Done,
    },
    /// Start computing the arrays.
    Schedule { arrays: Vec<Array>, done: Done },
    /// Free an array that may be computed together with others.
    Free(Array),
}

/// The queue of a stream is full: its job comes back.
pub struct QueueFull(pub Job);

/// A panic while an answer is given is its caller's loss only.
pub(crate) fn answer(done: Done, result: Result<Vec<Array>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
}
