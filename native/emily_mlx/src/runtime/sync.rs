//! What a worker and its callers meet by: the standard library's, or under `--cfg loom` loom's, which tries every order in which
//! they may.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
#[cfg(not(loom))]
pub(crate) use std::thread::Builder as Thread;

#[cfg(loom)]
pub(crate) use checked::{sync_channel, Receiver, SyncSender};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
pub(crate) use loom::thread::Builder as Thread;

/// A queue that means what the standard library's does, of loom's locks: loom's own queue has no bound, and no end.
#[cfg(loom)]
mod checked {
    use std::collections::VecDeque;
    use std::sync::mpsc::{RecvError, TryRecvError, TrySendError};
    use std::sync::Arc;

    use loom::sync::{Condvar, Mutex, MutexGuard};

    struct Shared<T> {
        bound: usize,
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    struct State<T> {
        waiting: VecDeque<T>,
        /// Whether the sender is gone.
        ended: bool,
    }

    impl<T> Shared<T> {
        fn lock(&self) -> MutexGuard<'_, State<T>> {
            self.state.lock().expect("nobody panics with the lock")
        }
    }

    pub(crate) struct SyncSender<T>(Arc<Shared<T>>);
    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    pub(crate) fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            bound,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        (SyncSender(shared.clone()), Receiver(shared))
    }

    impl<T> SyncSender<T> {
        pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.lock();
            if state.waiting.len() == self.0.bound {
                return Err(TrySendError::Full(value));
            }
            state.waiting.push_back(value);
            self.0.changed.notify_one();
            Ok(())
        }
    }

    impl<T> Drop for SyncSender<T> {
        fn drop(&mut self) {
            self.0.lock().ended = true;
            self.0.changed.notify_one();
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            let mut state = self.0.lock();
            loop {
                if let Some(value) = state.waiting.pop_front() {
                    return Ok(value);
                }
                if state.ended {
                    return Err(RecvError);
                }
                let woken = self.0.changed.wait(state);
                state = woken.expect("nobody panics with the lock");
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            let next = self.0.lock().waiting.pop_front();
            next.ok_or(TryRecvError::Empty)
        }
    }
}
