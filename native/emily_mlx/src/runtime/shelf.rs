//! Large memory that MLX frees on a CPU, kept for the next array of its size. The C library maps memory of 32 MiB and more for each
//! array and gives it back at once: the system clears each page again when it is touched, which takes longer than most operations.
//! What is asked for in another size has all of it given back first, so that only memory of a size that comes
//! again and again is kept.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use crate::runtime::limits;
use crate::runtime::table;

/// From this size on the C library maps memory for each array (`memory::keep_freed`).
pub(crate) const MAPPED: usize = 32 << 20;

/// At most so much is kept, and at most this part of the memory.
const MOST: usize = 256 << 20;
const PART: usize = 32;

/// Memory that has so much more than is asked for, as a part of it, is not given.
const MORE: usize = 8;

static LIMIT: Lazy<AtomicUsize> = Lazy::new(|| {
    let limits = limits::bounds(0, 0).into_iter().map(|bound| bound.limit);
    AtomicUsize::new(MOST.min(limits.min().unwrap_or(0) / PART))
});

static SHELF: Mutex<Shelf> = Mutex::new(Shelf {
    blocks: Vec::new(),
    bytes: 0,
});

/// Blocks by their addresses and sizes, the one that was freed last behind.
struct Shelf {
    blocks: Vec<(usize, usize)>,
    bytes: usize,
}

impl Shelf {
    /// A block for so many bytes.
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let fits = |&(_, size): &(usize, usize)| size >= bytes && size - bytes <= bytes / MORE;
        let at = self.blocks.iter().rposition(fits)?;
        let (block, size) = self.blocks.remove(at);
        self.bytes -= size;
        Some(block)
    }

    /// Keeps a block; gives back those that are to be freed so that no more than a limit is kept.
    fn put(&mut self, block: usize, size: usize, limit: usize) -> Vec<usize> {
        self.blocks.push((block, size));
        self.bytes += size;
        let mut freed = Vec::new();
        while self.bytes > limit {
            let (block, size) = self.blocks.remove(0);
            self.bytes -= size;
            freed.push(block);
        }
        freed
    }

    fn empty(&mut self) -> Vec<usize> {
        self.bytes = 0;
        self.blocks.drain(..).map(|(block, _)| block).collect()
    }
}

fn free_all(blocks: Vec<usize>) {
    for block in blocks {
        // SAFETY: it came from the C library, and the shelf alone had it.
        unsafe { libc::free(std::ptr::with_exposed_provenance_mut(block)) };
    }
}

extern "C" fn malloc(bytes: usize) -> *mut c_void {
    if bytes >= MAPPED {
        let mut shelf = SHELF.lock();
        if let Some(block) = shelf.take(bytes) {
            return std::ptr::with_exposed_provenance_mut(block);
        }
        let freed = shelf.empty();
        drop(shelf);
        free_all(freed);
    }
    // SAFETY: takes any size.
    unsafe { libc::malloc(bytes) }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    // SAFETY: MLX has memory of the C library's, and frees it once.
    unsafe {
        let size = libc::malloc_usable_size(memory);
        if size < MAPPED {
            return libc::free(memory);
        }
        let limit = LIMIT.load(Ordering::Relaxed);
        let freed = SHELF.lock().put(memory.expose_provenance(), size, limit);
        free_all(freed);
    }
}

/// To be called before MLX is used.
pub(crate) fn put_up() {
    // SAFETY: they take and give what the C library's do; MLX is not used yet, says the caller.
    unsafe {
        table::replace(c"malloc", malloc as *const () as *mut _);
        table::replace(c"free", free as *const () as *mut _);
    }
}

/// How many bytes are kept.
pub(crate) fn kept() -> usize {
    SHELF.lock().bytes
}

/// Gives all that is kept back to the system.
pub(crate) fn clear() {
    let freed = SHELF.lock().empty();
    free_all(freed);
}

/// Sets how many bytes are kept at most; returns the limit before.
pub(crate) fn set_limit(bytes: usize) -> usize {
    let before = LIMIT.swap(bytes, Ordering::Relaxed);
    if bytes < kept() {
        clear();
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(blocks: &[(usize, usize)]) -> Shelf {
        Shelf {
            blocks: blocks.to_vec(),
            bytes: blocks.iter().map(|(_, size)| size).sum(),
        }
    }

    #[test]
    fn a_block_serves_its_size_and_little_less() {
        let mut shelf = shelf(&[(1, 800), (2, 900), (3, 800)]);
        assert_eq!(shelf.take(901), None);
        // The one that was freed last.
        assert_eq!(shelf.take(800), Some(3));
        assert_eq!(shelf.take(801), Some(2));
        // 800 has 100 more than 700, of which an eighth is 87.
        assert_eq!(shelf.take(700), None);
        assert_eq!(shelf.take(712), Some(1));
        assert_eq!((shelf.blocks.len(), shelf.bytes), (0, 0));
    }

    #[test]
    fn what_was_freed_first_goes_first() {
        let mut shelf = shelf(&[(1, 400), (2, 500)]);
        assert!(shelf.put(3, 100, 1000).is_empty());
        assert_eq!(shelf.put(4, 300, 1000), [1]);
        assert_eq!(shelf.bytes, 900);
        assert_eq!(shelf.put(5, 2000, 1000), [2, 3, 4, 5]);
        assert_eq!(shelf.put(6, 1, 0), [6]);
        assert!(shelf.put(7, 5, 10).is_empty());
        assert_eq!(shelf.empty(), [7]);
        assert_eq!(shelf.bytes, 0);
    }
}
