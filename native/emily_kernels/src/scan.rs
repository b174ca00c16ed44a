//! Sums, products, greatest and least numbers along an axis, of all elements up to each. Those of floats are taken in f64
//! and each is rounded once; integers wrap, NaN stays. A long row is cut by its length alone, so that the threads do not show.

use half::{bf16, f16};

use crate::dispatch::{for_each_level, Level};
use crate::lanes::in_lanes;
use crate::number::Number;
use crate::pool::{self, Shared, PART};
use crate::real::Real;
use crate::view::{typed, typed_mut, zeros, Element, View, Walk};

/// What totals are taken in.
pub trait Total: Number {
    /// What is added to any number and leaves it as it is, minus zero too.
    const NOTHING: Self;
    const ONE: Self;
    const LEAST: Self;
    const GREATEST: Self;
}

macro_rules! integers {
    ($($type:ident)*) => {
        $(
            impl Total for $type {
                const NOTHING: Self = 0;
                const ONE: Self = 1;
                const LEAST: Self = $type::MIN;
                const GREATEST: Self = $type::MAX;
            }

            impl Scanned for $type {
                type Total = $type;
                const IS_FLOAT: bool = false;
                const SUMS_IN_PARTS: bool = true;
                #[inline(always)]
                fn wide(self) -> $type { self }
                #[inline(always)]
                fn narrow(total: $type) -> Self { total }
            }
        )*
    };
}

impl Total for f64 {
    const NOTHING: Self = -0.0;
    const ONE: Self = 1.0;
    const LEAST: Self = f64::NEG_INFINITY;
    const GREATEST: Self = f64::INFINITY;
}

/// An element with what its totals are taken in.
pub trait Scanned: Element {
    type Total: Total;
    /// A part's product of floats may leave the range of f64 where what is before it does not let the whole.
    const IS_FLOAT: bool;
    /// Whether numbers may be added up in parts: where the result does not have the digits that show it.
    const SUMS_IN_PARTS: bool;
    fn wide(self) -> Self::Total;
    fn narrow(total: Self::Total) -> Self;
}

integers!(u8 u16 u32 u64 i8 i16 i32 i64);

macro_rules! reals {
    ($($type:ident)*) => {
        $(impl Scanned for $type {
            type Total = f64;
            const IS_FLOAT: bool = true;
            const SUMS_IN_PARTS: bool = true;
            #[inline(always)]
            fn wide(self) -> f64 { Real::wide(self).into() }
            #[inline(always)]
            fn narrow(total: f64) -> Self { Real::narrow(total as f32) }
        })*
    };
}

reals!(f32 f16 bf16);

impl Scanned for f64 {
    type Total = f64;
    const IS_FLOAT: bool = true;
    const SUMS_IN_PARTS: bool = false;
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(total: f64) -> f64 {
        total
    }
}

/// What an element and the total before it give.
pub trait Operation<T: Scanned>: 'static {
    const IDENTITY: T::Total;
    /// Whether elements may be taken in parts, and the parts together.
    const IN_PARTS: bool;
    /// Whether vectors of elements are taken faster than one element after the other.
    const IN_VECTORS: bool;
    fn of(total: T::Total, x: T::Total) -> T::Total;
    /// Whether `of_simple` gives the same of these.
    #[inline(always)]
    fn are_simple(_x: &[T], _total: T::Total) -> bool {
        true
    }
    #[inline(always)]
    fn of_simple(total: T::Total, x: T::Total) -> T::Total {
        Self::of(total, x)
    }
}

pub struct Sum;
pub struct Product;
pub struct Greatest;
pub struct Least;

impl<T: Scanned> Operation<T> for Sum {
    const IDENTITY: T::Total = T::Total::NOTHING;
    const IN_PARTS: bool = T::SUMS_IN_PARTS;
    const IN_VECTORS: bool = T::SUMS_IN_PARTS && T::IS_FLOAT;
    #[inline(always)]
    fn of(total: T::Total, x: T::Total) -> T::Total {
        total.plus(x)
    }
}

impl<T: Scanned> Operation<T> for Product {
    const IDENTITY: T::Total = T::Total::ONE;
    const IN_PARTS: bool = !T::IS_FLOAT;
    const IN_VECTORS: bool = false;
    #[inline(always)]
    fn of(total: T::Total, x: T::Total) -> T::Total {
        total.times(x)
    }
}

macro_rules! extremes {
    ($($name:ident: $identity:ident, $is_further:tt;)*) => {
        $(impl<T: Scanned> Operation<T> for $name {
            const IDENTITY: T::Total = T::Total::$identity;
            const IN_PARTS: bool = true;
            const IN_VECTORS: bool = T::IS_FLOAT;
            #[inline(always)]
            fn of(total: T::Total, x: T::Total) -> T::Total {
                if x.is_nan() {
                    x
                } else {
                    <Self as Operation<T>>::of_simple(total, x)
                }
            }
            #[inline(always)]
            fn are_simple(x: &[T], total: T::Total) -> bool {
                !total.is_nan() && are_numbers(x)
            }
            #[inline(always)]
            fn of_simple(total: T::Total, x: T::Total) -> T::Total {
                if x $is_further total {
                    x
                } else {
                    total
                }
            }
        })*
    };
}

extremes! {
    Greatest: LEAST, >;
    Least: GREATEST, <;
}

#[inline(always)]
fn are_numbers<T: Scanned>(x: &[T]) -> bool {
    !x.iter().fold(false, |any, x| any | x.wide().is_nan())
}

/// A row of more elements is cut, and a table of more, whose columns are taken side by side in less time; under Miri, which
/// takes seconds for a part, what has more than a part.
const ROW: usize = if cfg!(miri) { PART } else { 2 * PART };
const TABLE: usize = if cfg!(miri) { PART } else { 4 * PART };
/// More columns are cut into as many blocks as there are tasks, of not more than these.
const COLUMNS: usize = PART / 8;
/// Where so many tasks are beside each other, lines are not cut into parts; else they are, those of several columns into so
/// many.
const TASKS: usize = 4;
const PARTS: usize = 16;
/// So many elements are taken together, which stay in the nearest cache.
const STRETCH: usize = 1024;
/// At least so many lines are taken together, so that the totals of their columns stay in registers.
const LINES: usize = 4;
/// Fewer columns are taken several lines at a time where nothing but their totals is asked for.
const FEW: usize = 16;
/// Elements of a row that are taken at a time.
const WIDTH: usize = 8;
/// Totals that hide how long an operation takes.
const LANES: usize = 32;

/// The totals of all elements up to each along an axis, or from the axis's end on, in row-major order.
pub fn scan<F: Operation<T>, T: Scanned>(
    level: Level,
    x: &View,
    axis: usize,
    reverse: bool,
    output: &mut [u8],
) {
    let output: &mut [T] = typed_mut(output);
    let lines = x.axes()[axis].size;
    let columns: usize = x.axes()[axis + 1..].iter().map(|axis| axis.size).product();
    if output.is_empty() {
        return;
    }
    let source = match x.as_row() {
        Some(row) => Source::Memory(typed(row)),
        None => Source::Strided(x),
    };
    let scan = Scan {
        level,
        source,
        lines,
        columns,
        reverse,
    };
    match lines * columns <= if columns == 1 { ROW } else { TABLE } {
        true => scan.small::<F>(output),
        false => scan.large::<F>(output),
    }
}

/// Tables, one behind the other, of so many lines of so many columns; totals go from line to line.
struct Scan<'a, T> {
    level: Level,
    source: Source<'a, T>,
    lines: usize,
    columns: usize,
    reverse: bool,
}

enum Source<'a, T> {
    Memory(&'a [T]),
    Strided(&'a View<'a>),
}

impl<T: Element> Source<'_, T> {
    /// So many elements from a place on, in row-major order.
    fn piece<'a>(&'a self, place: usize, count: usize, buffer: &'a mut Vec<T>) -> &'a [T] {
        match self {
            Source::Memory(x) => &x[place..place + count],
            Source::Strided(view) => {
                if buffer.len() < count {
                    *buffer = zeros(count);
                }
                let piece = &mut buffer[..count];
                let mut walk = Walk::new(view);
                walk.skip(place);
                walk.copy(crate::view::bytes_mut(piece));
                piece
            }
        }
    }
}

impl<T: Scanned> Scan<'_, T> {
    /// Tables that are small enough for a thread, several at a time.
    fn small<F: Operation<T>>(&self, output: &mut [T]) {
        let table = self.lines * self.columns;
        let part = (PART / table).max(1) * table;
        pool::each_part(output, part, |at, output| {
            let mut buffer = Vec::new();
            let x = self.source.piece(at * part, output.len(), &mut buffer);
            let mut totals = zeros(self.columns);
            tables::<F, T>(self.level, x, output, table, &mut totals, self.reverse);
        });
    }

    /// Tables that are cut into blocks of columns, and where these are few into parts of lines too: of all parts but the
    /// last the totals are taken before.
    fn large<F: Operation<T>>(&self, output: &mut [T]) {
        let Scan { lines, columns, .. } = *self;
        let width = match columns < COLUMNS {
            true => columns,
            false => columns.div_ceil(TASKS).min(COLUMNS),
        };
        let blocks = columns.div_ceil(width);
        let tasks = output.len() / (lines * columns) * blocks;
        let in_part = match F::IN_PARTS && tasks < TASKS {
            true if columns == 1 => PART,
            true => PART.div_ceil(width).max(lines.div_ceil(PARTS)),
            false => lines,
        };
        let parts = lines.div_ceil(in_part);
        let piece = |task: usize| {
            let (table, block, part) = (task / parts / blocks, task / parts % blocks, task % parts);
            let first = part * in_part;
            Piece {
                place: (table * lines + first) * columns + block * width,
                width: width.min(columns - block * width),
                lines: in_part.min(lines - first),
            }
        };
        let tasks = tasks * parts;
        let mut before = vec![F::IDENTITY; tasks * width];
        if parts > 1 {
            pool::each_part(&mut before, width, |task, totals| {
                let mut buffer = Vec::new();
                let piece = piece(task);
                let totals = &mut totals[..piece.width];
                self.stretches(&piece, |place, count| {
                    let x = self.source.piece(place, count, &mut buffer);
                    total::<F, T>(self.level, x, totals);
                });
            });
            for parts in before.chunks_exact_mut(parts * width) {
                self.shift::<F>(parts, width);
            }
        }
        let (output, before) = (Shared::of(output), &before);
        pool::each(tasks, |at| {
            let task = if self.reverse { tasks - 1 - at } else { at };
            let piece = piece(task);
            let mut totals = before[task * width..][..piece.width].to_vec();
            let mut buffer = Vec::new();
            self.stretches(&piece, |place, count| {
                let x = self.source.piece(place, count, &mut buffer);
                // SAFETY: each element lies in one stretch of one task, which is computed once.
                let output = unsafe { output.part(place, count) };
                scanned::<F, T>(self.level, x, output, &mut totals, self.reverse);
            });
        });
    }

    /// The totals of parts become those of all parts before each.
    fn shift<F: Operation<T>>(&self, parts: &mut [T::Total], width: usize) {
        let mut totals = vec![F::IDENTITY; width];
        let mut shift = |part: &mut [T::Total]| {
            for (before, total) in part.iter_mut().zip(&mut totals) {
                (*before, *total) = (*total, F::of(*total, *before));
            }
        };
        match self.reverse {
            false => parts.chunks_exact_mut(width).for_each(shift),
            true => parts.chunks_exact_mut(width).rev().for_each(&mut shift),
        }
    }

    /// Calls `f` with the place and the count of elements that lie together, from the first lines to the last, or
    /// backwards.
    fn stretches(&self, piece: &Piece, mut f: impl FnMut(usize, usize)) {
        let most = match piece.width == self.columns {
            true => PART.div_ceil(piece.width),
            false => 1,
        };
        let count = piece.lines.div_ceil(most);
        for at in 0..count {
            let first = most * if self.reverse { count - 1 - at } else { at };
            let lines = most.min(piece.lines - first);
            f(piece.place + first * self.columns, lines * piece.width);
        }
    }
}

/// Some lines of some columns, from the place of the first element on.
struct Piece {
    place: usize,
    width: usize,
    lines: usize,
}

for_each_level! {
    /// The totals of several tables of so many elements.
    fn tables<F: Operation<T>, T: Scanned>(
        x: &[T], output: &mut [T], table: usize, totals: &mut [T::Total], reverse: bool
    ) {
        for (x, output) in x.chunks_exact(table).zip(output.chunks_exact_mut(table)) {
            totals.fill(F::IDENTITY);
            lines::<F, T>(x, output, totals, reverse);
        }
    }
}

for_each_level! {
    /// The totals of lines, of as many columns as there are totals, behind what these hold.
    fn scanned<F: Operation<T>, T: Scanned>(
        x: &[T], output: &mut [T], totals: &mut [T::Total], reverse: bool
    ) {
        lines::<F, T>(x, output, totals, reverse);
    }
}

for_each_level! {
    /// Takes lines into the totals of their columns.
    fn total<F: Operation<T>, T: Scanned>(x: &[T], totals: &mut [T::Total]) {
        if let [total] = totals {
            return row_total::<F, T>(x, total);
        }
        let columns = totals.len();
        let mut rest = x;
        if columns < FEW {
            // Several lines are as well one longer line.
            let width = LANES / columns * columns;
            let mut lanes = [F::IDENTITY; LANES];
            let lanes = &mut lanes[..width];
            let long = x.chunks_exact(width);
            rest = long.remainder();
            for line in long {
                for (total, x) in lanes.iter_mut().zip(line) {
                    *total = F::of(*total, x.wide());
                }
            }
            for line in lanes.chunks_exact(columns) {
                for (total, x) in totals.iter_mut().zip(line) {
                    *total = F::of(*total, *x);
                }
            }
        }
        for line in rest.chunks_exact(columns) {
            for (total, x) in totals.iter_mut().zip(line) {
                *total = F::of(*total, x.wide());
            }
        }
    }
}

#[inline(always)]
fn lines<F: Operation<T>, T: Scanned>(
    x: &[T],
    output: &mut [T],
    totals: &mut [T::Total],
    reverse: bool,
) {
    if let [total] = totals {
        return match reverse {
            true => in_row::<F, T, true>(x, output, total),
            false => in_row::<F, T, false>(x, output, total),
        };
    }
    in_columns::<F, T>(x, output, totals, reverse);
}

/// Some lines are taken as often as their columns need, while they stay in the nearest cache.
#[inline(always)]
fn in_columns<F: Operation<T>, T: Scanned>(
    x: &[T],
    output: &mut [T],
    totals: &mut [T::Total],
    reverse: bool,
) {
    let most = (STRETCH / totals.len()).max(LINES) * totals.len();
    let mut done = 0;
    while done < x.len() {
        let count = most.min(x.len() - done);
        let first = if reverse {
            x.len() - done - count
        } else {
            done
        };
        let (x, output) = (&x[first..first + count], &mut output[first..first + count]);
        let at = few_columns::<F, T, 32>(x, output, 0, totals, reverse);
        let at = few_columns::<F, T, 8>(x, output, at, totals, reverse);
        let at = few_columns::<F, T, 4>(x, output, at, totals, reverse);
        let at = few_columns::<F, T, 2>(x, output, at, totals, reverse);
        few_columns::<F, T, 1>(x, output, at, totals, reverse);
        done += count;
    }
}

/// The totals of columns from a place on, so many at a time, which stay in registers. Gives where the next column is.
#[inline(always)]
fn few_columns<F: Operation<T>, T: Scanned, const COUNT: usize>(
    x: &[T],
    output: &mut [T],
    mut at: usize,
    totals: &mut [T::Total],
    reverse: bool,
) -> usize {
    let columns = totals.len();
    while at + COUNT <= columns {
        let totals = &mut totals[at..at + COUNT];
        let mut here = [F::IDENTITY; COUNT];
        here.copy_from_slice(totals);
        let lines = x.len() / columns;
        for i in 0..lines {
            let place = at + columns * if reverse { lines - 1 - i } else { i };
            let (x, output) = (&x[place..place + COUNT], &mut output[place..place + COUNT]);
            for i in 0..COUNT {
                here[i] = F::of(here[i], x[i].wide());
                output[i] = T::narrow(here[i]);
            }
        }
        totals.copy_from_slice(&here);
        at += COUNT;
    }
    at
}

#[inline(always)]
fn in_row<F: Operation<T>, T: Scanned, const REVERSE: bool>(
    x: &[T],
    output: &mut [T],
    total: &mut T::Total,
) {
    let mut done = 0;
    while done < x.len() {
        let count = STRETCH.min(x.len() - done);
        let first = if REVERSE {
            x.len() - done - count
        } else {
            done
        };
        let (x, output) = (&x[first..first + count], &mut output[first..first + count]);
        let whole = match F::IN_VECTORS && F::are_simple(x, *total) {
            true => in_vectors::<F, T, REVERSE>(x, output, total),
            false => 0,
        };
        let mut here = *total;
        for i in whole..count {
            let i = if REVERSE { count - 1 - i } else { i };
            here = F::of(here, x[i].wide());
            output[i] = T::narrow(here);
        }
        *total = here;
        done += count;
    }
}

/// Takes whole vectors, and gives how many elements these are.
#[inline(always)]
fn in_vectors<F: Operation<T>, T: Scanned, const REVERSE: bool>(
    x: &[T],
    output: &mut [T],
    total: &mut T::Total,
) -> usize {
    let count = x.len();
    let whole = count - count % WIDTH;
    let turned = |i: usize| if REVERSE { WIDTH - 1 - i } else { i };
    let mut here = *total;
    for done in (0..whole).step_by(WIDTH) {
        let at = if REVERSE { count - done - WIDTH } else { done };
        let (x, output) = (&x[at..at + WIDTH], &mut output[at..at + WIDTH]);
        let totals: [T::Total; WIDTH] = std::array::from_fn(|i| x[turned(i)].wide());
        let totals = with_earlier::<F, T, 1>(totals);
        let totals = with_earlier::<F, T, 2>(totals);
        let totals = with_earlier::<F, T, 4>(totals);
        // The next vector waits for nothing but this.
        let before = here;
        here = F::of_simple(here, totals[WIDTH - 1]);
        for i in 0..WIDTH {
            output[i] = T::narrow(F::of_simple(before, totals[turned(i)]));
        }
    }
    *total = here;
    whole
}

/// Each with the one so many places before it.
#[inline(always)]
fn with_earlier<F: Operation<T>, T: Scanned, const DISTANCE: usize>(
    x: [T::Total; WIDTH],
) -> [T::Total; WIDTH] {
    let before: [T::Total; WIDTH] = std::array::from_fn(|i| match i.checked_sub(DISTANCE) {
        Some(before) => x[before],
        None => F::IDENTITY,
    });
    std::array::from_fn(|i| F::of_simple(before[i], x[i]))
}

#[inline(always)]
fn row_total<F: Operation<T>, T: Scanned>(x: &[T], total: &mut T::Total) {
    let take = |total, x: &T| F::of(total, x.wide());
    // The compiler takes integers in any order by itself.
    if !T::IS_FLOAT {
        *total = x.iter().fold(*total, take);
        return;
    }
    let (lanes, rest) = in_lanes(x, [F::IDENTITY; LANES], |total, x| take(total, &x));
    *total = lanes.into_iter().fold(*total, F::of);
    *total = rest.iter().fold(*total, take);
}
