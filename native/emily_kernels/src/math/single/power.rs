//! `x^y = 2^(y log2(x))`.

use crate::math::arithmetic::{clamp, nearest, normal_parts, polynomial, Arithmetic};
use crate::math::coefficients::{EXP2, LOG2_POWER};
use crate::math::double::power::limits;
use std::f64::consts::LOG2_E;

/// `x^y`.
#[inline(always)]
pub fn pow<A: Arithmetic>(x: f32, y: f32) -> f32 {
    // An infinite exponent of one is no more than a great one.
    let (x, y) = (f64::from(x), clamp(f64::from(y), -1e40, 1e40));
    let parts = normal_parts(x.abs());
    let f = parts.mantissa - 1.0;
    let near = A::mul_add(f * f, polynomial::<A, _>(&LOG2_POWER, f), f * LOG2_E);
    let exponent = clamp(y * (parts.exponent + near), -200.0, 200.0);
    let n = nearest(exponent);
    let f = exponent - n.value;
    let magnitude = A::mul_add(f, polynomial::<A, _>(&EXP2, f), 1.0) * n.power_of_two();
    limits(x, y, magnitude) as f32
}
