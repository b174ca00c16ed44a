//! `x = q pi / 2 + r`, and polynomials of `r`. What is too far from zero for a quotient in a double goes through the
//! functions of f64.

use crate::math::arithmetic::{clamp, nearest, nearest_of_product, negate, polynomial, Arithmetic};
use crate::math::coefficients::{ASIN, ATAN, COS_QUARTER, HALF_PI_PARTS, SIN, SIN_QUARTER};
use crate::math::double;
use std::f64::consts::{FRAC_1_PI, FRAC_2_PI, FRAC_PI_2, FRAC_PI_4, PI};

/// Whether an angle is for the far functions.
#[inline(always)]
pub fn is_far(x: f32) -> bool {
    double::trigonometric::is_far(f64::from(x))
}

/// The sine beyond 2^20.
pub fn sin_far(x: f32) -> f32 {
    double::trigonometric::sin_far(f64::from(x)) as f32
}

/// The cosine beyond 2^20.
pub fn cos_far(x: f32) -> f32 {
    double::trigonometric::cos_far(f64::from(x)) as f32
}

/// The tangent beyond 2^20.
pub fn tan_far(x: f32) -> f32 {
    double::trigonometric::tan_far(f64::from(x)) as f32
}

/// `x - q pi / 2`, of which enough is left where it is least since `x` has 24 bits.
#[inline(always)]
fn reduce<A: Arithmetic>(x: f64, q: f64) -> f64 {
    const REST: f64 = HALF_PI_PARTS[1] + HALF_PI_PARTS[2];
    A::mul_add(-q, REST, A::mul_add(-q, HALF_PI_PARTS[0], x))
}

/// The sine of `r` up to pi / 2.
#[inline(always)]
fn sine<A: Arithmetic>(r: f64) -> f64 {
    let square = r * r;
    A::mul_add(r * square, polynomial::<A, _>(&SIN, square), r)
}

/// The sine up to 2^20.
#[inline(always)]
pub fn sin_near<A: Arithmetic>(x: f32) -> f32 {
    let wide = f64::from(x);
    let n = nearest_of_product::<A>(wide, FRAC_1_PI);
    let value = n.alternate(sine::<A>(reduce::<A>(wide, 2.0 * n.value))) as f32;
    if x == 0.0 {
        x
    } else {
        value
    }
}

/// The cosine up to 2^20.
#[inline(always)]
pub fn cos_near<A: Arithmetic>(x: f32) -> f32 {
    let wide = f64::from(x);
    let n = nearest(A::mul_add(wide, FRAC_1_PI, -0.5));
    n.alternate(-sine::<A>(reduce::<A>(wide, A::mul_add(2.0, n.value, 1.0)))) as f32
}

/// The tangent up to 2^20.
#[inline(always)]
pub fn tan_near<A: Arithmetic>(x: f32) -> f32 {
    let wide = f64::from(x);
    let n = nearest_of_product::<A>(wide, FRAC_2_PI);
    let r = reduce::<A>(wide, n.value);
    let square = r * r;
    let sine = A::mul_add(r * square, polynomial::<A, _>(&SIN_QUARTER, square), r);
    let cosine = A::mul_add(square, polynomial::<A, _>(&COS_QUARTER, square), 1.0);
    let above = if n.is_odd() { -cosine } else { sine };
    let below = if n.is_odd() { sine } else { cosine };
    let value = (above / below) as f32;
    if x == 0.0 {
        x
    } else {
        value
    }
}

/// The arcsine of `size`, or the arc cosine where it is above one half, and whether it is that.
#[inline(always)]
fn arc<A: Arithmetic>(size: f64) -> (f64, bool) {
    let is_far = size > 0.5;
    let half = (1.0 - size) * 0.5;
    let square = if is_far { half } else { size * size };
    let s = if is_far { half.sqrt() } else { size };
    let angle = A::mul_add(s * square, polynomial::<A, _>(&ASIN, square), s);
    (if is_far { angle + angle } else { angle }, is_far)
}

/// The angle whose sine is `x`.
#[inline(always)]
pub fn asin<A: Arithmetic>(x: f32) -> f32 {
    let (angle, is_far) = arc::<A>(f64::from(x).abs());
    ((if is_far { FRAC_PI_2 - angle } else { angle }) as f32).copysign(x)
}

/// The angle whose cosine is `x`.
#[inline(always)]
pub fn acos<A: Arithmetic>(x: f32) -> f32 {
    let x = f64::from(x);
    let (angle, is_far) = arc::<A>(x.abs());
    let start = if is_far { 0.0 } else { FRAC_PI_2 };
    let start = if is_far & (x < 0.0) {
        2.0 * FRAC_PI_2
    } else {
        start
    };
    (start + if is_far == (x < 0.0) { -angle } else { angle }) as f32
}

/// The angle whose tangent is `x`.
#[inline(always)]
pub fn atan<A: Arithmetic>(x: f32) -> f32 {
    let wide = f64::from(x);
    octants::<A>(wide, 1.0) as f32
}

/// The angle of the point (`x`, `y`), from -pi to pi.
#[inline(always)]
pub fn atan2<A: Arithmetic>(y: f32, x: f32) -> f32 {
    octants::<A>(f64::from(y), f64::from(x)) as f32
}

/// The angle of a point: the arc tangent of the lesser over the greater of its sizes, taken from a right angle where it is
/// steep, then from two where it is behind.
#[inline(always)]
fn octants<A: Arithmetic>(y: f64, x: f64) -> f64 {
    const TANGENT_OF_EIGHTH: f64 = 0.414_213_562_373_095_03;
    let (height, width) = (y.abs(), x.abs());
    let is_steep = height > width;
    // In this order both are NaN or one of them, where either is.
    let least = if height < width { height } else { width };
    let most = if width > height { width } else { height };
    // Bounds that no f32 but infinity and zero reaches.
    let least = if least > 1e200 { 1e200 } else { least };
    let most = clamp(most, 1e-200, 1e200);
    let is_high = least > TANGENT_OF_EIGHTH * most;
    let above = least - if is_high { most } else { 0.0 };
    let below = most + if is_high { least } else { 0.0 };
    let t = above / below;
    let square = t * t;
    let angle = A::mul_add(t * square, polynomial::<A, _>(&ATAN, square), t);
    let angle = angle + if is_high { FRAC_PI_4 } else { 0.0 };
    let angle = negate(angle, is_steep) + if is_steep { FRAC_PI_2 } else { 0.0 };
    let is_behind = x.is_sign_negative();
    let angle = negate(angle, is_behind) + if is_behind { PI } else { 0.0 };
    angle.copysign(y)
}
