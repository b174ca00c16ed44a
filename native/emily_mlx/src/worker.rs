//! Evaluation: one worker thread a stream, fed by a bounded queue. The BEAM's schedulers only
//! build graphs and queue jobs; they never wait for MLX.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TrySendError};
use std::thread;

use mlx_rs::Array;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ffi::{self, Arrays};
use crate::stream::SendStream;

/// How many jobs may wait. Every caller waits for its own, so this is the number of processes that
/// can evaluate at once before the next has to try again.
const QUEUE_BOUND: usize = 4096;

/// MLX's scheduling walks and changes the graph, which arrays of several streams may share: one
/// thread at a time. Also held while arrays that were computed together are freed before they were
/// computed, since MLX counts their references without a lock.
static GRAPH: Mutex<()> = Mutex::new(());

/// What is told of a job's end, on the worker's thread.
pub type Done = Box<dyn FnOnce(Result<Vec<Array>>) + Send>;

pub enum Job {
    /// Compute the arrays and wait for them.
    Evaluate {
        arrays: Vec<Array>,
        wanted: Box<dyn Fn() -> bool + Send>,
        done: Done,
    },
    /// Start computing the arrays.
    Schedule { arrays: Vec<Array>, done: Done },
    /// Free arrays that were computed together with others.
    Free(Array),
}

/// The queue of a stream is full: its job comes back.
pub struct QueueFull(pub Job);

pub struct Worker {
    queue: SyncSender<Job>,
}

impl Worker {
    pub(crate) fn start(stream: SendStream) -> Result<Worker> {
        let (queue, jobs) = sync_channel(QUEUE_BOUND);
        thread::Builder::new()
            .name("emily".to_owned())
            .spawn(move || work(stream, jobs))
            .map_err(|error| Error::Mlx(format!("no thread for a stream: {error}")))?;
        Ok(Worker { queue })
    }

    /// Queues a job without waiting.
    pub fn push(&self, job: Job) -> std::result::Result<(), QueueFull> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => QueueFull(job),
        })
    }
}

fn work(stream: SendStream, jobs: Receiver<Job>) {
    let SendStream(stream) = stream;
    // Evaluation ends with a task on the thread's default stream, which must be one that exists.
    // SAFETY: the handle is live.
    let _ = ffi::status(|| unsafe { mlx_sys::mlx_set_default_stream(stream.as_ptr()) });
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Evaluate {
                arrays,
                wanted,
                done,
            } => {
                if wanted() {
                    done(guarded(arrays, |arrays| evaluate(arrays, &stream)));
                }
            }
            Job::Schedule { arrays, done } => done(guarded(arrays, schedule)),
            Job::Free(array) => {
                let _graph = GRAPH.lock();
                drop(array);
            }
        }
    }
}

/// A panic becomes an error for the job's caller, and the worker lives on.
fn guarded(arrays: Vec<Array>, job: impl FnOnce(&[Array]) -> Result<()>) -> Result<Vec<Array>> {
    match catch_unwind(AssertUnwindSafe(|| job(&arrays))) {
        Ok(result) => result.map(|()| arrays),
        Err(_) => Err(Error::Mlx("the evaluation panicked".to_owned())),
    }
}

fn schedule(arrays: &[Array]) -> Result<()> {
    let vector = Arrays::new(arrays)?;
    let _graph = GRAPH.lock();
    // SAFETY: the vector is live; the graph is not changed by another thread meanwhile.
    ffi::status(|| unsafe { mlx_sys::mlx_async_eval(vector.as_ptr()) })
}

/// Waits for the whole stream rather than for the arrays: a wait on an array changes it.
fn evaluate(arrays: &[Array], stream: &mlx_rs::Stream) -> Result<()> {
    schedule(arrays)?;
    // SAFETY: the handle is live.
    ffi::status(|| unsafe { mlx_sys::mlx_synchronize(stream.as_ptr()) })
}
