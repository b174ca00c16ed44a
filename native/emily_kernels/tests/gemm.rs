//! Products against sums in doubles, and against themselves in other layouts, sizes and numbers of threads.

use emily_kernels::dispatch::Level;
use emily_kernels::gemm::{multiply_at, products, Matrix, Output, Stored, Work};
use emily_kernels::pool;
use emily_kernels::view::{Axis, View};
use half::{bf16, f16};
use parking_lot::Mutex;

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// From -1 to 1.
    fn number(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 30) as f64 - 1.0
    }
}

/// What a matrix holds.
trait Value: Copy + Into<f64> {
    const EPSILON: f64;
    fn of(value: f64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! values {
    ($($type:ty, $epsilon:expr, $of:expr;)*) => {
        $(impl Value for $type {
            const EPSILON: f64 = $epsilon;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
        })*
    };
}

values! {
    f32, f32::EPSILON as f64, |value| value as f32;
    f64, f64::EPSILON, |value| value;
    f16, 0.0009765625, f16::from_f64;
    bf16, 0.0078125, bf16::from_f64;
}

/// What products are made of.
trait Number: Value + Stored<Number: Value> {}
impl<T: Value + Stored<Number: Value>> Number for T {}

/// A matrix with its own memory, in either order, with a gap behind each line.
#[derive(Clone)]
struct Owned<T> {
    data: Vec<T>,
    row: usize,
    column: usize,
}

impl<T: Value> Owned<T> {
    fn new(
        rows: usize,
        columns: usize,
        by_columns: bool,
        gap: usize,
        mut value: impl FnMut(usize, usize) -> T,
    ) -> Self {
        let (row, column) = if by_columns {
            (1, rows + gap)
        } else {
            (columns + gap, 1)
        };
        let length = if by_columns {
            columns * column
        } else {
            rows * row
        };
        let mut data = vec![T::of(f64::NAN); length];
        for i in 0..rows {
            for j in 0..columns {
                data[i * row + j * column] = value(i, j);
            }
        }
        Owned { data, row, column }
    }

    fn random(
        rows: usize,
        columns: usize,
        by_columns: bool,
        gap: usize,
        numbers: &mut Numbers,
    ) -> Self {
        Owned::new(rows, columns, by_columns, gap, |_, _| {
            T::of(numbers.number())
        })
    }

    fn at(&self, i: usize, j: usize) -> T {
        self.data[i * self.row + j * self.column]
    }

    fn matrix(&self) -> Matrix<T> {
        Matrix {
            data: self.data.as_ptr(),
            row: self.row as isize,
            column: self.column as isize,
        }
    }

    fn output(&mut self) -> Output<T> {
        Output {
            data: self.data.as_mut_ptr(),
            row: self.row as isize,
            column: self.column as isize,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    rows: usize,
    inner: usize,
    columns: usize,
}

fn run<T: Number>(
    sizes: Sizes,
    a: &Owned<T>,
    b: &Owned<T>,
    c: &mut Owned<T::Number>,
    alpha: f64,
    beta: f64,
    level: Level,
) {
    let Sizes {
        rows,
        inner,
        columns,
    } = sizes;
    let (alpha, beta) = (T::Number::of(alpha), T::Number::of(beta));
    let work = Work {
        rows,
        inner,
        columns,
        alpha,
        a: a.matrix(),
        b: b.matrix(),
        beta,
        c: c.output(),
    };
    // SAFETY: the matrices have the sizes, `c` is borrowed for us alone, and the levels are this processor's.
    unsafe { multiply_at(work, level) }
}

/// One test at a time sets the number of threads.
static THREADS: Mutex<()> = Mutex::new(());

fn with_threads(count: usize, f: impl FnOnce()) {
    let _alone = THREADS.lock();
    pool::set_threads(count);
    f();
    pool::set_threads(0);
}

/// Within the rounding of a sum of so many terms; nothing but the matrix is written.
fn check<T: Number>(sizes: Sizes, numbers: &mut Numbers, alpha: f64, beta: f64, level: Level) {
    let mut flag = || numbers.below(2) == 1;
    let (a_order, b_order, c_order) = (flag(), flag(), flag() && flag());
    let mut gap = || numbers.below(3) * 5;
    let (a_gap, b_gap, c_gap) = (gap(), gap(), gap());
    let a: Owned<T> = Owned::random(sizes.rows, sizes.inner, a_order, a_gap, numbers);
    let b: Owned<T> = Owned::random(sizes.inner, sizes.columns, b_order, b_gap, numbers);
    let old: Owned<T::Number> = Owned::random(sizes.rows, sizes.columns, c_order, c_gap, numbers);
    let mut c = old.clone();
    run(sizes, &a, &b, &mut c, alpha, beta, level);
    for i in 0..sizes.rows {
        for j in 0..sizes.columns {
            let terms = (0..sizes.inner)
                .map(|p| Into::<f64>::into(a.at(i, p)) * Into::<f64>::into(b.at(p, j)));
            let (mut sum, mut size) = (0.0, 0.0);
            for term in terms {
                sum += term;
                size += f64::abs(term);
            }
            let wanted = alpha * sum
                + if beta == 0.0 {
                    0.0
                } else {
                    beta * Into::<f64>::into(old.at(i, j))
                };
            let error = (Into::<f64>::into(c.at(i, j)) - wanted).abs();
            let allowed = T::Number::EPSILON
                * ((sizes.inner.min(256) as f64 + 8.0) * size * alpha.abs() + 4.0 * beta.abs());
            assert!(
                error <= allowed,
                "{sizes:?} {level:?} at {i}, {j}: {error} of {wanted}"
            );
        }
    }
    let written = c
        .data
        .iter()
        .zip(&old.data)
        .filter(|(new, old)| new.bits() != old.bits())
        .count();
    assert!(
        written <= sizes.rows * sizes.columns,
        "{sizes:?}: the gaps were written"
    );
    assert_eq!(
        c.data
            .iter()
            .filter(|x| Into::<f64>::into(**x).is_nan())
            .count(),
        c.data.len() - sizes.rows * sizes.columns
    );
}

const SIDES: &[usize] = if cfg!(miri) {
    &[1, 2, 5, 13, 17]
} else {
    &[1, 2, 3, 5, 7, 12, 13, 16, 31, 33, 64, 130]
};
const ROUNDS: usize = if cfg!(miri) { 3 } else { 400 };

#[test]
fn every_layout_size_and_scale() {
    for count in [1, 3] {
        with_threads(count, || {
            let mut numbers = Numbers(count as u64);
            for level in Level::available() {
                for round in 0..ROUNDS {
                    let mut side = || SIDES[numbers.below(SIDES.len())];
                    let sizes = Sizes {
                        rows: side(),
                        inner: side() * (1 + round % 5),
                        columns: side(),
                    };
                    let scales = [(1.0, 0.0), (1.0, 0.0), (1.0, 1.0), (-0.5, 2.0), (2.0, 0.0)];
                    let (alpha, beta) = scales[numbers.below(scales.len())];
                    check::<f32>(sizes, &mut numbers, alpha, beta, level);
                    check::<f64>(sizes, &mut numbers, alpha, beta, level);
                    check::<f16>(sizes, &mut numbers, alpha, beta, level);
                    check::<bf16>(sizes, &mut numbers, alpha, beta, level);
                }
            }
        });
    }
}

/// Rows, terms and columns. Parts are smaller under Miri; those of the first have too many rows to be few.
const LARGE: &[[usize; 3]] = if cfg!(miri) {
    &[[17, 11, 41], [1, 14, 70], [70, 14, 1], [5, 258, 2]]
} else {
    &[
        [300, 513, 1100],
        [1, 700, 5000],
        [5000, 700, 1],
        [3, 9001, 1023],
        [8, 260, 2077],
        [3000, 30, 4],
        [16, 9000, 16],
    ]
};

/// Whether large ones are of a type. Under Miri each has a type of its own.
fn has_type(at: usize, number: usize) -> bool {
    !cfg!(miri) || at % 4 == number
}

#[test]
fn large_ones_in_parts() {
    with_threads(3, || {
        let mut numbers = Numbers(7);
        for (at, &[rows, inner, columns]) in LARGE.iter().enumerate() {
            let sizes = Sizes {
                rows,
                inner,
                columns,
            };
            let has = |number| has_type(at, number);
            for level in Level::available() {
                if has(0) {
                    check::<f32>(sizes, &mut numbers, 1.0, 0.0, level);
                }
                if has(1) {
                    check::<f64>(sizes, &mut numbers, 1.0, 1.0, level);
                }
                if has(2) {
                    check::<f16>(sizes, &mut numbers, 1.0, 0.0, level);
                }
                if has(3) {
                    check::<bf16>(sizes, &mut numbers, 1.0, 1.0, level);
                }
            }
        }
    });
}

const ALONE: [[usize; 3]; 2] = if cfg!(miri) {
    [[13, 9, 34], [7, 258, 7]]
} else {
    [[257, 600, 1200], [130, 90, 70]]
};
const FEW: &[usize] = if cfg!(miri) { &[1, 7] } else { &[1, 2, 7, 40] };

/// Each element is one chain of fused additions for each 256 terms, so nothing else may matter.
#[test]
fn an_element_depends_on_its_row_and_column_alone() {
    let mut numbers = Numbers(11);
    let level = Level::best();
    for [rows, inner, columns] in ALONE {
        let sizes = Sizes {
            rows,
            inner,
            columns,
        };
        let a: Owned<f32> = Owned::random(sizes.rows, sizes.inner, false, 0, &mut numbers);
        let b: Owned<f32> = Owned::random(sizes.inner, sizes.columns, false, 0, &mut numbers);
        let empty = |rows, columns| Owned::new(rows, columns, false, 0, |_, _| 0.0f32);
        let mut whole = empty(sizes.rows, sizes.columns);
        with_threads(1, || run(sizes, &a, &b, &mut whole, 1.0, 0.0, level));

        if level != Level::PORTABLE {
            for (i, j) in [(0, 0), (sizes.rows - 1, sizes.columns - 1), (3, 5)] {
                let mut sum = 0.0f32;
                for first in (0..sizes.inner).step_by(256) {
                    let last = sizes.inner.min(first + 256);
                    sum += (first..last).fold(0.0f32, |sum, p| a.at(i, p).mul_add(b.at(p, j), sum));
                }
                assert_eq!(whole.at(i, j).to_bits(), sum.to_bits(), "at {i}, {j}");
            }
        }

        for (threads, a_order, b_order) in [
            (1, true, false),
            (2, false, true),
            (5, true, true),
            (16, false, false),
        ] {
            let a = Owned::new(sizes.rows, sizes.inner, a_order, 3, |i, j| a.at(i, j));
            let b = Owned::new(sizes.inner, sizes.columns, b_order, 3, |i, j| b.at(i, j));
            let mut c = empty(sizes.rows, sizes.columns);
            with_threads(threads, || run(sizes, &a, &b, &mut c, 1.0, 0.0, level));
            assert!(
                c.data == whole.data,
                "{threads} threads, {a_order}, {b_order}"
            );

            // A few rows, or columns, alone.
            for &count in FEW {
                let few = Sizes {
                    rows: count,
                    ..sizes
                };
                let mut c = empty(count, sizes.columns);
                with_threads(threads, || run(few, &a, &b, &mut c, 1.0, 0.0, level));
                assert!(c.data == whole.data[..c.data.len()], "{count} rows");

                let few = Sizes {
                    columns: count,
                    ..sizes
                };
                let mut c = empty(sizes.rows, count);
                with_threads(threads, || run(few, &a, &b, &mut c, 1.0, 0.0, level));
                assert!(
                    (0..sizes.rows).all(|i| (0..count).all(|j| c.at(i, j) == whole.at(i, j))),
                    "{count} columns"
                );
            }
        }
    }
}

#[test]
fn nothing_to_add_up() {
    for level in Level::available() {
        for (inner, alpha, beta, wanted) in [
            (0, 1.0, 0.0, 0.0),
            (0, 1.0, 0.5, 2.0),
            (3, 0.0, 0.0, 0.0),
            (3, 0.0, 0.5, 2.0),
        ] {
            let sizes = Sizes {
                rows: 2,
                inner,
                columns: 3,
            };
            let a = Owned::new(2, inner, false, 0, |_, _| f32::NAN);
            let b = Owned::new(inner, 3, false, 0, |_, _| f32::NAN);
            let old = if beta == 0.0 { f32::NAN } else { 4.0 };
            let mut c = Owned::new(2, 3, false, 0, |_, _| old);
            run(sizes, &a, &b, &mut c, alpha, beta, level);
            assert_eq!(c.data, [wanted as f32; 6]);
        }
        let mut c: Owned<f64> = Owned::new(0, 0, false, 0, |_, _| 0.0);
        let none = Owned::new(0, 0, false, 0, |_, _| 0.0);
        run(
            Sizes {
                rows: 0,
                inner: 4,
                columns: 0,
            },
            &none,
            &none,
            &mut c,
            1.0,
            0.0,
            level,
        );
    }
}

/// What is no number stays where it belongs, also from memory that was not written before.
#[test]
fn no_numbers_and_infinities() {
    for level in Level::available() {
        for (rows, columns) in [(1, 40), (40, 1), (33, 45)] {
            let sizes = Sizes {
                rows,
                inner: 20,
                columns,
            };
            let a = Owned::new(rows, 20, false, 0, |i, p| match (i, p) {
                (0, 3) => f32::NAN,
                _ if i + 1 == rows && p == 19 => f32::INFINITY,
                _ => 1.0,
            });
            let b = Owned::new(20, columns, false, 0, |p, j| {
                if p == 19 && j + 1 == columns {
                    0.0f32
                } else {
                    1.0
                }
            });
            let mut c = Owned::new(rows, columns, false, 0, |_, _| f32::NAN);
            run(sizes, &a, &b, &mut c, 1.0, 0.0, level);
            for i in 0..rows {
                for j in 0..columns {
                    let value = c.at(i, j);
                    match (i == 0, i + 1 == rows, j + 1 == columns) {
                        (true, _, _) | (_, true, true) => {
                            assert!(value.is_nan(), "{i}, {j}: {value}")
                        }
                        (_, true, false) => assert_eq!(value, f32::INFINITY),
                        (_, false, true) => assert_eq!(value, 19.0),
                        _ => assert_eq!(value, 20.0),
                    }
                }
            }
        }
    }
}

/// Numbers, the place of the first, and how far they are apart.
type Strided<T> = (Vec<T>, usize, [isize; 4]);

fn view<T>((data, first, strides): &Strided<T>, sizes: [usize; 4]) -> View<'_> {
    let axes = sizes.iter().zip(strides);
    let axes = axes.map(|(&size, &stride)| Axis { size, stride });
    let width = size_of::<T>();
    // SAFETY: floats are bytes.
    let memory = unsafe { data.align_to::<u8>().1 };
    View::new(memory, first * width, width, axes.collect())
}

/// Batches against products in doubles, whatever the strides and the number of threads.
fn check_batch<T: Number>(
    [outer, batch, rows, inner, columns]: [usize; 5],
    numbers: &mut Numbers,
    level: Level,
) {
    // The outer axis of the left side and the inner one of the right are of one matrix.
    let mut array = |sizes: [usize; 4], turned: bool, backwards: bool| {
        let [outer, batch, rows, columns] = sizes;
        let count = outer * batch * rows * columns + 3;
        let data: Vec<T> = (0..count).map(|_| T::of(numbers.number())).collect();
        let (row, column) = if turned { (1, rows) } else { (columns, 1) };
        let mut strides = [batch * rows * columns, rows * columns, row, column].map(|x| x as isize);
        let mut first = 3;
        if backwards {
            first += (batch - 1) * rows * columns;
            strides[1] = -strides[1];
        }
        for (stride, size) in strides.iter_mut().zip(sizes).take(2) {
            if size == 1 {
                *stride = 0;
            }
        }
        (data, first, strides)
    };
    let flag = |i: usize| (rows + inner + columns + i).is_multiple_of(3);
    let left = array([1, batch, rows, inner], flag(0), flag(2));
    let right = array([outer, 1, inner, columns], flag(1), false);
    let mut output = vec![T::of(f64::NAN); outer * batch * rows * columns];
    let a = view(&left, [outer, batch, rows, inner]);
    let b = view(&right, [outer, batch, inner, columns]);
    products(level, &a, &b, &mut output);

    let at = |(data, first, strides): &Strided<T>, places: [usize; 4]| {
        let places = places.iter().zip(strides);
        let offset: isize = places
            .map(|(&place, &stride)| place as isize * stride)
            .sum();
        Into::<f64>::into(data[first.wrapping_add_signed(offset)])
    };
    let mut output = output.into_iter();
    for o in 0..outer {
        for n in 0..batch {
            for i in 0..rows {
                for j in 0..columns {
                    let terms =
                        (0..inner).map(|p| at(&left, [o, n, i, p]) * at(&right, [o, n, p, j]));
                    let (mut sum, mut size) = (0.0, 0.0);
                    for term in terms {
                        sum += term;
                        size += f64::abs(term);
                    }
                    let is = Into::<f64>::into(output.next().expect("one for each"));
                    let rounding = T::Number::EPSILON * (inner.min(256) as f64 + 8.0) * size;
                    // Near zero numbers of f16 are 2^-24 apart.
                    let allowed =
                        rounding + (T::EPSILON / 2.0 * f64::abs(sum)).max(f64::powi(2.0, -25));
                    let error = f64::abs(is - sum);
                    assert!(error <= allowed, "{level:?} {o} {n} {i} {j}: {is}, {sum}");
                }
            }
        }
    }
}

const BATCHES: usize = if cfg!(miri) { 1 } else { 30 };
const MOST: usize = if cfg!(miri) { 6 } else { 45 };
const LARGE_BATCHES: [[usize; 5]; 3] = if cfg!(miri) {
    [[1, 1, 1, 14, 70], [1, 3, 5, 8, 34], [2, 9, 3, 5, 8]]
} else {
    [
        [1, 1, 1, 300, 3000],
        [1, 3, 200, 64, 130],
        [2, 50, 30, 40, 33],
    ]
};

#[test]
fn batches_of_any_strides() {
    for threads in [1, 3] {
        with_threads(threads, || {
            let mut numbers = Numbers(threads as u64);
            let mut side = |most: usize| 1 + numbers.below(most);
            let mut all: Vec<[usize; 5]> = (0..BATCHES)
                .map(|_| [side(3), side(4), side(MOST), side(MOST), side(MOST)])
                .collect();
            // Under Miri these are large for what is cut alone.
            if !cfg!(miri) || threads > 1 {
                all.extend(LARGE_BATCHES);
            }
            for (at, sizes) in all.into_iter().enumerate() {
                let has = |number| at < BATCHES || has_type(at, number);
                for level in Level::available() {
                    if has(0) {
                        check_batch::<f32>(sizes, &mut numbers, level);
                    }
                    if has(1) {
                        check_batch::<f64>(sizes, &mut numbers, level);
                    }
                    if has(2) {
                        check_batch::<f16>(sizes, &mut numbers, level);
                    }
                    if has(3) {
                        check_batch::<bf16>(sizes, &mut numbers, level);
                    }
                }
            }
        });
    }
}

#[test]
fn batches_of_nothing() {
    let axes = |sizes: [usize; 3]| sizes.map(|size| Axis { size, stride: 0 });
    let view = |sizes| View::new(&[], 0, 4, axes(sizes).as_slice().into());
    let mut output = [f32::NAN; 6];
    products(
        Level::best(),
        &view([1, 2, 0]),
        &view([1, 0, 3]),
        &mut output,
    );
    assert_eq!(output, [0.0; 6]);
    products::<f32>(Level::best(), &view([0, 2, 1]), &view([0, 1, 3]), &mut []);
}

/// Ones beyond those that bf16 counts.
const TERMS: usize = if cfg!(miri) { 514 } else { 4097 };

/// A float of 16 bits is added up exactly where its own type would lose the terms, and rounded once.
#[test]
fn halves_are_added_up_in_f32() {
    for level in Level::available() {
        for rows in [1, 20] {
            let a = vec![bf16::ONE; rows * TERMS];
            let b = vec![bf16::ONE; TERMS];
            let axes = |sizes: [usize; 2]| {
                let strides = [sizes[1] as isize, 1];
                let axes = sizes.into_iter().zip(strides);
                axes.map(|(size, stride)| Axis { size, stride }).collect()
            };
            // SAFETY: floats are bytes.
            let (a_bytes, b_bytes) = unsafe { (a.align_to::<u8>().1, b.align_to::<u8>().1) };
            let a = View::new(a_bytes, 0, 2, axes([rows, TERMS]));
            let b = View::new(b_bytes, 0, 2, axes([TERMS, 1]));
            let mut output = vec![bf16::ZERO; rows];
            products(level, &a, &b, &mut output);
            assert_eq!(output, vec![bf16::from_f32(TERMS as f32); rows]);
        }
    }
}
