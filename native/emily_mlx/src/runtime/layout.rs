//! What MLX believes of arrays' memory and of their graphs, for tests: its kernels trust it without a look.

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_vector_array};

use crate::runtime::error::Result;
use crate::runtime::ffi;

/// The memory of a computed array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Bytes that the allocator gave.
    pub buffer: usize,
    /// Bytes from the buffer's start to the first element.
    pub offset: i64,
    /// Elements that are taken to lie in the buffer.
    pub data_size: usize,
    /// Bytes of an element.
    pub item: usize,
    pub contiguous: bool,
    pub row_contiguous: bool,
    pub col_contiguous: bool,
}

extern "C" {
    fn emily_memory_of(input: mlx_array, memory: *mut Memory) -> bool;
    fn emily_nodes(nodes: mlx_vector_array, input: mlx_array) -> std::ffi::c_int;
}

/// The memory of an array, if it is computed.
pub fn memory(array: &Array) -> Option<Memory> {
    let mut memory = Memory::default();
    // SAFETY: the handle is live and the place has the layout of the C++ side's struct.
    let has_one = unsafe { emily_memory_of(array.as_ptr(), &mut memory) };
    has_one.then_some(memory)
}

/// Every array that an uncomputed one is made of, itself included.
pub fn nodes(array: &Array) -> Result<Vec<Array>> {
    // SAFETY: the handles are live; the vector is written by this call alone.
    ffi::arrays(|nodes| unsafe { emily_nodes(*nodes, array.as_ptr()) })
}
