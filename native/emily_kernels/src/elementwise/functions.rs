//! The functions of [`math`] as operations of chains, and the rest of a division.

use crate::dispatch::for_each_level;
use crate::math;
use crate::number::Float;
use crate::view::{typed, typed_mut, Element};

for_each_level! {
    /// A function of one number.
    pub fn unary<F: math::Unary<T>, T: Element; A>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        math::map::<F, A, T>(typed(inputs[0]), typed_mut(output));
    }
}

/// The logistic function of f64 as Nx has it, rounded at each step.
pub struct NxSigmoid;

impl math::Unary<f64> for NxSigmoid {
    #[inline(always)]
    fn near<A: math::Arithmetic>(x: f64) -> f64 {
        1.0 / (1.0 + <math::Exp as math::Unary<f64>>::near::<A>(-x))
    }
}

/// The inverse error function as Nx has it, which knows eight digits: Giles, "Approximating the erfinv function". It is
/// a polynomial for most, another for the tails.
pub struct NxErfInv;

impl math::Unary<f32> for NxErfInv {
    #[inline(always)]
    fn near<A: math::Arithmetic>(x: f32) -> f32 {
        let horner = |coefficients: [f64; 9], x: f64| {
            let terms = coefficients.into_iter();
            terms.reduce(|sum, next| sum * x + next).unwrap_or_default()
        };
        let y = f64::from(x);
        let w = -<math::Log as math::Unary<f64>>::near::<A>((1.0 - y) * (1.0 + y));
        let inner = horner(
            [
                2.81022636e-08,
                3.43273939e-07,
                -3.5233877e-06,
                -4.39150654e-06,
                0.00021858087,
                -0.00125372503,
                -0.00417768164,
                0.246640727,
                1.50140941,
            ],
            w - 2.5,
        );
        let tail = horner(
            [
                -0.000200214257,
                0.000100950558,
                0.00134934322,
                -0.00367342844,
                0.00573950773,
                -0.0076224613,
                0.00943887047,
                1.00167406,
                2.83297682,
            ],
            w.sqrt() - 3.0,
        );
        let finite = if w < 5.0 { inner } else { tail } * y;
        let value = if y.abs() == 1.0 {
            y * f64::INFINITY
        } else {
            finite
        };
        value as f32
    }
}

for_each_level! {
    /// A function of two numbers.
    pub fn binary<F: math::Binary<T>, T: Element; A>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        math::map2::<F, A, T>(typed(inputs[0]), typed(inputs[1]), typed_mut(output));
    }
}

for_each_level! {
    /// Powers by `P`, but for the second, which a variance is made of: it is a product.
    pub fn power<P: math::Binary<T>, T: Float; A>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        let (x, y, out) = (typed::<T>(inputs[0]), typed::<T>(inputs[1]), typed_mut::<T>(output));
        assert!(x.len() == out.len() && y.len() == out.len());
        let two = T::ONE.plus(T::ONE);
        // Without a branch, so in vectors.
        if y.iter().fold(0, |others, y| others | u32::from(*y != two)) == 0 {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x.times(*x);
            }
            return;
        }
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            let power = P::value::<A>(*x, *y);
            *out = if *y == two { x.times(*x) } else { power };
        }
    }
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
