//! The bytes of small arrays of an NVIDIA GPU, which CUDA's driver copies to the host. MLX (0.32.4) would move the memory of what is
//! read, for which it has to be copied by a kernel first, and take memory that both see.

use std::sync::Arc;

use mlx_rs::Array;
use parking_lot::Mutex;

use crate::runtime::cuda_stream::{CudaStream, HostMemory};

/// Up to so many bytes are fetched: a copy to memory of the process is slower than to memory that both see.
pub(crate) const MOST: usize = 4096;

/// The bytes of an array, which the device copies as soon as it has computed it.
#[derive(Clone, Default)]
pub struct Fetched(Arc<Mutex<Option<HostMemory>>>);

impl Fetched {
    /// Has the device copy the bytes of an array that was scheduled on the stream, or on one that it waits for. An array that
    /// does not lie in rows is left alone.
    pub(crate) fn begin(&self, array: &Array, stream: &CudaStream) {
        *self.0.lock() = stream.copied(array);
    }

    /// Writes the bytes, where they have been copied, once the stream's work was waited for.
    pub(crate) fn read(&self, to: &mut [u8]) -> bool {
        let copied = self.0.lock().take();
        copied.is_some_and(|copied| {
            copied.read(to);
            true
        })
    }
}
