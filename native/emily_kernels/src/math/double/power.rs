//! `x^y = 2^(y log2(x))`, with the logarithm in two doubles.

use crate::math::arithmetic::{clamp, nearest, parts, polynomial, sum, Arithmetic};
use crate::math::coefficients::{EXP2_LONG, INVERSE_LN_2, LOG_RATIO, TWO_THIRDS};

/// The logarithm to base 2 of a positive number and its rest, to 2^-65.
#[inline(always)]
fn log2_sum<A: Arithmetic>(x: f64) -> (f64, f64) {
    let parts = parts(x);
    let f = parts.mantissa - 1.0;
    // s = f / (2 + f), of which log(1 + f) = 2 s + 2/3 s^3 + s^5 (...).
    let (below, lost) = sum(2.0, f);
    let inverse = 1.0 / below;
    let s = f * inverse;
    let (product, error) = A::product(s, below);
    let s_low = (((f - product) - error) - s * lost) * inverse;
    let (square, error) = A::product(s, s);
    let square_low = A::mul_add(s + s, s_low, error);
    // 2/3 + s^2 (...)
    let (factor, low) = sum(
        TWO_THIRDS[0],
        square * polynomial::<A, _>(&LOG_RATIO, square),
    );
    let factor_low = low + TWO_THIRDS[1];
    let (cubic, error) = A::product(square, factor);
    let cubic_low = A::mul_add(square, factor_low, A::mul_add(square_low, factor, error));
    let (factor, low) = sum(2.0, cubic);
    let factor_low = low + cubic_low;
    let (natural, error) = A::product(s, factor);
    let natural_low = A::mul_add(s, factor_low, A::mul_add(s_low, factor, error));

    let (product, error) = A::product(natural, INVERSE_LN_2[0]);
    let low = A::mul_add(
        natural,
        INVERSE_LN_2[1],
        A::mul_add(natural_low, INVERSE_LN_2[0], error),
    );
    let (high, error) = sum(parts.exponent, product);
    sum(high, error + low)
}

/// Two to the sum.
#[inline(always)]
fn exp2_sum<A: Arithmetic>(x: f64, low: f64) -> f64 {
    let n = nearest(x);
    let f = (x - n.value) + low;
    n.scale(A::mul_add(f, polynomial::<A, _>(&EXP2_LONG, f), 1.0))
}

/// Whether a number at least zero is whole.
#[inline(always)]
fn is_whole(x: f64) -> bool {
    const ALL_WHOLE: f64 = 4_503_599_627_370_496.0;
    (x >= ALL_WHOLE) | ((x + ALL_WHOLE) - ALL_WHOLE == x)
}

/// What the magnitude of `x^y` is beside the rule: C99's special cases.
#[inline(always)]
pub(in crate::math) fn limits(x: f64, y: f64, magnitude: f64) -> f64 {
    let size = x.abs();
    let rises = (size > 1.0) == (y > 0.0);
    let limit = if rises { f64::INFINITY } else { 0.0 };
    let value = if (size == 0.0) | (size == f64::INFINITY) {
        limit
    } else {
        magnitude
    };
    let whole = is_whole(y.abs());
    let odd = whole & !is_whole(0.5 * y.abs());
    let signed = if odd & x.is_sign_negative() {
        -value
    } else {
        value
    };
    let unreal = (x < 0.0) & (size < f64::INFINITY) & !whole;
    let value = if unreal | x.is_nan() | y.is_nan() {
        f64::NAN
    } else {
        signed
    };
    if (y == 0.0) | (x == 1.0) {
        1.0
    } else {
        value
    }
}

/// `x^y`.
#[inline(always)]
pub fn pow<A: Arithmetic>(x: f64, y: f64) -> f64 {
    let (log, log_low) = log2_sum::<A>(x.abs());
    // No logarithm but zero is so small that a greater exponent would tell.
    let exponent = clamp(
        y,
        -36_893_488_147_419_103_232.0,
        36_893_488_147_419_103_232.0,
    );
    let (product, error) = A::product(exponent, log);
    let low = A::mul_add(exponent, log_low, error);
    let is_near = product.abs() < 1100.0;
    let magnitude = exp2_sum::<A>(
        clamp(product, -1100.0, 1100.0),
        if is_near { low } else { 0.0 },
    );
    limits(x, y, magnitude)
}
