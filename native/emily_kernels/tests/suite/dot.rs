//! Products of whole numbers, of which every sum is exact, in arrays of any layout.

use emily_kernels::dispatch::Level;
use emily_kernels::dot::products;
use emily_kernels::view::{extent, Axes, Axis, View};

use crate::support::{bytes, random_axes, rounds, Random};

/// A batch of matrices in memory, transposed, reversed, with gaps or repeated.
fn stored(random: &mut Random, shape: &[usize]) -> (Vec<f32>, usize, Axes) {
    let mut axes = random_axes(random, shape);
    if random.below(2) == 0 {
        let mut step = 1;
        for axis in axes.iter_mut().rev() {
            axis.stride = step;
            step *= axis.size as isize;
        }
    }
    let (before, after) = extent(&axes, 4);
    let numbers = (0..(before + after) / 4).map(|_| random.below(2001) as f32 - 1000.0);
    (numbers.collect(), before, axes)
}

#[test]
fn products_are_exact() {
    let mut random = Random::new(15);
    for round in 0..rounds(400) {
        let [rows, columns] = match round % 3 {
            0 => [1, 1],
            _ => [1 + random.below(9), 1 + random.below(rounds(140))],
        };
        let inner = 1 + random.below(rounds([20, 300][round % 2]));
        let batch: Vec<usize> = (0..random.below(3)).map(|_| 1 + random.below(3)).collect();
        let (a, first_a, axes_a) = stored(&mut random, &[&batch[..], &[rows, inner]].concat());
        let (b, first_b, axes_b) = stored(&mut random, &[&batch[..], &[inner, columns]].concat());
        let place = |axes: &[Axis], first: usize, at: &[usize]| {
            let distance: isize = axes
                .iter()
                .zip(at)
                .map(|(axis, i)| axis.stride * *i as isize)
                .sum();
            (first as isize / 4 + distance) as usize
        };
        let mut wanted = Vec::new();
        for number in 0..batch.iter().product::<usize>() {
            let mut rest = number;
            let mut at: Vec<usize> = batch
                .iter()
                .rev()
                .map(|size| {
                    let i = rest % size;
                    rest /= size;
                    i
                })
                .collect();
            at.reverse();
            for i in 0..rows {
                for j in 0..columns {
                    let term = |k: usize| {
                        let x = a[place(&axes_a, first_a, &[&at[..], &[i, k]].concat())];
                        let y = b[place(&axes_b, first_b, &[&at[..], &[k, j]].concat())];
                        x as i64 * y as i64
                    };
                    wanted.push((0..inner).map(term).sum::<i64>() as f32);
                }
            }
        }
        for level in Level::available() {
            let mut got = vec![f32::NAN; wanted.len()];
            let a = View::new(bytes(&a), first_a, 4, axes_a.clone());
            let b = View::new(bytes(&b), first_b, 4, axes_b.clone());
            products(level, &a, &b, &mut got);
            assert_eq!(got, wanted, "{axes_a:?} by {axes_b:?} at {}", level.name());
        }
    }
}

/// So long that other threads take parts; whole numbers, whose sums in f64 are exact, and a rest.
#[test]
fn long_vectors_are_exact() {
    let size = rounds(1_000_003);
    let mut random = Random::new(16);
    let mut vector = || -> Vec<f32> {
        let number = |_| random.below(2001) as f32 - 1000.0;
        (0..size + 3).map(number).collect()
    };
    let (a, b) = (vector(), vector());
    let terms = a[3..].iter().zip(&b[1..]);
    let wanted: i64 = terms.map(|(x, y)| *x as i64 * *y as i64).sum();
    let axis = |size, stride| Axis { size, stride };
    let row: Axes = [axis(1, 1), axis(size, 1)].into_iter().collect();
    let column: Axes = [axis(size, 1), axis(1, 1)].into_iter().collect();
    for level in Level::available() {
        let mut got = [f32::NAN];
        let a = View::new(bytes(&a), 12, 4, row.clone());
        let b = View::new(bytes(&b), 4, 4, column.clone());
        products(level, &a, &b, &mut got);
        assert_eq!(got, [wanted as f32], "{level:?}");
    }
}
