//! How a product is cut into parts for threads.

use super::stored::Stored;
use super::work::{Work, READ};
use crate::pool;

/// What is worth a part of its own, in products: about 30 us' work.
const PART: usize = 1 << 21;
/// What is worth waking a thread for.
const SHARED: usize = 1 << 23;
/// So many parts for each thread: a thread that is late costs at most one.
const PARTS_EACH: usize = 8;
/// What is read again takes no more than this part of the time.
const AGAIN: usize = 8;
/// Parts are multiples of the panels' heights and widths of all processors.
const ROWS: usize = 12;
const COLUMNS: usize = 128;

/// How many parts what takes so long is cut into.
pub(super) fn wanted(cost: usize) -> usize {
    match pool::threads() {
        1 => 1,
        _ if cost < SHARED => 1,
        threads => (cost / PART).min(threads * PARTS_EACH),
    }
}

/// A product cut into rows and columns of parts.
pub(super) struct Parts {
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
}

impl Parts {
    /// Parts of nearly square size, so that little is read twice: as many as are wanted, unless there is one for each
    /// thread and more would read much again, and none with more elements than `most`.
    pub(super) fn of<T: Stored, C>(work: &Work<T, C>, wanted: usize, most: usize) -> Self {
        let (rows, columns) = (work.rows, work.columns);
        let (mut height, mut width) = (rows, columns);
        loop {
            let parts = rows.div_ceil(height) * columns.div_ceil(width);
            let size = height.saturating_mul(width);
            if parts >= wanted && size <= most {
                break;
            }
            let (lower, narrower) = (halved(height, ROWS), halved(width, COLUMNS));
            let is_lower = lower < height && (height >= width || narrower >= width);
            let again = READ * if is_lower { width } else { height };
            let cost = size.saturating_add(READ * (height + width));
            if size <= most && parts >= pool::threads() && again > cost / AGAIN {
                break;
            }
            if is_lower {
                height = lower;
            } else if narrower < width {
                width = narrower;
            } else {
                break;
            }
        }
        Parts {
            rows: rows.div_ceil(height),
            columns: columns.div_ceil(width),
            height,
            width,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// # Safety
    /// The work must be the one that was cut, and have the part.
    pub(super) unsafe fn get<T: Stored, C: Copy>(&self, work: &Work<T, C>, i: usize) -> Work<T, C> {
        let (row, column) = (
            i / self.columns * self.height,
            i % self.columns * self.width,
        );
        // SAFETY: the part is within the matrices.
        unsafe {
            Work {
                rows: self.height.min(work.rows - row),
                columns: self.width.min(work.columns - column),
                a: work.a.from(row, 0),
                b: work.b.from(0, column),
                c: work.c.from(row, column),
                ..*work
            }
        }
    }
}

/// Half of a length, as a multiple of `unit`.
fn halved(length: usize, unit: usize) -> usize {
    length.div_ceil(2).next_multiple_of(unit)
}
