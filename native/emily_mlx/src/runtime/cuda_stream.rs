//! CUDA's stream behind one of MLX's, whose work is watched and whose results are copied by CUDA's driver.

use mlx_rs::{Array, Stream};

use crate::runtime::device::Device;
pub(crate) use crate::runtime::driver::Event as Place;
use crate::runtime::driver::{check, driver, wait, Driver, Pointer};
use crate::runtime::ffi;
use crate::runtime::graph::graph;
pub(crate) use crate::runtime::host_memory::HostMemory;
use crate::runtime::inspect::device_memory;
use crate::runtime::replay::encoder;

pub(crate) struct CudaStream {
    driver: &'static Driver,
    stream: Pointer,
}

// SAFETY: CUDA's streams are any thread's.
unsafe impl Send for CudaStream {}
// SAFETY: as above.
unsafe impl Sync for CudaStream {}

impl CudaStream {
    /// That of a stream of MLX's which work has been waited for on.
    pub(crate) fn of(stream: &Stream, device: Device) -> Option<CudaStream> {
        let Device::Gpu(card) = device else {
            return None;
        };
        let driver = driver().filter(|_| encoder::is_there())?;
        let (mut number, _graph) = (0, graph());
        // SAFETY: the handle is live, and the number is written to a place that is.
        let get = || unsafe { mlx_sys::mlx_stream_get_index(&mut number, stream.as_ptr()) };
        ffi::status(get).ok()?;
        let stream = encoder::cuda_stream(number, card.into())?;
        Some(CudaStream { driver, stream })
    }

    /// A place behind all that it was given.
    pub(crate) fn place(&self) -> Option<Place> {
        // SAFETY: MLX's streams live as long as the process.
        unsafe { Place::on(self.driver, self.stream) }.ok()
    }

    /// Waits for all that it was given.
    pub(crate) fn finish(&self) {
        // SAFETY: as above. What fails is told to whoever waits for the array.
        let _ = unsafe { wait(self.driver, self.stream) };
    }

    /// Memory that the bytes of an array are copied to behind all that the stream was given; none where the array does not lie
    /// in rows, or CUDA refuses.
    pub(crate) fn copied(&self, array: &Array) -> Option<HostMemory> {
        let memory = device_memory(array).filter(|memory| memory.row_contiguous)?;
        let bytes = array.nbytes();
        let host = HostMemory::new(self.driver, bytes).ok()?;
        // SAFETY: the array has so many bytes in a row, and whoever waits for the copy holds both.
        let status = unsafe {
            (self.driver.copy)(
                host.at(0).cast(),
                memory.data.cast_const().cast(),
                bytes,
                self.stream,
            )
        };
        check("cuMemcpyAsync", status).ok().map(|()| host)
    }
}
