//! How many turns of loops were run from recordings.

use std::sync::atomic::{AtomicU64, Ordering};

static TURNS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn count() {
    TURNS.fetch_add(1, Ordering::Relaxed);
}

/// How many turns of loops this process has run from recordings, without MLX.
pub fn replayed_turns() -> u64 {
    TURNS.load(Ordering::Relaxed)
}
