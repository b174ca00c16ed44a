//! What the pool's threads meet by. Under `--cfg loom` it is loom's, which tries every order in which they may, and under Miri,
//! which does not know how parking_lot calls the kernel, the standard library's.

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(not(any(loom, miri)))]
pub(super) use parking_lot::{Condvar, Mutex};

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};

#[cfg(any(loom, miri))]
pub(super) use checked::{Condvar, Mutex};

/// loom's or the standard library's, with the methods of parking_lot's.
#[cfg(any(loom, miri))]
mod checked {
    use std::ops::{Deref, DerefMut};

    #[cfg(loom)]
    use loom::sync;
    #[cfg(miri)]
    use std::sync;

    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// Holds the lock always, but for the time that [`Condvar::wait`] has it.
    pub(crate) struct Guard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    pub(crate) struct Condvar(sync::Condvar);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            Guard(Some(self.0.lock().expect("nobody panics with the lock")))
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0.as_ref().expect("the lock is held")
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("the lock is held")
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Condvar(sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            let held = guard.0.take().expect("the lock is held");
            guard.0 = Some(self.0.wait(held).expect("nobody panics with the lock"));
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }
}
