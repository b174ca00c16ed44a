//! An array that many threads hold.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mlx_rs::Array;
use once_cell::sync::OnceCell;

use crate::runtime::contiguous;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi;
use crate::runtime::job::{Job, QueueFull};
use crate::runtime::stream::StreamHandle;

/// How many operations may wait behind an array before they are scheduled unasked. It bounds the
/// graph of a loop that never reads, and keeps the device busy while Elixir builds.
const SCHEDULE_AT: u32 = 64;

/// An array with what is known of its graph.
pub struct SharedArray {
    array: Option<Array>,
    stream: StreamHandle,
    /// Operations since the last that was scheduled, along the longest path.
    depth: AtomicU32,
    /// Whether linear algebra waits behind it: its results are computed together, and it may fail
    /// while it is computed.
    linalg: AtomicBool,
    evaluated: AtomicBool,
    /// Whether the processor can read the data where they are. What a GPU computed lies in its own memory.
    on_host: bool,
    /// A copy in row-major order whose address was given out.
    pinned: OnceCell<Array>,
}

// SAFETY: an array's shape and type never change, and building on it copies a counted pointer.
// What changes when it is computed (its status, inputs and data) is touched by workers only, one
// at a time; the data is read only after `evaluated` was set by the worker that computed it.
unsafe impl Sync for SharedArray {}

impl SharedArray {
    /// An array that is already computed, in memory that the processor can read, or of `readable`.
    pub fn computed(array: Array, stream: &StreamHandle) -> Self {
        SharedArray {
            array: Some(array),
            stream: stream.clone(),
            depth: AtomicU32::new(0),
            linalg: AtomicBool::new(false),
            evaluated: AtomicBool::new(true),
            on_host: true,
            pinned: OnceCell::new(),
        }
    }

    /// The arrays that a graph gave, `depth` operations deep.
    pub fn lazy(array: Array, stream: &StreamHandle, depth: u32, linalg: bool) -> Self {
        SharedArray {
            array: Some(array),
            stream: stream.clone(),
            depth: AtomicU32::new(depth),
            linalg: AtomicBool::new(linalg),
            evaluated: AtomicBool::new(false),
            on_host: stream.device() == Device::Cpu,
            pinned: OnceCell::new(),
        }
    }

    pub fn array(&self) -> &Array {
        match &self.array {
            Some(array) => array,
            None => unreachable!("only a drop takes the array"),
        }
    }

    pub fn stream(&self) -> &StreamHandle {
        &self.stream
    }

    pub fn dtype(&self) -> Dtype {
        Dtype::of(self.array())
    }

    pub fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }

    pub fn has_linalg(&self) -> bool {
        self.linalg.load(Ordering::Relaxed)
    }

    pub fn is_evaluated(&self) -> bool {
        self.evaluated.load(Ordering::Acquire)
    }

    /// Called once the array is computed.
    pub fn set_evaluated(&self) {
        self.depth.store(0, Ordering::Relaxed);
        self.linalg.store(false, Ordering::Relaxed);
        self.evaluated.store(true, Ordering::Release);
    }

    /// Computes the results of a graph that has grown long, or has them computed, which nobody needs to wait for.
    pub fn schedule_long<'a>(results: impl Iterator<Item = &'a SharedArray> + Clone) {
        let Some(deepest) = results.clone().max_by_key(|array| array.depth()) else {
            return;
        };
        if deepest.depth() < SCHEDULE_AT {
            return;
        }
        let worker = deepest.stream.worker();
        let arrays: Vec<Array> = results.clone().map(|array| array.array().clone()).collect();
        let may_fail = results.clone().any(SharedArray::has_linalg);
        if !may_fail && worker.compute_here(&arrays) {
            return results.for_each(SharedArray::set_evaluated);
        }
        let job = Job::Schedule {
            arrays,
            // What MLX refuses here is not scheduled, and is refused again for whoever reads it.
            done: Box::new(drop),
        };
        // With a full queue the graph grows on until the next operation tries again.
        if worker.push(job).is_ok() {
            for array in results {
                array.depth.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The same elements in row-major order, for the processor to read once they are computed.
    pub fn readable(&self) -> Result<Array> {
        contiguous::readable(self.array(), &self.stream)
    }

    /// Keeps the computed `readable` of this array as long as the array, for its bytes' address to
    /// stay; the first that is given stays.
    pub fn pin(&self, readable: Array) {
        self.pinned.get_or_init(|| readable);
    }

    /// The bytes of a computed array; `None` where they are not in row-major order, or where the processor
    /// cannot read them.
    pub fn bytes(&self) -> Result<Option<&[u8]>> {
        if !self.is_evaluated() {
            refuse!("the array is not computed yet")
        }
        let array = match self.pinned.get() {
            Some(pinned) => pinned,
            None if self.on_host => self.array(),
            None => return Ok(None),
        };
        let bytes = array.nbytes();
        let mut row_major = false;
        // SAFETY: the handle is live, and no worker changes a computed array.
        ffi::status(|| unsafe {
            mlx_sys::_mlx_array_is_row_contiguous(&mut row_major, array.as_ptr())
        })?;
        if !row_major {
            return Ok(None);
        }
        // SAFETY: the array is computed and its elements lie in a row, so that `nbytes` of them can
        // be read from its data; the data lives as long as the array, which lives as long as self,
        // and MLX does not write to the data of an array that somebody holds.
        let data = unsafe { mlx_sys::mlx_array_data_uint8(array.as_ptr()) };
        if data.is_null() {
            refuse!("the array of shape {:?} has no data", array.shape())
        }
        // SAFETY: as above.
        Ok(Some(unsafe { std::slice::from_raw_parts(data, bytes) }))
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        let Some(array) = self.array.take() else {
            return;
        };
        if *self.linalg.get_mut() {
            // The BEAM's schedulers run this and must not wait for the lock. With a full queue the
            // array is leaked: safer than two threads in MLX's unlocked counts.
            if let Err(QueueFull(job)) = self.stream.worker().push(Job::Free(array)) {
                std::mem::forget(job);
            }
        }
    }
}
