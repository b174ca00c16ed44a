//! `e^x` and `e^-x` have the same `n` and `r`: both functions are sums of `cosh(r)` and `sinh(r)` times powers of two.

use super::exponential::reduce;
use super::logarithm::natural_of_one_and;
use crate::math::arithmetic::{clamp, nearest, polynomial, Arithmetic};
use crate::math::coefficients::{COSH, SINH};

/// The hyperbolic sine and cosine, of |x| < 700.
#[inline(always)]
fn both<A: Arithmetic>(x: f64) -> (f64, f64) {
    let (n, r) = reduce::<A>(x);
    let square = r * r;
    let sinh = A::mul_add(r * square, polynomial::<A, _>(&SINH, square), r);
    let cosh = A::mul_add(square, polynomial::<A, _>(&COSH, square), 1.0);
    let grown = n.power_of_two() * 0.5;
    let shrunk = nearest(-n.value).power_of_two() * 0.5;
    let (plus, minus) = (grown + shrunk, grown - shrunk);
    (
        A::mul_add(plus, sinh, minus * cosh),
        A::mul_add(minus, sinh, plus * cosh),
    )
}

/// The hyperbolic sine.
#[inline(always)]
pub fn sinh<A: Arithmetic>(x: f32) -> f32 {
    let (sinh, _) = both::<A>(clamp(f64::from(x), -100.0, 100.0));
    (sinh as f32).copysign(x)
}

/// The hyperbolic cosine.
#[inline(always)]
pub fn cosh<A: Arithmetic>(x: f32) -> f32 {
    both::<A>(clamp(f64::from(x), -100.0, 100.0)).1 as f32
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh<A: Arithmetic>(x: f32) -> f32 {
    let (sinh, cosh) = both::<A>(clamp(f64::from(x), -20.0, 20.0));
    ((sinh / cosh) as f32).copysign(x)
}

/// The number whose hyperbolic sine is `x`.
#[inline(always)]
pub fn asinh<A: Arithmetic>(x: f32) -> f32 {
    let size = f64::from(x).abs();
    let square = size * size;
    // Below, the root's digits would not be enough, and the next term of its series is none that counts.
    let rest = if size < 1e-4 {
        0.5 * square
    } else {
        (1.0 + square).sqrt() - 1.0
    };
    (natural_of_one_and::<A>(size + rest) as f32).copysign(x)
}

/// The number at least zero whose hyperbolic cosine is `x`.
#[inline(always)]
pub fn acosh<A: Arithmetic>(x: f32) -> f32 {
    let t = f64::from(x) - 1.0;
    let value = natural_of_one_and::<A>(t + A::mul_add(t, t, t + t).sqrt()) as f32;
    if x < 1.0 {
        f32::NAN
    } else {
        value
    }
}

/// The number whose hyperbolic tangent is `x`.
#[inline(always)]
pub fn atanh<A: Arithmetic>(x: f32) -> f32 {
    let size = f64::from(x).abs();
    let ratio = (size + size) / (1.0 - size);
    ((0.5 * natural_of_one_and::<A>(ratio)) as f32).copysign(x)
}
