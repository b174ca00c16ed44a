//! What MLX knows of an array's memory and of the graph that it is in. MLX's kernels trust the former without a look.

use std::collections::HashSet;
use std::ffi::{c_char, c_void, CStr};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::slice;

use mlx_rs::Array;
use mlx_sys::mlx_array;

use crate::runtime::error::Result;
use crate::runtime::ffi;

/// The memory of an array that has some. As in `cpp/bridge.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub(crate) data: *mut u8,
    shape: *const i32,
    strides: *const i64,
    rank: usize,
    /// Bytes of an element.
    pub item: usize,
    /// Bytes that the allocator gave.
    pub buffer: usize,
    /// Elements that are taken to lie in the buffer.
    pub data_size: usize,
    /// Bytes from the buffer's start to the first element.
    pub offset: i64,
    pub contiguous: bool,
    pub row_contiguous: bool,
    pub col_contiguous: bool,
    /// Whether nobody else needs it.
    pub(crate) donatable: bool,
}

impl Memory {
    /// The sizes and strides of the axes, in elements.
    ///
    /// # Safety
    /// The array is there as long as they are used.
    pub(crate) unsafe fn axes<'a>(&self) -> (&'a [i32], &'a [i64]) {
        if self.rank == 0 {
            return (&[], &[]);
        }
        // SAFETY: the array has as many of both, and is there.
        unsafe {
            (
                slice::from_raw_parts(self.shape, self.rank),
                slice::from_raw_parts(self.strides, self.rank),
            )
        }
    }
}

/// As in `cpp/inspect.cpp`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawNode {
    name: *const c_char,
    id: usize,
    bytes: usize,
    inputs: usize,
    siblings: usize,
    stream: i32,
    scheduled: bool,
    /// Whether nobody else needs its memory.
    donatable: bool,
}

extern "C" {
    fn emily_memory_of(array: *const c_void, on_device: bool, memory: *mut Memory) -> bool;
    fn emily_node_of(array: *const c_void) -> RawNode;
    fn emily_neighbour(array: *const c_void, at: usize) -> *mut c_void;
}

/// The memory of an array, if it is computed.
pub fn memory(array: &Array) -> Option<Memory> {
    memory_at(array.as_ptr().ctx, false)
}

/// The memory of an array that is scheduled on an NVIDIA GPU, with the address that it has there.
#[cfg(target_os = "linux")]
pub(crate) fn device_memory(array: &Array) -> Option<Memory> {
    memory_at(array.as_ptr().ctx, true)
}

/// That of an array of MLX's, which is there.
fn memory_at(array: *const c_void, on_device: bool) -> Option<Memory> {
    let mut memory = MaybeUninit::uninit();
    // SAFETY: the array is live, and what it says to be there is written.
    unsafe {
        let is_there = emily_memory_of(array, on_device, memory.as_mut_ptr());
        is_there.then(|| memory.assume_init())
    }
}

/// Whether a stream has yet to write an array whose memory nobody else keeps: MLX (0.32.4) keeps what it computes with, and
/// not what it computes, so that whoever frees such an array has the stream write to somebody else's memory.
pub(crate) fn is_awaited(array: &Array) -> bool {
    let node = Node::of(array);
    node.is_scheduled() && node.raw.donatable && !node.is_available()
}

/// Whether a scheduled array has more memory than MLX (0.32.4) takes for what has up to eight bytes, which a processor and a GPU
/// both see.
pub(crate) fn is_part(array: &Array) -> bool {
    const SMALL: usize = 8;
    memory_at(array.as_ptr().ctx, true).is_none_or(|memory| memory.buffer > SMALL)
}

/// An array in a graph, as it was when it was looked at.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    array: *mut c_void,
    raw: RawNode,
    held: PhantomData<&'a Array>,
}

impl<'a> Node<'a> {
    pub(crate) fn of(array: &'a Array) -> Self {
        // SAFETY: the array is live for `'a`.
        unsafe { Node::at(array.as_ptr().ctx) }
    }

    /// # Safety
    /// An array of MLX's lies there as long as the node is used.
    unsafe fn at(array: *mut c_void) -> Self {
        Node {
            array,
            // SAFETY: so the caller says.
            raw: unsafe { emily_node_of(array) },
            held: PhantomData,
        }
    }

    /// Number `at` of the inputs, or behind those of what is computed together with it.
    fn neighbour(&self, at: usize) -> Node<'a> {
        assert!(
            at < self.raw.inputs + self.raw.siblings,
            "no neighbour {at}"
        );
        // SAFETY: there are as many, and the graph, which holds them, changes under the lock of whoever looks.
        unsafe { Node::at(emily_neighbour(self.array, at)) }
    }

    pub(crate) fn inputs(&self) -> impl ExactSizeIterator<Item = Node<'a>> + '_ {
        (0..self.raw.inputs).map(|at| self.neighbour(at))
    }

    pub(crate) fn siblings(&self) -> impl ExactSizeIterator<Item = Node<'a>> + '_ {
        (0..self.raw.siblings).map(|at| self.neighbour(self.raw.inputs + at))
    }

    /// MLX's array.
    #[cfg(own_kernels)]
    pub(crate) fn raw(&self) -> *mut c_void {
        self.array
    }

    /// Its memory, if it is computed.
    #[cfg(own_kernels)]
    fn memory(&self) -> Option<Memory> {
        memory_at(self.array, false)
    }

    pub(crate) fn id(&self) -> usize {
        self.raw.id
    }

    pub(crate) fn bytes(&self) -> usize {
        self.raw.bytes
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.raw.scheduled
    }

    /// The name of the operation that it is the result of, if it is one.
    pub(crate) fn operation(&self) -> Option<&'a CStr> {
        // SAFETY: the name lives as long as the operation, which the array holds.
        (!self.raw.name.is_null()).then(|| unsafe { CStr::from_ptr(self.raw.name) })
    }

    /// Whether it has its input's memory, so that MLX computes it on the spot.
    #[cfg(any(own_kernels, target_os = "linux"))]
    pub(crate) fn is_view(&self) -> bool {
        const NAMES: [&CStr; 5] = [
            c"Broadcast",
            c"ExpandDims",
            c"Slice",
            c"Squeeze",
            c"Transpose",
        ];
        self.operation().is_some_and(|name| NAMES.contains(&name))
    }

    /// Whether it is other axes over its input, which has memory of its own where that does not lie in row-major order.
    #[cfg(any(own_kernels, target_os = "linux"))]
    pub(crate) fn is_reshaped(&self) -> bool {
        const NAMES: [&CStr; 3] = [c"Flatten", c"Reshape", c"Unflatten"];
        self.operation().is_some_and(|name| NAMES.contains(&name))
    }

    /// Whether it is known to be computed, and to lie in row-major order.
    #[cfg(own_kernels)]
    pub(crate) fn is_in_rows(&self) -> bool {
        let lies_so = || self.memory().is_some_and(|memory| memory.row_contiguous);
        self.is_scheduled() && self.is_available() && lies_so()
    }

    /// The number of the stream that computes it, if one does.
    pub(crate) fn stream(&self) -> Option<i32> {
        (self.raw.stream >= 0).then_some(self.raw.stream)
    }

    /// Whether what was scheduled is computed.
    pub(crate) fn is_available(&self) -> bool {
        let mut available = false;
        // SAFETY: the array is live, and the answer is written to a place that is.
        let asked = ffi::status(|| unsafe {
            mlx_sys::_mlx_array_is_available(&mut available, self.handle())
        });
        asked.is_ok() && available
    }

    fn handle(&self) -> mlx_array {
        mlx_array { ctx: self.array }
    }

    pub(crate) fn to_array(self) -> Result<Array> {
        // SAFETY: the array is live, and the handle gets a copy of its own.
        ffi::array(|result| unsafe { mlx_sys::mlx_array_set(result, self.handle()) })
    }
}

/// Every array that an uncomputed one is made of, itself included, but for what an operation gives of this name of MLX's.
pub fn nodes(array: &Array, without: &CStr) -> Result<Vec<Array>> {
    let mut seen = HashSet::new();
    let mut left = vec![Node::of(array)];
    let mut found = Vec::new();
    while let Some(node) = left.pop() {
        if seen.insert(node.id()) {
            if node.operation() != Some(without) {
                found.push(node.to_array()?);
            }
            left.extend(node.inputs());
            left.extend(node.siblings());
        }
    }
    Ok(found)
}

/// The bytes of memory of all that arrays need and that is not scheduled yet; none where not all of it is on the stream of a number.
#[cfg(target_os = "linux")]
pub(crate) fn bytes_on(arrays: &[Array], stream: i32) -> Option<usize> {
    let mut seen = HashSet::new();
    let mut left: Vec<Node> = arrays.iter().map(Node::of).collect();
    let mut bytes = 0;
    while let Some(node) = left.pop() {
        if node.is_scheduled() || !seen.insert(node.id()) {
            continue;
        }
        if node.stream() != Some(stream) {
            return None;
        }
        // What other kernels give lies in rows.
        let is_reshaped = || node.is_reshaped() && !node.inputs().any(|input| input.is_view());
        if !node.is_view() && !is_reshaped() {
            bytes += node.bytes();
        }
        left.extend(node.inputs());
        left.extend(node.siblings());
    }
    Some(bytes)
}

/// What all that arrays need and that is not scheduled yet reads, and is there already, but for arrays of these numbers.
#[cfg(target_os = "linux")]
pub(crate) fn read_by(arrays: &[Array], without: &[usize]) -> Result<Vec<Array>> {
    let mut seen: HashSet<usize> = without.iter().copied().collect();
    let mut left: Vec<Node> = arrays.iter().map(Node::of).collect();
    let mut read = Vec::new();
    while let Some(node) = left.pop() {
        if !seen.insert(node.id()) {
            continue;
        }
        if node.is_scheduled() {
            read.push(node.to_array()?);
            continue;
        }
        left.extend(node.inputs());
        left.extend(node.siblings());
    }
    Ok(read)
}
