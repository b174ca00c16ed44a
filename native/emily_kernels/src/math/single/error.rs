//! The error function by one polynomial, and its relatives.

use super::logarithm::natural;
use crate::math::arithmetic::{clamp, polynomial, Arithmetic};
use crate::math::coefficients::{ERF, ERFINV_FAR, ERFINV_NEAR};
use crate::math::double;

/// The error function, which is one in f32 from 4 on.
#[inline(always)]
pub fn erf<A: Arithmetic>(x: f32) -> f32 {
    let wide = clamp(f64::from(x), -4.0, 4.0);
    let u = A::mul_add(wide * wide, 0.125, -1.0);
    (wide * polynomial::<A, _>(&ERF, u)) as f32
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
