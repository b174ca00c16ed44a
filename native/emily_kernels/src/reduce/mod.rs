//! Sums, products and extremes of f32 over any axes. Sums and products are taken in f64: f32 alone loses digits with every
//! addend, f64 loses none that the rounded result would show. An input is walked over as it lies in memory, or computed piece
//! by piece. It is cut by its sizes alone, so that a total does not depend on the threads.

pub mod fold;
mod row;
pub(crate) mod rows;

pub(crate) use row::folded;
use row::{in_rows, row, side_by_side};
use smallvec::SmallVec;

use crate::dispatch::{for_each_level, Level};
use crate::lanes::in_lanes;
use crate::pool::{self, PART};
use crate::view::{bytes, typed, zeros, Axis, Element, Elements, View};

/// What totals are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Product,
    /// NaN goes through.
    Greatest,
    Least,
}

pub(crate) trait Operation: 'static {
    type Total: Total;
    const IDENTITY: Self::Total;
    /// A long row is cut into parts of so many elements.
    const PART: usize = PART;
    fn of(a: Self::Total, b: Self::Total) -> Self::Total;
}

/// The numbers that totals are taken in.
pub(crate) trait Total: Element {
    fn of_f32(x: f32) -> Self;
    fn rounded(self) -> f32;
}

impl Total for f64 {
    #[inline(always)]
    fn of_f32(x: f32) -> f64 {
        x.into()
    }

    #[inline(always)]
    fn rounded(self) -> f32 {
        self as f32
    }
}

impl Total for f32 {
    #[inline(always)]
    fn of_f32(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn rounded(self) -> f32 {
        self
    }
}

pub(crate) struct Sum;
struct Product;
struct Greatest;
struct Least;

impl Operation for Sum {
    type Total = f64;
    const IDENTITY: f64 = 0.0;
    #[inline(always)]
    fn of(a: f64, b: f64) -> f64 {
        a + b
    }
}

impl Operation for Product {
    type Total = f64;
    const IDENTITY: f64 = 1.0;
    /// Products of numbers below one come past those that have fewer digits, with which a processor takes long, in each part.
    const PART: usize = 4 * PART;
    #[inline(always)]
    fn of(a: f64, b: f64) -> f64 {
        a * b
    }
}

impl Operation for Greatest {
    type Total = f32;
    const IDENTITY: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(a: f32, b: f32) -> f32 {
        let greater = if b > a { b } else { a };
        if b.is_nan() {
            b
        } else {
            greater
        }
    }
}

impl Operation for Least {
    type Total = f32;
    const IDENTITY: f32 = f32::INFINITY;
    #[inline(always)]
    fn of(a: f32, b: f32) -> f32 {
        let less = if b < a { b } else { a };
        if b.is_nan() {
            b
        } else {
            less
        }
    }
}

/// How many totals are taken at a time: they stay in a near cache.
const BLOCK: usize = 2048;
/// The totals of a row are taken in lanes, so many at a time.
const WIDTH: usize = 4;
/// So many hide how long an addition takes.
const LANES: usize = 8 * WIDTH;
/// Fewer elements in a row are taken in their order.
const FEW: usize = 4 * WIDTH;
/// What memory gives faster one row after the other than several at a time: rows of less than a page that no cache
/// near the processor holds.
const PAGE: usize = 1024;
const CACHED: usize = 128 * 1024;
/// So many rows are walked over side by side, a piece of so many elements of each in turn, where each is in pages of its own:
/// processors look ahead in each of them, and no further than to the end of a page.
const STREAMS: usize = 4;
const PIECE: usize = 4 * LANES;

/// An axis of the input, with the distance of its elements in the output, which is 0 where it is reduced.
#[derive(Clone, Copy)]
struct Loop {
    size: usize,
    input: isize,
    output: usize,
}

type Loops = SmallVec<[Loop; 6]>;

/// Appends an axis to those around it, as one with the last where they lie as one.
fn append(loops: &mut Loops, inner: Loop) {
    match loops.last_mut() {
        Some(outer)
            if outer.input == inner.size as isize * inner.input
                && outer.output == inner.size * inner.output =>
        {
            *outer = Loop {
                size: outer.size * inner.size,
                ..inner
            }
        }
        _ => loops.push(inner),
    }
}

/// The axes that stay and those that are reduced, each in the order in which the input lies in memory.
fn loops(axes: &[Axis], reduced: &[usize]) -> (Loops, Loops) {
    let mut places: SmallVec<[(Loop, bool); 6]> = SmallVec::new();
    let mut step = 1;
    for (at, axis) in axes
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, axis)| axis.size != 1)
    {
        let is_reduced = reduced.contains(&at);
        let output = if is_reduced { 0 } else { step };
        let place = Loop {
            size: axis.size,
            input: axis.stride,
            output,
        };
        places.push((place, is_reduced));
        if !is_reduced {
            step *= axis.size;
        }
    }
    places.reverse();
    // What is the same all along an axis is walked there last.
    let distance = |place: &Loop| match place.input {
        0 => usize::MAX,
        stride => stride.unsigned_abs(),
    };
    places.sort_by_key(|(place, _)| std::cmp::Reverse(distance(place)));
    let (mut kept, mut gone) = (Loops::new(), Loops::new());
    for (place, is_reduced) in places {
        append(if is_reduced { &mut gone } else { &mut kept }, place);
    }
    (kept, gone)
}

/// Calls `f` with the places in both arrays for each index of the axes, the last axis first.
fn each(loops: &[Loop], input: isize, output: usize, f: &mut impl FnMut(isize, usize)) {
    match loops.split_first() {
        None => f(input, output),
        Some((outer, inner)) => {
            for i in 0..outer.size {
                each(
                    inner,
                    input + i as isize * outer.input,
                    output + i * outer.output,
                    f,
                );
            }
        }
    }
}

/// More columns than these elements have are taken in parts of so many lines at least.
const LINES: usize = 64;

/// The totals of `x` over the axes `reduced`, in row-major order of the axes that stay.
pub fn reduce(level: Level, reduction: Reduction, x: &View, reduced: &[usize], output: &mut [f32]) {
    let sizes: SmallVec<[usize; 6]> = x.axes().iter().map(|axis| axis.size).collect();
    match (x.as_row(), Cut::of(&sizes, reduced)) {
        (Some(row), Some(cut)) => cut.reduce(level, reduction, &Source::Memory(typed(row)), output),
        _ => match reduction {
            Reduction::Sum => walk::<Sum>(level, x, reduced, output),
            Reduction::Product => walk::<Product>(level, x, reduced, output),
            Reduction::Greatest => walk::<Greatest>(level, x, reduced, output),
            Reduction::Least => walk::<Least>(level, x, reduced, output),
        },
    }
}

/// Computes as many numbers as there are from a place on, in row-major order.
pub type Compute<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

/// The totals of numbers of a shape, which are computed piece by piece: those that [`reduce`] gives of them. The axes
/// `reduced` follow each other, but for those of size 1.
pub fn reduce_computed(
    level: Level,
    reduction: Reduction,
    compute: &Compute,
    (sizes, reduced): (&[usize], &[usize]),
    output: &mut [f32],
) {
    match Cut::of(sizes, reduced) {
        Some(cut) => cut.reduce(level, reduction, &Source::Computed(compute), output),
        None => panic!("the axes that are reduced do not follow each other"),
    }
}

/// Whether [`reduce_computed`] knows such axes.
pub fn is_computable(sizes: &[usize], reduced: &[usize]) -> bool {
    Cut::of(sizes, reduced).is_some()
}

enum Source<'a> {
    Memory(&'a [f32]),
    Computed(&'a Compute<'a>),
}

/// Numbers in row-major order: of so many tables each has so many lines, which are added up, of so many columns.
struct Cut {
    tables: usize,
    lines: usize,
    columns: usize,
}

impl Cut {
    fn of(sizes: &[usize], reduced: &[usize]) -> Option<Self> {
        let is_reduced = |at: &usize| sizes[*at] != 1 && reduced.contains(at);
        let first = (0..sizes.len()).find(is_reduced)?;
        let end = 1 + (0..sizes.len()).rfind(is_reduced)?;
        let all = (first..end).all(|at| sizes[at] == 1 || reduced.contains(&at));
        all.then(|| Cut {
            tables: sizes[..first].iter().product(),
            lines: sizes[first..end].iter().product(),
            columns: sizes[end..].iter().product(),
        })
    }

    fn reduce(&self, level: Level, reduction: Reduction, source: &Source, output: &mut [f32]) {
        match reduction {
            Reduction::Sum => self.totals::<Sum>(level, source, output),
            Reduction::Product => self.totals::<Product>(level, source, output),
            Reduction::Greatest => self.totals::<Greatest>(level, source, output),
            Reduction::Least => self.totals::<Least>(level, source, output),
        }
    }

    fn totals<F: Operation>(&self, level: Level, source: &Source, output: &mut [f32]) {
        let (lines, columns) = (self.lines, self.columns);
        let most = LINES.max(F::PART / columns);
        if columns == 1 && lines <= most {
            return self.rows::<F>(level, source, output);
        }
        let parts = lines.div_ceil(most);
        if parts == 1 {
            return self.whole::<F>(level, source, output);
        }
        let mut totals: Vec<F::Total> = zeros(self.tables * parts * columns);
        let group = match columns {
            1 => in_streams(1, totals.len()),
            _ => 1,
        };
        pool::each_part(&mut totals, group * columns, |at, totals| {
            let place = |i: usize| {
                let at = at * group + i;
                let (table, first) = (at / parts, at % parts * most);
                ((table * lines + first) * columns, most.min(lines - first))
            };
            if let (Source::Memory(x), true) = (source, totals.len() == STREAMS && columns == 1) {
                let rows: [&[f32]; STREAMS] = std::array::from_fn(|i| {
                    let (place, count) = place(i);
                    &x[place..place + count]
                });
                if rows.iter().all(|row| row.len() == most) {
                    return side_by_side::<F>(level, &rows, totals);
                }
            }
            for (i, totals) in totals.chunks_exact_mut(columns).enumerate() {
                self.lines::<F>(level, source, place(i), totals, &mut Vec::new());
            }
        });
        let tables = totals.chunks_exact(parts * columns);
        for (out, totals) in output.chunks_exact_mut(columns).zip(tables) {
            for (column, out) in out.iter_mut().enumerate() {
                let parts = totals[column..].iter().step_by(columns);
                *out = parts
                    .fold(F::IDENTITY, |total, part| F::of(total, *part))
                    .rounded();
            }
        }
    }

    /// The totals of tables of a few lines.
    fn whole<F: Operation>(&self, level: Level, source: &Source, output: &mut [f32]) {
        let table = self.lines * self.columns;
        let group = (PART / table).max(1);
        pool::each_part(output, group * self.columns, |at, output| {
            let (mut piece, mut totals) = (Vec::new(), zeros(self.columns));
            for (i, out) in output.chunks_exact_mut(self.columns).enumerate() {
                let place = (at * group + i) * table;
                self.lines::<F>(level, source, (place, self.lines), &mut totals, &mut piece);
                for (out, total) in out.iter_mut().zip(&totals) {
                    *out = total.rounded();
                }
            }
        });
    }

    /// The totals of short rows.
    fn rows<F: Operation>(&self, level: Level, source: &Source, output: &mut [f32]) {
        let group = (PART / self.lines).clamp(1, BLOCK);
        let group = in_streams(group, output.len());
        pool::each_part(output, group, |at, output| {
            let mut totals = [F::IDENTITY; BLOCK];
            let totals = &mut totals[..output.len()];
            let (mut piece, count) = (Vec::new(), output.len() * self.lines);
            let row = source.row(at * group * self.lines, count, &mut piece);
            let lines = Lines {
                kept: Axis {
                    size: output.len(),
                    stride: self.lines as isize,
                },
                reduced: Axis {
                    size: self.lines,
                    stride: 1,
                },
            };
            take::<F>(level, &elements(row), 0, totals, lines, true);
            for (out, total) in output.iter_mut().zip(totals) {
                *out = total.rounded();
            }
        });
    }

    /// Takes so many lines from a place on into the totals of their columns.
    fn lines<F: Operation>(
        &self,
        level: Level,
        source: &Source,
        (place, count): (usize, usize),
        totals: &mut [F::Total],
        piece: &mut Vec<f32>,
    ) {
        for (block, totals) in totals.chunks_mut(BLOCK).enumerate() {
            let (place, width) = (place + block * BLOCK, totals.len());
            let kept = Axis {
                size: width,
                stride: 1,
            };
            let take = |row: &[f32], lines, stride: usize, totals: &mut [F::Total], is_first| {
                let reduced = Axis {
                    size: lines,
                    stride: stride as isize,
                };
                take::<F>(
                    level,
                    &elements(row),
                    0,
                    totals,
                    Lines { kept, reduced },
                    is_first,
                );
            };
            match source {
                Source::Memory(x) => take(&x[place..], count, self.columns, totals, true),
                Source::Computed(compute) => {
                    let most = (PART / width).max(1);
                    for done in (0..count).step_by(most) {
                        let lines = most.min(count - done);
                        piece.resize(lines * width, 0.0);
                        let first = place + done * self.columns;
                        if width == self.columns {
                            compute(first, piece);
                        } else {
                            for (line, piece) in piece.chunks_exact_mut(width).enumerate() {
                                compute(first + line * self.columns, piece);
                            }
                        }
                        take(piece, lines, width, totals, done == 0);
                    }
                }
            }
        }
    }
}

/// How many rows each thread takes at a time, of so many: as many as are walked over side by side, if all threads have some then.
fn in_streams(group: usize, rows: usize) -> usize {
    if rows >= 2 * STREAMS * pool::threads() {
        group.next_multiple_of(STREAMS)
    } else {
        group
    }
}

impl Source<'_> {
    fn row<'a>(&'a self, first: usize, count: usize, piece: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Source::Memory(x) => &x[first..first + count],
            Source::Computed(compute) => {
                piece.resize(count, 0.0);
                compute(first, piece);
                piece
            }
        }
    }
}

fn elements(row: &[f32]) -> Elements<'_, f32> {
    View::row(bytes(row), size_of::<f32>()).elements()
}

/// The totals of what lies in any order.
fn walk<F: Operation>(level: Level, x: &View, reduced: &[usize], output: &mut [f32]) {
    let nothing = Loop {
        size: 1,
        input: 0,
        output: 0,
    };
    let (mut kept, mut gone) = loops(x.axes(), reduced);
    let (near, taken) = (kept.pop().unwrap_or(nothing), gone.pop().unwrap_or(nothing));
    let x = x.elements::<f32>();
    let mut totals = [F::IDENTITY; BLOCK];
    each(&kept, 0, 0, &mut |input, out| {
        for start in (0..near.size).step_by(BLOCK) {
            let count = BLOCK.min(near.size - start);
            let totals = &mut totals[..count];
            let lines = Lines {
                kept: Axis {
                    size: count,
                    stride: near.input,
                },
                reduced: Axis {
                    size: taken.size,
                    stride: taken.input,
                },
            };
            let mut is_first = true;
            each(
                &gone,
                input + start as isize * near.input,
                0,
                &mut |at, _| {
                    take::<F>(level, &x, at, totals, lines, is_first);
                    is_first = false;
                },
            );
            for (i, total) in totals.iter().enumerate() {
                output[out + (start + i) * near.output] = total.rounded();
            }
        }
    });
}

/// The axis that stays and the one that is reduced, nearest in memory.
#[derive(Clone, Copy)]
struct Lines {
    kept: Axis,
    reduced: Axis,
}

for_each_level! {
    /// Takes the elements of both axes into totals, which start at the identity or go on from what is there.
    fn take<F: Operation>(x: &Elements<f32>, at: isize, totals: &mut [F::Total], lines: Lines, is_first: bool) {
        if is_first {
            totals.fill(F::IDENTITY);
        }
        let Lines { kept, reduced } = lines;
        let is_dense = kept.stride == 1 && reduced.stride == kept.size as isize;
        if kept.size == 1 || reduced.stride.unsigned_abs() < kept.stride.unsigned_abs() {
            rows::<F>(x, at, totals, lines);
        } else if is_dense && kept.size <= LANES / 2 && reduced.size >= 2 * LANES {
            few_columns::<F>(x.row(at, kept.size * reduced.size), totals);
        } else {
            columns::<F>(x, at, totals, lines);
        }
    }
}

#[inline(always)]
fn rows<F: Operation>(
    x: &Elements<f32>,
    at: isize,
    totals: &mut [F::Total],
    Lines { kept, reduced }: Lines,
) {
    let in_order = reduced.stride != 1 || reduced.size < FEW;
    if in_order && reduced.stride == 1 && kept.stride == reduced.size as isize {
        let rows = x
            .row(at, kept.size * reduced.size)
            .chunks_exact(reduced.size);
        for (total, row) in totals.iter_mut().zip(rows) {
            *total = row
                .iter()
                .fold(*total, |total, x| F::of(total, F::Total::of_f32(*x)));
        }
        return;
    }
    let mut done = 0;
    // As many rows at a time as a vector has totals.
    while in_order && done + WIDTH <= kept.size {
        let mut lanes = [F::IDENTITY; WIDTH];
        lanes.copy_from_slice(&totals[done..done + WIDTH]);
        let first = at + done as isize * kept.stride;
        for i in 0..reduced.size {
            for (lane, total) in lanes.iter_mut().enumerate() {
                let place = first + lane as isize * kept.stride + i as isize * reduced.stride;
                *total = F::of(*total, F::Total::of_f32(x.at(place)));
            }
        }
        totals[done..done + WIDTH].copy_from_slice(&lanes);
        done += WIDTH;
    }
    while !in_order && reduced.size >= PAGE && done + STREAMS <= kept.size {
        let first = at + done as isize * kept.stride;
        let rows = std::array::from_fn(|i| x.row(first + i as isize * kept.stride, reduced.size));
        in_rows::<F>(&rows, &mut totals[done..]);
        done += STREAMS;
    }
    for (i, total) in totals.iter_mut().enumerate().skip(done) {
        *total = row::<F>(x, at + i as isize * kept.stride, reduced, *total);
    }
}

/// COUNT rows are taken at a time, so that a total is read and written once for all of them.
#[inline(always)]
fn add_rows<F: Operation, const COUNT: usize>(rows: [&[f32]; COUNT], totals: &mut [F::Total]) {
    let rows = rows.map(|row| &row[..totals.len()]);
    for (at, total) in totals.iter_mut().enumerate() {
        *total = rows
            .iter()
            .fold(*total, |total, row| F::of(total, F::Total::of_f32(row[at])));
    }
}

#[inline(always)]
fn columns<F: Operation>(
    x: &Elements<f32>,
    at: isize,
    totals: &mut [F::Total],
    Lines { kept, reduced }: Lines,
) {
    let line = |i: usize| at + i as isize * reduced.stride;
    if kept.stride != 1 {
        for i in 0..reduced.size {
            for (column, total) in totals.iter_mut().enumerate() {
                let x = x.at(line(i) + column as isize * kept.stride);
                *total = F::of(*total, F::Total::of_f32(x));
            }
        }
        return;
    }
    let row = |i: usize| x.row(line(i), kept.size);
    let in_turn = kept.size < PAGE && kept.size * reduced.size > CACHED;
    add_all::<F>(row, reduced.size, in_turn, totals);
}

/// Adds so many rows, several at a time or each in its turn.
#[inline(always)]
fn add_all<'a, F: Operation>(
    row: impl Fn(usize) -> &'a [f32],
    count: usize,
    in_turn: bool,
    totals: &mut [F::Total],
) {
    let mut done = 0;
    while !in_turn && done + 8 <= count {
        add_rows::<F, 8>(std::array::from_fn(|i| row(done + i)), totals);
        done += 8;
    }
    while !in_turn && done + 2 <= count {
        add_rows::<F, 2>([row(done), row(done + 1)], totals);
        done += 2;
    }
    for i in done..count {
        add_rows::<F, 1>([row(i)], totals);
    }
}

/// Rows of a few elements without gaps are as well fewer long rows, which have every total several times.
#[inline(always)]
fn few_columns<F: Operation>(x: &[f32], totals: &mut [F::Total]) {
    let few = totals.len();
    if LANES.is_multiple_of(few) {
        let take = |total, x| F::of(total, F::Total::of_f32(x));
        let (many, rest) = in_lanes(x, [F::IDENTITY; LANES], take);
        return add_up::<F>(&many, rest, totals);
    }
    let width = LANES / few * few;
    let mut many = [F::IDENTITY; LANES];
    let many = &mut many[..width];
    let rows = x.len() / width;
    add_all::<F>(|i| &x[i * width..(i + 1) * width], rows, false, many);
    add_up::<F>(many, &x[rows * width..], totals);
}

/// Adds rows of totals, and rows of what is left over.
#[inline(always)]
fn add_up<F: Operation>(many: &[F::Total], rest: &[f32], totals: &mut [F::Total]) {
    for part in many.chunks_exact(totals.len()) {
        for (total, x) in totals.iter_mut().zip(part) {
            *total = F::of(*total, *x);
        }
    }
    for row in rest.chunks_exact(totals.len()) {
        add_rows::<F, 1>([row], totals);
    }
}
