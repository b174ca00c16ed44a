//! How a product is cut into parts for threads.

use super::stored::Stored;
use super::work::{Work, READ};
use crate::pool;

/// What is worth a part of its own, in products: 10 to 30 us' work.
const PART: usize = 1 << (20 - SLOWER);
/// What is worth waking a thread for, and what one that is awake or about to be needed again.
const SHARED: usize = 1 << (23 - SLOWER);
const SHARED_AWAKE: usize = 1 << (21 - SLOWER);
/// Under Miri, which takes seconds for a part, small products have parts.
const SLOWER: usize = if cfg!(miri) { 9 } else { 0 };
/// So many parts for each thread: a thread that is late costs at most one.
const PARTS_EACH: usize = 8;
/// More parts than threads may take so much longer, this part of the time, since less waits for a thread that is late.
const LONGER: usize = 64;
/// Parts are multiples of the panels' widths of all processors.
const COLUMNS: usize = 32;

/// Where a run of numbers along memory ends, as many are read before the next is at hand.
const RUN: usize = 16;

/// What parts are cut by.
#[derive(Clone, Copy)]
pub(super) struct Grain {
    /// Parts' heights are multiples of so many rows.
    pub rows: usize,
    /// A number that is read takes as long as so many products.
    pub read: usize,
}

/// The grain of fused additions: a multiple of the panels' heights of all processors.
pub(super) const FUSED: Grain = Grain {
    rows: 12,
    read: READ,
};

/// How many parts what takes so long is cut into.
pub(super) fn wanted(cost: usize) -> usize {
    match pool::threads() {
        1 => 1,
        _ if cost < SHARED_AWAKE || cost < SHARED && !pool::is_awake_or_to_be() => 1,
        threads => (cost / PART).min(threads * PARTS_EACH),
    }
}

/// A product cut into rows and columns of parts.
pub(super) struct Parts {
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
    read: usize,
}

impl Parts {
    /// At most so many parts as are wanted, none with more elements than `most`: as many as take little longer than one for
    /// each thread, cut where least is read twice.
    pub(super) fn of<T: Stored, C>(
        work: &Work<T, C>,
        wanted: usize,
        most: usize,
        grain: Grain,
    ) -> Self {
        let threads = pool::threads().min(wanted).max(1);
        let mut parts = Parts::grid(work, threads, threads, grain);
        let cost = parts.cost(threads);
        let mut count = 2 * threads;
        while count <= wanted || parts.height * parts.width > most {
            let more = Parts::grid(work, count, threads, grain);
            if more.cost(threads) <= cost + cost / LONGER || parts.height * parts.width > most {
                parts = more;
            }
            count *= 2;
        }
        parts
    }

    /// The quickest of all grids of so many parts.
    fn grid<T: Stored, C>(work: &Work<T, C>, count: usize, threads: usize, grain: Grain) -> Self {
        let of = |rows: usize| {
            let height = work.rows.div_ceil(rows).next_multiple_of(grain.rows);
            let width = (work.columns.div_ceil(count / rows)).next_multiple_of(COLUMNS);
            Parts {
                rows: work.rows.div_ceil(height),
                columns: work.columns.div_ceil(width),
                height: height.min(work.rows),
                width: width.min(work.columns),
                read: grain.read,
            }
        };
        let divisors = (2..=count).filter(|rows| count.is_multiple_of(*rows));
        let quicker = |best: Parts, other: Parts| match other.cost(threads) < best.cost(threads) {
            true => other,
            false => best,
        };
        divisors.map(of).fold(of(1), quicker)
    }

    /// What it takes for each term.
    fn cost(&self, threads: usize) -> usize {
        let reads = self.read.saturating_mul(self.height + self.width + RUN);
        let part = self.height.saturating_mul(self.width).saturating_add(reads);
        self.count().div_ceil(threads).saturating_mul(part)
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
