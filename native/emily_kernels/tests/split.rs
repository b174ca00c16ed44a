//! Large products of `f32` on every level, whose sums may be of parts: against sums in doubles, and against fused additions.

// Parts are AMX's alone, which Miri lacks: there these would be products as in gemm.rs, of sizes that take it hours.
#![cfg(not(miri))]

use emily_kernels::dispatch::Level;
use emily_kernels::gemm::products;
use emily_kernels::pool;
use emily_kernels::view::{Axes, Axis, View};

/// Numbers that look random, the same in every run, from -1 to 1.
fn numbers(mut seed: u64, count: usize) -> Vec<f32> {
    let mut next = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((seed >> 33) as f64 / (1u64 << 30) as f64 - 1.0) as f32
    };
    (0..count).map(|_| next()).collect()
}

/// Two matrices, each row-major or the other way round.
struct Product {
    sizes: [usize; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    turned: [bool; 2],
}

impl Product {
    fn new(sizes: [usize; 3], turned: [bool; 2], seed: u64) -> Self {
        let [rows, inner, columns] = sizes;
        Product {
            sizes,
            a: numbers(seed, rows * inner),
            b: numbers(seed + 1, inner * columns),
            turned,
        }
    }

    fn left(&self, i: usize, p: usize) -> usize {
        let [rows, inner, _] = self.sizes;
        if self.turned[0] {
            p * rows + i
        } else {
            i * inner + p
        }
    }

    fn right(&self, p: usize, j: usize) -> usize {
        let [_, inner, columns] = self.sizes;
        if self.turned[1] {
            j * inner + p
        } else {
            p * columns + j
        }
    }

    fn run(&self, level: Level) -> Vec<f32> {
        let [rows, inner, columns] = self.sizes;
        let axes = |rows: usize, columns: usize, turned: bool| {
            let (row, column) = if turned { (1, rows) } else { (columns, 1) };
            let axis = |size, stride: usize| Axis {
                size,
                stride: stride as isize,
            };
            Axes::from_slice(&[axis(rows, row), axis(columns, column)])
        };
        // SAFETY: floats are bytes.
        let (a, b) = unsafe { (self.a.align_to::<u8>().1, self.b.align_to::<u8>().1) };
        let a = View::new(a, 0, 4, axes(rows, inner, self.turned[0]));
        let b = View::new(b, 0, 4, axes(inner, columns, self.turned[1]));
        let mut output = vec![f32::NAN; rows * columns];
        products(level, &a, &b, &mut output);
        output
    }

    /// The sum of an element's terms, and of their magnitudes.
    fn sum(&self, i: usize, j: usize) -> (f64, f64) {
        let term = |p| f64::from(self.a[self.left(i, p)]) * f64::from(self.b[self.right(p, j)]);
        let add = |(sum, size): (f64, f64), term: f64| (sum + term, size + term.abs());
        (0..self.sizes[1]).map(term).fold((0.0, 0.0), add)
    }

    /// The greatest error, and the root of the mean of squared errors, of the sums of magnitudes.
    fn errors(&self, output: &[f32]) -> (f64, f64) {
        let columns = self.sizes[2];
        let (mut most, mut squares) = (0.0f64, 0.0);
        for (place, is) in output.iter().enumerate() {
            let (sum, size) = self.sum(place / columns, place % columns);
            let error = (f64::from(*is) - sum).abs() / size;
            assert!(error.is_finite(), "{is}, {sum} at {place}");
            most = most.max(error);
            squares += error * error;
        }
        (most, (squares / output.len() as f64).sqrt())
    }
}

const SIZES: [[usize; 3]; 6] = [
    [64, 256, 64],
    [65, 257, 66],
    [100, 300, 700],
    [300, 33, 129],
    [257, 600, 96],
    [64, 1000, 1030],
];
const TURNED: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

/// No sum is farther off than one of fused additions, which the level below has.
#[test]
fn no_less_accurate_than_fused_additions() {
    let fused = Level::named("avx512").or(Level::named("avx2"));
    let fused = fused.unwrap_or(Level::PORTABLE);
    for sizes in SIZES {
        for turned in TURNED {
            let product = Product::new(sizes, turned, 3);
            let (most, mean) = product.errors(&product.run(fused));
            for level in Level::available() {
                let (is_most, is_mean) = product.errors(&product.run(level));
                let is = format!("{level:?} {sizes:?} {turned:?}: {is_most} {is_mean}");
                assert!(is_most <= 1.5 * most, "{is}, not {most}");
                assert!(is_mean <= 1.1 * mean, "{is}, not {mean}");
            }
        }
    }
}

#[test]
fn the_same_on_any_number_of_threads() {
    for level in Level::available() {
        for sizes in [[300, 513, 1100], [70, 2000, 90], [2000, 64, 64]] {
            for turned in TURNED {
                let product = Product::new(sizes, turned, 5);
                pool::set_threads(1);
                let one = product.run(level);
                for threads in [2, 3, 7] {
                    pool::set_threads(threads);
                    assert!(product.run(level) == one, "{level:?} {sizes:?} {threads}");
                }
                pool::set_threads(0);
            }
        }
    }
}

/// Integers whose sums an `f32` holds are exact.
#[test]
fn integers_are_exact() {
    for level in Level::available() {
        for (left, right) in [(4000.0, 3.0), (100.0, 100.0), (0.0, 8e6), (8e6, 0.0)] {
            let mut product = Product::new([80, 256, 80], [false, true], 7);
            product.a.iter_mut().for_each(|x| *x = (*x * left).round());
            product.b.iter_mut().for_each(|x| *x = (*x * right).round());
            let output = product.run(level);
            for (place, is) in output.iter().enumerate() {
                let (sum, _) = product.sum(place / 80, place % 80);
                assert_eq!(f64::from(*is), sum, "{level:?} at {place}");
            }
        }
    }
}

/// What parts cannot hold is computed as ever, whatever is beside it.
#[test]
fn no_numbers_infinities_and_all_magnitudes() {
    let tiny = f32::from_bits(1);
    for level in Level::available() {
        for (left, right) in [
            (f32::NAN, 1.0),
            (f32::INFINITY, 1.0),
            (1.0, f32::NEG_INFINITY),
            (f32::MAX, 1.0),
            (f32::MAX, 0.5),
            (1.0, f32::MAX),
            (3e38, 3e38),
            (-3e38, 3e38),
            (1e-20, 1e-20),
            (1e-30, 1.0),
            (tiny, 1.0),
            (tiny, 3e38),
            (1e-38, 1e20),
        ] {
            let [rows, inner, columns] = [70, 300, 100];
            let mut product = Product::new([rows, inner, columns], [false, false], 9);
            // The last row and the last column have such numbers alone; some others one of them.
            for p in 0..inner {
                product.a[(rows - 1) * inner + p] *= left;
                product.b[p * columns + columns - 1] *= right;
            }
            product.a[5 * inner + 7] = left;
            product.b[270 * columns + 8] = right;
            let output = product.run(level);
            for (place, is) in output.iter().enumerate() {
                let (sum, size) = product.sum(place / columns, place % columns);
                let name = format!("{level:?} {left} {right} at {place}: {is}, {sum}");
                if sum.is_nan() {
                    assert!(is.is_nan(), "{name}");
                } else if sum.abs() >= f64::from(f32::MAX) {
                    // A sum of finite terms may pass all bounds on the way.
                    assert!(!is.is_finite(), "{name}");
                } else if size < f64::from(f32::MAX) {
                    let error = (f64::from(*is) - sum).abs();
                    let allowed = 1e-6 * size + f64::from(tiny) * inner as f64;
                    assert!(error <= allowed, "{name}");
                }
            }
        }
    }
}

#[test]
fn a_row_of_zeros_beside_small_numbers() {
    for level in Level::available() {
        let mut product = Product::new([64, 256, 64], [false, false], 11);
        product.a[..256].fill(0.0);
        product.a[256..512].iter_mut().for_each(|x| *x *= 1e-22);
        product.b[..64].iter_mut().for_each(|x| *x *= 1e-12);
        let output = product.run(level);
        assert!(output[..64].iter().all(|x| *x == 0.0));
        for (place, is) in output.iter().enumerate().skip(64) {
            let (sum, size) = product.sum(place / 64, place % 64);
            assert!((f64::from(*is) - sum).abs() <= 1e-6 * size, "{level:?}");
        }
    }
}
