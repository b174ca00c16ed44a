//! An array that many threads hold.

use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mlx_rs::Array;
use once_cell::sync::OnceCell;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use crate::runtime::contiguous;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Error, Result};
use crate::runtime::fetch::{self, Fetched};
use crate::runtime::ffi;
use crate::runtime::graph::try_graph;
use crate::runtime::inspect::is_awaited;
use crate::runtime::job::Job;
use crate::runtime::stream::StreamHandle;

/// How many operations may wait behind an array before they are scheduled unasked. It bounds the
/// graph of a loop that never reads, and keeps the device busy while Elixir builds.
const SCHEDULE_AT: u32 = 64;

/// An array with what is known of its graph.
pub struct SharedArray {
    /// None once it was given away.
    array: RwLock<Option<Array>>,
    stream: StreamHandle,
    /// Operations since the last that was scheduled, along the longest path.
    depth: AtomicU32,
    /// Whether linear algebra waits behind it: its results are computed together, and it may fail
    /// while it is computed.
    linalg: AtomicBool,
    evaluated: AtomicBool,
    /// Whether the processor can read the data where they are. What a GPU computed lies in its own memory.
    on_host: bool,
    /// What is read at an address that was given out, the array or a copy in row-major order. It stays as long as
    /// this, so that MLX never writes there, though the array is given away.
    pinned: OnceCell<Array>,
}

// SAFETY: an array's shape and type never change, and building on it copies a counted pointer.
// What changes when it is computed (its status, inputs and data) is touched by workers only, one
// at a time; the data is read only after `evaluated` was set by the worker that computed it.
unsafe impl Sync for SharedArray {}

/// An array is there or not, whoever panics.
impl RefUnwindSafe for SharedArray {}

impl SharedArray {
    /// An array that is already computed, in memory that the processor can read, or of `readable`.
    pub fn computed(array: Array, stream: &StreamHandle) -> Self {
        SharedArray {
            array: RwLock::new(Some(array)),
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
            array: RwLock::new(Some(array)),
            stream: stream.clone(),
            depth: AtomicU32::new(depth),
            linalg: AtomicBool::new(linalg),
            evaluated: AtomicBool::new(false),
            on_host: stream.is_cpu(),
            pinned: OnceCell::new(),
        }
    }

    /// The array, which nobody gives away meanwhile; an error where somebody has. To be held no longer than it takes
    /// to build on it: who gives it away waits.
    pub fn array(&self) -> Result<Held<'_>> {
        // One thread may hold it twice, between which another may begin to wait.
        RwLockReadGuard::try_map(self.array.read_recursive(), Option::as_ref).map_err(|_| {
            Error::Argument(
                "the tensor was donated to a call, which has taken its memory: use what that call has returned".to_owned(),
            )
        })
    }

    /// Has nobody use the array from here on but those who hold it.
    pub fn give_away(&self) {
        let array = self.array.write().take();
        if let Some(array) = array.filter(|_| self.has_linalg()) {
            self.stream.have_freed([array]);
        }
    }

    /// What was scheduled may still be written to: it is freed once it is computed.
    fn is_on_its_way(&self, array: &Array) -> bool {
        let is_scheduled = self.depth() == 0 && !self.is_evaluated();
        is_scheduled && try_graph().is_none_or(|_graph| is_awaited(array))
    }

    pub fn stream(&self) -> &StreamHandle {
        &self.stream
    }

    pub fn dtype(&self) -> Result<Dtype> {
        Ok(Dtype::of(&*self.array()?))
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

    /// Called once the array is on its way to being computed.
    pub fn set_scheduled(&self) {
        self.depth.store(0, Ordering::Relaxed);
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
        let arrays = arrays(results.clone());
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
            results.for_each(SharedArray::set_scheduled);
        }
    }

    /// The same elements in row-major order, for the processor to read once they are computed.
    pub fn readable(&self) -> Result<Array> {
        contiguous::readable(&*self.array()?, &self.stream)
    }

    /// Whether its bytes are fetched.
    pub fn is_fetched(&self) -> Result<bool> {
        Ok(self.stream.fetches() && self.array()?.nbytes() <= fetch::MOST)
    }

    /// Writes its bytes in row-major order: what was fetched, or where it does not lie in rows what is fetched now, which takes
    /// another wait.
    pub fn read_fetched(&self, fetched: &Fetched, to: &mut [u8]) -> Result<()> {
        if fetched.read(to) {
            return Ok(());
        }
        let in_rows = contiguous::contiguous(&*self.array()?, &self.stream)?;
        self.stream.fetch(in_rows, fetched)?;
        match fetched.read(to) {
            true => Ok(()),
            false => refuse!("the bytes could not be copied"),
        }
    }

    /// Keeps the computed `readable` of this array as long as this, for its bytes' address to
    /// stay; the first that is given stays.
    pub fn pin(&self, readable: Array) {
        self.pinned.get_or_init(|| readable);
    }

    /// The bytes of a computed array, which are pinned from then on; `None` where they are not in row-major order, or
    /// where the processor cannot read them.
    pub fn bytes(&self) -> Result<Option<&[u8]>> {
        let array = self.array()?;
        if !self.is_evaluated() {
            refuse!("the array is not computed yet")
        }
        if self.pinned.get().is_none() {
            if !self.on_host || !is_in_rows(&array)? {
                return Ok(None);
            }
            self.pin(array.clone());
        }
        match self.pinned_bytes() {
            Some(bytes) => Ok(Some(bytes)),
            None => refuse!("the array of shape {:?} has no data", array.shape()),
        }
    }

    /// What `bytes` has answered, though the array was given away since.
    pub fn pinned_bytes(&self) -> Option<&[u8]> {
        let array = self.pinned.get()?;
        // SAFETY: what is pinned is computed, and its elements lie in a row, so that `nbytes` of them can be read from
        // its data; the data lives as long as the array, which lives as long as self, and MLX does not write to the
        // data of an array that somebody holds.
        let data = unsafe { mlx_sys::mlx_array_data_uint8(array.as_ptr()) };
        // SAFETY: as above.
        (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data, array.nbytes()) })
    }
}

/// An array of a `SharedArray`, which stays there meanwhile.
pub type Held<'a> = MappedRwLockReadGuard<'a, Array>;

/// Those that were not given away.
fn arrays<'a>(shared: impl Iterator<Item = &'a SharedArray>) -> Vec<Array> {
    let array = |shared: &SharedArray| shared.array().ok().map(|array| array.clone());
    shared.filter_map(array).collect()
}

/// Whether the elements of a computed array lie in row-major order.
fn is_in_rows(array: &Array) -> Result<bool> {
    let mut row_major = false;
    // SAFETY: the handle is live, and no worker changes a computed array.
    ffi::status(|| unsafe {
        mlx_sys::_mlx_array_is_row_contiguous(&mut row_major, array.as_ptr())
    })?;
    Ok(row_major)
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        let Some(array) = self.array.get_mut().take() else {
            return;
        };
        if self.has_linalg() || self.is_on_its_way(&array) {
            self.stream.have_freed([array]);
        }
    }
}
