//! Streams: a queue of work on a device, with the worker that evaluates on it.

use std::sync::Arc;

use emily_kernels::dispatch::Level;
use mlx_rs::error::Exception;
use mlx_rs::{with_stream, Array, Stream};
use parking_lot::Mutex;

use crate::runtime::alone;
use crate::runtime::device::{Device, PerDevice};
use crate::runtime::engine::{Job, Marker};
use crate::runtime::error::{refuse, Result};
use crate::runtime::fetch::Fetched;
use crate::runtime::ffi;
use crate::runtime::graph::schedule;
use crate::runtime::job::QueueFull;
use crate::runtime::queue::{adopt_thread, Queue};
use crate::runtime::worker::{compute, schedule_marked, Engine, Worker};

/// A stream that any thread may build on. Cheap to clone.
#[derive(Clone)]
pub struct StreamHandle(Arc<Inner>);

struct Inner {
    device: Device,
    queue: Arc<Queue>,
    worker: Worker<Queue>,
}

/// MLX keeps a stream and its thread for ever: those that nobody holds any more, for the next who ask for one.
static SPARE: Mutex<Vec<(Device, Arc<Queue>)>> = Mutex::new(Vec::new());

impl Drop for Inner {
    fn drop(&mut self) {
        SPARE.lock().push((self.device, self.queue.clone()));
    }
}

static DEFAULTS: PerDevice<StreamHandle> = PerDevice::new();

impl StreamHandle {
    /// The stream that a device's work takes unless another is named.
    pub fn default_on(device: Device) -> Result<&'static StreamHandle> {
        DEFAULTS.get_or_try_init(device, || {
            StreamHandle::begin(device, || Queue::default_on(device).cloned())
        })
    }

    /// A new stream, whose work runs beside that of others.
    pub fn new(device: Device) -> Result<StreamHandle> {
        StreamHandle::begin(device, || match spare(device) {
            Some(queue) => Ok(queue),
            None => Queue::new(device),
        })
    }

    /// Ends the stream: what waits for it, and whatever is asked of it later, gets an error. Computed arrays stay.
    pub fn close(&self) {
        self.worker().close();
    }

    pub fn is_closed(&self) -> bool {
        self.worker().is_closed()
    }

    fn begin(device: Device, queue: impl FnOnce() -> Result<Arc<Queue>>) -> Result<StreamHandle> {
        if !device.is_available() {
            refuse!("{}", device.missing())
        }
        if let Err(message) = Level::chosen() {
            refuse!("{message}")
        }
        let queue = queue()?;
        let worker = Worker::start(queue.clone())?;
        Ok(StreamHandle(Arc::new(Inner {
            device,
            queue,
            worker,
        })))
    }

    pub fn device(&self) -> Device {
        self.0.device
    }

    pub fn is_cpu(&self) -> bool {
        self.device().is_cpu()
    }

    pub fn is_gpu(&self) -> bool {
        self.device().is_gpu()
    }

    pub(crate) fn is(&self, other: &StreamHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn worker(&self) -> &Worker<Queue> {
        &self.0.worker
    }

    /// The stream for what only the CPU can do.
    pub(crate) fn cpu(&self) -> Result<&StreamHandle> {
        match self.is_cpu() {
            true => Ok(self),
            false => StreamHandle::default_on(Device::Cpu),
        }
    }

    pub(crate) fn raw(&self) -> mlx_sys::mlx_stream {
        self.mlx_rs().as_ptr()
    }

    /// MLX's number of the stream.
    #[cfg(all(own_kernels, target_os = "linux"))]
    pub(crate) fn number(&self) -> Result<i32> {
        let mut number = 0;
        // SAFETY: the handle is live, and the number is written to a place that is.
        ffi::status(|| unsafe { mlx_sys::mlx_stream_get_index(&mut number, self.raw()) })?;
        Ok(number)
    }

    /// Waits for what the stream computes; an error where something of it has failed.
    #[cfg(all(own_kernels, target_os = "linux"))]
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.0.queue.synchronize()
    }

    pub(crate) fn mlx_rs(&self) -> &Stream {
        adopt_thread(self.device());
        self.0.queue.stream()
    }
}

impl StreamHandle {
    /// Computes arrays on the calling thread, which waits.
    pub(crate) fn compute(&self, arrays: &[Array], may_fail: bool) -> Result<()> {
        adopt_thread(self.device());
        compute(&*self.0.queue, arrays, may_fail, None)
    }

    /// Computes an array on the calling thread, which waits, and has its bytes copied.
    pub(crate) fn fetch(&self, array: Array, fetched: &Fetched) -> Result<()> {
        adopt_thread(self.device());
        compute(&*self.0.queue, &[array], false, Some(fetched))
    }

    /// Whether small arrays are fetched.
    pub(crate) fn fetches(&self) -> bool {
        self.0.queue.cuda().is_some()
    }

    /// Computes arrays, unless they are.
    pub(crate) fn compute_unless(&self, arrays: Vec<Array>, may_fail: bool) -> Result<()> {
        match alone::are_computed(&arrays) {
            true => Ok(()),
            false => self.compute(&arrays, may_fail),
        }
    }

    /// Computes arrays on the calling thread, whose own all is that is not computed of their graph: here, where that
    /// can be, or as `compute` does.
    pub(crate) fn compute_own(&self, arrays: &[Array], may_fail: bool) -> Result<()> {
        adopt_thread(self.device());
        match !may_fail && alone::compute(arrays, &self.0.queue)? {
            true => Ok(()),
            false => self.compute(arrays, may_fail),
        }
    }

    /// Starts computing arrays; gives what to wait for, since to wait for an array changes it.
    pub(crate) fn schedule(&self, arrays: &[Array]) -> Result<Scheduled> {
        adopt_thread(self.device());
        schedule_marked(&*self.0.queue, arrays, false, None).map(Scheduled)
    }

    /// Starts computing arrays, and keeps those that what the stream was given before may read.
    pub(crate) fn schedule_keeping(&self, arrays: &[Array], read: &[Array]) -> Result<()> {
        if read.is_empty() {
            return schedule(arrays);
        }
        adopt_thread(self.device());
        let keeper = self.0.queue.marker()?.behind(read)?;
        schedule(&[arrays, &[keeper]].concat())
    }

    /// Has arrays freed, once they are computed.
    pub(crate) fn have_freed(&self, arrays: impl IntoIterator<Item = Array>) {
        for array in arrays {
            // Where too many wait it stays for ever, rather than be written to.
            if let Err(QueueFull(job)) = self.worker().push(Job::Free(array)) {
                std::mem::forget(job);
            }
        }
    }

    /// The array of an operation of mlx-rs, on the stream.
    pub(crate) fn on(
        &self,
        operation: impl FnOnce() -> std::result::Result<Array, Exception>,
    ) -> Result<Array> {
        ffi::wrapped(|| with_stream(self.mlx_rs(), operation))
    }
}

/// Arrays on their way to being computed.
pub(crate) struct Scheduled(Marker);

impl Scheduled {
    pub(crate) fn wait(&self) -> Result<()> {
        self.0.wait()
    }
}

fn spare(device: Device) -> Option<Arc<Queue>> {
    let mut spare = SPARE.lock();
    let at = spare.iter().position(|(other, _)| *other == device)?;
    Some(spare.swap_remove(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::device::Device;

    /// Whether what MLX queues is called by the thread that asks for it.
    fn is_taken() -> bool {
        let wanted = matches!(Level::chosen(), Ok(Some(_)));
        cfg!(all(own_kernels, target_os = "linux")) && wanted
    }

    #[test]
    fn operations_of_mlx_are_computed_by_whoever_asks() {
        let stream = StreamHandle::new(Device::Cpu).expect("every build of MLX has the CPU");
        let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        // A copy in another order, which needs memory of its own, and an operation without a kernel of Emily's on it.
        let turned = stream.on(|| x.transpose()).expect("a view");
        let turned = ffi::reshape(&turned, &[6], stream.raw()).expect("as many");
        let same = ffi::call(mlx_sys::mlx_logaddexp, &turned, &turned, stream.raw());
        let arrays = [same.expect("one shape"), turned];
        let here = alone::compute(&arrays, &stream.0.queue).expect("nothing fails");
        assert_eq!(here, is_taken());
        stream.compute_own(&arrays, false).expect("nothing fails");
        assert_eq!(arrays[1].as_slice::<f32>(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let doubled = [1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0].map(|x| x + 2.0f32.ln());
        for (sum, expected) in arrays[0].as_slice::<f32>().iter().zip(doubled) {
            assert!((sum - expected).abs() < 1.0e-6, "{sum} is not {expected}");
        }
    }

    #[test]
    fn what_fails_here_fails_its_caller_alone() {
        let stream = StreamHandle::new(Device::Cpu).expect("every build of MLX has the CPU");
        let x = Array::from_slice(&[1.0f32, 2.0, 1.0, 2.0], &[2, 2]);
        // As often as MLX counts what it queues, and more.
        for _ in 0..30 {
            // SAFETY: the handles are live.
            let inverse = ffi::array(|inverse| unsafe {
                mlx_sys::mlx_linalg_inv(inverse, x.as_ptr(), stream.raw())
            });
            let inverse = [inverse.expect("a square matrix")];
            if is_taken() {
                let failed = alone::compute(&inverse, &stream.0.queue);
                assert!(failed.is_err(), "a singular matrix has no inverse");
            }
        }
        #[cfg(own_kernels)]
        {
            extern "C" {
                fn emily_queued() -> usize;
            }
            // SAFETY: takes nothing and gives a number. Other tests queue too, for a moment.
            let is_none = || unsafe { emily_queued() } == 0;
            let pause = || std::thread::sleep(std::time::Duration::from_millis(1));
            let is_counted = (0..10_000).any(|_| {
                is_none() || {
                    pause();
                    false
                }
            });
            assert!(is_counted, "MLX counts what has failed as queued");
        }
        let sum = ffi::call(mlx_sys::mlx_add, &x, &x, stream.raw()).expect("one shape");
        stream
            .compute(std::slice::from_ref(&sum), false)
            .expect("the stream goes on");
        assert_eq!(sum.as_slice::<f32>(), [2.0, 4.0, 2.0, 4.0]);
    }
}
