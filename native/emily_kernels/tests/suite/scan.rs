//! Scans against one number after the other, in f64 for floats, and each level against the portable one.

use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::scan::{scan, Greatest, Least, Operation, Product, Scanned, Sum};
use emily_kernels::view::{extent, Axes, Axis, View};
use half::{bf16, f16};

use crate::support::{bytes, bytes_mut, large, random_axes, rounds, Random, Sample, LENGTHS};

/// An array in memory of some order.
struct Stored<T> {
    memory: Vec<T>,
    first: usize,
    axes: Axes,
}

impl<T: Scanned> Stored<T> {
    fn new(axes: Axes, numbers: impl FnOnce(usize) -> Vec<T>) -> Self {
        let (before, after) = extent(&axes, size_of::<T>());
        let memory = numbers((before + after) / size_of::<T>());
        let first = before;
        Stored {
            memory,
            first,
            axes,
        }
    }

    fn view(&self) -> View<'_> {
        let width = size_of::<T>();
        View::new(bytes(&self.memory), self.first, width, self.axes.clone())
    }

    /// The elements in row-major order.
    fn elements(&self) -> Vec<T> {
        let mut places = vec![(self.first / size_of::<T>()) as isize];
        for axis in &self.axes {
            let along =
                |place: isize| (0..axis.size).map(move |i| place + i as isize * axis.stride);
            places = places.into_iter().flat_map(along).collect();
        }
        let at = |place: isize| self.memory[place as usize];
        places.into_iter().map(at).collect()
    }

    /// What `of` gives of each element and all before it, begun with the first.
    fn running<A: Copy>(
        &self,
        axis: usize,
        reverse: bool,
        wide: impl Fn(T) -> A,
        of: impl Fn(A, A) -> A,
    ) -> Vec<A> {
        let inner: usize = self.axes[axis + 1..].iter().map(|axis| axis.size).product();
        let lines = self.axes[axis].size;
        let x = self.elements();
        let mut wanted: Vec<A> = x.iter().map(|x| wide(*x)).collect();
        for at in 0..wanted.len() {
            let at = if reverse { wanted.len() - 1 - at } else { at };
            let line = at / inner % lines;
            if reverse && line + 1 < lines {
                wanted[at] = of(wanted[at + inner], wanted[at]);
            } else if !reverse && line > 0 {
                wanted[at] = of(wanted[at - inner], wanted[at]);
            }
        }
        wanted
    }

    /// What the kernel gives, the same at each level, bit for bit.
    fn scanned<F: Operation<T>>(&self, axis: usize, reverse: bool) -> Vec<T>
    where
        T: Same,
    {
        let run = |level| {
            let mut output = vec![T::default(); self.view().size()];
            scan::<F, T>(level, &self.view(), axis, reverse, bytes_mut(&mut output));
            output
        };
        let portable = run(Level::PORTABLE);
        for level in Level::available().filter(|level| *level != Level::PORTABLE) {
            for (at, (got, wanted)) in run(level).iter().zip(&portable).enumerate() {
                let (level, axes) = (level.name(), &self.axes);
                assert!(
                    got.same(*wanted),
                    "{level} {axes:?} {axis} {at}: {got:?}, not {wanted:?}"
                );
            }
        }
        portable
    }
}

/// Whether two are the same number; NaN is.
trait Same: Scanned + std::fmt::Debug {
    fn same(self, other: Self) -> bool;
}

macro_rules! same {
    ($($type:ident)*) => {
        $(impl Same for $type {
            fn same(self, other: Self) -> bool { self.is(other) }
        })*
    };
}

same!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

macro_rules! same_halves {
    ($($type:ident)*) => {
        $(impl Same for $type {
            fn same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || (self.is_nan() && other.is_nan())
            }
        })*
    };
}

same_halves!(f16 bf16);

/// Shapes with an axis: of lengths around those of vectors, at random, and such as are cut into parts.
fn shapes(random: &mut Random) -> Vec<(Vec<usize>, usize)> {
    let every = if cfg!(miri) { 5 } else { 1 };
    let mut shapes: Vec<_> = LENGTHS
        .into_iter()
        .step_by(every)
        .map(|length| (vec![length], 0))
        .collect();
    for _ in 0..rounds(60) {
        let rank = 1 + random.below(4);
        let most = match cfg!(miri) {
            true => [300, 20, 8, 5],
            false => [3000, 60, 14, 7],
        }[rank - 1];
        let shape: Vec<usize> = (0..rank).map(|_| 1 + random.below(most)).collect();
        shapes.push((shape, random.below(rank)));
    }
    if cfg!(miri) {
        // Parts of a row and of lines, blocks of columns, and several tables, which are few there.
        let axis = |(at, shape): (usize, Vec<usize>)| (shape, at);
        let few = [
            (0, vec![2100]),
            (0, vec![690, 3]),
            (0, vec![8, 260]),
            (1, vec![4, 515]),
            (1, vec![0, 3]),
        ];
        shapes.extend(few.map(axis));
        return shapes;
    }
    shapes.extend([
        (vec![large(200_003)], 0),
        (vec![3, large(150_001)], 1),
        (vec![large(70_000), 3], 0),
        (vec![2, large(40_001), 2], 1),
        (vec![9, large(40_000)], 0),
        (vec![5, 30, large(1001)], 1),
        (vec![large(7000), 30], 1),
        (vec![0, 3], 1),
    ]);
    shapes
}

/// Axes in row-major order, or in any other.
fn axes(random: &mut Random, shape: &[usize]) -> Axes {
    if random.below(2) == 0 {
        return random_axes(random, shape);
    }
    let after = |at: usize| shape[at + 1..].iter().product::<usize>() as isize;
    let axis = |(at, &size): (usize, &usize)| Axis {
        size,
        stride: after(at),
    };
    shape.iter().enumerate().map(axis).collect()
}

/// Calls `check` with arrays of many shapes, with an axis and a direction.
fn each_array<T: Scanned>(
    number: impl Fn(&mut Random) -> T,
    mut check: impl FnMut(&Stored<T>, usize, bool),
) {
    let mut random = Random::new(31);
    for (at, (shape, axis)) in shapes(&mut random).into_iter().enumerate() {
        // Under Miri a large one is gone through in one direction, the next in the other.
        let is_large = cfg!(miri) && shape.iter().product::<usize>() > 1000;
        for reverse in [false, true] {
            if is_large && reverse == (at % 2 == 0) {
                continue;
            }
            let axes = axes(&mut random, &shape);
            let stored = Stored::new(axes, |count| {
                (0..count).map(|_| number(&mut random)).collect()
            });
            check(&stored, axis, reverse);
        }
    }
}

fn assert_same<T: Same>(got: &[T], wanted: &[T], stored: &Stored<T>, axis: usize, reverse: bool) {
    assert_eq!(got.len(), wanted.len());
    for (at, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let axes = &stored.axes;
        assert!(
            got.same(*wanted),
            "{axes:?} along {axis}, reverse {reverse}, at {at}: {got:?}, not {wanted:?}"
        );
    }
}

macro_rules! integers {
    ($($name:ident $type:ident)*) => {
        $(#[test]
        fn $name() {
            each_array::<$type>($type::sample, |x, axis, reverse| {
                let wanted = |of: fn($type, $type) -> $type| x.running(axis, reverse, |x| x, of);
                let check = |got: Vec<$type>, of| assert_same(&got, &wanted(of), x, axis, reverse);
                check(x.scanned::<Sum>(axis, reverse), $type::wrapping_add);
                check(x.scanned::<Product>(axis, reverse), $type::wrapping_mul);
                check(x.scanned::<Greatest>(axis, reverse), Ord::max);
                check(x.scanned::<Least>(axis, reverse), Ord::min);
            });
        })*
    };
}

integers! {
    integers_of_32_bits i32
}

// Under Miri one type of a kind is enough.
#[cfg(not(miri))]
integers! {
    integers_of_8_bits i8 unsigned_of_8_bits u8 integers_of_16_bits i16 unsigned_of_16_bits u16
    unsigned_of_32_bits u32 integers_of_64_bits i64 unsigned_of_64_bits u64
}

fn greatest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

fn least(a: f64, b: f64) -> f64 {
    -greatest(-a, -b)
}

/// Minus zero, which is as great as zero, as zero.
fn unsigned_zero<T: Same>(x: Vec<T>) -> Vec<T> {
    let zero = |x: T| if x == T::default() { T::default() } else { x };
    x.into_iter().map(zero).collect()
}

/// Extremes and products are those of f64 exactly, and sums too where no addition rounds.
macro_rules! floats {
    ($($name:ident $type:ident: $wide:expr, $narrow:expr, $sample:expr;)*) => {
        $(#[test]
        fn $name() {
            let narrowed = |x: Vec<f64>| x.into_iter().map($narrow).collect::<Vec<$type>>();
            each_array::<$type>($sample, |x, axis, reverse| {
                let check = |got: Vec<$type>, of: fn(f64, f64) -> f64| {
                    let wanted = narrowed(x.running(axis, reverse, $wide, of));
                    assert_same(&unsigned_zero(got), &unsigned_zero(wanted), x, axis, reverse);
                };
                check(x.scanned::<Greatest>(axis, reverse), greatest);
                check(x.scanned::<Least>(axis, reverse), least);
                check(x.scanned::<Product>(axis, reverse), |a, b| a * b);
            });
            let whole = |random: &mut Random| $narrow(random.below(41) as f64 - 20.0);
            each_array::<$type>(whole, |x, axis, reverse| {
                let wanted = narrowed(x.running(axis, reverse, $wide, |a, b| a + b));
                assert_same(&unsigned_zero(x.scanned::<Sum>(axis, reverse)), &wanted, x, axis, reverse);
            });
        })*
    };
}

floats! {
    floats_of_32_bits f32: f64::from, |x: f64| x as f32, f32::sample;
    halves f16: |x: f16| x.to_f64(), |x: f64| f16::from_f32(x as f32), |random| f16::from_bits(random.bits() as u16);
}

#[cfg(not(miri))]
floats! {
    floats_of_64_bits f64: |x| x, |x: f64| x, f64::sample;
    brain_floats bf16: |x: bf16| x.to_f64(), |x: f64| bf16::from_f32(x as f32), |random| bf16::from_bits(random.bits() as u16);
}

/// Of any numbers, f32 has the nearest to the sum, but for what f64 loses of the numbers' sizes.
#[test]
fn sums_of_any_numbers() {
    each_array::<f32>(f32::sample, |x, axis, reverse| {
        let wanted = x.running(axis, reverse, f64::from, |a, b| a + b);
        let sizes = x.running(axis, reverse, |x| f64::from(x).abs(), |a, b| a + b);
        let got = x.scanned::<Sum>(axis, reverse);
        for ((got, wanted), size) in got.into_iter().zip(wanted).zip(sizes) {
            let same = got.same(wanted as f32);
            let rounding = (wanted.abs() * 2f64.powi(-24)).max(2f64.powi(-150)) + size * 1.0e-12;
            let near = (f64::from(got) - wanted).abs() <= rounding;
            assert!(same || near, "{got}, not {wanted}");
        }
    });
}

/// What was rounded once is within half a unit of the exact sum, of a million numbers as of one.
#[test]
fn sums_lose_no_digit() {
    let count = large(1_000_000);
    let mut random = Random::new(32);
    let x: Vec<f32> = (0..count).map(|_| random.below(1 << 24) as f32).collect();
    let mut got = vec![0.0f32; count];
    let view = View::row(bytes(&x), 4);
    scan::<Sum, f32>(Level::best(), &view, 0, false, bytes_mut(&mut got));
    let mut sum = 0u64;
    for (x, got) in x.iter().zip(got) {
        sum += *x as u64;
        // Integers become the nearest float.
        assert_eq!(got, sum as f32);
    }
}

#[test]
fn a_product_that_is_zero_stays_zero() {
    let mut x = vec![f32::MAX; large(300_000)];
    x[0] = 0.0;
    x[large(150_000)] = -1.0;
    let mut got = vec![1.0f32; x.len()];
    let view = View::row(bytes(&x), 4);
    scan::<Product, f32>(Level::best(), &view, 0, false, bytes_mut(&mut got));
    assert!(got.iter().all(|x| *x == 0.0));
}

#[test]
fn minus_zero_stays() {
    let x = vec![-0.0f32; 100];
    let mut got = vec![1.0f32; x.len()];
    let view = View::row(bytes(&x), 4);
    scan::<Sum, f32>(Level::best(), &view, 0, false, bytes_mut(&mut got));
    assert!(got
        .iter()
        .all(|x| x.to_bits() == x.to_bits() & 0x8000_0000 && x.is_sign_negative()));
}

#[test]
fn threads_change_no_bit() {
    let mut random = Random::new(33);
    let shapes = match cfg!(miri) {
        true => [(vec![4100], 0), (vec![690, 3], 0), (vec![5, 415], 1)],
        false => [
            (vec![150_001], 0),
            (vec![10_000, 5], 0),
            (vec![1000, 1000], 1),
        ],
    };
    for (shape, axis) in shapes {
        let axes = axes(&mut random, &shape);
        let x = Stored::<f32>::new(axes, |count| {
            (0..count)
                .map(|_| random.below(1000) as f32 / 999.0)
                .collect()
        });
        let bits = |threads| {
            pool::set_threads(threads);
            let mut output = vec![0.0f32; x.view().size()];
            scan::<Sum, f32>(
                Level::best(),
                &x.view(),
                axis,
                false,
                bytes_mut(&mut output),
            );
            output.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = bits(1);
        assert!([2, 3, 8].into_iter().all(|threads| bits(threads) == one));
        pool::set_threads(0);
    }
}
