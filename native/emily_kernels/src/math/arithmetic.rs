//! What the functions are made of: the two ways to multiply and add, polynomials, and numbers taken apart by their bits.

/// How a product and a sum are computed on a level of processors. The functions are generic over it, since a
/// multiplication and addition in one step is one instruction on some levels and a call of a library on others.
pub trait Arithmetic: Copy {
    /// `a * b + c`.
    fn mul_add(a: f64, b: f64, c: f64) -> f64;

    /// `a * b + c` of f32.
    fn mul_add_single(a: f32, b: f32, c: f32) -> f32;

    /// `a * b` as a rounded product and its error, where neither overflows nor falls below the normal numbers.
    fn product(a: f64, b: f64) -> (f64, f64);
}

/// Rounds once, for functions that are compiled with an instruction for it (FMA, AVX-512, NEON).
#[derive(Clone, Copy)]
pub struct Fused;

/// Rounds the product and the sum, for every processor.
#[derive(Clone, Copy)]
pub struct Separate;

impl Arithmetic for Fused {
    #[inline(always)]
    fn mul_add(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn mul_add_single(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn product(a: f64, b: f64) -> (f64, f64) {
        let product = a * b;
        (product, a.mul_add(b, -product))
    }
}

impl Arithmetic for Separate {
    #[inline(always)]
    fn mul_add(a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }

    #[inline(always)]
    fn mul_add_single(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    /// Veltkamp's halves, whose products are exact.
    #[inline(always)]
    fn product(a: f64, b: f64) -> (f64, f64) {
        let halves = |x: f64| {
            let scaled = x * 134_217_729.0;
            let high = scaled - (scaled - x);
            (high, x - high)
        };
        let product = a * b;
        let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
        let error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
        (product, error)
    }
}

/// The polynomial of the coefficients, from the constant on. A long one is computed in two halves, of even powers and of
/// odd ones, that do not wait for each other.
#[inline(always)]
pub(super) fn polynomial<A: Arithmetic, const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    if N < 8 {
        return powers::<A, N, 1>(coefficients, x, N - 1);
    }
    let square = x * x;
    let first = powers::<A, N, 2>(coefficients, square, N - 1);
    let second = powers::<A, N, 2>(coefficients, square, N - 2);
    let (even, odd) = if N % 2 == 1 {
        (first, second)
    } else {
        (second, first)
    };
    A::mul_add(odd, x, even)
}

/// The polynomial of the coefficients and its rest, one power after the other: of halves that would be far greater than
/// their sum.
#[inline(always)]
pub(super) fn polynomial_sum<A: Arithmetic, const N: usize>(
    coefficients: &[f64; N],
    x: f64,
) -> (f64, f64) {
    let mut powers = coefficients[N - 1];
    for i in (1..N - 1).rev() {
        powers = A::mul_add(powers, x, coefficients[i]);
    }
    let (product, error) = A::product(powers, x);
    let (sum, low) = sum(coefficients[0], product);
    (sum, low + error)
}

/// The polynomial of every `STEP`th coefficient down from the one at `last`.
#[inline(always)]
fn powers<A: Arithmetic, const N: usize, const STEP: usize>(
    coefficients: &[f64; N],
    x: f64,
    last: usize,
) -> f64 {
    let mut sum = coefficients[last];
    let mut i = last;
    while i >= STEP {
        i -= STEP;
        sum = A::mul_add(sum, x, coefficients[i]);
    }
    sum
}

/// `a + b` rounded and its error, where `a` is the greater one or zero.
#[inline(always)]
pub(super) fn sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// The quotient of two numbers, each with its rest, rounded nearly once.
#[inline(always)]
pub(super) fn quotient<A: Arithmetic>(above: [f64; 2], below: [f64; 2]) -> f64 {
    let inverse = 1.0 / below[0];
    let quotient = above[0] * inverse;
    let (product, error) = A::product(quotient, below[0]);
    let missing = (((above[0] - product) - error) + above[1]) - quotient * below[1];
    A::mul_add(missing, inverse, quotient)
}

/// A number added to this is rounded to a whole one, which is left in the lowest bits.
const WHOLE: f64 = 6_755_399_441_055_744.0;

/// The nearest whole number, to 2^51 at most.
#[derive(Clone, Copy)]
pub(super) struct Nearest {
    pub value: f64,
    /// The number in the lowest bits, in the complement of two.
    pub bits: u64,
}

#[inline(always)]
pub(super) fn nearest(x: f64) -> Nearest {
    nearest_of_product::<Separate>(x, 1.0)
}

#[inline(always)]
pub(super) fn nearest_of_product<A: Arithmetic>(x: f64, factor: f64) -> Nearest {
    let shifted = A::mul_add(x, factor, WHOLE);
    Nearest {
        value: shifted - WHOLE,
        bits: shifted.to_bits(),
    }
}

impl Nearest {
    #[inline(always)]
    pub fn is_odd(self) -> bool {
        self.bits & 1 != 0
    }

    /// Negates what stands for an odd number.
    #[inline(always)]
    pub fn alternate(self, x: f64) -> f64 {
        f64::from_bits(x.to_bits() ^ (self.bits << 63))
    }

    /// Two to this number, from -1022 to 1023.
    #[inline(always)]
    pub fn power_of_two(self) -> f64 {
        f64::from_bits(self.bits.wrapping_add(1023) << 52)
    }

    /// `x` times two to this number, from -2000 to 2000, rounded once.
    #[inline(always)]
    pub fn scale(self, x: f64) -> f64 {
        let half = nearest(self.value * 0.5);
        let rest = Nearest {
            value: 0.0,
            bits: self.bits.wrapping_sub(half.bits),
        };
        x * half.power_of_two() * rest.power_of_two()
    }
}

/// A positive number as `mantissa * 2^exponent`, with the mantissa from the root of one half to the root of two.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub mantissa: f64,
    pub exponent: f64,
    /// Two to minus the exponent, up to 2^1022.
    pub inverse: f64,
}

const ROOT_OF_HALF: u64 = 0x3fe6_a09e_667f_3bcd;

/// The parts of a normal number.
#[inline(always)]
pub(super) fn normal_parts(x: f64) -> Parts {
    const BIAS: u64 = 1024;
    const FIELD: u64 = 0xfff << 52;
    let bits = x.to_bits();
    let above = bits.wrapping_sub(ROOT_OF_HALF).wrapping_add(BIAS << 52) & FIELD;
    let whole = f64::from_bits((above >> 52) | 0x4330 << 48);
    Parts {
        mantissa: f64::from_bits(bits.wrapping_sub(above).wrapping_add(BIAS << 52)),
        exponent: whole - (4_503_599_627_370_496.0 + 1024.0),
        inverse: f64::from_bits((2047u64 << 52).wrapping_sub(above)),
    }
}

#[inline(always)]
pub(super) fn parts(x: f64) -> Parts {
    let tiny = x < f64::MIN_POSITIVE;
    let parts = normal_parts(if tiny {
        x * 18_014_398_509_481_984.0
    } else {
        x
    });
    Parts {
        exponent: parts.exponent - if tiny { 54.0 } else { 0.0 },
        ..parts
    }
}

/// `x` with its other sign, where the condition holds.
#[inline(always)]
pub(super) fn negate(x: f64, condition: bool) -> f64 {
    f64::from_bits(x.to_bits() ^ (u64::from(condition) << 63))
}

/// `x` within the limits; NaN stays.
#[inline(always)]
pub(super) fn clamp(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high {
        high
    } else {
        x
    }
}
