//! What a worker is asked to do.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::runtime::error::Result;
use crate::runtime::fetch::Fetched;

/// What is told of a job's end, on the worker's thread.
pub type Done<A> = Box<dyn FnOnce(Result<Vec<A>>) + Send>;

pub enum Job<A> {
    /// Compute the arrays and wait for them, unless nobody wants them any more.
    Evaluate {
        arrays: Vec<A>,
        /// Whether linear algebra is among the work. MLX keeps its failure for the stream (0.32.4, #4329),
        /// not for the array, so such a job runs alone.
        may_fail: bool,
        /// The bytes of the last array, if it is small, and a GPU's.
        fetched: Option<Fetched>,
        wanted: Box<dyn Fn() -> bool + Send>,
        done: Done<A>,
    },
    /// Start computing the arrays.
    Schedule { arrays: Vec<A>, done: Done<A> },
    /// Free an array that is on its way to being computed, once it is, or may be computed together with others.
    Free(A),
}

/// The queue of a stream is full: its job comes back.
pub struct QueueFull<A>(pub Job<A>);

/// A panic while an answer is given is its caller's loss only.
pub(crate) fn answer<A>(done: Done<A>, result: Result<Vec<A>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
}
