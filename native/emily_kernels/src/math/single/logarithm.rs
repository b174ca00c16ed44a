//! `x = 2^k (1 + f)` with `1 + f` around one, so `log(x) = k log(2) + log(1 + f)`.

use crate::math::arithmetic::{normal_parts, polynomial, Arithmetic};
use crate::math::coefficients::LOG;
use crate::math::double::logarithm::limits;
use std::f64::consts::{LN_2, LOG10_2, LOG10_E, LOG2_E};

/// `log(1 + f)`.
#[inline(always)]
fn near<A: Arithmetic>(f: f64) -> f64 {
    A::mul_add(f * f, polynomial::<A, _>(&LOG, f), f)
}

/// The logarithm of `2^k` is `k step`, that of the rest is the natural one times `scale`. Numbers below the normal ones of
/// f32 are normal in f64.
#[inline(always)]
fn scaled<A: Arithmetic>(x: f32, step: f64, scale: f64) -> f32 {
    let x = f64::from(x);
    let parts = normal_parts(x);
    let y = A::mul_add(
        parts.exponent,
        step,
        near::<A>(parts.mantissa - 1.0) * scale,
    );
    limits(x, y) as f32
}

/// The natural logarithm.
#[inline(always)]
pub fn log<A: Arithmetic>(x: f32) -> f32 {
    let x = f64::from(x);
    limits(x, natural::<A>(x)) as f32
}

/// The natural logarithm of a positive normal number.
#[inline(always)]
pub(super) fn natural<A: Arithmetic>(x: f64) -> f64 {
    let parts = normal_parts(x);
    A::mul_add(parts.exponent, LN_2, near::<A>(parts.mantissa - 1.0))
}

/// The logarithm to base 2.
#[inline(always)]
pub fn log2<A: Arithmetic>(x: f32) -> f32 {
    scaled::<A>(x, 1.0, LOG2_E)
}

/// The logarithm to base 10.
#[inline(always)]
pub fn log10<A: Arithmetic>(x: f32) -> f32 {
    scaled::<A>(x, LOG10_2, LOG10_E)
}

/// `log(1 + x)`, exact near zero too.
#[inline(always)]
pub fn log1p<A: Arithmetic>(x: f32) -> f32 {
    let value = natural_of_one_and::<A>(f64::from(x)) as f32;
    if x == 0.0 {
        x
    } else {
        value
    }
}

/// `log(1 + x)`, of numbers whose last place in a double does not count.
#[inline(always)]
pub(super) fn natural_of_one_and<A: Arithmetic>(x: f64) -> f64 {
    let one = 1.0 + x;
    let parts = normal_parts(one);
    let f = if parts.exponent == 0.0 {
        x
    } else {
        parts.mantissa - 1.0
    };
    limits(one, A::mul_add(parts.exponent, LN_2, near::<A>(f)))
}
