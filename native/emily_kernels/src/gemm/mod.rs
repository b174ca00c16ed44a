//! Products of matrices of `f32` and `f64`.
//!
//! Every element is added up in the same order whatever its place, the sizes, the layouts and the number of threads:
//! its terms follow each other in chains of fused additions of [`work::DEPTH`], and the chains' sums are added.

#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod simd;
mod strip;
mod work;

use crate::dispatch::Level;
use crate::pool;

pub use simd::Element;
pub use work::{Matrix, Output, Work};

pub(crate) use pack::pack;
pub(crate) use simd::{Simd, Vectors, LONGEST};
pub(crate) use strip::Strip;
pub(crate) use work::DEPTH;

/// How many products are worth a part of their own: about a fifth of a millisecond's work. To wake a thread for less gains
/// nothing, and loses where the cores have other work.
const PART: usize = 1 << 24;
/// So many parts for each thread: a thread that is late costs at most one.
const PARTS_EACH: usize = 4;
/// A number that is read takes as long as so many products.
const READ: usize = 16;
/// Parts are multiples of the panels' heights and widths of all processors.
const ROWS: usize = 12;
const COLUMNS: usize = 128;
/// So few columns are computed as rows, which fill vectors.
const FEW: usize = 6;

/// Computes a product, in parts on several threads where it is large. It has the level that `EMILY_KERNELS` names, or
/// the best one where that is `off`: there are no other products.
///
/// # Safety
/// The matrices must have the sizes that the work names, in memory that nobody writes meanwhile; nobody else may
/// read or write `c`.
pub unsafe fn multiply<T: Element>(work: Work<T>) {
    let level = Level::chosen().ok().flatten().unwrap_or_else(Level::best);
    // SAFETY: the caller's promise.
    unsafe { multiply_at(work, level) }
}

/// [`multiply`] with the instructions of one level.
///
/// # Safety
/// As there.
pub unsafe fn multiply_at<T: Element>(work: Work<T>, level: Level) {
    if work.rows == 0 || work.columns == 0 {
        return;
    }
    if work.inner == 0 || work.alpha == T::ZERO {
        // SAFETY: the caller's promise.
        return unsafe { work.scale() };
    }
    let work = if work.columns <= FEW && work.columns < work.rows {
        work.transposed()
    } else {
        work
    };
    let parts = Parts::of(&work, pool::threads());
    pool::each(parts.rows * parts.columns, |i| {
        // SAFETY: the caller's promises; the parts of `c` are apart.
        unsafe { work::multiply(&parts.get(&work, i), level) }
    });
}

/// A product cut into rows and columns of parts.
struct Parts {
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
}

impl Parts {
    /// Parts of nearly square size, so that little is copied twice.
    fn of<T>(work: &Work<T>, threads: usize) -> Self {
        let (rows, columns, inner) = (work.rows, work.columns, work.inner);
        let reads = rows
            .saturating_add(columns)
            .saturating_mul(inner)
            .saturating_mul(READ);
        let cost = rows
            .saturating_mul(columns)
            .saturating_mul(inner)
            .saturating_add(reads);
        let wanted = if threads == 1 {
            1
        } else {
            (cost / PART).min(threads * PARTS_EACH)
        };
        let (mut height, mut width) = (rows, columns);
        while rows.div_ceil(height) * columns.div_ceil(width) < wanted {
            let (lower, narrower) = (halved(height, ROWS), halved(width, COLUMNS));
            if lower < height && (height >= width || narrower == width) {
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

    /// # Safety
    /// The work must be the one that was cut, and have the part.
    unsafe fn get<T: Copy>(&self, work: &Work<T>, i: usize) -> Work<T> {
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
