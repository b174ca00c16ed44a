//! Room for programs: how many run at once, and how many of these wait for arrays.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustler::Atom;

rustler::atoms! { full, crowded }

/// How many programs may wait for arrays at once, each on its thread; the next has to try again.
const MOST_WAITING: usize = 256;

/// How many programs may run at once, with those that wait for their processes.
const MOST_RUNNING: usize = 512;

/// As `MOST_RUNNING`, for what the answer to a call runs: that has room where all else has to wait, since the
/// program that called ends after it alone.
const MOST_NESTED: usize = 1024;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A running program, which counts until it is dropped.
pub struct Running;

impl Running {
    /// Counts one more, `nested` where it answers a call, or says that there are too many: `full` of those that
    /// compute, or `crowded`.
    pub fn begin(nested: bool) -> Result<Self, Atom> {
        let most = if nested { MOST_NESTED } else { MOST_RUNNING };
        if RUNNING.fetch_add(1, Ordering::Relaxed) >= most {
            RUNNING.fetch_sub(1, Ordering::Relaxed);
            return Err(crowded());
        }
        if WAITING.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            drop(Running);
            return Err(full());
        }
        Ok(Running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A program that waits for its process, and does not count among those that wait for arrays meanwhile.
pub struct Idle;

impl Idle {
    pub fn begin() -> Self {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        Idle
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        WAITING.fetch_add(1, Ordering::Relaxed);
    }
}
