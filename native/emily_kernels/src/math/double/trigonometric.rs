//! `x = q pi / 2 + r`, and polynomials of `r`. What is too far from zero for a quotient in a double goes through
//! [`super::payne_hanek`].

use super::payne_hanek;
use crate::math::arithmetic::{nearest_of_product, negate, polynomial, sum, Arithmetic, Separate};
use crate::math::coefficients::{
    ASIN_LONG, ATAN_LONG, COS_QUARTER_LONG, HALF_PI, HALF_PI_PARTS, SIN_QUARTER_LONG, TAN_LONG,
};
use std::f64::consts::FRAC_2_PI;

use super::exponential::keep_zero;

/// The near functions hold up to here: a quotient has 20 bits, which the parts of pi / 2 leave room for.
const NEAR: f64 = 1_048_576.0;

/// Whether an angle is for the far functions.
#[inline(always)]
pub fn is_far(x: f64) -> bool {
    x.abs() > NEAR
}

/// `x - q pi / 2` and its rest.
#[inline(always)]
fn reduce<A: Arithmetic>(x: f64, q: f64) -> (f64, f64) {
    let first = A::mul_add(-q, HALF_PI_PARTS[0], x);
    let step = q * HALF_PI_PARTS[1];
    let second = first - step;
    let second_error = (first - second) - step;
    let step = q * HALF_PI_PARTS[2];
    let third = second - step;
    let third_error = (second - third) - step;
    let rest = A::mul_add(-q, HALF_PI_PARTS[3], second_error + third_error);
    let r = third + rest;
    (r, (third - r) + rest)
}

/// The sine of `r + low` and of as many right angles as the quadrant's lowest two bits say, with `r` up to pi / 4.
#[inline(always)]
fn sine<A: Arithmetic>(quadrant: u64, r: f64, low: f64) -> f64 {
    let square = r * r;
    let half = 0.5 * square;
    let cubic = r * square * polynomial::<A, _>(&SIN_QUARTER_LONG, square);
    let sine = r + A::mul_add(low, 1.0 - half, cubic);
    let (one, rest) = sum(1.0, -half);
    let fourth = square * square * polynomial::<A, _>(&COS_QUARTER_LONG, square);
    let cosine = one + (rest + A::mul_add(-r, low, fourth));
    let value = if quadrant & 1 == 0 { sine } else { cosine };
    f64::from_bits(value.to_bits() ^ ((quadrant & 2) << 62))
}

/// The tangent of `r + low`, with `r` up to pi / 4, or that of pi / 2 more.
#[inline(always)]
fn tangent<A: Arithmetic>(r: f64, low: f64, is_odd: bool) -> f64 {
    let square = r * r;
    let cubic = r * square * polynomial::<A, _>(&TAN_LONG, square);
    let (t, rest) = sum(r, A::mul_add(low, 1.0 + square, cubic));
    let inverse = -1.0 / t;
    let (product, error) = A::product(inverse, t);
    let missing = ((1.0 + product) + error) + inverse * rest;
    let other = A::mul_add(inverse, missing, inverse);
    if is_odd {
        other
    } else {
        t + rest
    }
}

/// The sine up to 2^20.
#[inline(always)]
pub fn sin_near<A: Arithmetic>(x: f64) -> f64 {
    let n = nearest_of_product::<A>(x, FRAC_2_PI);
    let (r, low) = reduce::<A>(x, n.value);
    keep_zero(x, sine::<A>(n.bits, r, low))
}

/// The cosine up to 2^20.
#[inline(always)]
pub fn cos_near<A: Arithmetic>(x: f64) -> f64 {
    let n = nearest_of_product::<A>(x, FRAC_2_PI);
    let (r, low) = reduce::<A>(x, n.value);
    sine::<A>(n.bits.wrapping_add(1), r, low)
}

/// The tangent up to 2^20.
#[inline(always)]
pub fn tan_near<A: Arithmetic>(x: f64) -> f64 {
    let n = nearest_of_product::<A>(x, FRAC_2_PI);
    let (r, low) = reduce::<A>(x, n.value);
    keep_zero(x, tangent::<A>(r, low, n.is_odd()))
}

/// The sine of a number beyond 2^20.
pub fn sin_far(x: f64) -> f64 {
    let (quadrant, r, low) = payne_hanek::reduce(x);
    sine::<Separate>(quadrant, r, low)
}

/// The cosine of a number beyond 2^20.
pub fn cos_far(x: f64) -> f64 {
    let (quadrant, r, low) = payne_hanek::reduce(x);
    sine::<Separate>(quadrant + 1, r, low)
}

/// The tangent of a number beyond 2^20.
pub fn tan_far(x: f64) -> f64 {
    let (quadrant, r, low) = payne_hanek::reduce(x);
    tangent::<Separate>(r, low, quadrant & 1 != 0)
}

/// `asin(x) / x - 1` of the square of what is at most one half, times `x`.
#[inline(always)]
fn arc<A: Arithmetic>(x: f64, square: f64) -> f64 {
    x * square * polynomial::<A, _>(&ASIN_LONG, square)
}

/// For what is above one half: the root of `(1 - |x|) / 2`, whose arcsine is half of the arc cosine, and its square.
#[inline(always)]
fn complement(size: f64) -> (f64, f64) {
    let square = (1.0 - size) * 0.5;
    (square.sqrt(), square)
}

/// The angle whose sine is `x`.
#[inline(always)]
pub fn asin<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    let is_near = size <= 0.5;
    let (root, square) = complement(size);
    let square = if is_near { size * size } else { square };
    let s = if is_near { size } else { root };
    let rest = arc::<A>(s, square);
    let (high, low) = sum(HALF_PI[0], -2.0 * s);
    let far = high + (low + A::mul_add(-2.0, rest, HALF_PI[1]));
    (if is_near { s + rest } else { far }).copysign(x)
}

/// The angle whose cosine is `x`.
#[inline(always)]
pub fn acos<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    let is_near = size <= 0.5;
    let (root, square) = complement(size);
    let square = if is_near { x * x } else { square };
    let s = if is_near { x } else { root };
    let rest = arc::<A>(s, square);
    let (high, low) = sum(HALF_PI[0], if is_near || x < 0.0 { -s } else { 0.0 });
    let turned = high + (low + (HALF_PI[1] - rest));
    let near_one = 2.0 * (s + rest);
    let far = if x < 0.0 { 2.0 * turned } else { near_one };
    if is_near {
        turned
    } else {
        far
    }
}

/// The angle whose tangent is `x`.
#[inline(always)]
pub fn atan<A: Arithmetic>(x: f64) -> f64 {
    octants::<A>(x, 1.0)
}

/// The angle of the point (`x`, `y`), from -pi to pi.
#[inline(always)]
pub fn atan2<A: Arithmetic>(y: f64, x: f64) -> f64 {
    octants::<A>(y, x)
}

/// The angle of a point: the arc tangent of the lesser over the greater of its sizes, taken from a right angle where it
/// is steep, and then from two where it is behind.
#[inline(always)]
fn octants<A: Arithmetic>(y: f64, x: f64) -> f64 {
    const TANGENT_OF_EIGHTH: f64 = 0.414_213_562_373_095_03;
    const TWO_TO_100: f64 = 1_267_650_600_228_229_401_496_703_205_376.0;
    // The least of all, for a quotient of two zeros that is none.
    const LEAST: f64 = f64::from_bits(1);
    let (height, width) = (y.abs(), x.abs());
    let is_steep = height > width;
    // In this order both are NaN or one of them, where either is.
    let least = if height < width { height } else { width };
    let most = if width > height { width } else { height };
    // Zero beside infinity, but NaN stays.
    let is_infinite = most == f64::INFINITY;
    let beside = if least == f64::INFINITY {
        1.0
    } else {
        least * 0.0
    };
    // Their sum does not overflow, and neither is below the normal numbers where it counts.
    let scale = if most > 1e300 { 1.0 / TWO_TO_100 } else { 1.0 };
    let scale = if most < 1e-260 { TWO_TO_100 } else { scale };
    let most = if most < LEAST { LEAST } else { most };
    let least = if is_infinite { beside } else { least * scale };
    let most = if is_infinite { 1.0 } else { most * scale };
    let is_high = least > TANGENT_OF_EIGHTH * most;
    let above = least - if is_high { most } else { 0.0 };
    let below = most + if is_high { least } else { 0.0 };
    let t = above / below;
    let square = t * t;
    let rest = t * square * polynomial::<A, _>(&ATAN_LONG, square);
    let is_behind = x.is_sign_negative();
    // In right angles: what the angle is added to or taken from.
    let start = if is_high { 0.5 } else { 0.0 };
    let start = negate(start, is_steep) + if is_steep { 1.0 } else { 0.0 };
    let start = negate(start, is_behind) + if is_behind { 2.0 } else { 0.0 };
    let turned = is_steep != is_behind;
    let (high, low) = sum(start * HALF_PI[0], negate(t, turned));
    (high + A::mul_add(start, HALF_PI[1], negate(rest, turned) + low)).copysign(y)
}
