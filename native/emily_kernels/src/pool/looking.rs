//! How a thread looks for what is about to come before it sleeps.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// How long a thread looks for more before it sleeps. To be woken takes 5 to 100 us, the longer on a virtual machine, and
/// the large operations of a program follow each other sooner. It does not yield: beside other programs it would lose its
/// turn, which takes longer.
pub(super) const PATIENCE: Duration = Duration::from_micros(100);
/// How many looks it takes between looks at the clock.
const LOOKS: usize = 32;

pub(super) const NO_CORE: usize = usize::MAX;

/// The number of the core that the caller runs on, where the system tells.
pub(super) fn core() -> usize {
    // Miri has no cores.
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: takes nothing and gives a number.
    return usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(NO_CORE);
    #[cfg(not(all(target_os = "linux", not(miri))))]
    NO_CORE
}

/// Whether something becomes true while we look for a moment, unless we had better not.
pub fn patiently(is_true: impl Fn() -> bool, in_the_way: impl Fn() -> bool) -> bool {
    // A model has no clock, and Miri takes turns with whoever looks: there it looks once.
    if cfg!(any(loom, miri)) {
        return is_true();
    }
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if is_true() {
                return true;
            }
            spin_loop();
        }
        if start.elapsed() > PATIENCE || in_the_way() {
            return false;
        }
    }
}
