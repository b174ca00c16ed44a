//! The functions of [`math`] as operations of chains, and the rest of a division.

use crate::dispatch::for_each_level;
use crate::elementwise::Float;
use crate::math;
use crate::view::{typed, typed_mut, Element};

for_each_level! {
    /// A function of one number.
    pub fn unary<F: math::Unary<T>, T: Element; A>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        math::map::<F, A, T>(typed(inputs[0]), typed_mut(output));
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
        if y.iter().all(|y| *y == two) {
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
