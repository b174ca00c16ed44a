//! Few rows times the rows of a matrix of blocks, each block where it lies.

use std::hint::black_box;

use super::dots::{for_each_dots, Block, Dots, CODES, FACTORS, NUMBERS, SETS};
use super::matrix::Blocks;
use super::rounded::{Rounded, HIGHER};
use crate::dispatch::Level;
use crate::prefetch::prefetch;

/// So many bytes before they are needed, what lies behind is asked for: processors look ahead no further than to the end of
/// a page.
const AHEAD: usize = 2048;
/// What is asked for at once.
const LINE: usize = 64;
/// Rows of fewer bytes are taken from so many places in turn: processors look ahead in each place by itself.
const SHORT: usize = 2048;
const PLACES: usize = 4;

/// A row as it is multiplied: for each `NUMBERS` numbers a part, whose rest is zeros at the end of the row.
pub(super) struct Row {
    parts: Vec<Part>,
}

/// Sets lie in a line of the cache each.
#[repr(align(64))]
struct Part {
    /// The higher integers and the lower ones of each set, as the level's instructions have them.
    codes: [[[i8; CODES]; 2]; SETS],
    /// What the blocks' offset makes of each set, in the lanes that begin its groups.
    starts: [[i32; 8]; SETS],
    /// The scale of each group, and the sum of what is multiplied with its codes.
    scales: [f32; FACTORS],
    sums: [f32; FACTORS],
}

impl Row {
    /// The rows of what was rounded for blocks of this type.
    pub(super) fn all<B: Block>(level: Level, x: &Rounded) -> Vec<Row> {
        let row = |row: usize| {
            let pair = [2 * row, 2 * row + 1];
            let parts = 0..x.columns.div_ceil(NUMBERS);
            let mut parts: Vec<Part> = parts.map(|part| Part::of::<B>(x, pair, part)).collect();
            arrange::<B>(level, &mut parts);
            Row { parts }
        };
        (0..x.rows / 2).map(row).collect()
    }
}

impl Part {
    fn of<B: Block>(x: &Rounded, pair: [usize; 2], at: usize) -> Self {
        let mut part = Part {
            codes: [[[0; CODES]; 2]; SETS],
            starts: [[0; 8]; SETS],
            scales: [0.0; FACTORS],
            sums: [0.0; FACTORS],
        };
        let groups = NUMBERS / B::GROUP;
        for (half, row) in pair.into_iter().enumerate() {
            let (sets, _) = x.row(&x.codes, row).as_chunks::<CODES>();
            for (to, from) in part.codes.iter_mut().zip(&sets[at * SETS..]) {
                to[half] = *from;
            }
            let sums = &x.row(&x.sums, row)[at * groups..];
            for (to, sum) in part.sums[..groups].iter_mut().zip(sums) {
                *to += sum;
            }
            let factor = [HIGHER, 1][half];
            let starts = &x.row(&x.starts, row)[at * groups..];
            for (group, start) in starts.iter().take(groups).enumerate() {
                let number = group * B::GROUP;
                part.starts[number / CODES][number % CODES / 4] += start * factor;
            }
        }
        // Of the lower ones.
        let shared = &x.row(&x.scales, pair[1])[at * SETS..];
        for (group, scale) in part.scales[..groups].iter_mut().enumerate() {
            if let Some(shared) = shared.get(group * B::GROUP / CODES) {
                *scale = *shared;
            }
        }
        part
    }
}

for_each_dots! {
    /// Brings codes into the order of the level.
    fn arrange<B: Block; dots>(parts: &mut [Part]) {
        for set in parts.iter_mut().flat_map(|part| &mut part.codes) {
            *set = dots.arrange::<B>(*set);
        }
    }
}

for_each_dots! {
    /// The products of all rows with some of the matrix's, from one on.
    pub(super) fn part<B: Block; dots>(rows: &[Row], blocks: &Blocks, first: usize, output: &mut [f32]) {
        let count = output.len() / rows.len();
        let apart = if blocks.bytes_a_row() < SHORT { count / PLACES } else { 0 };
        for i in 0..count {
            let in_turn = i % PLACES * apart + i / PLACES;
            let row = if i < PLACES * apart { in_turn } else { i };
            let output = &mut output[row * rows.len()..][..rows.len()];
            let bytes = blocks.row(first + row);
            let (pairs, rest) = rows.as_chunks::<2>();
            let (outputs, last) = output.as_chunks_mut::<2>();
            for (rows, output) in pairs.iter().zip(outputs) {
                products::<B, _, 2>(dots, rows, bytes, output);
            }
            if let ([row], [output]) = (rest, last) {
                products::<B, _, 1>(dots, std::array::from_ref(row), bytes, std::array::from_mut(output));
            }
        }
    }
}

/// The products of so many rows with one of the matrix's.
#[inline(always)]
fn products<B: Block, D: Dots, const ROWS: usize>(
    dots: D,
    rows: &[Row; ROWS],
    bytes: &[u8],
    output: &mut [f32; ROWS],
) {
    let size = NUMBERS / B::NUMBERS * B::BYTES;
    // Two, so that no sum waits for the one before.
    let mut totals = [[dots.none(); 2]; ROWS];
    let mut shifts = [[0.0; FACTORS]; ROWS];
    let whole = bytes.len() / size;
    for at in 0..whole {
        let bytes = &bytes[at * size..][..size];
        for line in 0..size.div_ceil(LINE) {
            prefetch(bytes.as_ptr().wrapping_add(AHEAD + line * LINE));
        }
        some::<B, D, ROWS>(dots, rows, at, bytes, &mut totals, &mut shifts, SETS);
    }
    let rest = &bytes[whole * size..];
    if !rest.is_empty() {
        let sets = rest.len() / B::BYTES * B::NUMBERS / CODES;
        some::<B, D, ROWS>(dots, rows, whole, rest, &mut totals, &mut shifts, sets);
    }
    for row in 0..ROWS {
        let [first, second] = totals[row];
        output[row] = dots.total(dots.join_sums(first, second));
        if B::LEAST {
            output[row] -= shifts[row].iter().sum::<f32>();
        }
    }
}

/// Adds the products of so many sets, at most of a part.
#[inline(always)]
fn some<B: Block, D: Dots, const ROWS: usize>(
    dots: D,
    rows: &[Row; ROWS],
    at: usize,
    bytes: &[u8],
    totals: &mut [[D::Sums; 2]; ROWS],
    shifts: &mut [[f32; FACTORS]; ROWS],
    sets: usize,
) {
    let groups = NUMBERS / B::GROUP;
    let (mut own, mut least) = ([0.0; FACTORS], [0.0; FACTORS]);
    B::factors(dots, bytes, &mut own, &mut least);
    let mut scales = [[0.0; FACTORS]; ROWS];
    for row in 0..ROWS {
        let part = &rows[row].parts[at];
        for group in 0..groups {
            scales[row][group] = own[group] * part.scales[group];
        }
        if B::LEAST {
            for group in 0..groups {
                let shift = &mut shifts[row][group];
                *shift = dots.mul_add(least[group], part.sums[group], *shift);
            }
        }
    }
    // In memory, from which they are spread without a shuffle.
    let scales = black_box(scales);
    macro_rules! add {
        ($($set:expr),*) => {
            $(one::<B, D, ROWS>(dots, rows, (at, $set), bytes, &scales, totals);)*
        };
    }
    if sets == SETS {
        // One after the other, so that the shifts in them are known.
        add!(0, 1, 2, 3, 4, 5, 6, 7);
    } else {
        for set in 0..sets {
            add!(set);
        }
    }
}

/// Adds the products of one set of a part.
#[inline(always)]
fn one<B: Block, D: Dots, const ROWS: usize>(
    dots: D,
    rows: &[Row; ROWS],
    (at, set): (usize, usize),
    bytes: &[u8],
    scales: &[[f32; FACTORS]; ROWS],
    totals: &mut [[D::Sums; 2]; ROWS],
) {
    let codes = B::codes(dots, &bytes[set / B::SETS * B::BYTES..], set % B::SETS);
    let groups = CODES / B::GROUP;
    for row in 0..ROWS {
        let part = &rows[row].parts[at];
        let total = &mut totals[row][set % 2];
        *total = dots.add::<B>(
            *total,
            codes,
            &part.codes[set],
            &part.starts[set],
            &scales[row][set * groups..][..groups],
        );
    }
}
