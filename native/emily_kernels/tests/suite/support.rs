//! Numbers and ways to compare them.

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::view::{Axes, Axis, Element};

/// A generator of numbers that are the same in each run (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }
}

/// Lengths around those of vectors and blocks; under Miri a few of them, as its time is that of all elements.
#[cfg(miri)]
pub const LENGTHS: [usize; 3] = [1, 8, 33];
#[cfg(not(miri))]
pub const LENGTHS: [usize; 19] = [
    1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 130,
];

/// The length of many blocks, of few under Miri.
pub const LONG: usize = if cfg!(miri) { 70 } else { 1000 };

/// A size that is cut into parts, which are smaller under Miri.
pub const fn large(size: usize) -> usize {
    if cfg!(miri) {
        size.div_ceil(16)
    } else {
        size
    }
}

/// So many cases at random; a few of them under Miri, which takes its time.
pub fn rounds(count: usize) -> usize {
    if cfg!(miri) {
        1 + count / 50
    } else {
        count
    }
}

/// Numbers of a type, of which some lie where their kind ends.
pub trait Sample: Element + PartialEq + std::fmt::Debug {
    fn sample(random: &mut Random) -> Self;
    /// Whether they are the same number; NaN is.
    fn is(self, other: Self) -> bool;
}

macro_rules! integers {
    ($($type:ident)*) => {
        $(impl Sample for $type {
            fn sample(random: &mut Random) -> Self {
                let edges = [$type::MIN, $type::MAX, 0, 1, $type::MAX - 1, $type::MIN + 1, !0, 2, 3];
                match random.below(4) {
                    0 => edges[random.below(edges.len())],
                    1 => (random.bits() % 80) as $type,
                    _ => random.bits() as $type,
                }
            }
            fn is(self, other: Self) -> bool { self == other }
        })*
    };
}

macro_rules! floats {
    ($($type:ident $bits:ident)*) => {
        $(impl Sample for $type {
            fn sample(random: &mut Random) -> Self {
                let edges = [
                    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.5 - $type::EPSILON / 4.0,
                    $type::MIN_POSITIVE, $type::MIN_POSITIVE / 8.0, -$type::MIN_POSITIVE / 4.0,
                    $type::MAX, $type::MIN, $type::INFINITY, $type::NEG_INFINITY, $type::NAN,
                    255.5, 65536.0, 2147483648.0, -2147483648.0, 4294967295.0, 9223372036854775808.0, 18446744073709551616.0,
                ];
                match random.below(3) {
                    0 => edges[random.below(edges.len())],
                    1 => ((random.bits() % 200_001) as $type - 100_000.0) / 256.0,
                    _ => $type::from_bits(random.bits() as $bits),
                }
            }
            fn is(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || (self.is_nan() && other.is_nan())
            }
        })*
    };
}

integers!(u8 u16 u32 u64 i8 i16 i32 i64);
floats!(f32 u32 f64 u64);

pub fn samples<T: Sample>(random: &mut Random, count: usize) -> Vec<T> {
    (0..count).map(|_| T::sample(random)).collect()
}

/// Axes in any order, backwards, with gaps, and repeated.
pub fn random_axes(random: &mut Random, shape: &[usize]) -> Axes {
    let mut axes: Axes = shape.iter().map(|&size| Axis { size, stride: 0 }).collect();
    let mut order: Vec<usize> = (0..shape.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    let mut step = 1;
    for at in order {
        let (factor, width) = [(1, 1), (1, 1), (-1, 1), (2, 2), (0, 1)][random.below(5)];
        axes[at].stride = factor * step;
        step *= width * axes[at].size as isize;
    }
    axes
}

pub fn bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements are bytes without gaps.
    unsafe { elements.align_to().1 }
}

pub fn bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and all bytes are elements.
    unsafe { elements.align_to_mut().1 }
}

/// What a map gives at a level.
pub fn mapped<O: Element>(
    map: &dyn Map,
    level: Level,
    inputs: &[&[u8]],
    count: usize,
    option: f64,
) -> Vec<O> {
    let mut output = vec![O::default(); count];
    map.run(level, inputs, bytes_mut(&mut output), option);
    output
}

/// A map of pairs at every level against `wanted`, over lengths around those of vectors.
pub fn check_pairs<T: Sample, O: Sample>(name: &str, map: &dyn Map, wanted: impl Fn(T, T) -> O) {
    let mut random = Random::new(1);
    for length in LENGTHS.into_iter().chain([LONG]) {
        let (x, y) = (
            samples::<T>(&mut random, length),
            samples::<T>(&mut random, length),
        );
        for level in Level::available() {
            let got = mapped::<O>(map, level, &[bytes(&x), bytes(&y)], length, 0.0);
            for i in 0..length {
                let wanted = wanted(x[i], y[i]);
                let level = level.name();
                assert!(
                    got[i].is(wanted),
                    "{level} {name} of {:?} and {:?}: {:?}, not {wanted:?}",
                    x[i],
                    y[i],
                    got[i]
                );
            }
        }
    }
}

/// A map of single numbers at every level against `wanted`.
pub fn check<T: Sample, O: Sample>(
    name: &str,
    map: &dyn Map,
    option: f64,
    wanted: impl Fn(T) -> O,
) {
    let mut random = Random::new(2);
    for length in LENGTHS.into_iter().chain([LONG]) {
        let x = samples::<T>(&mut random, length);
        for level in Level::available() {
            let got = mapped::<O>(map, level, &[bytes(&x)], length, option);
            for i in 0..length {
                let wanted = wanted(x[i]);
                let level = level.name();
                assert!(
                    got[i].is(wanted),
                    "{level} {name} of {:?}: {:?}, not {wanted:?}",
                    x[i],
                    got[i]
                );
            }
        }
    }
}
