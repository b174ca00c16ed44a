//! MLX's streams: the thread-unsafe ones, which belong to no thread.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use mlx_rs::Stream;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::runtime::cards;
use crate::runtime::cuda_stream::CudaStream;
use crate::runtime::device::{Device, PerDevice};
use crate::runtime::error::{Error, Result};
use crate::runtime::exit;
use crate::runtime::ffi;
use crate::runtime::graph::graph;
#[cfg(all(own_kernels, target_os = "linux"))]
use crate::runtime::tasks;

/// A stream of MLX's, for any thread.
pub struct Queue {
    stream: Stream,
    device: Device,
    /// MLX's number of a CPU's stream, whose thread can tell the end of work.
    number: Option<i32>,
    /// Of an NVIDIA GPU, where MLX's own is known.
    cuda: OnceCell<CudaStream>,
}

// SAFETY: an MLX stream is a number and a device that never change; building on it reads them, and evaluation happens
// under the lock of `graph`. The stream is one of MLX's thread-unsafe ones, which belong to no thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

/// Every stream there is.
static QUEUES: Mutex<Vec<Weak<Queue>>> = Mutex::new(Vec::new());

static DEFAULTS: PerDevice<Arc<Queue>> = PerDevice::new();

impl Queue {
    /// The stream that a device's work takes unless another is named.
    pub(crate) fn default_on(device: Device) -> Result<&'static Arc<Queue>> {
        DEFAULTS.get_or_try_init(device, || Queue::new(device))
    }

    pub(crate) fn new(device: Device) -> Result<Arc<Queue>> {
        if let Device::Gpu(1..) = device {
            cards::open(device)?;
        }
        let queue = Arc::new(Queue::over(new_stream(device)?, device)?);
        if device.is_gpu() {
            queue.synchronize()?;
            if let Some(cuda) = CudaStream::of(&queue.stream, device) {
                let _ = queue.cuda.set(cuda);
            }
            exit::register_gpu(finish_all);
        }
        let mut queues = QUEUES.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        Ok(queue)
    }

    fn over(stream: Stream, device: Device) -> Result<Queue> {
        let mut number = 0;
        // SAFETY: the handle is live, and the number is written to a place that is.
        ffi::status(|| unsafe { mlx_sys::mlx_stream_get_index(&mut number, stream.as_ptr()) })?;
        let number = device.is_cpu().then_some(number);
        Ok(Queue {
            stream,
            device,
            number,
            cuda: OnceCell::new(),
        })
    }

    pub(crate) fn cuda(&self) -> Option<&CudaStream> {
        self.cuda.get()
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    #[cfg(own_kernels)]
    pub(crate) fn number(&self) -> Option<i32> {
        self.number
    }

    /// Waits for the work of the stream.
    pub(crate) fn synchronize(&self) -> Result<()> {
        // SAFETY: the handle is live.
        let wait = || ffi::status(|| unsafe { mlx_sys::mlx_synchronize(self.stream.as_ptr()) });
        #[cfg(all(own_kernels, target_os = "linux"))]
        return tasks::untaken(wait);
        #[cfg(not(all(own_kernels, target_os = "linux")))]
        wait()
    }
}

/// Ends the work of MLX before the process ends. To be called once MLX is loaded.
pub fn finish_on_exit() {
    exit::register(finish_all);
}

/// Waits for what is being computed, on every stream.
pub(crate) fn finish_all() {
    let queues: Vec<_> = QUEUES.lock().iter().filter_map(Weak::upgrade).collect();
    for queue in queues {
        // A failure is for whoever asked for the work.
        let _ = queue.synchronize();
    }
}

/// Makes the default streams those of the calling thread too, which is to use a device: some operations of MLX 0.32.4 put
/// a part of their graph on the thread's default stream, which no other thread could evaluate. Cards behind the first
/// are left alone until they are used.
pub(crate) fn adopt_thread(device: Device) {
    thread_local! {
        static ADOPTED: Cell<bool> = const { Cell::new(false) };
        /// Of the cards behind the first, a bit each; those beyond are adopted each time.
        static CARDS: Cell<u64> = const { Cell::new(0) };
    }
    if !ADOPTED.replace(true) {
        adopt(Device::Cpu);
        adopt(Device::Gpu(0));
    }
    if let Device::Gpu(index @ 1..) = device {
        let bit = 1u64.checked_shl(index.into()).unwrap_or(0);
        if CARDS.get() & bit == 0 {
            CARDS.set(CARDS.get() | bit);
            adopt(device);
        }
    }
}

fn adopt(device: Device) {
    if device.is_available() {
        if let Ok(default) = Queue::default_on(device) {
            // Fails only for a device that is not there.
            let _ = set_default(default.stream().as_ptr());
        }
    }
}

fn set_default(stream: mlx_sys::mlx_stream) -> Result<()> {
    // SAFETY: the handle is live.
    ffi::status(|| unsafe { mlx_sys::mlx_set_default_stream(stream) })
}

/// mlx-rs makes streams that belong to the calling thread only, but hands out the thread's default
/// stream; so the new stream is that default for a moment, or for good where there is no other. (What MLX makes for a
/// thread's default by itself is on the first card, whichever was asked for.)
fn new_stream(device: Device) -> Result<Stream> {
    let default = || {
        let device = device.mlx_rs();
        ffi::wrapped(|| Stream::try_default_on_device(&device))
    };
    // MLX keeps such streams in a map without a lock, where scheduling looks them up.
    let graph = graph();
    // SAFETY: the device's handle is live; the stream made is freed below.
    let raw = unsafe { mlx_sys::mlx_stream_new_thread_unsafe(device.raw().0) };
    drop(graph);
    if raw.ctx.is_null() {
        return Err(Error::Mlx("MLX made no stream".to_owned()));
    }
    let stream = set_default(raw).and_then(|()| default());
    // SAFETY: `stream` holds a copy of its own.
    unsafe { mlx_sys::mlx_stream_free(raw) };
    if let Some(own) = DEFAULTS.get(device) {
        set_default(own.stream().as_ptr())?;
    }
    stream
}
