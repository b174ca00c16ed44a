//! Products of matrices of floats.
//!
//! Every element is added up in the same order whatever its place, the sizes, the layouts and the number of threads:
//! its terms follow each other in chains of fused additions of [`work::DEPTH`], and the chains' sums are added.
//! Large [`products`] of `f32` have another order on processors with AMX (`split`), which the sizes of the whole choose.

mod batch;
mod few;
mod kernel;
mod levels;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod parts;
mod portable;
mod product;
mod scratch;
mod simd;
#[cfg(target_arch = "x86_64")]
mod split;
mod stored;
mod strip;
mod work;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::dispatch::Level;
use crate::pool;
use parts::{wanted, Parts, FUSED};

pub use batch::products;
pub use matrix::{Matrix, Output};
pub use simd::Element;
pub use stored::Stored;
pub use work::Work;

pub(crate) use pack::pack;
pub(crate) use scratch::{with_scratch, Scratch};
pub(crate) use simd::{Simd, LONGEST};
pub(crate) use stored::{Load, Vectors};
pub(crate) use strip::Strip;
pub(crate) use work::DEPTH;

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
    let parts = Parts::of(&work, wanted(work.cost()), usize::MAX, FUSED);
    pool::each_in_a_row(parts.count(), |i| {
        // SAFETY: the caller's promises; the parts of `c` are apart.
        unsafe { product::multiply(&parts.get(&work, i), level) }
    });
}
