//! Streams: a queue of work on a device, with the worker that evaluates on it.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use emily_kernels::dispatch::Level;
use mlx_rs::error::Exception;
use mlx_rs::{with_stream, Array, Stream};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::runtime::device::{devices, Device};
use crate::runtime::error::{refuse, Error, Result};
use crate::runtime::ffi;
use crate::runtime::worker::{graph, synchronize, Worker};

/// A stream that any thread may build on. Cheap to clone.
#[derive(Clone)]
pub struct StreamHandle(Arc<Inner>);

struct Inner {
    device: Device,
    stream: Stream,
    worker: Worker,
}

// SAFETY: an MLX stream is a number and a device that never change; building on it reads them, and
// evaluation happens under the lock of `worker`. The stream is one of MLX's thread-unsafe ones,
// which belong to no thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Every stream there is.
static STREAMS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// Waits for what is being computed, on every stream.
pub(crate) fn finish_all() {
    let streams: Vec<_> = STREAMS.lock().iter().filter_map(Weak::upgrade).collect();
    for stream in streams {
        // A failure is for whoever asked for the work.
        let _ = synchronize(stream.stream.as_ptr());
    }
}

static CPU: OnceCell<StreamHandle> = OnceCell::new();
static GPU: OnceCell<StreamHandle> = OnceCell::new();

impl StreamHandle {
    /// The stream that a device's work takes unless another is named.
    pub fn default_on(device: Device) -> Result<&'static StreamHandle> {
        let cell = match device {
            Device::Cpu => &CPU,
            Device::Gpu => &GPU,
        };
        cell.get_or_try_init(|| StreamHandle::new(device))
    }

    /// A new stream, whose work runs beside that of others.
    pub fn new(device: Device) -> Result<StreamHandle> {
        if !device.is_available() {
            refuse!(
                "there is no {} device: this build of MLX or this machine lacks it",
                device.name()
            )
        }
        if let Err(message) = Level::chosen() {
            refuse!("{message}")
        }
        let stream = new_stream(device)?;
        // SAFETY: see `Inner`; the copy names the same stream.
        let worker = Worker::start(SendStream(stream.clone()))?;
        let inner = Arc::new(Inner {
            device,
            stream,
            worker,
        });
        let mut streams = STREAMS.lock();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(&inner));
        Ok(StreamHandle(inner))
    }

    pub fn device(&self) -> Device {
        self.0.device
    }

    pub(crate) fn is(&self, other: &StreamHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn worker(&self) -> &Worker {
        &self.0.worker
    }

    /// The stream for what only the CPU can do.
    pub(crate) fn cpu(&self) -> Result<&StreamHandle> {
        match self.device() {
            Device::Cpu => Ok(self),
            Device::Gpu => StreamHandle::default_on(Device::Cpu),
        }
    }

    pub(crate) fn raw(&self) -> mlx_sys::mlx_stream {
        self.mlx_rs().as_ptr()
    }

    pub(crate) fn mlx_rs(&self) -> &Stream {
        adopt_thread();
        &self.0.stream
    }
}

impl StreamHandle {
    /// The array of an operation of mlx-rs, on the stream.
    pub(crate) fn on(
        &self,
        operation: impl FnOnce() -> std::result::Result<Array, Exception>,
    ) -> Result<Array> {
        ffi::wrapped(|| with_stream(self.mlx_rs(), operation))
    }
}

/// Makes the default streams those of the calling thread too: some operations of MLX put a part of
/// their graph on the thread's default stream, which no other thread could evaluate.
pub(crate) fn adopt_thread() {
    thread_local!(static ADOPTED: Cell<bool> = const { Cell::new(false) });
    if ADOPTED.replace(true) {
        return;
    }
    for device in devices() {
        if let Ok(default) = StreamHandle::default_on(device) {
            // Fails only for a device that is not there.
            let _ = set_default(default.0.stream.as_ptr());
        }
    }
}

fn set_default(stream: mlx_sys::mlx_stream) -> Result<()> {
    // SAFETY: the handle is live.
    ffi::status(|| unsafe { mlx_sys::mlx_set_default_stream(stream) })
}

/// A stream on its way to its worker.
pub(crate) struct SendStream(pub(crate) Stream);

// SAFETY: see `Inner`.
unsafe impl Send for SendStream {}

/// mlx-rs makes streams that belong to the calling thread only, but hands out the thread's default
/// stream; so the new stream is that default for a moment.
fn new_stream(device: Device) -> Result<Stream> {
    let default = || {
        let device = device.mlx_rs();
        ffi::wrapped(|| Stream::try_default_on_device(&device))
    };
    let before = default()?;
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
    set_default(before.as_ptr())?;
    stream
}
