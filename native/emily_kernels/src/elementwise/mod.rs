//! Arithmetic and choices: an element for an element of each input.

pub mod functions;
pub mod gates;

use crate::dispatch::for_each_level;
use crate::integer::Integer;
use crate::maps::maps;
use crate::number::{Float, Number};
use crate::view::{typed, typed_mut};

#[inline(always)]
fn greater<T: Number>(x: T, y: T) -> T {
    let most = if x > y { x } else { y };
    // NaN goes through. What is no number is less and greater than none, so that `most` is `y` already.
    if x.is_nan() {
        x
    } else {
        most
    }
}

#[inline(always)]
fn lesser<T: Number>(x: T, y: T) -> T {
    let least = if x < y { x } else { y };
    if x.is_nan() {
        x
    } else {
        least
    }
}

maps! {
    add<T: Number>(x, y) -> T = x.plus(y);
    subtract<T: Number>(x, y) -> T = x.minus(y);
    multiply<T: Number>(x, y) -> T = x.times(y);
    divide<T: Float>(x, y) -> T = x.over(y);
    negative<T: Number>(x) -> T = x.negated();
    abs<T: Number>(x) -> T = x.magnitude();
    square<T: Number>(x) -> T = x.times(x);
    maximum<T: Number>(x, y) -> T = greater(x, y);
    minimum<T: Number>(x, y) -> T = lesser(x, y);
    sqrt<T: Float>(x) -> T = x.root();
    floor<T: Float>(x) -> T = x.floor();
    ceil<T: Float>(x) -> T = x.ceil();
    /// Halves go to even.
    round<T: Float>(x) -> T = x.round_ties_even();
    /// Halves go away from zero.
    round_away<T: Float>(x) -> T = {
        let sign = if x < T::ZERO { T::MINUS_ONE } else { T::ONE };
        sign.times(x.magnitude().plus(T::BELOW_HALF).floor())
    };
    /// NaN stays.
    sign<T: Float>(x) -> T = {
        let above = if x > T::ZERO { T::ONE } else { T::ZERO };
        let sign = if x < T::ZERO { T::MINUS_ONE } else { above };
        if x.is_nan() { x } else { sign }
    };
    /// The greater of a number and zero, which is negative where the number is below it. NaN stays.
    rectify<T: Float>(x) -> T = {
        let above = if x > T::ZERO { x } else { x.plus(T::ZERO) };
        if x < T::ZERO { T::ZERO.negated() } else { above }
    };
    /// Neither below zero nor a negative zero, nor NaN.
    is_positive<T: Float>(x) -> u8 = u8::from(x >= T::ZERO) & u8::from(T::ONE.signed_as(x) > T::ZERO);
    is_nan<T: Number>(x) -> u8 = u8::from(x.is_nan());
    is_infinite<T: Float>(x) -> u8 = u8::from(x.magnitude() > T::MAX);
    is_finite<T: Float>(x) -> u8 = u8::from(x.magnitude() <= T::MAX);
    logical_not<T: Number>(x) -> u8 = u8::from(x == T::ZERO);
    logical_and<T: Number>(x, y) -> u8 = u8::from(x != T::ZERO) & u8::from(y != T::ZERO);
    logical_or<T: Number>(x, y) -> u8 = u8::from(x != T::ZERO) | u8::from(y != T::ZERO);
}

for_each_level! {
    /// Between two bounds, of which the upper one wins.
    pub fn clip<T: Number>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        let (x, low, high) = (typed::<T>(inputs[0]), typed::<T>(inputs[1]), typed::<T>(inputs[2]));
        let out = typed_mut::<T>(output);
        assert!(x.len() == out.len() && low.len() == out.len() && high.len() == out.len());
        for (((out, x), low), high) in out.iter_mut().zip(x).zip(low).zip(high) {
            *out = lesser(greater(*x, *low), *high);
        }
    }
}

for_each_level! {
    /// Elements of the second input where the first is true, of the third elsewhere.
    pub fn select<T: Integer>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        let (chosen, x, y) = (inputs[0], typed::<T>(inputs[1]), typed::<T>(inputs[2]));
        let out = typed_mut::<T>(output);
        assert!(chosen.len() == out.len() && x.len() == out.len() && y.len() == out.len());
        for (((out, chosen), x), y) in out.iter_mut().zip(chosen).zip(x).zip(y) {
            // Without a branch, so in vectors.
            let mask = if *chosen != 0 { T::ALL_BITS } else { T::ZERO };
            *out = y.xor(x.xor(*y).and(mask));
        }
    }
}

for_each_level! {
    /// What is no larger than `least` becomes zero.
    pub fn chop(inputs: &[&[u8]], output: &mut [u8], least: f64) {
        let (x, out) = (typed::<f32>(inputs[0]), typed_mut::<f32>(output));
        assert_eq!(x.len(), out.len());
        let least = least as f32;
        for (out, x) in out.iter_mut().zip(x) {
            *out = if x.abs() <= least { 0.0 } else { *x };
        }
    }
}

/// As it is.
pub fn copy(_level: crate::dispatch::Level, inputs: &[&[u8]], output: &mut [u8], _option: f64) {
    output.copy_from_slice(inputs[0]);
}
