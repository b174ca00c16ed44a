//! Large products of `f32` in parts, on processors that multiply floats of 16 bits 16 times as fast.
//!
//! An `f32` has 24 bits, and is the sum of three floats of 8 bits each (`pack`). Of the nine products of the parts of two
//! numbers six are added up, in `f32` (`tiles`); the others are less than half of what the nearest `f32` leaves out.
//! Sums start anew every 32 terms, and chains of 256 terms are added, so that less rounds than in a chain of fused additions.
//!
//! AMX takes what is smaller than the least normal number for zero, and parts of what is not finite are none. A block of
//! 32 rows, 32 columns and 256 terms where that could be seen is computed by fused additions ([`Way`]). Blocks lie at multiples
//! of these numbers, wherever the product is cut, so that no result depends on the threads.

mod pack;
mod tiles;

use std::arch::x86_64::*;

use super::matrix::Output;
use super::parts::Grain;
use super::product;
use super::scratch::{with_scratch, Scratch};
use super::stored::Stored;
use super::work::{Work, DEPTH};
use crate::dispatch::{Kind, Level};
use pack::{pack, Magnitudes, Rows, GROUP};
use tiles::{panel, sums, Tiles, SIDE};

/// So many columns of the right side, in parts, stay in the second cache.
const COLUMNS: usize = 512;
/// Fewer rows or columns are not worth taking the other side apart, and fewer terms not a block of sums.
const LEAST_SIDE: usize = 64;
const LEAST_INNER: usize = 32;
/// So many products at least.
const LEAST: usize = 1 << 20;

/// How parts for threads are cut: in whole blocks. To take a number apart takes as long as so many products.
pub(super) const GRAIN: Grain = Grain {
    rows: SIDE,
    read: 32,
};

thread_local! {
    static PANELS: Scratch = const { Scratch::new() };
}

/// Whether a product is computed so.
pub(super) fn fits<T: Stored, C>(work: &Work<T, C>, level: Level) -> bool {
    let Work {
        rows,
        inner,
        columns,
        a,
        b,
        ..
    } = work;
    let lies_together = |row: isize, column: isize| row == 1 || column == 1;
    level.0 == Kind::Avx512Amx
        && T::as_floats(a.data).is_some()
        && *rows.min(columns) >= LEAST_SIDE
        && *inner >= LEAST_INNER
        && rows.saturating_mul(*inner).saturating_mul(*columns) >= LEAST
        && lies_together(a.row, a.column)
        && lies_together(b.row, b.column)
}

/// Computes a product or a part of it, whose scales are one and zero.
///
/// # Safety
/// As for [`product::multiply`]; [`fits`] must hold of the whole product, whose parts are cut by [`GRAIN`].
pub(super) unsafe fn multiply(work: &Work<f32>, level: Level) {
    let depth = DEPTH.min(work.inner.next_multiple_of(SIDE));
    let panel = panel(depth);
    let left = GROUP.min(work.rows.next_multiple_of(SIDE)) / SIDE * panel;
    let right = COLUMNS.min(work.columns.next_multiple_of(SIDE)) / SIDE * panel;
    let numbers = (left + right) / size_of::<f32>() + SIDE * SIDE;
    with_scratch(&PANELS, numbers, |memory: *mut f32| {
        let memory = memory.cast::<u8>();
        // SAFETY: the caller's promises, and the memory has room for the panels and a block of sums.
        unsafe {
            let product = Product {
                work,
                level,
                left: memory,
                right: memory.add(left),
                sums: memory.add(left + right).cast(),
                tiles: Tiles::new(),
            };
            product.run();
        }
    })
}

struct Product<'a> {
    work: &'a Work<f32>,
    level: Level,
    left: *mut u8,
    right: *mut u8,
    sums: *mut f32,
    tiles: Tiles,
}

impl Product<'_> {
    /// # Safety
    /// As for [`multiply`].
    unsafe fn run(&self) {
        let Work {
            rows,
            inner,
            columns,
            ..
        } = *self.work;
        for term in (0..inner).step_by(DEPTH) {
            let terms = DEPTH.min(inner - term);
            let mut left = [Magnitudes::NONE; GROUP / SIDE];
            for column in (0..columns).step_by(COLUMNS) {
                let columns = COLUMNS.min(columns - column);
                // SAFETY: the columns and terms are the right side's.
                let right = unsafe { self.pack_right([term, column], [terms, columns]) };
                for row in (0..rows).step_by(GROUP) {
                    // SAFETY: the rows, columns and terms are the product's.
                    unsafe {
                        let work = Work {
                            rows: GROUP.min(rows - row),
                            inner: terms,
                            columns,
                            a: self.work.a.from(row, term),
                            b: self.work.b.from(term, column),
                            beta: if term == 0 { 0.0 } else { 1.0 },
                            c: self.work.c.from(row, column),
                            ..*self.work
                        };
                        // A single group of rows stays.
                        if column == 0 || rows > GROUP {
                            let (to, from) = (self.left, work.a);
                            pack(to, from, work.rows, terms, Rows::Lines, &mut left);
                        }
                        self.blocks(&work, &left, &right);
                    }
                }
            }
        }
    }

    /// Makes panels of columns of the right side.
    ///
    /// # Safety
    /// It must have the terms and the columns, at most `DEPTH` and `COLUMNS`.
    unsafe fn pack_right(
        &self,
        [term, column]: [usize; 2],
        [terms, columns]: [usize; 2],
    ) -> [Magnitudes; COLUMNS / SIDE] {
        let mut magnitudes = [Magnitudes::NONE; COLUMNS / SIDE];
        for done in (0..columns).step_by(GROUP) {
            let to = self.right.wrapping_add(done / SIDE * panel(terms));
            let count = GROUP.min(columns - done);
            let magnitudes = &mut magnitudes[done / SIDE..];
            // SAFETY: the caller's promise, and there is room for as many panels.
            unsafe {
                let from = self.work.b.from(term, column + done).transposed();
                pack(to, from, count, terms, Rows::Pairs, magnitudes);
            }
        }
        magnitudes
    }

    /// Computes a group of rows and columns, whose panels are there.
    ///
    /// # Safety
    /// As for [`multiply`].
    unsafe fn blocks(&self, work: &Work<f32>, left: &[Magnitudes], right: &[Magnitudes]) {
        let panel = panel(work.inner);
        for (i, row) in (0..work.rows).step_by(SIDE).enumerate() {
            for (j, column) in (0..work.columns).step_by(SIDE).enumerate() {
                let panels = (
                    self.left.wrapping_add(i * panel),
                    self.right.wrapping_add(j * panel),
                );
                // SAFETY: the block is the group's, and the panels are those of its rows and columns.
                unsafe {
                    let block = Work {
                        rows: SIDE.min(work.rows - row),
                        columns: SIDE.min(work.columns - column),
                        a: work.a.from(row, 0),
                        b: work.b.from(0, column),
                        c: work.c.from(row, column),
                        ..*work
                    };
                    self.block(&block, panels, Way::of(left[i], right[j]));
                }
            }
        }
    }

    /// # Safety
    /// As for [`multiply`]; the panels must be those of the block.
    unsafe fn block(&self, work: &Work<f32>, (left, right): (*mut u8, *mut u8), way: Way) {
        // SAFETY: the caller's promises.
        unsafe {
            if way != Way::Fused {
                prefetch(&work.c, work.rows);
                sums(
                    &self.tiles,
                    left,
                    right,
                    work.inner.div_ceil(SIDE),
                    self.sums,
                );
                let least = if way == Way::Split { 0.0 } else { SMALL };
                if write(work, self.sums, least) {
                    return;
                }
            }
            product::multiply(work, self.level);
        }
    }
}

/// How a block is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Split,
    /// In parts where no result is small.
    SplitUnlessSmall,
    Fused,
}

/// The least number whose lowest part is normal, with room to spare.
const LEAST_SPLIT: f64 = f64::from_bits((1023 - 100) << 52);
/// The least product of numbers whose parts' products are normal, with room to spare.
const LEAST_PRODUCT: f64 = f64::from_bits((1023 - 104) << 52);
/// Where a number and a sum might pass all bounds.
const MOST: f64 = f64::from_bits((1023 + 126) << 52);
/// Sums that are greater lose nothing by products that are taken for zero.
const SMALL: f32 = f32::from_bits((127 - 80) << 23);

impl Way {
    fn of(left: Magnitudes, right: Magnitudes) -> Self {
        let most = |side: Magnitudes| f64::from(f32::from_bits(side.most));
        let is_bounded = most(left) < MOST
            && most(right) < MOST
            && most(left) * most(right) * (DEPTH as f64) < MOST;
        let (left, right) = (left.least(), right.least());
        if !is_bounded || left.min(right) < LEAST_SPLIT {
            Way::Fused
        } else if left * right < LEAST_PRODUCT {
            Way::SplitUnlessSmall
        } else {
            Way::Split
        }
    }
}

/// Asks for what is written soon.
fn prefetch(c: &Output<f32>, rows: usize) {
    for row in 0..rows as isize {
        for half in [0, SIDE as isize / 2] {
            let place = c.data.wrapping_offset(row * c.row + half);
            // SAFETY: memory that is asked for may be any.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(place.cast_const().cast()) };
        }
    }
}

/// Writes or adds sums, unless one is smaller than `least`, and says whether it did.
///
/// # Safety
/// The work's `c` must have the rows and columns, which nobody else may read or write, and `sums` a block.
#[target_feature(enable = "avx512f")]
unsafe fn write(work: &Work<f32>, sums: *const f32, least: f32) -> bool {
    const HALF: usize = SIDE / 2;
    let mask =
        |column: usize| ((1u32 << work.columns.saturating_sub(column).min(HALF)) - 1) as __mmask16;
    let halves = [(0, mask(0)), (HALF, mask(HALF))];
    // SAFETY: the caller's promise; what is masked is neither read nor written.
    unsafe {
        if least > 0.0 {
            let least = _mm512_set1_ps(least);
            for row in 0..work.rows {
                for (column, mask) in halves {
                    let sums = _mm512_abs_ps(_mm512_load_ps(sums.add(row * SIDE + column)));
                    if _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(mask, sums, least) != 0 {
                        return false;
                    }
                }
            }
        }
        for row in 0..work.rows {
            let c = work.c.from(row, 0).data;
            for (column, mask) in halves {
                let mut sums = _mm512_load_ps(sums.add(row * SIDE + column));
                let c = c.wrapping_add(column);
                if work.beta != 0.0 {
                    sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sums);
                }
                _mm512_mask_storeu_ps(c, mask, sums);
            }
        }
    }
    true
}
