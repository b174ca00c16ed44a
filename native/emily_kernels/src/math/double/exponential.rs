//! `x = n ln 2 + r` with `|r| <= ln 2 / 2`, so `e^x = 2^n e^r`.

use crate::math::arithmetic::{
    clamp, nearest, nearest_of_product, polynomial, quotient, sum, Arithmetic, Nearest,
};
use crate::math::coefficients::{EXP_LONG, LN_2};
use std::f64::consts::LOG2_E;

/// `n` and `r`, of `|x| < 1100`.
#[inline(always)]
pub(super) fn reduce<A: Arithmetic>(x: f64) -> (Nearest, f64, f64) {
    let n = nearest_of_product::<A>(x, LOG2_E);
    // The first part of ln 2 has as many zero bits as n has bits.
    let near = A::mul_add(-n.value, LN_2[0], x);
    let low = n.value * LN_2[1];
    let r = near - low;
    (n, r, (near - r) - low)
}

/// `e^x` as `p 2^n`, to a unit of the last place.
#[inline(always)]
pub(super) fn short_parts<A: Arithmetic>(x: f64) -> (f64, Nearest) {
    let (n, r, _) = reduce::<A>(x);
    let p = 1.0 + A::mul_add(r * r, polynomial::<A, _>(&EXP_LONG, r), r);
    (p, n)
}

/// `e^x` as `p 2^n`, nearly the nearest `p`, and its rest.
#[inline(always)]
pub(super) fn exp_parts<A: Arithmetic>(x: f64) -> (f64, f64, Nearest) {
    let (n, r, rest) = reduce::<A>(x);
    let tail = A::mul_add(r * r, polynomial::<A, _>(&EXP_LONG, r), rest);
    let (p, low) = sum(1.0, r);
    let (p, rest) = sum(p, low + tail);
    (p, rest, n)
}

/// `e^x`.
#[inline(always)]
pub fn exp<A: Arithmetic>(x: f64) -> f64 {
    let (p, _, n) = exp_parts::<A>(clamp(x, -746.0, 710.0));
    n.scale(p)
}

/// `e^x - 1`, exact near zero too.
#[inline(always)]
pub fn expm1<A: Arithmetic>(x: f64) -> f64 {
    let (n, r, rest) = reduce::<A>(clamp(x, -40.0, 710.0));
    let tail = A::mul_add(r * r, polynomial::<A, _>(&EXP_LONG, r), rest);
    // 2^n (1 + r + tail) - 1, at half its size since 2^1024 is no number.
    let half = nearest(n.value - 1.0).power_of_two();
    let (high, low) = sum(half - 0.5, half * r);
    let result = 2.0 * (high + (low + half * tail));
    if n.value == 0.0 {
        keep_zero(x, r + tail)
    } else {
        result
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<A: Arithmetic>(x: f64) -> f64 {
    let e = exp::<A>(-x.abs());
    let (below, rest) = sum(1.0, e);
    quotient::<A>([if x < 0.0 { e } else { 1.0 }, 0.0], [below, rest])
}

/// `y`, or a zero with its sign.
#[inline(always)]
pub(super) fn keep_zero(x: f64, y: f64) -> f64 {
    if x == 0.0 {
        x
    } else {
        y
    }
}
