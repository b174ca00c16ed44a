//! Evaluation: one worker thread a stream, fed by a bounded queue. The BEAM's schedulers only
//! build graphs and queue jobs; they never wait for MLX.
//!
//! Who computes what, in which order, under which lock, and who is told, is decided here; how MLX does it, in `engine.rs`.
//! So models can have an engine of their own (`worker/models.rs`).

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::TrySendError;
use std::sync::Arc;

use emily_kernels::pool::patiently;
use once_cell::unsync::OnceCell;

use crate::runtime::error::{Error, Result};
use crate::runtime::fetch::Fetched;
use crate::runtime::job::{answer, Done, Job, QueueFull};
use crate::runtime::sync::{sync_channel, AtomicBool, Ordering, Receiver, SyncSender, Thread};

#[cfg(all(test, loom))]
mod models;

/// How many jobs may wait. Every caller waits for its own, so this is the number of processes that
/// can evaluate at once before the next has to try again. A model has few.
const QUEUE_BOUND: usize = if cfg!(loom) { 2 } else { 4096 };

/// How many jobs the device has at once: one to compute and one to go on with. Each holds memory.
const MOST_RUNNING: usize = 2;

/// What computes arrays on a stream.
pub trait Engine: Send + Sync + 'static {
    type Array: Send + 'static;
    /// An array of one job alone, to wait for: waiting for an array changes it.
    type Marker;
    /// The lock under which graphs are changed.
    type Graph<'a>;

    /// Makes the calling thread one that may use the engine.
    fn adopt_thread(&self);

    fn graph(&self) -> Self::Graph<'_>;

    /// The lock, where nobody else has it.
    fn try_graph(&self) -> Option<Self::Graph<'_>>;

    /// Computes arrays on the calling thread if that takes no longer than to wake another; answers whether they are
    /// computed.
    fn compute_short(&self, arrays: &[Self::Array], graph: &Self::Graph<'_>) -> bool;

    /// Starts computing arrays if that is short work, and tells its end; gives back what is not.
    fn schedule_short(
        &self,
        short: Short<Self::Array>,
        graph: &Self::Graph<'_>,
    ) -> ShortOrNot<Self>;

    /// Whether the memory of an array that is freed is still to be written to.
    fn is_awaited(&self, _array: &Self::Array, _graph: &Self::Graph<'_>) -> bool {
        false
    }

    fn marker(&self) -> Result<Self::Marker>;

    /// Starts computing arrays, and a marker with them.
    fn begin(
        &self,
        arrays: &[Self::Array],
        marker: Option<&Self::Marker>,
        graph: &Self::Graph<'_>,
    ) -> Result<()>;

    /// Waits for the work of the stream and takes the failure that is kept for it.
    fn settle(&self, graph: &Self::Graph<'_>) -> Result<()>;

    /// Notes with the marker where the work ends that was begun last, and has an array of it copied.
    fn mark(
        &self,
        _marker: &Self::Marker,
        _fetched: Option<(&Self::Array, &Fetched)>,
        _graph: &Self::Graph<'_>,
    ) {
    }

    /// Whether a thread without work looks for more a while before it sleeps: to be woken takes longer than what it is for.
    fn is_patient(&self) -> bool {
        false
    }

    fn wait(&self, marker: &Self::Marker) -> Result<()>;
}

/// Arrays, and what is told of their end.
pub type Short<A> = (Vec<A>, Done<A>);
pub type ShortOrNot<E> = std::result::Result<(), Short<<E as Engine>::Array>>;

pub struct Worker<E: Engine> {
    jobs: SyncSender<Job<E::Array>>,
    engine: Arc<E>,
    closed: Arc<AtomicBool>,
}

impl<E: Engine> Worker<E> {
    pub(crate) fn start(engine: Arc<E>) -> Result<Self> {
        let (sender, jobs) = sync_channel(QUEUE_BOUND);
        let closed = Arc::new(AtomicBool::new(false));
        let (own, own_closed) = (engine.clone(), closed.clone());
        Thread::new()
            .name("emily".to_owned())
            .spawn(move || work(&*own, jobs, &own_closed))
            .map_err(|error| Error::Mlx(format!("no thread for a stream: {error}")))?;
        Ok(Worker {
            jobs: sender,
            engine,
            closed,
        })
    }

    /// Nothing is computed from now on: the jobs that wait, and those that come, end with an error. What the device
    /// has already is computed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Schedules a job that is short, or queues it, without waiting.
    pub fn push(&self, job: Job<E::Array>) -> std::result::Result<(), QueueFull<E::Array>> {
        let job = match job {
            Job::Evaluate {
                arrays,
                may_fail: false,
                fetched: None,
                wanted,
                done,
            } => match self.schedule_short((arrays, done)) {
                Ok(()) => return Ok(()),
                Err((arrays, done)) => Job::Evaluate {
                    arrays,
                    may_fail: false,
                    fetched: None,
                    wanted,
                    done,
                },
            },
            job => job,
        };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => QueueFull(job),
        })
    }

    /// Computes arrays on the calling thread if that takes no longer than to wake another; answers whether they are
    /// computed. Not for linear algebra, which may fail.
    pub fn compute_here(&self, arrays: &[E::Array]) -> bool {
        let graph = self.engine.try_graph().filter(|_| !self.is_closed());
        graph.is_some_and(|graph| self.engine.compute_short(arrays, &graph))
    }

    /// Schedules short work on a CPU on the calling thread; what is not short comes back.
    fn schedule_short(&self, short: Short<E::Array>) -> ShortOrNot<E> {
        match self.engine.try_graph().filter(|_| !self.is_closed()) {
            Some(graph) => self.engine.schedule_short(short, &graph),
            None => Err(short),
        }
    }
}

/// A job that the device has and has not finished.
struct Running<E: Engine> {
    arrays: Vec<E::Array>,
    marker: E::Marker,
    done: Done<E::Array>,
}

fn work<E: Engine>(engine: &E, jobs: Receiver<Job<E::Array>>, closed: &AtomicBool) {
    engine.adopt_thread();
    let mut running: VecDeque<Running<E>> = VecDeque::new();
    loop {
        // The next job is scheduled before the oldest is waited for, so that the device goes from
        // one to the next without this thread.
        let next = match running.len() {
            0 => next(engine, &jobs),
            1..MOST_RUNNING => jobs.try_recv().ok(),
            _ => None,
        };
        match next {
            Some(job) => {
                if let Job::Evaluate { may_fail: true, .. } = &job {
                    running.drain(..).for_each(|job| finish(engine, job));
                }
                running.extend(start(engine, job, closed));
            }
            None => match running.pop_front() {
                Some(oldest) => finish(engine, oldest),
                // Every handle of the stream is gone.
                None => return,
            },
        }
    }
}

/// The next job; none where every handle of the stream is gone.
fn next<E: Engine>(engine: &E, jobs: &Receiver<Job<E::Array>>) -> Option<Job<E::Array>> {
    let found = OnceCell::new();
    let is_found = || jobs.try_recv().is_ok_and(|job| found.set(job).is_ok());
    if engine.is_patient() {
        patiently(is_found, || false);
    }
    found.into_inner().or_else(|| jobs.recv().ok())
}

fn start<E: Engine>(engine: &E, job: Job<E::Array>, closed: &AtomicBool) -> Option<Running<E>> {
    match job {
        Job::Evaluate { arrays, done, .. } | Job::Schedule { arrays, done }
            if closed.load(Ordering::Acquire) =>
        {
            free(engine, arrays);
            answer(done, Err(Error::Mlx("the stream is closed".to_owned())));
            None
        }
        Job::Evaluate {
            arrays,
            may_fail,
            fetched,
            wanted,
            done,
        } => {
            let marked = || {
                if !wanted() {
                    return Ok(None);
                }
                schedule_marked(engine, &arrays, may_fail, fetched.as_ref()).map(Some)
            };
            match guarded(marked) {
                Ok(Some(marker)) => Some(Running {
                    arrays,
                    marker,
                    done,
                }),
                Ok(None) => {
                    free(engine, arrays);
                    None
                }
                Err(error) => {
                    free(engine, arrays);
                    answer(done, Err(error));
                    None
                }
            }
        }
        Job::Schedule { arrays, done } => {
            let scheduled = guarded(|| engine.begin(&arrays, None, &engine.graph()));
            free(engine, arrays);
            answer(done, scheduled.map(|()| Vec::new()));
            None
        }
        Job::Free(array) => {
            if !engine.is_awaited(&array, &engine.graph()) {
                free(engine, array);
                return None;
            }
            match guarded(|| schedule_marked(engine, &[], false, None)) {
                Ok(marker) => Some(Running {
                    arrays: vec![array],
                    marker,
                    done: Box::new(drop),
                }),
                // Nobody would know when.
                Err(_) => {
                    std::mem::forget(array);
                    None
                }
            }
        }
    }
}

fn finish<E: Engine>(engine: &E, running: Running<E>) {
    let Running {
        arrays,
        marker,
        done,
    } = running;
    answer(done, guarded(|| engine.wait(&marker)).map(|()| arrays));
}

/// A panic becomes an error for the job's caller, and the worker lives on.
fn guarded<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    let panicked = || Error::Mlx("the evaluation panicked".to_owned());
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| Err(panicked()))
}

/// Starts computing arrays, of which the last may be fetched; gives what to wait for.
pub(crate) fn schedule_marked<E: Engine>(
    engine: &E,
    arrays: &[E::Array],
    may_fail: bool,
    fetched: Option<&Fetched>,
) -> Result<E::Marker> {
    let marker = engine.marker()?;
    let graph = engine.graph();
    let scheduled = engine.begin(arrays, Some(&marker), &graph);
    if scheduled.is_ok() {
        engine.mark(&marker, arrays.last().zip(fetched), &graph);
    }
    // With the lock held, nobody schedules work that waits for what has failed and fails with it.
    let settled = if may_fail {
        engine.settle(&graph)
    } else {
        Ok(())
    };
    scheduled.and(settled).map(|()| marker)
}

/// Computes arrays on the calling thread, which waits.
pub(crate) fn compute<E: Engine>(
    engine: &E,
    arrays: &[E::Array],
    may_fail: bool,
    fetched: Option<&Fetched>,
) -> Result<()> {
    engine.wait(&schedule_marked(engine, arrays, may_fail, fetched)?)
}

fn free<E: Engine, T>(engine: &E, arrays: T) {
    let _graph = engine.graph();
    drop(arrays);
}
