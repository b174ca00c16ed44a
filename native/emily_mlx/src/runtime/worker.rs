//! Evaluation: one worker thread a stream, fed by a bounded queue. The BEAM's schedulers only
//! build graphs and queue jobs; they never wait for MLX.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TrySendError};
use std::thread;

use mlx_rs::{with_stream, Array, Stream};
use parking_lot::{Mutex, MutexGuard};

use crate::runtime::allocator::scheduling;
use crate::runtime::device::Device;
use crate::runtime::error::{Error, Result};
use crate::runtime::ffi::{self, Arrays};
use crate::runtime::short;
use crate::runtime::stream::{adopt_thread, SendStream, StreamHandle};

/// How many jobs may wait. Every caller waits for its own, so this is the number of processes that
/// can evaluate at once before the next has to try again.
const QUEUE_BOUND: usize = 4096;

/// How many jobs the device has at once: one to compute and one to go on with. Each holds memory.
const MOST_RUNNING: usize = 2;

/// MLX's scheduling walks and changes the graph, which arrays of several streams may share: one
/// thread at a time. Also held while arrays that were computed together are freed before they were
/// computed, since MLX counts their references without a lock.
static GRAPH: Mutex<()> = Mutex::new(());

/// Keeps jobs from being scheduled. While a job that may fail is, whoever else waits for streams
/// would take its failure.
pub(crate) fn graph() -> MutexGuard<'static, ()> {
    GRAPH.lock()
}

/// What is told of a job's end, on the worker's thread.
pub type Done = Box<dyn FnOnce(Result<Vec<Array>>) + Send>;

pub enum Job {
    /// Compute the arrays and wait for them, unless nobody wants them any more.
    Evaluate {
        arrays: Vec<Array>,
        /// Whether linear algebra is among the work. MLX keeps its failure for the stream, not for
        /// the array, so such a job runs alone.
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

pub struct Worker {
    queue: SyncSender<Job>,
    stream: SendStream,
}

impl Worker {
    pub(crate) fn start(stream: SendStream) -> Result<Worker> {
        let (queue, jobs) = sync_channel(QUEUE_BOUND);
        let own = SendStream(stream.0.clone());
        thread::Builder::new()
            .name("emily".to_owned())
            .spawn(move || work(stream, jobs))
            .map_err(|error| Error::Mlx(format!("no thread for a stream: {error}")))?;
        Ok(Worker { queue, stream: own })
    }

    /// Schedules a job that is short, or queues it, without waiting.
    pub fn push(&self, job: Job) -> std::result::Result<(), QueueFull> {
        let job = match job {
            Job::Evaluate {
                arrays,
                may_fail: false,
                wanted,
                done,
            } => match self.schedule_short(arrays, done) {
                Ok(()) => return Ok(()),
                Err((arrays, done)) => Job::Evaluate {
                    arrays,
                    may_fail: false,
                    wanted,
                    done,
                },
            },
            job => job,
        };
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => QueueFull(job),
        })
    }
}

impl Worker {
    /// Computes arrays on the calling thread if that takes no longer than to wake another; answers whether they are
    /// computed. Not for linear algebra, which may fail.
    pub fn compute_here(&self, arrays: &[Array]) -> bool {
        GRAPH
            .try_lock()
            .is_some_and(|graph| short::compute(arrays, &self.stream.0, &graph))
    }

    /// Schedules short work on a CPU on the calling thread; what is not short comes back.
    fn schedule_short(
        &self,
        arrays: Vec<Array>,
        done: Done,
    ) -> std::result::Result<(), (Vec<Array>, Done)> {
        let Some(graph) = GRAPH.try_lock() else {
            return Err((arrays, done));
        };
        short::schedule(arrays, done, &self.stream.0, &graph)
    }
}

/// A job that the device has and has not finished.
struct Running {
    arrays: Vec<Array>,
    /// An array of this job alone, to wait for: waiting for an array changes it.
    marker: Array,
    done: Done,
}

fn work(stream: SendStream, jobs: Receiver<Job>) {
    let SendStream(stream) = stream;
    adopt_thread();
    let mut running: VecDeque<Running> = VecDeque::new();
    loop {
        // The next job is scheduled before the oldest is waited for, so that the device goes from
        // one to the next without this thread.
        let next = match running.len() {
            0 => jobs.recv().ok(),
            1..MOST_RUNNING => jobs.try_recv().ok(),
            _ => None,
        };
        match next {
            Some(job) => {
                if let Job::Evaluate { may_fail: true, .. } = &job {
                    running.drain(..).for_each(finish);
                }
                running.extend(start(job, &stream));
            }
            None => match running.pop_front() {
                Some(oldest) => finish(oldest),
                // Every handle of the stream is gone.
                None => return,
            },
        }
    }
}

fn start(job: Job, stream: &Stream) -> Option<Running> {
    match job {
        Job::Evaluate {
            arrays,
            may_fail,
            wanted,
            done,
        } => {
            let marked = || {
                if !wanted() {
                    return Ok(None);
                }
                schedule_marked(&arrays, may_fail, stream).map(Some)
            };
            match guarded(marked) {
                Ok(Some(marker)) => Some(Running {
                    arrays,
                    marker,
                    done,
                }),
                Ok(None) => {
                    free(arrays);
                    None
                }
                Err(error) => {
                    free(arrays);
                    answer(done, Err(error));
                    None
                }
            }
        }
        Job::Schedule { arrays, done } => {
            let scheduled = guarded(|| schedule(&arrays));
            free(arrays);
            answer(done, scheduled.map(|()| Vec::new()));
            None
        }
        Job::Free(array) => {
            free(array);
            None
        }
    }
}

fn finish(running: Running) {
    let Running {
        arrays,
        marker,
        done,
    } = running;
    answer(done, guarded(|| wait(&marker)).map(|()| arrays));
}

/// A panic while an answer is given is its caller's loss only.
pub(crate) fn answer(done: Done, result: Result<Vec<Array>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
}

/// A panic becomes an error for the job's caller, and the worker lives on.
fn guarded<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    let panicked = || Error::Mlx("the evaluation panicked".to_owned());
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| Err(panicked()))
}

fn schedule_marked(arrays: &[Array], may_fail: bool, stream: &Stream) -> Result<Array> {
    let marker = ffi::wrapped(|| with_stream(stream, || Array::zeros::<u8>(&[])))?;
    // First, since MLX ends its evaluation on the stream of the first array.
    let vector = Arrays::new([&marker].into_iter().chain(arrays))?;
    let graph = graph();
    let scheduled = async_eval(&vector, &graph);
    // With the lock held, nobody schedules work that waits for what has failed and fails with it.
    let settled = if may_fail { settle(stream) } else { Ok(()) };
    scheduled.and(settled).map(|()| marker)
}

/// Computes arrays on the calling thread, which waits.
pub(crate) fn compute(arrays: &[Array], may_fail: bool, stream: &StreamHandle) -> Result<()> {
    wait(&schedule_marked(arrays, may_fail, stream.mlx_rs())?)
}

fn wait(marker: &Array) -> Result<()> {
    // SAFETY: the handle is live, and the marker is this thread's alone.
    ffi::status(|| unsafe { mlx_sys::_mlx_array_wait(marker.as_ptr()) })
}

/// Starts computing arrays.
pub(crate) fn schedule(arrays: &[Array]) -> Result<()> {
    let vector = Arrays::new(arrays)?;
    async_eval(&vector, &graph())
}

fn async_eval(arrays: &Arrays, _graph: &MutexGuard<()>) -> Result<()> {
    // SAFETY: the vector is live; the lock keeps every other thread from changing a graph.
    ffi::status(|| scheduling(|| unsafe { mlx_sys::mlx_async_eval(arrays.as_ptr()) }))
}

/// Waits for the work of a stream and takes the failure that MLX keeps for it; waiting for an array
/// would miss a failure that came before the wait. The CPU's default stream takes part: it computes
/// linear algebra for a GPU and pieces of graphs of other streams, and streams that wait for one
/// another hand a failure on.
fn settle(stream: &Stream) -> Result<()> {
    let own = synchronize(stream.as_ptr());
    own.and(synchronize(StreamHandle::default_on(Device::Cpu)?.raw()))
}

pub(crate) fn synchronize(stream: mlx_sys::mlx_stream) -> Result<()> {
    // SAFETY: the handle is live.
    ffi::status(|| unsafe { mlx_sys::mlx_synchronize(stream) })
}

fn free<T>(arrays: T) {
    let _graph = graph();
    drop(arrays);
}
