//! `mx.compile` of programs on a GPU: runs of elementwise operations become one kernel.
//!
//! MLX keeps what it compiled for the calling thread, under the address of the function. So that no
//! address is met again by a thread that remembers another function there, one thread does all.

use std::ffi::{c_int, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread;

use mlx_rs::Array;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use super::step::Program;
use crate::runtime::device::Device;
use crate::runtime::error::{Error, Result};
use crate::runtime::ffi::{self, Arrays};
use crate::runtime::graph::{graph, schedule};
use crate::runtime::queue::adopt_thread;
use crate::runtime::stream::StreamHandle;

type Task = Box<dyn FnOnce() + Send>;

static THREAD: OnceCell<Sender<Task>> = OnceCell::new();

/// Queues a task for the thread that fuses.
fn spawn(task: Task) -> Result<()> {
    let start = || {
        let (sender, tasks) = channel();
        thread::Builder::new()
            .name("emily fusion".to_owned())
            .spawn(move || work(tasks))
            .map(|_| sender)
    };
    let thread = THREAD.get_or_try_init(start);
    let thread = thread.map_err(|error| Error::Mlx(format!("no thread to fuse on: {error}")))?;
    let gone = |_| Error::Mlx("the thread that fuses has ended".to_owned());
    thread.send(task).map_err(gone)
}

fn work(tasks: Receiver<Task>) {
    adopt_thread(Device::Cpu);
    for task in tasks {
        // Whoever waits for a task that panicked is told by the task's drop.
        let _ = catch_unwind(AssertUnwindSafe(task));
    }
}

/// A program without conditions, loops, calls and linear algebra, as MLX compiled it for each stream
/// that it has run on.
#[derive(Default)]
pub struct Fusion {
    streams: Arc<Mutex<Vec<(StreamHandle, Fused)>>>,
}

struct Fused {
    compiled: mlx_sys::mlx_closure,
    failure: Failure,
}

/// Why MLX could not see the graph: it says of itself only that it could not.
type Failure = Arc<Mutex<Option<Error>>>;

// SAFETY: the handle is made, called and freed by tasks of `spawn` alone, which run on one thread.
unsafe impl Send for Fused {}

impl Fusion {
    /// Hands the results on `inputs`, on their way to being computed, to `done`. `captured` are the
    /// program's last inputs.
    pub fn run(
        &self,
        program: &Arc<Program>,
        inputs: Vec<Array>,
        captured: Vec<Array>,
        stream: &StreamHandle,
        done: impl FnOnce(Result<Vec<Array>>) + Send + 'static,
    ) -> Result<()> {
        let (streams, program, stream) = (self.streams.clone(), program.clone(), stream.clone());
        let arrays = SendArrays { inputs, captured };
        spawn(Box::new(move || {
            let SendArrays { inputs, captured } = arrays;
            done(run(&streams, program, &inputs, captured, stream));
        }))
    }
}

struct SendArrays {
    inputs: Vec<Array>,
    captured: Vec<Array>,
}

// SAFETY: handles of shared arrays; see `SharedArray`.
unsafe impl Send for SendArrays {}

fn run(
    streams: &Mutex<Vec<(StreamHandle, Fused)>>,
    program: Arc<Program>,
    inputs: &[Array],
    captured: Vec<Array>,
    stream: StreamHandle,
) -> Result<Vec<Array>> {
    let mut streams = streams.lock();
    let found = streams.iter().position(|(other, _)| other.is(&stream));
    let at = match found {
        Some(at) => at,
        None => {
            streams.push((stream.clone(), Fused::new(program, captured, &stream)?));
            streams.len() - 1
        }
    };
    let results = streams[at].1.run(inputs)?;
    schedule(&results)?;
    Ok(results)
}

impl Drop for Fusion {
    fn drop(&mut self) {
        let streams = std::mem::take(&mut *self.streams.lock());
        // Where no thread is left, what it compiled is leaked with it.
        if let Err(task) = spawn(Box::new(move || drop(streams))) {
            std::mem::forget(task);
        }
    }
}

/// What MLX calls to see the program's graph.
struct Traced {
    program: Arc<Program>,
    captured: Vec<Array>,
    stream: StreamHandle,
    failure: Failure,
}

impl Fused {
    /// `captured` are the program's last inputs.
    fn new(program: Arc<Program>, captured: Vec<Array>, stream: &StreamHandle) -> Result<Fused> {
        // MLX changes what it traced where that is not computed yet.
        let mut leaves = captured.clone();
        for (_, constant) in &program.constants {
            leaves.push(constant.array()?.clone());
        }
        stream.compute(&leaves, false)?;
        let failure = Failure::default();
        let traced = Box::new(Traced {
            program,
            captured,
            stream: stream.clone(),
            failure: failure.clone(),
        });
        let mut compiled = mlx_sys::mlx_closure {
            ctx: std::ptr::null_mut(),
        };
        // SAFETY: the payload is a `Traced` that `free` frees, once; MLX copies the closure, which is
        // freed here, and shares the payload.
        ffi::status(|| unsafe {
            let payload = Box::into_raw(traced).cast();
            let function = mlx_sys::mlx_closure_new_func_payload(Some(trace), payload, Some(free));
            let status = mlx_sys::mlx_compile(&mut compiled, function, false);
            mlx_sys::mlx_closure_free(function);
            status
        })?;
        Ok(Fused { compiled, failure })
    }

    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let inputs = Arrays::new(inputs)?;
        let _graph = graph();
        // SAFETY: the handles are live.
        let results = ffi::arrays(|results| unsafe {
            mlx_sys::mlx_closure_apply(results, self.compiled, inputs.as_ptr())
        });
        results.map_err(|error| self.failure.lock().take().unwrap_or(error))
    }
}

impl Drop for Fused {
    fn drop(&mut self) {
        // SAFETY: the closure is owned and freed once.
        unsafe { mlx_sys::mlx_closure_free(self.compiled) };
    }
}

unsafe extern "C" fn free(payload: *mut c_void) {
    // SAFETY: `Fused::new` made it from a box.
    drop(unsafe { Box::from_raw(payload.cast::<Traced>()) });
}

unsafe extern "C" fn trace(
    results: *mut mlx_sys::mlx_vector_array,
    inputs: mlx_sys::mlx_vector_array,
    payload: *mut c_void,
) -> c_int {
    // SAFETY: MLX passes the payload of `Fused::new`, which lives as long as the closure.
    let traced = unsafe { &*payload.cast::<Traced>() };
    let seen = AssertUnwindSafe(|| -> Result<()> {
        let mut arrays = ffi::elements(inputs)?;
        arrays.extend(traced.captured.iter().cloned());
        let outputs = traced.program.run(arrays.iter(), &traced.stream)?;
        let outputs = Arrays::new(&outputs)?;
        // SAFETY: `results` is MLX's own vector, which takes a copy.
        ffi::status(|| unsafe { mlx_sys::mlx_vector_array_set(results, outputs.as_ptr()) })
    });
    match catch_unwind(seen) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            *traced.failure.lock() = Some(error);
            1
        }
        Err(_) => 1,
    }
}
