//! Roots: of squares by the processor's instruction, of cubes by a polynomial and a step.

use crate::math::arithmetic::Arithmetic;
use crate::math::double::root::cube_parts;

/// The square root.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    x.sqrt()
}

/// `1 / sqrt(x)`.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

/// The cube root.
#[inline(always)]
pub fn cbrt<A: Arithmetic>(x: f32) -> f32 {
    let size = f64::from(x).abs();
    let (m, thirds, r) = cube_parts::<A>(size);
    let value = m * (r * r) * thirds.power_of_two();
    let value = if (size > 0.0) & (size < f64::INFINITY) {
        value
    } else {
        size
    };
    (value as f32).copysign(x)
}
