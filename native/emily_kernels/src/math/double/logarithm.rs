//! `x = 2^k (1 + f)` with `1 + f` around one, so `log(x) = k log(2) + log(1 + f)`.

use crate::math::arithmetic::{normal_parts, parts, polynomial, sum, Arithmetic};
use crate::math::coefficients::{
    INVERSE_LN_10, INVERSE_LN_2, LN_2, LOG10_2, LOG10_LONG, LOG2_LONG, LOG_LONG,
};

use super::exponential::keep_zero;

/// `k log(2) + log(1 + f + rest)` and its own rest, where that of `f` is below the last place of one.
#[inline(always)]
fn natural<A: Arithmetic>(k: f64, f: f64, rest: f64) -> (f64, f64) {
    let square = f * f;
    let (high, low) = sum(k * LN_2[0], f);
    // The rest's factor is the slope, 1 / (1 + f), by the first terms of its series.
    let slope = A::mul_add(f, f - 1.0, 1.0);
    let cubic = square * f * polynomial::<A, _>(&LOG_LONG, f);
    let tail = A::mul_add(k, LN_2[1], A::mul_add(rest, slope, cubic));
    (high, A::mul_add(-0.5, square, low) + tail)
}

/// `k log(2) + log(1 + f)` to a base: of whole numbers of `f` in `scale`, of `k` in `step`.
#[inline(always)]
fn scaled<A: Arithmetic, const N: usize>(
    x: f64,
    step: [f64; 2],
    scale: [f64; 2],
    tail: &[f64; N],
) -> f64 {
    let parts = parts(x);
    let (k, f) = (parts.exponent, parts.mantissa - 1.0);
    let (product, error) = A::product(f, scale[0]);
    let (high, low) = sum(k * step[0], product);
    let rest = A::mul_add(f, scale[1], A::mul_add(k, step[1], error + low));
    limits(
        x,
        high + A::mul_add(f * f, polynomial::<A, _>(tail, f), rest),
    )
}

/// What the logarithm of `x` is where it is not `y`.
#[inline(always)]
pub(in crate::math) fn limits(x: f64, y: f64) -> f64 {
    let above = if x < f64::INFINITY { y } else { x };
    let zero = if x == 0.0 {
        f64::NEG_INFINITY
    } else {
        f64::NAN
    };
    if x <= 0.0 {
        zero
    } else {
        above
    }
}

/// The natural logarithm.
#[inline(always)]
pub fn log<A: Arithmetic>(x: f64) -> f64 {
    let parts = parts(x);
    let (high, low) = natural::<A>(parts.exponent, parts.mantissa - 1.0, 0.0);
    limits(x, high + low)
}

/// The natural logarithm of a positive normal number, and its rest.
#[inline(always)]
pub(super) fn log_sum<A: Arithmetic>(x: f64) -> (f64, f64) {
    let parts = normal_parts(x);
    let (high, low) = natural::<A>(parts.exponent, parts.mantissa - 1.0, 0.0);
    let log = high + low;
    (log, (high - log) + low)
}

/// The logarithm to base 2.
#[inline(always)]
pub fn log2<A: Arithmetic>(x: f64) -> f64 {
    scaled::<A, _>(x, [1.0, 0.0], INVERSE_LN_2, &LOG2_LONG)
}

/// The logarithm to base 10.
#[inline(always)]
pub fn log10<A: Arithmetic>(x: f64) -> f64 {
    scaled::<A, _>(x, LOG10_2, INVERSE_LN_10, &LOG10_LONG)
}

/// `log(1 + x)`, exact near zero too.
#[inline(always)]
pub fn log1p<A: Arithmetic>(x: f64) -> f64 {
    log1p_sum::<A>(x, 0.0)
}

/// `log(1 + x + low)`, where `x + low` rounds to `x`.
#[inline(always)]
pub(super) fn log1p_sum<A: Arithmetic>(x: f64, low: f64) -> f64 {
    let one = 1.0 + x;
    let near = one - x;
    let lost = (1.0 - near) + (x - (one - near));
    let parts = normal_parts(one);
    let is_near = parts.exponent == 0.0;
    let f = if is_near { x } else { parts.mantissa - 1.0 };
    // Beyond, nothing of the one is left to lose.
    let far = if one < 1e18 {
        (lost + low) * parts.inverse
    } else {
        0.0
    };
    let (high, low) = natural::<A>(parts.exponent, f, if is_near { low } else { far });
    keep_zero(x, limits(one, high + low))
}
