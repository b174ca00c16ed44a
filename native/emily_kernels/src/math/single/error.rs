//! The error function by one polynomial, and its relatives.

use super::logarithm::natural;
use crate::math::arithmetic::{clamp, polynomial, Arithmetic};
use crate::math::coefficients::{ERF, ERFINV_FAR, ERFINV_NEAR};
use crate::math::double;

/// The error function in a double, which is one in f32 from 4 on.
#[inline(always)]
pub(super) fn error_function<A: Arithmetic>(x: f64) -> f64 {
    let near = clamp(x, -4.0, 4.0);
    let u = A::mul_add(near * near, 0.125, -1.0);
    near * polynomial::<A, _>(&ERF, u)
}

/// The error function.
#[inline(always)]
pub fn erf<A: Arithmetic>(x: f32) -> f32 {
    error_function::<A>(f64::from(x)) as f32
}

/// `1 - erf(x)`, exact in its tail too.
#[inline(always)]
pub fn erfc<A: Arithmetic>(x: f32) -> f32 {
    double::error::erfc::<A>(f64::from(x)) as f32
}

/// The number whose error function is `x`.
#[inline(always)]
pub fn erf_inv<A: Arithmetic>(x: f32) -> f32 {
    let x = f64::from(x);
    let w = -natural::<A>(A::mul_add(-x, x, 1.0));
    let near = polynomial::<A, _>(&ERFINV_NEAR, w);
    let far = polynomial::<A, _>(&ERFINV_FAR, w.sqrt() - 3.25);
    let factor = if w < 5.0 { near } else { far };
    // Infinity at one, NaN beyond.
    let limit = if x.abs() == 1.0 {
        f64::INFINITY
    } else {
        f64::NAN
    };
    (x * if x.abs() < 1.0 { factor } else { limit }) as f32
}
