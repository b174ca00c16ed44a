//! Roots: of squares by the processor's instruction, of cubes by a polynomial and steps of higher order.

use crate::math::arithmetic::{nearest, polynomial, Arithmetic, Nearest};
use crate::math::coefficients::CBRT_INVERSE;

/// The square root.
#[inline(always)]
pub fn sqrt(x: f64) -> f64 {
    x.sqrt()
}

/// `1 / sqrt(x)`.
#[inline(always)]
pub fn rsqrt(x: f64) -> f64 {
    1.0 / x.sqrt()
}

/// A normal number at least zero as `m 2^(3 q)` with `m` from 1 to 8, and `m^(-1/3)` to 2^-44.
#[inline(always)]
pub(in crate::math) fn cube_parts<A: Arithmetic>(x: f64) -> (f64, Nearest, f64) {
    const ROOT_OF_2: f64 = 0.793_700_525_984_099_8;
    const ROOT_OF_4: f64 = 0.629_960_524_947_436_6;
    let bits = x.to_bits();
    let exponent = f64::from_bits((bits >> 52) | 0x4330 << 48) - (4_503_599_627_370_496.0 + 1023.0);
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let thirds = nearest((exponent - 1.0) * (1.0 / 3.0));
    let left = exponent - 3.0 * thirds.value;
    let (factor, root) = if left == 1.0 {
        (2.0, ROOT_OF_2)
    } else {
        (4.0, ROOT_OF_4)
    };
    let (factor, root) = if left == 0.0 {
        (1.0, 1.0)
    } else {
        (factor, root)
    };
    let m = mantissa * factor;
    let r = polynomial::<A, _>(&CBRT_INVERSE, mantissa) * root;
    let missing = A::mul_add(-m * r, r * r, 1.0);
    let step = missing * A::mul_add(missing, 2.0 / 9.0, 1.0 / 3.0);
    (m, thirds, A::mul_add(r, step, r))
}

/// The cube root.
#[inline(always)]
pub fn cbrt<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    let tiny = size < f64::MIN_POSITIVE;
    let (m, thirds, r) = cube_parts::<A>(if tiny {
        size * 18_014_398_509_481_984.0
    } else {
        size
    });
    let inverse_square = r * r;
    let root = m * inverse_square;
    // One step of Newton's, with m - root^3 to all its digits.
    let (square, square_error) = A::product(root, root);
    let (cube, cube_error) = A::product(square, root);
    let missing = ((m - cube) - cube_error) - square_error * root;
    let root = A::mul_add(missing * inverse_square, 1.0 / 3.0, root);
    let value = root * thirds.power_of_two() * if tiny { 1.0 / 262_144.0 } else { 1.0 };
    let value = if (size > 0.0) & (size < f64::INFINITY) {
        value
    } else {
        size
    };
    value.copysign(x)
}
