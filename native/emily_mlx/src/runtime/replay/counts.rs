//! How much was run from recordings.

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Count(AtomicU64);

pub(crate) static TURNS: Count = Count(AtomicU64::new(0));
pub(crate) static RUNS: Count = Count(AtomicU64::new(0));

impl Count {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many turns of loops this process has run from recordings, without MLX.
pub fn replayed_turns() -> u64 {
    TURNS.read()
}

/// How many times it has so run steps between loops, conditions and calls.
pub fn replayed_runs() -> u64 {
    RUNS.read()
}
