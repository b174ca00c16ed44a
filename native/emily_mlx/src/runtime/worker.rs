//! Evaluation: one worker thread a stream, fed by a bounded queue. The BEAM's schedulers only
//! build graphs and queue jobs; they never wait for MLX.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TrySendError};
use std::sync::Arc;
use std::thread;

use mlx_rs::Array;

use crate::runtime::device::Device;
use crate::runtime::error::{Error, Result};
use crate::runtime::ffi::{self, mlx, Arrays};
use crate::runtime::graph::{async_eval, graph, schedule, try_graph};
use crate::runtime::job::{answer, Done, Job, QueueFull};
use crate::runtime::queue::{adopt_thread, Queue};
use crate::runtime::short;

/// How many jobs may wait. Every caller waits for its own, so this is the number of processes that
/// can evaluate at once before the next has to try again.
const QUEUE_BOUND: usize = 4096;

/// How many jobs the device has at once: one to compute and one to go on with. Each holds memory.
const MOST_RUNNING: usize = 2;

pub struct Worker {
    jobs: SyncSender<Job>,
    queue: Arc<Queue>,
    closed: Arc<AtomicBool>,
}

impl Worker {
    pub(crate) fn start(queue: Arc<Queue>) -> Result<Worker> {
        let (sender, jobs) = sync_channel(QUEUE_BOUND);
        let closed = Arc::new(AtomicBool::new(false));
        let (own, own_closed) = (queue.clone(), closed.clone());
        thread::Builder::new()
            .name("emily".to_owned())
            .spawn(move || work(own, jobs, &own_closed))
            .map_err(|error| Error::Mlx(format!("no thread for a stream: {error}")))?;
        Ok(Worker {
            jobs: sender,
            queue,
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
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => QueueFull(job),
        })
    }

    /// Computes arrays on the calling thread if that takes no longer than to wake another; answers whether they are
    /// computed. Not for linear algebra, which may fail.
    pub fn compute_here(&self, arrays: &[Array]) -> bool {
        !self.is_closed()
            && try_graph().is_some_and(|graph| short::compute(arrays, &self.queue, &graph))
    }

    /// Schedules short work on a CPU on the calling thread; what is not short comes back.
    fn schedule_short(
        &self,
        arrays: Vec<Array>,
        done: Done,
    ) -> std::result::Result<(), (Vec<Array>, Done)> {
        let Some(graph) = try_graph().filter(|_| !self.is_closed()) else {
            return Err((arrays, done));
        };
        short::schedule(arrays, done, &self.queue, &graph)
    }
}

/// A job that the device has and has not finished.
struct Running {
    arrays: Vec<Array>,
    /// An array of this job alone, to wait for: waiting for an array changes it.
    marker: Array,
    done: Done,
}

fn work(queue: Arc<Queue>, jobs: Receiver<Job>, closed: &AtomicBool) {
    adopt_thread(queue.device());
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
                running.extend(start(job, &queue, closed));
            }
            None => match running.pop_front() {
                Some(oldest) => finish(oldest),
                // Every handle of the stream is gone.
                None => return,
            },
        }
    }
}

fn start(job: Job, queue: &Queue, closed: &AtomicBool) -> Option<Running> {
    match job {
        Job::Evaluate { arrays, done, .. } | Job::Schedule { arrays, done }
            if closed.load(Ordering::Acquire) =>
        {
            free(arrays);
            answer(done, Err(Error::Mlx("the stream is closed".to_owned())));
            None
        }
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
                schedule_marked(&arrays, may_fail, queue).map(Some)
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

/// A panic becomes an error for the job's caller, and the worker lives on.
fn guarded<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    let panicked = || Error::Mlx("the evaluation panicked".to_owned());
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| Err(panicked()))
}

/// An array to wait for. It has no elements, so that it takes no device any work.
fn marker(queue: &Queue) -> Result<Array> {
    let scalar = Array::from_bool(false);
    mlx!(
        mlx_broadcast_to,
        scalar.as_ptr(),
        [0].as_ptr(),
        1,
        queue.stream().as_ptr()
    )
}

/// Starts computing arrays; gives what to [`wait`] for.
pub(crate) fn schedule_marked(arrays: &[Array], may_fail: bool, queue: &Queue) -> Result<Array> {
    let marker = marker(queue)?;
    // First, since MLX ends its evaluation on the stream of the first array.
    let vector = Arrays::new([&marker].into_iter().chain(arrays))?;
    let graph = graph();
    let scheduled = async_eval(&vector, &graph);
    // With the lock held, nobody schedules work that waits for what has failed and fails with it.
    let settled = if may_fail { settle(queue) } else { Ok(()) };
    scheduled.and(settled).map(|()| marker)
}

/// Computes arrays on the calling thread, which waits.
pub(crate) fn compute(arrays: &[Array], may_fail: bool, queue: &Queue) -> Result<()> {
    wait(&schedule_marked(arrays, may_fail, queue)?)
}

/// Waits until the arrays of a marker are computed.
pub(crate) fn wait(marker: &Array) -> Result<()> {
    // SAFETY: the handle is live, and the marker is this thread's alone.
    ffi::status(|| unsafe { mlx_sys::_mlx_array_wait(marker.as_ptr()) })
}

/// Waits for the work of a stream and takes the failure that MLX keeps for it; waiting for an array
/// would miss a failure that came before the wait. The CPU's default stream takes part: it computes
/// linear algebra for a GPU and pieces of graphs of other streams, and streams that wait for one
/// another hand a failure on.
fn settle(queue: &Queue) -> Result<()> {
    let own = queue.synchronize();
    own.and(Queue::default_on(Device::Cpu)?.synchronize())
}

fn free<T>(arrays: T) {
    let _graph = graph();
    drop(arrays);
}
