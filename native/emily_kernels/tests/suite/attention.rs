//! Attention against the whole matrix of scores in f64.

use emily_kernels::attention::{attend, Attention, Mask};
use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::real::Real;
use emily_kernels::view::{Axes, Axis, Element, View};
use half::{bf16, f16};

use crate::support::Random;

/// An array of four axes that lie in memory in some order, with steps between the elements.
#[derive(Clone)]
struct Array<T> {
    memory: Vec<T>,
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<T: Element> Array<T> {
    /// Axes of one element that stand for more have a `shape` that is not `there`.
    fn new(
        shape: [usize; 4],
        there: [usize; 4],
        order: [usize; 4],
        step: usize,
        mut next: impl FnMut() -> T,
    ) -> Self {
        let mut strides = [0; 4];
        let mut count = step;
        for axis in order.into_iter().rev() {
            strides[axis] = if there[axis] == 1 { 0 } else { count };
            count *= there[axis];
        }
        Array {
            memory: (0..count).map(|_| next()).collect(),
            shape,
            strides,
        }
    }

    fn at(&self, index: [usize; 4]) -> T {
        let steps = index.iter().zip(self.strides);
        self.memory[steps.map(|(at, stride)| at * stride).sum::<usize>()]
    }

    fn view(&self) -> View<'_> {
        let axes = self.shape.iter().zip(self.strides);
        let axes = axes.map(|(&size, stride)| Axis {
            size,
            stride: stride as isize,
        });
        // SAFETY: elements are bytes without gaps.
        let bytes = unsafe { self.memory.align_to().1 };
        View::new(bytes, 0, size_of::<T>(), axes.collect::<Axes>())
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    batches: usize,
    heads: usize,
    key_heads: usize,
    queries: usize,
    keys: usize,
    size: usize,
    values: usize,
}

enum Hides<T> {
    Nothing,
    Later,
    Added(Array<T>),
    Zeros(Array<u8>),
}

struct Case<T> {
    shape: Shape,
    q: Array<T>,
    k: Array<T>,
    v: Array<T>,
    hides: Hides<T>,
    sinks: Option<Vec<T>>,
}

const SCALE: f32 = 0.375;

/// Several blocks of keys; under Miri, which takes its time, little more than one.
const MANY: usize = if cfg!(miri) { 18 } else { 900 };

/// Orders of the axes, those of heads before positions, and behind them, and one with the last axis not last.
const ORDERS: [[usize; 4]; 3] = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2]];

impl<T: Real> Case<T> {
    fn new(shape: Shape, kind: usize, sinks: bool, random: &mut Random) -> Self {
        let Shape {
            batches,
            heads,
            key_heads,
            queries,
            keys,
            size,
            values,
        } = shape;
        let mut numbers = |axes: [usize; 4], most: f32| {
            let order = ORDERS[random.below(3)];
            let step = 1 + random.below(4) / 3;
            let number = || T::narrow((random.below(2001) as f32 / 1000.0 - 1.0) * most);
            Array::new(axes, axes, order, step, number)
        };
        let q = numbers([batches, heads, queries, size], 4.0);
        let k = numbers([batches, key_heads, keys, size], 4.0);
        let v = numbers([batches, key_heads, keys, values], 2.0);
        let full = [batches, heads, queries, keys];
        let mut there = full;
        for axis in &mut there {
            *axis = if random.below(2) == 0 { 1 } else { *axis };
        }
        let hides = match kind {
            0 => Hides::Nothing,
            1 => Hides::Later,
            2 => {
                let number = || match random.below(4) {
                    0 => T::narrow(0.0),
                    1 => T::narrow(-200.0),
                    2 => T::narrow(f32::NEG_INFINITY),
                    _ => T::narrow(random.below(100) as f32 / 16.0),
                };
                Hides::Added(Array::new(full, there, ORDERS[0], 1, number))
            }
            _ => Hides::Zeros(Array::new(full, there, ORDERS[0], 1, || {
                random.below(3).min(1) as u8
            })),
        };
        let sink = |_| T::narrow(random.below(100) as f32 / 10.0);
        let sinks = sinks.then(|| (0..heads).map(sink).collect());
        Case {
            shape,
            q,
            k,
            v,
            hides,
            sinks,
        }
    }

    fn attend(&self, level: Level) -> Vec<T> {
        let Shape {
            batches,
            heads,
            queries,
            values,
            ..
        } = self.shape;
        let mut output = vec![T::narrow(f32::NAN); batches * heads * queries * values];
        let mask = match &self.hides {
            Hides::Nothing => Mask::None,
            Hides::Later => Mask::Causal,
            Hides::Added(mask) => Mask::Added(mask.view()),
            Hides::Zeros(mask) => Mask::Seen(mask.view()),
        };
        let attention = Attention {
            q: self.q.view(),
            k: self.k.view(),
            v: self.v.view(),
            scale: SCALE,
            mask,
            // SAFETY: elements are bytes without gaps.
            sinks: self
                .sinks
                .as_ref()
                .map(|sinks| unsafe { View::row(sinks.align_to().1, size_of::<T>()) }),
        };
        attend(level, &attention, &mut output);
        output
    }

    /// In the order of the output, beside how far it may be off.
    fn by_loops(&self) -> Vec<(f64, f64)> {
        let Shape {
            batches,
            heads,
            key_heads,
            queries,
            keys,
            size,
            values,
        } = self.shape;
        let number = |x: T| f64::from(x.wide());
        let mut results = Vec::new();
        for (batch, query) in (0..batches).flat_map(|b| (0..queries).map(move |q| (b, q))) {
            for head in 0..heads {
                let shared = head / (heads / key_heads);
                let blind = query + keys < queries;
                let score = |key: usize| {
                    let terms = (0..size).map(|i| {
                        number(self.q.at([batch, head, query, i]))
                            * number(self.k.at([batch, shared, key, i]))
                    });
                    let score = f64::from(SCALE) * terms.sum::<f64>();
                    match &self.hides {
                        Hides::Later if blind => f64::from(f32::MIN),
                        Hides::Later if key + queries > query + keys => f64::NEG_INFINITY,
                        Hides::Added(mask) => score + number(mask.at([batch, head, query, key])),
                        Hides::Zeros(mask) if mask.at([batch, head, query, key]) == 0 => {
                            f64::from(f32::MIN)
                        }
                        _ => score,
                    }
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let sink = self.sinks.as_ref().map(|sinks| number(sinks[head]));
                let most = scores
                    .iter()
                    .copied()
                    .chain(sink)
                    .fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
                let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |x| (x - most).exp());
                for i in 0..values {
                    let terms = weights
                        .iter()
                        .enumerate()
                        .map(|(key, weight)| weight * number(self.v.at([batch, shared, key, i])));
                    let (sum, size) =
                        terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    results.push((sum / total, size / total));
                }
            }
        }
        results
    }

    fn check(&self, epsilon: f64) {
        let wanted = self.by_loops();
        for level in Level::available() {
            for (got, (wanted, size)) in self.attend(level).iter().zip(&wanted) {
                let got = f64::from(got.wide());
                // The scores are up to 96, so that their own rounding is that many times larger.
                let error = epsilon * wanted.abs() + 4e-5 * size + 1e-7;
                // A row of negative infinities has no result.
                assert!(
                    (got - wanted).abs() <= error || (got.is_nan() && wanted.is_nan()),
                    "{got} for {wanted} of {:?} at {}",
                    self.shape,
                    level.name()
                );
            }
        }
    }
}

fn shapes(random: &mut Random) -> Vec<Shape> {
    let shape = |batches, heads, key_heads, queries, keys, size, values| Shape {
        batches,
        heads,
        key_heads,
        queries,
        keys,
        size,
        values,
    };
    // A block of keys is crossed, by little.
    if cfg!(miri) {
        return vec![
            shape(1, 1, 1, 1, 1, 1, 1),
            shape(2, 2, 1, 3, 5, 3, 3),
            shape(1, 2, 1, 2, 9, 3, 2),
            shape(1, 1, 1, 1, 18, 2, 1),
        ];
    }
    let mut shapes = vec![
        shape(1, 1, 1, 1, 1, 1, 1),
        shape(2, 4, 2, 1, 300, 64, 64),
        shape(1, 9, 3, 70, 70, 16, 16),
        shape(1, 2, 2, 5, 600, 8, 3),
        shape(1, 2, 1, 9, 4, 8, 8),
        shape(1, 128, 1, 2, 17, 4, 4),
        shape(2, 1, 1, 33, 513, 5, 7),
    ];
    for _ in 0..12 {
        let key_heads = 1 + random.below(3);
        shapes.push(shape(
            1 + random.below(2),
            key_heads * (1 + random.below(4)),
            key_heads,
            1 + random.below(40),
            1 + random.below(300),
            1 + random.below(24),
            1 + random.below(24),
        ));
    }
    shapes
}

fn all<T: Real>(epsilon: f64, seed: u64) {
    let mut random = Random::new(seed);
    for (at, shape) in shapes(&mut random).into_iter().enumerate() {
        // Under Miri each shape has a kind of its own.
        for kind in (0..4).filter(|kind| !cfg!(miri) || *kind == at % 4) {
            let sinks = random.below(2) == 0;
            Case::<T>::new(shape, kind, sinks, &mut random).check(epsilon);
        }
    }
}

#[test]
fn attends_in_f32() {
    all::<f32>(1e-6, 71);
}

#[test]
fn attends_in_f16() {
    all::<f16>(6e-4, 72);
}

#[test]
fn attends_in_bf16() {
    all::<bf16>(5e-3, 73);
}

/// Greater scores come later, in each block, so that what was summed up is scaled down again and again.
#[test]
fn rising_scores() {
    let shape = Shape {
        batches: 1,
        heads: 2,
        key_heads: 1,
        queries: 3,
        keys: MANY,
        size: 1,
        values: 2,
    };
    let mut case = Case::<f32>::new(shape, 0, false, &mut Random::new(5));
    let ones = || 1.0;
    case.q = Array::new([1, 2, 3, 1], [1, 2, 3, 1], ORDERS[0], 1, ones);
    let mut next = 0;
    let rising = || {
        next += 1;
        next as f32 / 4.0
    };
    case.k = Array::new([1, 1, MANY, 1], [1, 1, MANY, 1], ORDERS[0], 1, rising);
    case.check(1e-6);
}

#[test]
fn rows_that_hide_every_key_have_the_mean() {
    let shape = Shape {
        batches: 1,
        heads: 1,
        key_heads: 1,
        queries: 2,
        keys: MANY,
        size: 4,
        values: 3,
    };
    let axes = [1, 1, 2, MANY];
    for kind in [2, 3] {
        let mut case = Case::<f32>::new(shape, kind, false, &mut Random::new(8));
        match &mut case.hides {
            Hides::Added(mask) => *mask = Array::new(axes, axes, ORDERS[0], 1, || f32::MIN),
            Hides::Zeros(mask) => *mask = Array::new(axes, axes, ORDERS[0], 1, || 0),
            _ => unreachable!("a mask was asked for"),
        }
        for level in Level::available() {
            for (i, got) in case.attend(level).into_iter().enumerate() {
                let values = (0..MANY).map(|key| f64::from(case.v.at([0, 0, key, i % 3])));
                let mean = values.sum::<f64>() / MANY as f64;
                assert!((f64::from(got) - mean).abs() < 1e-5, "{got} for {mean}");
            }
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    let shape = Shape {
        batches: 1,
        heads: 2,
        key_heads: 2,
        queries: 4,
        keys: MANY,
        size: 8,
        values: 2,
    };
    let mut case = Case::<f32>::new(shape, 1, false, &mut Random::new(9));
    case.q = Array::new([1, 2, 4, 8], [1, 2, 4, 8], ORDERS[0], 1, || 0.5);
    case.q.memory[8 * 2 + 3] = f32::NAN;
    for level in Level::available() {
        for (i, got) in case.attend(level).into_iter().enumerate() {
            // The output has queries before heads.
            assert_eq!(got.is_nan(), i / 2 == 4, "{i} at {}", level.name());
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let mut random = Random::new(10);
    let (lengths, size) = match cfg!(miri) {
        true => ([(3, 9), (1, 20)], 2),
        false => ([(200, 200), (1, 5000)], 64),
    };
    for (at, (queries, keys)) in lengths.into_iter().enumerate() {
        let shape = Shape {
            batches: if cfg!(miri) { 1 } else { 2 },
            heads: 6,
            key_heads: 3,
            queries,
            keys,
            size,
            values: size / 2,
        };
        // Under Miri each length has kinds of its own.
        for kind in (0..4).filter(|kind| !cfg!(miri) || kind % 2 != at) {
            let case = Case::<f32>::new(shape, kind, true, &mut random);
            let bits = |threads| {
                pool::set_threads(threads);
                let output = case.attend(Level::best());
                output.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = bits(1);
            assert!([2, 3, 8].into_iter().all(|threads| bits(threads) == one));
            pool::set_threads(0);
        }
    }
}
