//! Functions of f32, computed in f64 and rounded once.

use crate::dispatch::for_each_level;
use crate::elementwise::unary;
use crate::view::{typed, typed_mut};

/// The exponential as exactly as an f32 can tell: 2^n e^r with r within half a unit of ln 2, by Taylor's series, whose
/// rest is below 1e-9.
#[inline(always)]
pub(crate) fn exponential(x: f64) -> f64 {
    // Beyond these an f32 is infinite or zero. NaN is neither less nor greater.
    let x = if x > 90.0 { 90.0 } else { x };
    let x = if x < -110.0 { -110.0 } else { x };
    // Adding this rounds to a whole number and leaves it in the lowest bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let shifted = x * std::f64::consts::LOG2_E + WHOLE;
    let r = x - (shifted - WHOLE) * std::f64::consts::LN_2;
    let factors = [5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0];
    let sum = factors
        .iter()
        .fold(1.0 / 40320.0, |sum, factor| sum * r + 1.0 / factor);
    let bits = shifted.to_bits().wrapping_add(1023) << 52;
    sum * f64::from_bits(bits)
}

/// The exponential of what is below zero neither overflows nor loses digits.
#[inline(always)]
fn logistic(x: f64) -> f64 {
    let e = exponential(-x.abs());
    let above = if x < 0.0 { e } else { 1.0 };
    above / (1.0 + e)
}

macro_rules! functions {
    ($($(#[$meta:meta])* $name:ident($x:ident) = $value:expr;)+) => {
        $(for_each_level! {
            $(#[$meta])*
            pub fn $name(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
                unary::<f32, f32>(inputs, output, |x| {
                    let $x = f64::from(x);
                    $value as f32
                })
            }
        })+
    };
}

functions! {
    exp(x) = exponential(x);
    sigmoid(x) = logistic(x);
    rsqrt(x) = (1.0 / x.sqrt());
}

for_each_level! {
    /// The rest with the sign of the dividend. Numbers of 24 bits whose quotient stays below 2^28 have none that rounds
    /// up to an integer, so that every step is exact; the rest, and what is not finite, takes the long way.
    pub fn fmod(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        const BLOCK: usize = 64;
        let (x, y, out) = (typed::<f32>(inputs[0]), typed::<f32>(inputs[1]), typed_mut::<f32>(output));
        assert!(x.len() == out.len() && y.len() == out.len());
        for ((out, x), y) in out.chunks_mut(BLOCK).zip(x.chunks(BLOCK)).zip(y.chunks(BLOCK)) {
            let mut far = 0;
            for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                let (dividend, divisor) = (f64::from(x.abs()), f64::from(y.abs()));
                let quotient = (dividend / divisor).trunc();
                let rest = (dividend - quotient * divisor) as f32;
                *out = rest.copysign(*x);
                far |= u32::from(is_far(quotient, *y));
            }
            if far == 0 {
                continue;
            }
            for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                if is_far((f64::from(x.abs()) / f64::from(y.abs())).trunc(), *y) {
                    *out = x % y;
                }
            }
        }
    }
}

#[inline(always)]
fn is_far(quotient: f64, divisor: f32) -> bool {
    let is_near = quotient < 268_435_456.0;
    let is_finite = divisor.abs() <= f32::MAX;
    !(is_near & is_finite)
}
