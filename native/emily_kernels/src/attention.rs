//! Attention that streams over the keys: of the scores there is never more than a block for each thread.
//!
//! The weights of a row are exponentials of its scores less the greatest so far. When a greater one comes, what was
//! summed up is scaled down (Milakov and Gimelshein, "Online normalizer calculation for softmax").

use std::cell::RefCell;
use std::ops::Range;

use crate::dispatch::{for_each_level, Level};
use crate::gemm::{self, Matrix, Output, Work};
use crate::math::{Arithmetic, Exp, Unary};
use crate::norm::{greater, greatest, sum};
use crate::pool::{self, Shared};
use crate::real::Real;
use crate::view::{Axis, Element, Elements, View};

/// What a query sees.
#[derive(Clone, Debug)]
pub enum Mask<'a> {
    /// All keys.
    None,
    /// The keys up to its own; the last query's is the last key. A query before the first key sees all alike.
    Causal,
    /// By numbers that are added to the scores, of shape `[batches, heads, queries, keys]`.
    Added(View<'a>),
    /// The keys whose byte is not 0, of the same shape. Where none is, all alike.
    Seen(View<'a>),
}

/// `softmax(scale * q k^T + mask) v`. The heads of `k` and `v` divide those of `q`: as many of these follow each other
/// that share one.
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// `[batches, heads, queries, size]`
    pub q: View<'a>,
    /// `[batches, key heads, keys, size]`
    pub k: View<'a>,
    /// `[batches, key heads, keys, value size]`
    pub v: View<'a>,
    pub scale: f32,
    pub mask: Mask<'a>,
    /// One more score for each head, in the denominator alone.
    pub sinks: Option<View<'a>>,
}

/// So many rows of queries, of all heads that share keys, are multiplied at once: whole panels of the products.
const ROWS: usize = 96;
/// So many keys are: as many terms as the products add up in registers. Fewer under Miri, which takes a minute for a block.
const KEYS: usize = if cfg!(miri) { 16 } else { 256 };
/// So many elements of queries, or of keys and values, are copied at once, but for a single one that is larger.
const COPIED: usize = 1 << 17;
/// An exponential takes as long as so many multiplications.
const EXPONENTIAL: usize = 80;
/// Fewer multiplications than these are not worth waking a thread; under Miri, which takes a minute for these, fewer.
const SHARED: usize = if cfg!(miri) { 1 << 13 } else { 1 << 22 };

/// Computes attention into an output of shape `[batches, queries, heads, value size]`, on several threads where that
/// pays. What a row gives depends on the shapes and on what it reads alone.
pub fn attend<T: Real>(level: Level, attention: &Attention, output: &mut [T]) {
    let problem = Problem::<T>::of(attention);
    let Sizes {
        batches,
        heads,
        queries,
        keys,
        values,
        ..
    } = problem.sizes;
    assert_eq!(output.len(), batches * heads * queries * values);
    if keys == 0 || output.is_empty() {
        return output.fill(T::default());
    }
    let output = Shared::of(output);
    let compute = |number| {
        SCRATCH.with_borrow_mut(|scratch| part(level, &problem, number, level, scratch, &output));
    };
    let parts = problem.parts();
    if problem.cost() < SHARED {
        (0..parts).for_each(compute);
    } else {
        pool::each(parts, compute);
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// A thread's memory for one part.
struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    rows: Vec<Row>,
}

/// How far a row's softmax is: its greatest score so far, and the sum of the exponentials of the scores less that.
#[derive(Clone, Copy)]
struct Row {
    most: f32,
    total: f32,
}

impl Scratch {
    const fn new() -> Self {
        Scratch {
            queries: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            scores: Vec::new(),
            sums: Vec::new(),
            rows: Vec::new(),
        }
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    batches: usize,
    heads: usize,
    key_heads: usize,
    queries: usize,
    keys: usize,
    size: usize,
    values: usize,
}

/// An array of four axes.
struct Operand<'a, T: Element> {
    elements: Elements<'a, T>,
    axes: [Axis; 4],
}

impl<'a, T: Element> Operand<'a, T> {
    fn of(view: &View<'a>, shape: [usize; 4]) -> Self {
        let axes: [Axis; 4] = view.axes().try_into().expect("four axes");
        assert_eq!(
            axes.map(|axis| axis.size),
            shape,
            "arrays that fit together"
        );
        Operand {
            elements: view.elements(),
            axes,
        }
    }

    /// How far a row along the last axis is from the first element.
    #[inline(always)]
    fn distance(&self, batch: usize, head: usize, row: usize) -> isize {
        let [batches, heads, rows, _] = self.axes;
        batch as isize * batches.stride + head as isize * heads.stride + row as isize * rows.stride
    }

    /// Goes through elements of a row, beside what there is one of for each.
    #[inline(always)]
    fn zip<U>(&self, row: isize, columns: Range<usize>, others: &mut [U], f: impl Fn(&mut U, T)) {
        let stride = self.axes[3].stride;
        let first = row + columns.start as isize * stride;
        let others = &mut others[..columns.len()];
        match stride {
            1 => {
                let elements = self.elements.row(first, columns.len());
                for (other, element) in others.iter_mut().zip(elements) {
                    f(other, *element);
                }
            }
            _ => {
                for (i, other) in others.iter_mut().enumerate() {
                    f(other, self.elements.at(first + i as isize * stride));
                }
            }
        }
    }
}

impl<T: Real> Operand<'_, T> {
    /// Rows as a matrix of f32: in their place where they are of f32, or else in a copy.
    #[inline(always)]
    fn matrix(
        &self,
        batch: usize,
        head: usize,
        rows: Range<usize>,
        copy: &mut Vec<f32>,
    ) -> Matrix<f32> {
        let [.., along, across] = self.axes;
        let (memory, first) = self.elements.memory();
        if let Some(memory) = T::as_wide(memory) {
            let first = first + self.distance(batch, head, rows.start);
            return Matrix {
                data: memory.as_ptr().wrapping_offset(first),
                row: along.stride,
                column: across.stride,
            };
        }
        let size = across.size;
        copy.resize((rows.len() * size).max(copy.len()), 0.0);
        for (i, row) in rows.enumerate() {
            let to = &mut copy[i * size..(i + 1) * size];
            self.zip(self.distance(batch, head, row), 0..size, to, |to, x| {
                *to = x.wide()
            });
        }
        Matrix {
            data: copy.as_ptr(),
            row: size as isize,
            column: 1,
        }
    }
}

enum Hidden<'a, T: Element> {
    Nothing,
    Later,
    Added(Operand<'a, T>),
    Zeros(Operand<'a, u8>),
}

struct Problem<'a, T: Real> {
    sizes: Sizes,
    q: Operand<'a, T>,
    k: Operand<'a, T>,
    v: Operand<'a, T>,
    scale: f32,
    hidden: Hidden<'a, T>,
    sinks: Option<Vec<f32>>,
    /// How many rows and keys are taken at once.
    rows: usize,
    block: usize,
}

impl<'a, T: Real> Problem<'a, T> {
    fn of(attention: &Attention<'a>) -> Self {
        let [q, k, v] = [&attention.q, &attention.k, &attention.v].map(|view| {
            let axes: [Axis; 4] = view.axes().try_into().expect("four axes");
            axes.map(|axis| axis.size)
        });
        let ([batches, heads, queries, size], [_, key_heads, keys, _]) = (q, k);
        let sizes = Sizes {
            batches,
            heads,
            key_heads,
            queries,
            keys,
            size,
            values: v[3],
        };
        assert!(key_heads > 0 && heads % key_heads == 0, "groups of heads");
        let scores = [batches, heads, queries, keys];
        let most = |limit: usize| (COPIED / (size + v[3]).max(1)).clamp(1, limit);
        Problem {
            sizes,
            q: Operand::of(&attention.q, q),
            k: Operand::of(&attention.k, [batches, key_heads, keys, size]),
            v: Operand::of(&attention.v, [batches, key_heads, keys, v[3]]),
            scale: attention.scale,
            hidden: match &attention.mask {
                Mask::None => Hidden::Nothing,
                Mask::Causal => Hidden::Later,
                Mask::Added(mask) => Hidden::Added(Operand::of(mask, scores)),
                Mask::Seen(mask) => Hidden::Zeros(Operand::of(mask, scores)),
            },
            sinks: attention.sinks.as_ref().map(|sinks| {
                let (elements, stride) = (sinks.elements::<T>(), sinks.axes()[0].stride);
                (0..heads)
                    .map(|head| elements.at(head as isize * stride).wide())
                    .collect()
            }),
            rows: most(ROWS),
            block: most(KEYS),
        }
    }

    /// How many heads share one of the keys.
    fn group(&self) -> usize {
        self.sizes.heads / self.sizes.key_heads
    }

    fn chunks(&self) -> usize {
        (self.group() * self.sizes.queries).div_ceil(self.rows)
    }

    fn parts(&self) -> usize {
        self.sizes.batches * self.sizes.key_heads * self.chunks()
    }

    fn cost(&self) -> usize {
        let Sizes {
            batches,
            heads,
            queries,
            keys,
            size,
            values,
            ..
        } = self.sizes;
        [heads, queries, keys, size + values + EXPONENTIAL]
            .iter()
            .fold(batches, |product, factor| product.saturating_mul(*factor))
    }

    /// How many keys a query sees by where it stands; none where it stands before the first.
    #[inline(always)]
    fn seen(&self, query: usize) -> Option<usize> {
        let Sizes { queries, keys, .. } = self.sizes;
        match self.hidden {
            Hidden::Later => (query + keys + 1)
                .checked_sub(queries)
                .filter(|seen| *seen > 0),
            _ => Some(keys),
        }
    }
}

for_each_level! {
    /// Some rows of the heads that share keys: the queries one after the other, of each all heads.
    fn part<T: Real; A>(
        problem: &Problem<T>,
        number: usize,
        products: Level,
        scratch: &mut Scratch,
        output: &Shared<T>,
    ) {
        let Sizes { heads, key_heads, queries, keys, size, values, .. } = problem.sizes;
        let group = problem.group();
        let (chunk, head) = (number % problem.chunks(), number / problem.chunks());
        let (batch, key_head) = (head / key_heads, head % key_heads);
        let first = chunk * problem.rows;
        let count = problem.rows.min(group * queries - first);
        // The query and the head of a row.
        let place = |row: usize| {
            let row = first + row;
            (row / group, key_head * group + row % group)
        };

        let Scratch { queries: q, keys: k, values: v, scores, sums, rows } = scratch;
        q.resize(q.len().max(count * size), 0.0);
        for row in 0..count {
            let (query, head) = place(row);
            let from = problem.q.distance(batch, head, query);
            let to = &mut q[row * size..(row + 1) * size];
            problem.q.zip(from, 0..size, to, |to, x| *to = x.wide() * problem.scale);
        }
        rows.clear();
        rows.extend((0..count).map(|row| {
            let sink = problem.sinks.as_ref().map_or(f32::NEG_INFINITY, |sinks| sinks[place(row).1]);
            let total = if sink == f32::NEG_INFINITY { 0.0 } else { 1.0 };
            Row { most: sink, total }
        }));
        scores.resize(scores.len().max(count * problem.block), 0.0);
        sums.resize(sums.len().max(count * values), 0.0);
        let sums = &mut sums[..count * values];
        sums.fill(0.0);

        // The first row sees the fewest keys, the last one the most, but that who sees none takes all.
        let end = match problem.seen(place(0).0) {
            Some(_) => problem.seen(place(count - 1).0).unwrap_or(keys),
            None => keys,
        };
        for from in (0..end).step_by(problem.block) {
            let block = from..end.min(from + problem.block);
            let width = block.len();
            let right = problem.k.matrix(batch, key_head, block.clone(), k);
            let right = Matrix { row: right.column, column: right.row, ..right };
            product(products, [count, size, width], q, right, 0.0, scores);
            for (row, scores) in scores.chunks_exact_mut(width).take(count).enumerate() {
                let (query, head) = place(row);
                let mut seen = width;
                match &problem.hidden {
                    Hidden::Nothing => {}
                    Hidden::Later => match problem.seen(query) {
                        Some(all) => seen = all.saturating_sub(from).min(width),
                        None => scores.fill(f32::MIN),
                    },
                    Hidden::Added(mask) => {
                        let at = mask.distance(batch, head, query);
                        mask.zip(at, block.clone(), scores, |score, x| *score += x.wide());
                    }
                    Hidden::Zeros(mask) => {
                        let at = mask.distance(batch, head, query);
                        mask.zip(at, block.clone(), scores, |score, x| {
                            *score = if x == 0 { f32::MIN } else { *score };
                        });
                    }
                }
                weigh::<A>(scores, seen, &mut rows[row], &mut sums[row * values..(row + 1) * values]);
            }
            let right = problem.v.matrix(batch, key_head, block, v);
            product(products, [count, width, values], scores, right, 1.0, sums);
        }

        for row in 0..count {
            let (query, head) = place(row);
            let inverse = 1.0 / rows[row].total;
            let at = ((batch * queries + query) * heads + head) * values;
            // SAFETY: no other part has this row.
            let to = unsafe { output.part(at, values) };
            for (to, sum) in to.iter_mut().zip(&sums[row * values..(row + 1) * values]) {
                *to = T::narrow(sum * inverse);
            }
        }
    }
}

/// Makes weights of scores, of which those not seen are none.
#[inline(always)]
fn weigh<A: Arithmetic>(scores: &mut [f32], seen: usize, row: &mut Row, sums: &mut [f32]) {
    let (scores, unseen) = scores.split_at_mut(seen);
    unseen.fill(0.0);
    if seen == 0 {
        return;
    }
    let most = greater(greatest(scores), row.most);
    if most == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    if most != row.most {
        let less = Exp::near::<A>(row.most - most);
        row.total *= less;
        for sum in sums {
            *sum *= less;
        }
        row.most = most;
    }
    for score in scores.iter_mut() {
        *score = Exp::near::<A>(*score - most);
    }
    row.total += sum(scores, |x| x);
}

/// `c = a b + beta c`, of `rows` by `inner` numbers in a row and `inner` by `columns`.
#[inline(always)]
fn product(
    level: Level,
    [rows, inner, columns]: [usize; 3],
    a: &[f32],
    b: Matrix<f32>,
    beta: f32,
    c: &mut [f32],
) {
    assert!(a.len() >= rows * inner && c.len() >= rows * columns);
    let a = Matrix {
        data: a.as_ptr(),
        row: inner as isize,
        column: 1,
    };
    let c = Output {
        data: c.as_mut_ptr(),
        row: columns as isize,
        column: 1,
    };
    let work = Work {
        rows,
        inner,
        columns,
        alpha: 1.0,
        a,
        b,
        beta,
        c,
    };
    // SAFETY: `a` and `c` have the sizes, as was just seen, and `b` is of an operand's elements, or a copy of them.
    unsafe { gemm::multiply_at(work, level) }
}
