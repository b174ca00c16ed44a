//! Memory of the host that a device writes to.

use std::ffi::c_uint;
use std::ptr::null_mut;

use parking_lot::Mutex;

use crate::runtime::driver::{check, Driver};
use crate::runtime::error::Result;

/// For all cards.
const PORTABLE: c_uint = 1;
/// What is not larger is as large.
const LEAST: usize = 256;

struct Block {
    data: *mut u8,
    bytes: usize,
}

// SAFETY: it is memory, of which there is one owner at a time.
unsafe impl Send for Block {}

/// What nobody has any more. CUDA frees it in a context alone, which the thread that ends a recording need not have.
static FREE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A piece of it, which goes to the next who asks when it is dropped.
pub(crate) struct HostMemory(Option<Block>);

impl HostMemory {
    /// At least so many bytes.
    pub(crate) fn new(driver: &Driver, bytes: usize) -> Result<HostMemory> {
        let bytes = bytes.max(LEAST).next_power_of_two();
        let mut free = FREE.lock();
        if let Some(at) = free.iter().position(|block| block.bytes == bytes) {
            return Ok(HostMemory(Some(free.swap_remove(at))));
        }
        let mut data = null_mut();
        // SAFETY: the place for it is live.
        let status = unsafe { (driver.host_memory)(&mut data, bytes, PORTABLE) };
        check("cuMemHostAlloc", status)?;
        let data = data.cast();
        Ok(HostMemory(Some(Block { data, bytes })))
    }

    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        let block = self.0.as_ref().expect("it is there until the end");
        assert!(offset <= block.bytes);
        block.data.wrapping_add(offset)
    }

    /// Writes what was copied to its start, once that was waited for.
    pub(crate) fn read(&self, to: &mut [u8]) {
        assert!(self.0.as_ref().is_some_and(|block| to.len() <= block.bytes));
        // SAFETY: there are so many bytes, which nobody writes any more.
        let bytes = unsafe { std::slice::from_raw_parts(self.at(0), to.len()) };
        to.copy_from_slice(bytes);
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        FREE.lock().extend(self.0.take());
    }
}
