//! Orders against comparisons of one pair after the other, kept stable by the standard library.

use std::cmp::Ordering;

use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::sort::{argsort, sort, top, Bf16, Ordered, F16};
use emily_kernels::view::{extent, Axes, Axis, View};

use crate::support::{bytes, bytes_mut, large, samples, Random, Sample};

/// How numbers compare: NaN is the greatest, minus zero is zero.
trait Compared: Ordered
where
    Self::Element: Sample,
{
    fn is_nan(x: Self::Element) -> bool;
    fn compare(x: Self::Element, y: Self::Element) -> Ordering;
}

macro_rules! compared {
    ($($name:ident $element:ident: $wide:expr;)*) => {
        $(impl Compared for $name {
            fn is_nan(x: $element) -> bool {
                let wide = $wide;
                wide(x).partial_cmp(&wide(x)).is_none()
            }
            fn compare(x: $element, y: $element) -> Ordering {
                let wide = $wide;
                let order = wide(x).partial_cmp(&wide(y));
                order.unwrap_or_else(|| Self::is_nan(x).cmp(&Self::is_nan(y)))
            }
        })*
    };
}

compared! {
    u8 u8: u64::from; u16 u16: u64::from; u32 u32: u64::from; u64 u64: u64::from;
    i8 i8: i64::from; i16 i16: i64::from; i32 i32: i64::from; i64 i64: i64::from;
    f32 f32: f64::from; f64 f64: f64::from;
    Bf16 u16: |bits: u16| f32::from_bits(u32::from(bits) << 16);
    F16 u16: half;
}

fn half(bits: u16) -> f64 {
    let (exponent, fraction) = ((bits >> 10 & 31) as i32, f64::from(bits & 0x3FF));
    let size = match exponent {
        0 => fraction / f64::from(1 << 24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * f64::from(1 << exponent) / f64::from(1 << 25),
    };
    if bits >> 15 == 1 {
        -size
    } else {
        size
    }
}

/// The places of a row's numbers in order.
fn places<K: Compared>(row: &[K::Element], descending: bool) -> Vec<u32>
where
    K::Element: Sample,
{
    let mut places: Vec<u32> = (0..row.len() as u32).collect();
    places.sort_by(|&a, &b| {
        let order = K::compare(row[a as usize], row[b as usize]);
        if descending {
            order.reverse()
        } else {
            order
        }
    });
    places
}

/// An array in memory of some order and direction.
struct Stored<T> {
    memory: Vec<T>,
    first: usize,
    axes: Axes,
}

impl<T: Sample> Stored<T> {
    fn new(random: &mut Random, shape: &[usize]) -> Self {
        let mut axes: Axes = shape.iter().map(|&size| Axis { size, stride: 0 }).collect();
        let mut step = 1;
        let is_turned = random.below(2) == 0;
        for at in 0..shape.len() {
            let at = if is_turned { at } else { shape.len() - 1 - at };
            axes[at].stride = if random.below(4) == 0 { -step } else { step };
            step *= axes[at].size as isize;
        }
        let (before, after) = extent(&axes, size_of::<T>());
        let few = 1 + random.below(40);
        let few: Vec<T> = samples(random, few);
        let count = (before + after) / size_of::<T>();
        let memory = match random.below(2) {
            0 => samples(random, count),
            // Many are equal.
            _ => (0..count).map(|_| few[random.below(few.len())]).collect(),
        };
        Stored {
            memory,
            first: before,
            axes,
        }
    }

    fn view(&self) -> View<'_> {
        View::new(
            bytes(&self.memory),
            self.first,
            size_of::<T>(),
            self.axes.clone(),
        )
    }

    fn at(&self, index: &[usize]) -> T {
        let place = (self.first / size_of::<T>()) as isize
            + self
                .axes
                .iter()
                .zip(index)
                .map(|(axis, &i)| i as isize * axis.stride)
                .sum::<isize>();
        self.memory[place as usize]
    }
}

/// Calls `f` with each row along an axis, and the places of its elements in row-major order.
fn each_row<T: Sample>(x: &Stored<T>, axis: usize, mut f: impl FnMut(&[T], &[usize])) {
    let sizes: Vec<usize> = x.axes.iter().map(|axis| axis.size).collect();
    let (outer, columns): (usize, usize) = (sizes[..axis].iter().product(), sizes[axis]);
    let inner: usize = sizes[axis + 1..].iter().product();
    for before in 0..outer {
        for behind in 0..inner {
            let places: Vec<usize> = (0..columns)
                .map(|i| (before * columns + i) * inner + behind)
                .collect();
            let row: Vec<T> = places
                .iter()
                .map(|&place| {
                    let mut left = place;
                    let mut index = vec![0; sizes.len()];
                    for at in (0..sizes.len()).rev() {
                        index[at] = left % sizes[at];
                        left /= sizes[at];
                    }
                    x.at(&index)
                })
                .collect();
            f(&row, &places);
        }
    }
}

fn check<K: Compared>(x: &Stored<K::Element>, axis: usize, descending: bool)
where
    K::Element: Sample,
{
    let size = x.view().size();
    let level = Level::best();
    let mut sorted = vec![K::Element::default(); size];
    sort::<K>(level, &x.view(), axis, descending, bytes_mut(&mut sorted));
    let mut found = vec![u32::MAX; size];
    argsort::<K>(level, &x.view(), axis, descending, bytes_mut(&mut found));
    each_row(x, axis, |row, out| {
        for (wanted, &out) in places::<K>(row, descending).iter().zip(out) {
            assert_eq!(found[out], *wanted, "{:?} along {axis}", x.axes);
            let number = row[*wanted as usize];
            assert_eq!(
                K::compare(sorted[out], number),
                Ordering::Equal,
                "{:?}",
                x.axes
            );
        }
        // No number is lost, nor the sign of a zero; a NaN is as good as another.
        let all = |row: Vec<K::Element>| {
            let numbers = row.into_iter().filter(|x| !K::is_nan(*x));
            let bits = |x| {
                let bytes = bytes(std::slice::from_ref(&x)).iter();
                bytes.fold(0u64, |bits, byte| bits << 8 | u64::from(*byte))
            };
            let mut numbers: Vec<u64> = numbers.map(bits).collect();
            numbers.sort_unstable();
            numbers
        };
        let got = all(out.iter().map(|&out| sorted[out]).collect());
        assert_eq!(got, all(row.to_vec()));
    });
}

fn check_top<K: Compared>(x: &Stored<K::Element>, count: usize)
where
    K::Element: Sample,
{
    let axis = x.axes.len() - 1;
    let columns = x.axes[axis].size;
    for level in Level::available() {
        let mut found = vec![u32::MAX; x.view().size() / columns * count];
        top::<K>(level, &x.view(), count, bytes_mut(&mut found));
        let mut rows = found.chunks_exact(count);
        each_row(x, axis, |row, _| {
            let wanted = &places::<K>(row, true)[..count];
            assert_eq!(rows.next(), Some(wanted), "{count} of {:?}", x.axes);
        });
    }
}

/// Under Miri one of each kind, in which rows of both sizes, those that are compared and those that are put into place, are.
fn shape(kind: usize, random: &mut Random) -> Vec<usize> {
    if cfg!(miri) {
        return [vec![200], vec![3, 20], vec![2, 5, 4], vec![130, 2]][kind].clone();
    }
    match kind {
        0 => vec![[1, 2, 3, 127, 128, 129, 300, 1000][random.below(8)]],
        1 => vec![1 + random.below(20), 1 + random.below(300)],
        2 => (0..3).map(|_| 1 + random.below(17)).collect(),
        _ => vec![1 + random.below(300), 1 + random.below(40)],
    }
}

fn check_type<K: Compared>(seed: u64)
where
    K::Element: Sample,
{
    let mut random = Random::new(seed);
    for round in 0..if cfg!(miri) { 4 } else { 40 } {
        let shape = shape(round % 4, &mut random);
        let x = Stored::new(&mut random, &shape);
        check::<K>(&x, random.below(shape.len()), random.below(2) == 0);
        let columns = shape[shape.len() - 1];
        check_top::<K>(&x, 1 + random.below(columns));
    }
}

#[test]
fn integers() {
    check_type::<u8>(1);
    check_type::<i16>(6);
    check_type::<u32>(3);
    check_type::<i64>(8);
    // Under Miri one type of a width is enough.
    if cfg!(miri) {
        return;
    }
    check_type::<u16>(2);
    check_type::<u64>(4);
    check_type::<i8>(5);
    check_type::<i32>(7);
}

#[test]
fn floats() {
    check_type::<f32>(9);
    check_type::<f64>(10);
    check_type::<F16>(11);
    check_type::<Bf16>(12);
}

/// As many as several threads take, and as do not stay in a near cache.
#[test]
fn long_rows() {
    let mut random = Random::new(13);
    if cfg!(miri) {
        // Two parts of a row, which goes by its highest digit first; then columns that are turned back in parts.
        let x = Stored::<f32>::new(&mut random, &[4100]);
        pool::set_threads(2);
        check::<f32>(&x, 0, true);
        check_top::<f32>(&x, 10);
        check::<i64>(&Stored::new(&mut random, &[690, 3]), 0, true);
        return pool::set_threads(0);
    }
    for _ in 0..3 {
        let x = Stored::<f32>::new(&mut random, &[large(150_000)]);
        for threads in [1, 2, 3] {
            pool::set_threads(threads);
            check::<f32>(&x, 0, threads == 2);
            for count in [1, 10, large(1000), large(30_000)] {
                check_top::<f32>(&x, count);
            }
        }
        pool::set_threads(0);
    }
    check::<i64>(&Stored::new(&mut random, &[3, large(70_000)]), 1, true);
    check::<f32>(&Stored::new(&mut random, &[large(70_000), 3]), 0, false);
}

/// Rising, falling, of few values, and with the greatest number that there is among them.
#[test]
fn every_count_and_many_shapes() {
    let counts = (1..300).step_by(if cfg!(miri) { 60 } else { 1 });
    let large_counts = [1000, 40_000, 70_000].map(|count| large(count) as u32);
    for count in counts.chain(large_counts) {
        let mut random = Random::new(count as u64);
        let rows: [Vec<u32>; 5] = [
            (0..count).collect(),
            (0..count).map(|i| count - i).collect(),
            (0..count).map(|_| random.below(3) as u32).collect(),
            (0..count)
                .map(|_| u32::MAX - random.below(2) as u32)
                .collect(),
            (0..count).map(|_| random.below(1 << 32) as u32).collect(),
        ];
        for row in rows {
            let mut wanted = row.clone();
            wanted.sort_unstable();
            let mut sorted = vec![0; row.len()];
            for level in Level::available() {
                for threads in [1, 3] {
                    pool::set_threads(threads);
                    let view = View::row(bytes(&row), 4);
                    sort::<u32>(level, &view, 0, false, bytes_mut(&mut sorted));
                    assert!(sorted == wanted, "{level:?} {row:?}");
                }
            }
        }
    }
    pool::set_threads(0);
}

#[test]
fn the_greatest_of_what_grows_and_of_equals() {
    let count = large(100_000);
    let rising: Vec<f32> = (0..count).map(|i| i as f32).collect();
    let equal = vec![1.0f32; count];
    for level in Level::available() {
        let mut found = [0u32; 3];
        top::<f32>(
            level,
            &View::row(bytes(&rising), 4),
            3,
            bytes_mut(&mut found),
        );
        assert_eq!(found, [1, 2, 3].map(|behind| count as u32 - behind));
        top::<f32>(
            level,
            &View::row(bytes(&equal), 4),
            3,
            bytes_mut(&mut found),
        );
        assert_eq!(found, [0, 1, 2]);
    }
}

#[test]
fn rows_of_one_element_of_any_type() {
    fn check<K: Ordered>(x: K::Element) {
        let mut sorted = [K::Element::default()];
        let view = bytes(std::slice::from_ref(&x));
        let view = View::row(view, size_of::<K::Element>());
        sort::<K>(Level::PORTABLE, &view, 0, true, bytes_mut(&mut sorted));
        assert_eq!(bytes(&sorted), bytes(&[x]));
    }
    check::<f32>(-0.0);
    check::<i64>(i64::MIN);
    check::<F16>(0x8001);
}
