//! Totals against exact sums of integers, and against totals of f64 one number after the other.

mod fold;

use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::reduce::{is_computable, reduce, reduce_computed, Reduction};
use emily_kernels::view::{extent, Axes, Axis, View};

use crate::support::{bytes, rounds, Random};

/// An array of small whole numbers, of which every sum and product is exact in f64.
struct Stored {
    memory: Vec<f32>,
    first: usize,
    axes: Axes,
}

impl Stored {
    fn new(random: &mut Random, shape: &[usize], number: impl Fn(&mut Random) -> f32) -> Self {
        let mut order: Vec<usize> = (0..shape.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at + 1));
        }
        let mut axes: Axes = shape.iter().map(|&size| Axis { size, stride: 0 }).collect();
        let mut step = 1;
        for at in order {
            // Some go backwards, some repeat, some have gaps.
            let kind = random.below(6);
            axes[at].stride = [step, step, step, -step, 2 * step, 0][kind];
            step *= axes[at].size as isize * [1, 1, 1, 1, 2, 1][kind];
        }
        let (before, after) = extent(&axes, 4);
        let memory = (0..(before + after) / 4).map(|_| number(random)).collect();
        Stored {
            memory,
            first: before,
            axes,
        }
    }

    /// The elements with the places that they have in the result.
    fn elements(&self, reduced: &[usize]) -> Vec<(usize, f64)> {
        let mut places = vec![(0usize, (self.first / 4) as isize)];
        for (at, axis) in self.axes.iter().enumerate() {
            let along = |(out, place): (usize, isize)| {
                (0..axis.size).map(move |i| {
                    let out = if reduced.contains(&at) {
                        out
                    } else {
                        out * axis.size + i
                    };
                    (out, place + i as isize * axis.stride)
                })
            };
            places = places.into_iter().flat_map(along).collect();
        }
        places
            .into_iter()
            .map(|(out, place)| (out, self.memory[place as usize].into()))
            .collect()
    }
}

fn check(
    reduction: Reduction,
    number: impl Fn(&mut Random) -> f32 + Copy,
    of: impl Fn(f64, f64) -> f64,
) {
    let mut random = Random::new(12);
    for round in 0..rounds(200) {
        let rank = random.below(5);
        let most = [5000, 900, 60, 14, 7][rank];
        let shape: Vec<usize> = (0..rank)
            .map(|_| 1 + random.below(if round % 2 == 0 { most } else { 5 }))
            .collect();
        let stored = Stored::new(&mut random, &shape, number);
        let reduced: Vec<usize> = (0..rank).filter(|_| random.below(2) == 0).collect();
        let count: usize = (0..rank)
            .filter(|at| !reduced.contains(at))
            .map(|at| shape[at])
            .product();
        let start = match reduction {
            Reduction::Sum => 0.0,
            Reduction::Product => 1.0,
            Reduction::Greatest => f64::NEG_INFINITY,
            Reduction::Least => f64::INFINITY,
        };
        let mut wanted = vec![start; count];
        for (out, x) in stored.elements(&reduced) {
            wanted[out] = of(wanted[out], x);
        }
        let view = View::new(bytes(&stored.memory), stored.first, 4, stored.axes.clone());
        for level in Level::available() {
            let mut got = vec![f32::NAN; count];
            reduce(level, reduction, &view, &reduced, &mut got);
            for (got, wanted) in got.iter().zip(&wanted) {
                let wanted = *wanted as f32;
                let same = *got == wanted || (got.is_nan() && wanted.is_nan());
                assert!(
                    same,
                    "{} {reduction:?} of {:?} over {reduced:?}: {got}, not {wanted}",
                    level.name(),
                    stored.axes
                );
            }
        }
    }
}

#[test]
fn sums() {
    check(
        Reduction::Sum,
        |random| random.below(2_000_001) as f32 - 1_000_000.0,
        |a, b| a + b,
    );
}

#[test]
fn products() {
    // Powers of two, of which no product rounds.
    check(
        Reduction::Product,
        |random| [1.0, 1.0, -1.0, 2.0, 0.5][random.below(5)],
        |a, b| a * b,
    );
}

#[test]
fn nan_and_infinities() {
    let number = |random: &mut Random| match random.below(400) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => f32::NEG_INFINITY,
        other => other as f32,
    };
    check(Reduction::Sum, number, |a, b| a + b);
}

#[test]
fn extremes() {
    let number = |random: &mut Random| match random.below(3000) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => f32::NEG_INFINITY,
        other => other as f32 - 1500.0,
    };
    let greatest = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
    let least = |a: f64, b: f64| if a.is_nan() || a < b { a } else { b };
    check(Reduction::Greatest, number, greatest);
    check(Reduction::Least, number, least);
}

/// Sizes, and the axes that are reduced, as bits. Under Miri those that need so many elements alone: parts of rows and of lines,
/// and rows side by side.
const COMPUTED: &[(&[usize], &[u32])] = if cfg!(miri) {
    &[
        (&[4100], &[1]),
        (&[700, 3], &[1]),
        (&[8, 1030], &[2]),
        (&[2, 66, 32], &[2, 5]),
        (&[3, 1, 50], &[1, 2, 3, 4, 5, 6, 7]),
    ]
} else {
    &[
        (&[200_000], &[1]),
        (&[70_001], &[1]),
        (&[3, 33_000], &[1, 2, 3]),
        (&[1000, 77], &[1, 2, 3]),
        (&[70_000, 3], &[1, 2, 3]),
        (&[150, 5000], &[1, 2, 3]),
        (&[7, 130, 50], &[1, 2, 3, 4, 5, 6, 7]),
        (&[40_000, 2, 2], &[1, 2, 3, 4, 5, 6, 7]),
        (&[2, 1, 66_000], &[1, 2, 3, 4, 5, 6, 7]),
    ]
};
const COUNTS: &[usize] = if cfg!(miri) { &[1, 3] } else { &[1, 2, 3] };

/// What is computed piece by piece has the totals of what lies in memory, on any number of threads, bit for bit.
#[test]
fn totals_of_what_is_computed() {
    let mut random = Random::new(41);
    for &(sizes, masks) in COMPUTED {
        let count: usize = sizes.iter().product();
        // Fractions whose sums round.
        let x: Vec<f32> = (0..count)
            .map(|_| (random.below(1 << 24) as f32 - 8e6) / 3.0)
            .collect();
        for mask in masks {
            let reduced: Vec<usize> = (0..sizes.len()).filter(|at| mask >> at & 1 == 1).collect();
            let kept: usize = (0..sizes.len())
                .filter(|at| !reduced.contains(at))
                .map(|at| sizes[at])
                .product();
            let mut step = count as isize;
            let axes = sizes.iter().map(|&size| {
                step /= size as isize;
                Axis { size, stride: step }
            });
            let view = View::new(bytes(&x), 0, 4, axes.collect());
            for reduction in [Reduction::Sum, Reduction::Least] {
                let mut wanted = vec![f32::NAN; kept];
                pool::set_threads(1);
                reduce(Level::best(), reduction, &view, &reduced, &mut wanted);
                if !is_computable(sizes, &reduced) {
                    assert!(sizes.len() > 2, "{sizes:?} over {reduced:?}");
                    continue;
                }
                for &threads in COUNTS {
                    pool::set_threads(threads);
                    let mut got = vec![f32::NAN; kept];
                    let compute = |first: usize, to: &mut [f32]| {
                        to.copy_from_slice(&x[first..first + to.len()]);
                    };
                    reduce_computed(
                        Level::best(),
                        reduction,
                        &compute,
                        (sizes, &reduced),
                        &mut got,
                    );
                    assert_eq!(got, wanted, "{sizes:?} over {reduced:?}");
                    reduce(Level::best(), reduction, &view, &reduced, &mut got);
                    assert_eq!(got, wanted, "{sizes:?} over {reduced:?}");
                }
            }
        }
    }
    pool::set_threads(0);
}
