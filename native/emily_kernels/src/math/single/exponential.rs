//! `x = n ln 2 + r` with `|r| <= ln 2 / 2`, so `e^x = 2^n e^r`.

use crate::math::arithmetic::{clamp, nearest_of_product, polynomial, Arithmetic, Nearest};
use crate::math::coefficients::EXP;
use std::f64::consts::{LN_2, LOG2_E};

/// `n` and `r`.
#[inline(always)]
pub(super) fn reduce<A: Arithmetic>(x: f64) -> (Nearest, f64) {
    let n = nearest_of_product::<A>(x, LOG2_E);
    (n, A::mul_add(-n.value, LN_2, x))
}

/// `e^x` in a double, of |x| < 700.
#[inline(always)]
pub(super) fn power<A: Arithmetic>(x: f64) -> f64 {
    let (n, r) = reduce::<A>(x);
    A::mul_add(r, A::mul_add(r, polynomial::<A, _>(&EXP, r), 1.0), 1.0) * n.power_of_two()
}

/// `e^x`.
#[inline(always)]
pub fn exp<A: Arithmetic>(x: f32) -> f32 {
    power::<A>(clamp(f64::from(x), -110.0, 90.0)) as f32
}

/// `e^x - 1`, exact near zero too.
#[inline(always)]
pub fn expm1<A: Arithmetic>(x: f32) -> f32 {
    let (n, r) = reduce::<A>(clamp(f64::from(x), -40.0, 90.0));
    let scale = n.power_of_two();
    let grown = A::mul_add(r * r, polynomial::<A, _>(&EXP, r), r);
    let value = A::mul_add(grown, scale, scale - 1.0) as f32;
    if x == 0.0 {
        x
    } else {
        value
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<A: Arithmetic>(x: f32) -> f32 {
    (1.0 / (1.0 + power::<A>(-clamp(f64::from(x), -110.0, 90.0)))) as f32
}
