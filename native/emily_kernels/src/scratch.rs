//! Memory of a thread for copies that do not outlive a call.

use std::cell::RefCell;

/// A line of the cache, to which the memory is aligned.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with memory for so many numbers, which hold anything. It must not ask for such memory itself.
pub(crate) fn with<T: Copy, R>(count: usize, work: impl FnOnce(*mut T) -> R) -> R {
    LINES.with_borrow_mut(|lines| {
        let wanted = (count * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines.len() < wanted {
            lines.resize(wanted, Line([0; 64]));
        }
        work(lines.as_mut_ptr().cast())
    })
}
