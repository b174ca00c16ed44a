//! Numbers taken apart: each `f32` is the sum of three floats of 16 bits, exactly, where it is not too small.

use std::arch::x86_64::*;

use super::tiles::{panel, ROW, SIDE, STEP, TILE};
use crate::gemm::matrix::Matrix;
use crate::gemm::simd::Simd;
use crate::gemm::x86::Avx512;
use crate::prefetch::prefetch;

/// So many lines are taken apart at once, so that memory is read in long runs.
pub(super) const GROUP: usize = 8 * SIDE;
/// The lines of a tile, and the pairs of terms.
const LINES: usize = 16;
const PARTS: usize = 3;
/// So many terms are asked for ahead.
const AHEAD: usize = 4;
/// So many lines are.
const NEXT: isize = 2;
const SIGN: i32 = i32::MIN;

/// What a tile's rows are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Lines, as on the left side.
    Lines,
    /// Pairs of terms, as on the right side.
    Pairs,
}

/// The magnitudes of numbers: the bits of the greatest, and of the least that is not zero, less one.
#[derive(Clone, Copy)]
pub(super) struct Magnitudes {
    pub most: u32,
    below_least: u32,
}

impl Magnitudes {
    pub const NONE: Self = Magnitudes {
        most: 0,
        below_least: u32::MAX,
    };

    /// Infinite where all are zeros.
    pub fn least(self) -> f64 {
        match self.below_least.checked_add(1) {
            Some(bits) => f32::from_bits(bits).into(),
            None => f64::INFINITY,
        }
    }
}

/// [`Magnitudes`] of numbers in each lane.
#[derive(Clone, Copy)]
struct Seen {
    most: __m512i,
    below_least: __m512i,
}

/// Makes panels of lines whose terms lie in memory together, or which do themselves: `from` has a line in each row.
///
/// # Safety
/// The matrix must have the lines, at most `GROUP`, and terms, with a stride of 1 in either; `to` the room for whole panels
/// and steps; the processor AVX-512 with its floats of 16 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn pack(
    to: *mut u8,
    from: Matrix<f32>,
    lines: usize,
    terms: usize,
    rows: Rows,
    magnitudes: &mut [Magnitudes],
) {
    let panel = panel(terms);
    let mut seen = [Seen {
        most: _mm512_setzero_si512(),
        below_least: _mm512_set1_epi32(-1),
    }; GROUP / SIDE];
    // SAFETY: the caller's promises.
    let written = unsafe {
        if from.column == 1 {
            pack_terms(to, from, lines, terms, panel, &mut seen);
            Rows::Lines
        } else {
            pack_pairs(to, from, lines, terms, panel, &mut seen);
            Rows::Pairs
        }
    };
    let panels = lines.div_ceil(SIDE);
    if rows != written {
        for number in 0..panels {
            for tile in 0..terms.div_ceil(SIDE) * STEP / TILE {
                // SAFETY: each panel has so many tiles.
                unsafe { turn(to.add(number * panel + tile * TILE)) };
            }
        }
    }
    for (seen, magnitudes) in seen[..panels].iter().zip(magnitudes) {
        magnitudes.most = _mm512_reduce_max_epu32(seen.most);
        magnitudes.below_least = _mm512_reduce_min_epu32(seen.below_least);
    }
}

/// [`pack`] of lines whose terms follow each other.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_terms(
    to: *mut u8,
    from: Matrix<f32>,
    lines: usize,
    terms: usize,
    panel: usize,
    seen: &mut [Seen],
) {
    for line in 0..lines.next_multiple_of(SIDE) {
        let (number, place) = (line / SIDE, line % SIDE);
        let place = place / LINES * TILE + place % LINES * ROW;
        // A copy, which what is written cannot change.
        let mut of_line = seen[number];
        for step in 0..terms.div_ceil(SIDE) {
            let term = step * SIDE;
            let left = if line < lines { terms - term } else { 0 };
            let row = from
                .data
                .wrapping_offset(line as isize * from.row + term as isize);
            // SAFETY: the caller's promises; what is masked is not read.
            unsafe {
                for half in [0, LINES] {
                    let next = row.wrapping_offset(NEXT * from.row);
                    prefetch(next.wrapping_add(half));
                }
                let low = _mm512_maskz_loadu_ps(first(left), row);
                let high =
                    _mm512_maskz_loadu_ps(first(left.saturating_sub(16)), row.wrapping_add(16));
                let to = to.add(number * panel + step * STEP + place);
                take_apart::<false>(low, high, to, &mut of_line);
            }
        }
        seen[number] = of_line;
    }
}

/// [`pack`] of lines that lie side by side.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_pairs(
    to: *mut u8,
    from: Matrix<f32>,
    lines: usize,
    terms: usize,
    panel: usize,
    seen: &mut [Seen],
) {
    for pair in 0..terms.next_multiple_of(SIDE) / 2 {
        let place = pair / LINES * STEP + pair % LINES * ROW;
        for line in (0..lines.next_multiple_of(SIDE)).step_by(LINES) {
            let mask = |term: usize| match term < terms {
                true => first(lines.saturating_sub(line)),
                false => 0,
            };
            let at = |term: usize| {
                from.data
                    .wrapping_offset(term as isize * from.column + line as isize)
            };
            let (even, odd) = (2 * pair, 2 * pair + 1);
            // SAFETY: the caller's promises; what is masked is not read, and what is asked for may be any.
            unsafe {
                prefetch(at(even + AHEAD));
                prefetch(at(odd + AHEAD));
                let even = _mm512_maskz_loadu_ps(mask(even), at(even));
                let odd = _mm512_maskz_loadu_ps(mask(odd), at(odd));
                let to = to.add(line / SIDE * panel + place + line % SIDE / LINES * TILE);
                let mut of_lines = seen[line / SIDE];
                take_apart::<true>(even, odd, to, &mut of_lines);
                seen[line / SIDE] = of_lines;
            }
        }
    }
}

/// Writes the parts of two vectors into rows of their tiles, one behind the other, or by `PAIRS`.
///
/// # Safety
/// There must be rows at `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn take_apart<const PAIRS: bool>(
    mut low: __m512,
    mut high: __m512,
    to: *mut u8,
    seen: &mut Seen,
) {
    for x in [low, high] {
        let bits = _mm512_andnot_si512(_mm512_set1_epi32(SIGN), _mm512_castps_si512(x));
        seen.most = _mm512_max_epu32(seen.most, bits);
        let below = _mm512_sub_epi32(bits, _mm512_set1_epi32(1));
        seen.below_least = _mm512_min_epu32(seen.below_least, below);
    }
    let one_each = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0,
    );
    for part in 0..PARTS {
        // SAFETY: both are 64 bytes.
        let nearest: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) };
        let (row, of_low, of_high);
        if PAIRS {
            row = _mm512_permutexvar_epi16(one_each, nearest);
            of_low = _mm512_slli_epi32::<16>(row);
            of_high = _mm512_and_si512(row, _mm512_set1_epi32(!0xFFFF));
        } else {
            row = nearest;
            let wide = |half| _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half));
            of_low = wide(_mm512_castsi512_si256(row));
            of_high = wide(_mm512_extracti64x4_epi64::<1>(row));
        }
        // SAFETY: the caller's promise; rows are lines of the cache.
        unsafe { _mm512_store_si512(to.add(part * 2 * TILE).cast(), row) };
        low = _mm512_sub_ps(low, _mm512_castsi512_ps(of_low));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(of_high));
    }
}

/// Makes a tile's rows its columns, of pairs.
///
/// # Safety
/// There must be a tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn turn(tile: *mut u8) {
    // SAFETY: the caller's promise; 16 rows of 16 pairs.
    unsafe {
        let mut square = [_mm512_setzero_ps(); LINES];
        for (i, row) in square.iter_mut().enumerate() {
            *row = _mm512_load_ps(tile.add(i * ROW).cast());
        }
        Avx512::<f32>::turn(&mut square);
        for (i, row) in square.into_iter().enumerate() {
            _mm512_store_ps(tile.add(i * ROW).cast(), row);
        }
    }
}

/// The first lanes, at most 16.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}
