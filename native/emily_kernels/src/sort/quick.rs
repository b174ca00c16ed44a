//! Numbers of 32 bits in order, on processors with AVX-512: parted around a number until few are left, vectors at a time,
//! and these by a bitonic network in registers.

use std::arch::x86_64::*;

use crate::pool::{self, Shared};

const LANES: usize = 16;
/// So many vectors are put into order in registers.
const VECTORS: usize = 8;
const FEW: usize = VECTORS * LANES;
/// So many numbers are parted by one thread.
const PART: usize = 1 << 15;
/// Leaves for each thread, so that one that is late costs little.
const LEAVES: usize = 8;

/// Puts numbers in order, with as much memory to spare, on several threads where there are many.
///
/// # Safety
/// The processor must have AVX-512.
pub(super) unsafe fn sort(items: &mut [u32], spare: &mut [u32]) {
    let leaf = match pool::threads() {
        1 => usize::MAX,
        threads => PART.max(items.len() / (threads * LEAVES)),
    };
    // SAFETY: the caller's promise.
    unsafe {
        part_on_threads(
            items,
            spare,
            false,
            depth(items.len()),
            (leaf, pool::threads()),
        )
    }
}

/// How often numbers are parted before something is wrong with the choice.
fn depth(count: usize) -> u32 {
    2 * count.max(1).ilog2()
}

/// Puts what is in `items` in order, there or, with `moves`, in `other`. So many threads are free for it.
///
/// # Safety
/// The processor must have AVX-512.
unsafe fn part_on_threads(
    items: &mut [u32],
    other: &mut [u32],
    moves: bool,
    left: u32,
    (leaf, threads): (usize, usize),
) {
    if items.len() <= leaf || left == 0 {
        // SAFETY: the caller's promise.
        return unsafe { on_one_thread(items, other, moves, left) };
    }
    // SAFETY: as above.
    let low = unsafe {
        let pivot = pivot(items);
        match threads.min(items.len() / PART) {
            0 | 1 => part(items, pivot, other, false),
            threads => part_together(items, pivot, other, threads),
        }
    };
    if low == 0 {
        // SAFETY: as above.
        return unsafe { on_one_thread(items, other, moves, left) };
    }
    let count = items.len();
    let (items, other) = (Shared::of(items), Shared::of(other));
    pool::each(2, |side| {
        let (start, count) = match side {
            0 => (0, low),
            _ => (low, count - low),
        };
        // SAFETY: the two sides are apart; the caller's promise.
        unsafe {
            let (back, from) = (items.part(start, count), other.part(start, count));
            part_on_threads(from, back, !moves, left - 1, (leaf, threads.div_ceil(2)));
        }
    });
}

/// [`part`] by several threads: each counts a part of the numbers, and then knows where they go.
///
/// # Safety
/// As there.
unsafe fn part_together(items: &[u32], pivot: u32, to: &mut [u32], threads: usize) -> usize {
    let size = items.len().div_ceil(threads);
    let parts: Vec<&[u32]> = items.chunks(size).collect();
    let mut lows = vec![0; parts.len()];
    pool::each_part(&mut lows, 1, |part, lows| {
        // SAFETY: the caller's promise.
        lows[0] = unsafe { count_below(parts[part], pivot) };
    });
    let low = lows.iter().sum();
    let to = Shared::of(to);
    pool::each(parts.len(), |part| {
        let (items, below) = (parts[part], lows[..part].iter().sum::<usize>());
        let above = low + part * size - below;
        // SAFETY: the numbers of a part were counted, so that it has places of its own; the caller's promise.
        unsafe {
            let lows = to.part(below, lows[part]);
            let highs = to.part(above, items.len() - lows.len());
            part_apart(items, pivot, lows, highs);
        }
    });
    low
}

/// [`part_on_threads`] on this one.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt")]
unsafe fn on_one_thread(items: &mut [u32], other: &mut [u32], moves: bool, left: u32) {
    if items.len() <= FEW {
        let to = if moves {
            other.as_mut_ptr()
        } else {
            items.as_mut_ptr()
        };
        // SAFETY: both hold as many numbers, at most `FEW`.
        return unsafe { few(items.as_ptr(), to, items.len()) };
    }
    if left == 0 {
        items.sort_unstable();
        if moves {
            other.copy_from_slice(items);
        }
        return;
    }
    // SAFETY: the caller's promise.
    let pivot = unsafe { pivot(items) };
    // SAFETY: as above.
    let mut low = unsafe { part(items, pivot, other, false) };
    if low == 0 {
        // None is less, and those that equal the pivot are in order.
        // SAFETY: as above.
        low = unsafe { part(items, pivot, other, true) };
        if !moves {
            items[..low].fill(pivot);
        }
    } else {
        let (from, back) = (&mut other[..low], &mut items[..low]);
        // SAFETY: as above.
        unsafe { on_one_thread(from, back, !moves, left - 1) };
    }
    // SAFETY: as above.
    unsafe { on_one_thread(&mut other[low..], &mut items[low..], !moves, left - 1) }
}

/// A number near the middle of more than a few: of 16 that lie evenly.
///
/// # Safety
/// The processor must have AVX-512.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pivot(items: &[u32]) -> u32 {
    let step = items.len() / LANES;
    let mut samples = [0; LANES];
    for (i, sample) in samples.iter_mut().enumerate() {
        *sample = items[i * step + step / 2];
    }
    // SAFETY: there are as many samples as lanes.
    unsafe {
        let ordered = in_order(_mm512_loadu_si512(samples.as_ptr().cast()));
        _mm512_storeu_si512(samples.as_mut_ptr().cast(), ordered);
    }
    samples[LANES / 2]
}

#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// How many are less.
///
/// # Safety
/// The processor must have AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
unsafe fn count_below(items: &[u32], pivot: u32) -> usize {
    let vectors = items.chunks_exact(LANES);
    let mut count = vectors.remainder().iter().filter(|x| **x < pivot).count();
    let pivot = _mm512_set1_epi32(pivot as i32);
    for vector in vectors {
        // SAFETY: a whole vector.
        let x = unsafe { _mm512_loadu_si512(vector.as_ptr().cast()) };
        count += _mm512_cmplt_epu32_mask(x, pivot).count_ones() as usize;
    }
    count
}

/// Writes those that are less to one place, the others to another, each as large as it must be.
///
/// # Safety
/// The processor must have AVX-512, and the places be so large.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
unsafe fn part_apart(items: &[u32], pivot: u32, below: &mut [u32], above: &mut [u32]) {
    let pivot = _mm512_set1_epi32(pivot as i32);
    let (mut below, mut above) = (below.as_mut_ptr(), above.as_mut_ptr());
    for vector in items.chunks(LANES) {
        let all = first(vector.len());
        // SAFETY: what is masked is neither read nor written; the places have room for what was counted.
        unsafe {
            let x = _mm512_maskz_loadu_epi32(all, vector.as_ptr().cast());
            let low = _mm512_mask_cmplt_epu32_mask(all, x, pivot);
            let (lows, highs) = (
                low.count_ones() as usize,
                (all & !low).count_ones() as usize,
            );
            _mm512_mask_storeu_epi32(
                below.cast(),
                first(lows),
                _mm512_maskz_compress_epi32(low, x),
            );
            _mm512_mask_storeu_epi32(
                above.cast(),
                first(highs),
                _mm512_maskz_compress_epi32(all & !low, x),
            );
            below = below.add(lows);
            above = above.add(highs);
        }
    }
}

/// Writes those that are less, or with `or_equal` equal too, to the front, the others to the back, and says how many are at the front.
///
/// # Safety
/// The processor must have AVX-512, and `to` as much room.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
unsafe fn part(items: &[u32], pivot: u32, to: &mut [u32], or_equal: bool) -> usize {
    let pivot = _mm512_set1_epi32(pivot as i32);
    let front = to.as_mut_ptr();
    let (mut low, mut high) = (0, items.len());
    let is_low = |x| match or_equal {
        false => _mm512_cmplt_epu32_mask(x, pivot),
        true => _mm512_cmple_epu32_mask(x, pivot),
    };
    let vectors = items.chunks_exact(LANES);
    let rest = vectors.remainder();
    for vector in vectors {
        // SAFETY: between the two ends is room for all that was not written yet, a vector at least, so that what is written behind
        // the lows is written over.
        unsafe {
            let x = _mm512_loadu_si512(vector.as_ptr().cast());
            let mask = is_low(x);
            let lows = mask.count_ones() as usize;
            _mm512_storeu_si512(front.add(low).cast(), _mm512_maskz_compress_epi32(mask, x));
            low += lows;
            high -= LANES - lows;
            let highs = _mm512_maskz_compress_epi32(!mask, x);
            _mm512_mask_storeu_epi32(front.add(high).cast(), first(LANES - lows), highs);
        }
    }
    let all = first(rest.len());
    // SAFETY: what is masked is neither read nor written.
    unsafe {
        let x = _mm512_maskz_loadu_epi32(all, rest.as_ptr().cast());
        let mask = is_low(x) & all;
        let lows = mask.count_ones() as usize;
        _mm512_mask_storeu_epi32(
            front.add(low).cast(),
            first(lows),
            _mm512_maskz_compress_epi32(mask, x),
        );
        let highs = _mm512_maskz_compress_epi32(all & !mask, x);
        _mm512_mask_storeu_epi32(
            front.add(low + lows).cast(),
            first(rest.len() - lows),
            highs,
        );
        low + lows
    }
}

/// Puts at most `FEW` numbers in order.
///
/// # Safety
/// The processor must have AVX-512, and there must be so many at both places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn few(from: *const u32, to: *mut u32, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match count.div_ceil(LANES) {
            0 => (),
            1 => network::<1>(from, to, count),
            2 => network::<2>(from, to, count),
            3..=4 => network::<4>(from, to, count),
            _ => network::<VECTORS>(from, to, count),
        }
    }
}

/// [`few`] numbers of so many vectors.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn network<const COUNT: usize>(from: *const u32, to: *mut u32, count: usize) {
    let mask = |i: usize| first(count.saturating_sub(i * LANES));
    let mut all = [_mm512_set1_epi32(-1); COUNT];
    for (i, x) in all.iter_mut().enumerate() {
        // SAFETY: what is masked is not read; the greatest numbers stand there.
        let read =
            unsafe { _mm512_mask_loadu_epi32(*x, mask(i), from.wrapping_add(i * LANES).cast()) };
        *x = in_order(read);
    }
    let mut width = 1;
    while width < COUNT {
        for pair in (0..COUNT).step_by(2 * width) {
            // The second half turned round makes one row that rises and falls.
            let halves = all;
            for i in 0..width {
                let (rising, falling) =
                    (halves[pair + i], reversed(halves[pair + 2 * width - 1 - i]));
                all[pair + i] = _mm512_min_epu32(rising, falling);
                all[pair + width + i] = _mm512_max_epu32(rising, falling);
            }
            let mut distance = width / 2;
            while distance > 0 {
                for i in (pair..pair + 2 * width).filter(|i| (i - pair) & distance == 0) {
                    let (a, b) = (all[i], all[i + distance]);
                    all[i] = _mm512_min_epu32(a, b);
                    all[i + distance] = _mm512_max_epu32(a, b);
                }
                distance /= 2;
            }
        }
        for x in &mut all {
            *x = merged(*x);
        }
        width *= 2;
    }
    for (i, x) in all.into_iter().enumerate() {
        // SAFETY: what is masked is not written.
        unsafe { _mm512_mask_storeu_epi32(to.wrapping_add(i * LANES).cast(), mask(i), x) };
    }
}

/// Which lane meets which: numbers of lanes from the lowest on.
type Partners = [i32; LANES];

#[inline]
#[target_feature(enable = "avx512f")]
fn reversed(x: __m512i) -> __m512i {
    const ALL: Partners = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    _mm512_permutexvar_epi32(lanes(ALL), x)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(of: Partners) -> __m512i {
    // SAFETY: as many bytes.
    unsafe { _mm512_loadu_si512(of.as_ptr().cast()) }
}

/// Lanes exchanged with their partners, the greater ones in the lanes of the mask.
#[inline]
#[target_feature(enable = "avx512f")]
fn exchanged(x: __m512i, partner: __m512i, greater: __mmask16) -> __m512i {
    _mm512_mask_max_epu32(_mm512_min_epu32(x, partner), greater, x, partner)
}

/// Lanes that rise and fall, in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn merged(x: __m512i) -> __m512i {
    let x = exchanged(x, _mm512_shuffle_i64x2::<0x4E>(x, x), 0xFF00);
    let x = exchanged(x, _mm512_shuffle_i64x2::<0xB1>(x, x), 0xF0F0);
    let x = exchanged(x, _mm512_shuffle_epi32::<0x4E>(x), 0xCCCC);
    exchanged(x, _mm512_shuffle_epi32::<0xB1>(x), 0xAAAA)
}

/// All lanes in order.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order(x: __m512i) -> __m512i {
    const EIGHTS: Partners = [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8];
    let x = exchanged(x, _mm512_shuffle_epi32::<0xB1>(x), 0xAAAA);
    let x = exchanged(x, _mm512_shuffle_epi32::<0x1B>(x), 0xCCCC);
    let x = exchanged(x, _mm512_shuffle_epi32::<0xB1>(x), 0xAAAA);
    let x = exchanged(x, _mm512_permutexvar_epi32(lanes(EIGHTS), x), 0xF0F0);
    let x = exchanged(x, _mm512_shuffle_epi32::<0x4E>(x), 0xCCCC);
    let x = exchanged(x, _mm512_shuffle_epi32::<0xB1>(x), 0xAAAA);
    merged(exchanged(x, reversed(x), 0xFF00))
}
