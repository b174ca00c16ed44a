//! `e^x` and `e^-x` have the same `n` and `r`: both functions are sums of `cosh(r)` and `sinh(r)` times powers of two.

use super::exponential::{keep_zero, reduce};
use super::logarithm::log1p_sum;
use crate::math::arithmetic::{clamp, nearest, polynomial, quotient, sum, Arithmetic};
use crate::math::coefficients::{COSH_LONG, SINH_LONG};
use std::f64::consts::LN_2;

/// The hyperbolic sine and cosine of `x` (at least zero) over a factor, each with its rest, and the factor.
#[inline(always)]
fn both<A: Arithmetic>(x: f64) -> ([f64; 2], [f64; 2], f64) {
    let (n, r, low) = reduce::<A>(x);
    let square = r * r;
    let sinh = A::mul_add(r * square, polynomial::<A, _>(&SINH_LONG, square), low);
    let cosh = square * polynomial::<A, _>(&COSH_LONG, square);
    const TWO_TO_100: f64 = 1_267_650_600_228_229_401_496_703_205_376.0;
    let factor = if n.value > 900.0 { TWO_TO_100 } else { 1.0 };
    let reduced = n.value - if n.value > 900.0 { 100.0 } else { 0.0 };
    let grown = nearest(reduced - 1.0).power_of_two();
    // Beyond, nothing of it is seen.
    let shrunk = nearest(if n.value < 64.0 {
        -1.0 - n.value
    } else {
        -200.0
    })
    .power_of_two();
    let (plus, minus) = (grown + shrunk, grown - shrunk);
    let combine = |one: f64, other: f64| {
        // one (1 + cosh) + other (r + sinh)
        let (product, error) = A::product(other, r);
        let (high, low) = sum(one, product);
        [high, (low + error) + A::mul_add(one, cosh, other * sinh)]
    };
    (combine(minus, plus), combine(plus, minus), factor)
}

/// The hyperbolic sine.
#[inline(always)]
pub fn sinh<A: Arithmetic>(x: f64) -> f64 {
    let size = clamp(x.abs(), 0.0, 711.0);
    let ([high, low], _, factor) = both::<A>(size);
    (if size < 1e-9 {
        size
    } else {
        (high + low) * factor
    })
    .copysign(x)
}

/// The hyperbolic cosine.
#[inline(always)]
pub fn cosh<A: Arithmetic>(x: f64) -> f64 {
    let (_, [high, low], factor) = both::<A>(clamp(x.abs(), 0.0, 711.0));
    (high + low) * factor
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh<A: Arithmetic>(x: f64) -> f64 {
    let size = clamp(x.abs(), 0.0, 22.0);
    let (sinh, cosh, _) = both::<A>(size);
    let (above, above_rest) = sum(sinh[0], sinh[1]);
    let (below, below_rest) = sum(cosh[0], cosh[1]);
    let value = quotient::<A>([above, above_rest], [below, below_rest]);
    (if size < 1e-9 { size } else { value }).copysign(x)
}

/// The number whose hyperbolic sine is `x`.
#[inline(always)]
pub fn asinh<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    let is_far = size > 1e9;
    // |x| + sqrt(1 + x^2) - 1, whose last part loses no digits as a quotient.
    let near = if is_far { 1.0 } else { size };
    let square = near * near;
    let (f, rest) = sum(near, square / (1.0 + (1.0 + square).sqrt()));
    // Beyond, log(2 |x|).
    let value = log1p_sum::<A>(
        if is_far { size - 1.0 } else { f },
        if is_far { 0.0 } else { rest },
    );
    (if is_far { value + LN_2 } else { value }).copysign(x)
}

/// The number at least zero whose hyperbolic cosine is `x`.
#[inline(always)]
pub fn acosh<A: Arithmetic>(x: f64) -> f64 {
    let is_far = x > 1e9;
    let t = x - 1.0;
    let near = if is_far { 1.0 } else { t };
    let root = A::mul_add(near, near, near + near).sqrt();
    let is_close = near < 1.0;
    let (f, rest) = sum(
        if is_close { root } else { near },
        if is_close { near } else { root },
    );
    let value = log1p_sum::<A>(if is_far { t } else { f }, if is_far { 0.0 } else { rest });
    let value = if is_far { value + LN_2 } else { value };
    if x < 1.0 {
        f64::NAN
    } else {
        value
    }
}

/// The number whose hyperbolic tangent is `x`.
#[inline(always)]
pub fn atanh<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    // Half of log(1 + 2 x / (1 - x)).
    let (below, lost) = sum(1.0, -size);
    let twice = size + size;
    let f = twice / below;
    let (product, error) = A::product(f, below);
    let missing = ((twice - product) - error) - f * lost;
    // 1 / below is 1 + f / 2.
    let rest = A::mul_add(missing, 0.5 * f, missing);
    let rest = if size < 1.0 { rest } else { 0.0 };
    keep_zero(x, (0.5 * log1p_sum::<A>(f, rest)).copysign(x))
}
