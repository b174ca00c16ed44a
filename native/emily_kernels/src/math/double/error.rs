//! The error function: near zero a polynomial, beyond it what is missing to one, which is `e^(-x^2) / x` times another.

use super::exponential::{exp_parts, keep_zero, short_parts};
use super::logarithm::log_sum;
use crate::math::arithmetic::{clamp, polynomial, polynomial_sum, quotient, sum, Arithmetic};
use crate::math::coefficients::{
    ERFC_LONG, ERFINV_FAR_LONG, ERFINV_MIDDLE_LONG, ERFINV_NEAR_LONG, ERF_LONG, INVERSE_ROOT_OF_PI,
};

/// Where the tail begins, since the other polynomial's sum has fewer digits than its terms beyond.
const FAR: f64 = 0.75;

/// `erf(x) - x` of what is at most one.
#[inline(always)]
fn near<A: Arithmetic>(x: f64) -> f64 {
    x * polynomial::<A, _>(&ERF_LONG, x * x)
}

/// `1 - erf(x)` of what is at least [`FAR`].
#[inline(always)]
fn tail<A: Arithmetic>(x: f64) -> f64 {
    let x = clamp(x, FAR, 28.0);
    let (square, error) = A::product(x, x);
    let (p, rest, n) = exp_parts::<A>(-square);
    let rest = A::mul_add(p, -error, rest);
    // The variable has a rest too, which the slope's first terms are enough for.
    let (below, lost) = sum(2.0, x);
    let ratio = 2.0 / below;
    let (product, missing) = A::product(ratio, below);
    let w = ratio - 1.0 / 3.0;
    let w_rest = (((2.0 - product) - missing) - ratio * lost) * (0.5 * ratio);
    let slope = A::mul_add(w, 2.0 * ERFC_LONG[2], ERFC_LONG[1]);
    let (value, value_rest) = polynomial_sum::<A, _>(&ERFC_LONG, w);
    let (factor, low) = sum(INVERSE_ROOT_OF_PI[0], value);
    let factor_rest = A::mul_add(w_rest, slope, value_rest) + (low + INVERSE_ROOT_OF_PI[1]);
    let (product, error) = A::product(p, factor);
    let error = A::mul_add(p, factor_rest, A::mul_add(rest, factor, error));
    n.scale(quotient::<A>([product, error], [x, 0.0]))
}

/// The same for a difference to one, which shows fewer of its digits: one quotient is enough.
#[inline(always)]
fn short_tail<A: Arithmetic>(x: f64) -> f64 {
    let x = clamp(x, 1.0, 6.0);
    let sum = x + 2.0;
    let inverse = 1.0 / (x * sum);
    let w = A::mul_add(x + x, inverse, -1.0 / 3.0);
    let factor = INVERSE_ROOT_OF_PI[0] + polynomial::<A, _>(&ERFC_LONG, w);
    let (p, n) = short_parts::<A>(-x * x);
    p * n.power_of_two() * (factor * (sum * inverse))
}

/// The error function.
#[inline(always)]
pub fn erf<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    let far = (1.0 - short_tail::<A>(size)).copysign(x);
    if size < 1.0 {
        x + near::<A>(x)
    } else {
        far
    }
}

/// `1 - erf(x)`, exact in its tail too.
#[inline(always)]
pub fn erfc<A: Arithmetic>(x: f64) -> f64 {
    let size = x.abs();
    let tail = tail::<A>(size);
    let far = if x < 0.0 { 2.0 - tail } else { tail };
    if size < FAR {
        (1.0 - x) - near::<A>(x)
    } else {
        far
    }
}

/// The number whose error function is `x`.
#[inline(always)]
pub fn erf_inv<A: Arithmetic>(x: f64) -> f64 {
    let (log, low) = log_sum::<A>((1.0 - x) * (1.0 + x));
    let w = -log;
    let root = w.sqrt();
    let (square, error) = A::product(root, root);
    let root_low = ((w - square) - error - low) * (0.5 / root);
    let near = polynomial_sum::<A, _>(&ERFINV_NEAR_LONG, w - 1.0);
    let middle = polynomial_sum::<A, _>(&ERFINV_MIDDLE_LONG, root - 3.25);
    let far = polynomial_sum::<A, _>(&ERFINV_FAR_LONG, root - 5.0);
    let beyond = if w < 16.0 { middle } else { far };
    let (factor, rest) = if w < 6.25 { near } else { beyond };
    // The rests of the variables times the slopes, of which few digits count.
    let rest = rest + if w < 6.25 { -0.24 * low } else { root_low };
    let value = A::mul_add(x, rest, x * factor);
    // Infinity at one, NaN beyond.
    let limit = if x.abs() == 1.0 {
        x * f64::INFINITY
    } else {
        f64::NAN
    };
    if x.abs() < 1.0 {
        keep_zero(x, value)
    } else {
        limit
    }
}
