//! Products of matrices of floats.
//!
//! Every element is added up in the same order whatever its place, the sizes, the layouts and the number of threads:
//! its terms follow each other in chains of fused additions of [`work::DEPTH`], and the chains' sums are added.

mod batch;
mod few;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod simd;
mod stored;
mod strip;
mod work;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::dispatch::Level;
use crate::pool;
use work::READ;

pub use batch::products;
pub use simd::Element;
pub use stored::Stored;
pub use work::{Matrix, Output, Work};

pub(crate) use pack::pack;
pub(crate) use simd::{Simd, LONGEST};
pub(crate) use stored::{Load, Vectors};
pub(crate) use strip::Strip;
pub(crate) use work::{with_scratch, Scratch, DEPTH};

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

/// Computes a product, in parts on several threads where it is large. It has the level that `EMILY_KERNELS` names, or
/// the best one where that is `off`: there are no other products.
///
/// # Safety
/// The matrices must have the sizes that the work names, in memory that nobody writes meanwhile; nobody else may
/// read or write `c`.
pub unsafe fn multiply<T: Stored>(work: Work<T>) {
    let level = Level::chosen().ok().flatten().unwrap_or_else(Level::best);
    // SAFETY: the caller's promise.
    unsafe { multiply_at(work, level) }
}

/// [`multiply`] with the instructions of one level.
///
/// # Safety
/// As there.
pub unsafe fn multiply_at<T: Stored>(work: Work<T>, level: Level) {
    if work.rows == 0 || work.columns == 0 {
        return;
    }
    if work.inner == 0 || work.alpha == T::Number::ZERO {
        // SAFETY: the caller's promise.
        return unsafe { work.scale() };
    }
    let work = work.along_vectors();
    let parts = Parts::of(&work, wanted(work.cost()), usize::MAX);
    pool::each(parts.count(), |i| {
        // SAFETY: the caller's promises; the parts of `c` are apart.
        unsafe { work::multiply(&parts.get(&work, i), level) }
    });
}

/// How many parts what takes so long is cut into.
fn wanted(cost: usize) -> usize {
    match pool::threads() {
        1 => 1,
        _ if cost < SHARED => 1,
        threads => (cost / PART).min(threads * PARTS_EACH),
    }
}

/// A product cut into rows and columns of parts.
struct Parts {
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
}

impl Parts {
    /// Parts of nearly square size, so that little is read twice: as many as are wanted, unless there is one for each
    /// thread and more would read much again, and none with more elements than `most`.
    fn of<T: Stored, C>(work: &Work<T, C>, wanted: usize, most: usize) -> Self {
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

    fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// # Safety
    /// The work must be the one that was cut, and have the part.
    unsafe fn get<T: Stored, C: Copy>(&self, work: &Work<T, C>, i: usize) -> Work<T, C> {
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
