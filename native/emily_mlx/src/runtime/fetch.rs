//! The bytes of small arrays of an NVIDIA GPU, which CUDA's driver copies to the host. MLX (0.32.4) would move the memory of what is
//! read, for which it has to be copied by a kernel first, and take memory that both see.

use mlx_rs::Array;

use crate::runtime::error::Result;
use crate::runtime::replay::recording;
use crate::runtime::stream::StreamHandle;

/// Up to so many bytes are fetched: a copy to memory of the process is slower than to memory that both see.
pub(crate) const MOST: usize = 4096;

/// Whether bytes of a stream's arrays can be fetched: the layout of MLX's memory is known.
pub(crate) fn is_there(stream: &StreamHandle) -> bool {
    !stream.is_cpu() && recording::is_there()
}

/// Writes the bytes of an array that is computed and lies in rows.
#[cfg(all(own_kernels, target_os = "linux"))]
pub fn fetch(array: &Array, to: &mut [u8]) -> Result<()> {
    own::fetch(array, to)
}

#[cfg(not(all(own_kernels, target_os = "linux")))]
pub fn fetch(_array: &Array, _to: &mut [u8]) -> Result<()> {
    crate::runtime::error::refuse!("there is no NVIDIA GPU")
}

#[cfg(all(own_kernels, target_os = "linux"))]
mod own {
    use mlx_rs::Array;
    use once_cell::unsync::OnceCell;

    use crate::runtime::driver::{check, driver, wait, Stream};
    use crate::runtime::error::{Error, Result};
    use crate::runtime::graph::graph;
    use crate::runtime::inspect::device_memory;

    thread_local! {
        /// Of the card that the thread has, as a worker has one.
        static STREAM: OnceCell<Stream> = const { OnceCell::new() };
    }

    pub(super) fn fetch(array: &Array, to: &mut [u8]) -> Result<()> {
        let failed = |what: &str| Error::Mlx(format!("[fetch] {what}"));
        let driver = driver().ok_or_else(|| failed("there is no driver"))?;
        // Nobody moves the memory meanwhile.
        let _graph = graph();
        let memory = device_memory(array).filter(|memory| memory.row_contiguous);
        let memory = memory.ok_or_else(|| failed("the array does not lie in rows"))?;
        assert_eq!(array.nbytes(), to.len());
        STREAM.with(|stream| {
            let stream = stream.get_or_try_init(|| Stream::new(driver))?;
            let (to, from) = (to.as_mut_ptr().cast(), memory.data.cast_const().cast());
            // SAFETY: the array has so many bytes in a row and is held by the caller; both live through the wait.
            unsafe {
                let status = (driver.copy)(to, from, array.nbytes(), stream.raw());
                check("cuMemcpyAsync", status).and(wait(driver, stream.raw()))
            }
        })
    }
}
