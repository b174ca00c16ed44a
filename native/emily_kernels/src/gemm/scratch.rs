//! Memory that a thread keeps.

use std::cell::RefCell;
use std::thread::LocalKey;

use super::simd::Element;

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

/// Memory that a thread keeps for what it computes with.
pub(crate) struct Scratch(RefCell<Vec<Line>>);

impl Scratch {
    pub(crate) const fn new() -> Self {
        Scratch(RefCell::new(Vec::new()))
    }
}

/// Calls a function with memory for so many numbers, which are anything, aligned to a line of the cache.
pub(crate) fn with_scratch<T: Element, R>(
    scratch: &'static LocalKey<Scratch>,
    count: usize,
    f: impl FnOnce(*mut T) -> R,
) -> R {
    scratch.with(|Scratch(lines)| {
        let mut lines = lines.borrow_mut();
        let wanted = (count * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines.len() < wanted {
            lines.resize(wanted, Line([0; 64]));
        }
        f(lines.as_mut_ptr().cast())
    })
}
