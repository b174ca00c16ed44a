//! Arithmetic and choices: an element for an element of each input.

pub mod functions;

use crate::dispatch::for_each_level;
use crate::integer::Integer;
use crate::view::{typed, typed_mut, Element};

/// An element for each of the input's.
#[inline(always)]
pub(crate) fn unary<T: Element, O: Element>(
    inputs: &[&[u8]],
    output: &mut [u8],
    f: impl Fn(T) -> O,
) {
    let (x, out) = (typed::<T>(inputs[0]), typed_mut::<O>(output));
    assert!(x.len() == out.len() && inputs.len() == 1);
    for (out, x) in out.iter_mut().zip(x) {
        *out = f(*x);
    }
}

/// An element for each pair of the inputs'.
#[inline(always)]
pub(crate) fn binary<T: Element, O: Element>(
    inputs: &[&[u8]],
    output: &mut [u8],
    f: impl Fn(T, T) -> O,
) {
    let (x, y, out) = (
        typed::<T>(inputs[0]),
        typed::<T>(inputs[1]),
        typed_mut::<O>(output),
    );
    assert!(x.len() == out.len() && y.len() == out.len() && inputs.len() == 2);
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = f(*x, *y);
    }
}

/// Functions of one or two numbers of a type, as operations of a chain.
macro_rules! maps {
    ($($(#[$meta:meta])* $name:ident<$type:ident: $bound:ident>($($x:ident),+) -> $result:ty = $value:expr;)+) => {
        $($crate::elementwise::maps!(@one [$(#[$meta])*] $name $type $bound ($($x),+) $result, $value);)+
    };
    (@one [$($meta:tt)*] $name:ident $type:ident $bound:ident ($x:ident) $result:ty, $value:expr) => {
        $crate::dispatch::for_each_level! {
            $($meta)*
            pub fn $name<$type: $bound>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
                $crate::elementwise::unary::<$type, $result>(inputs, output, |$x| $value)
            }
        }
    };
    (@one [$($meta:tt)*] $name:ident $type:ident $bound:ident ($x:ident, $y:ident) $result:ty, $value:expr) => {
        $crate::dispatch::for_each_level! {
            $($meta)*
            pub fn $name<$type: $bound>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
                $crate::elementwise::binary::<$type, $result>(inputs, output, |$x, $y| $value)
            }
        }
    };
}
pub(crate) use maps;

/// Numbers that are added and multiplied; integers wrap.
pub trait Number: Element {
    const ZERO: Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn negated(self) -> Self;
    /// The greatest wrapping integer stays what it is.
    fn magnitude(self) -> Self;
    fn is_nan(self) -> bool;
}

macro_rules! integers {
    ($($type:ty: $magnitude:expr),*) => {
        $(impl Number for $type {
            const ZERO: Self = 0;
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn negated(self) -> Self { self.wrapping_neg() }
            #[inline(always)]
            fn magnitude(self) -> Self { ($magnitude)(self) }
            #[inline(always)]
            fn is_nan(self) -> bool { false }
        })*
    };
}

integers! {
    u8: |x| x, u16: |x| x, u32: |x| x, u64: |x| x,
    i8: i8::wrapping_abs, i16: i16::wrapping_abs, i32: i32::wrapping_abs, i64: i64::wrapping_abs
}

/// Real floating-point numbers.
pub trait Float: Number {
    const ONE: Self;
    const MINUS_ONE: Self;
    const MAX: Self;
    fn over(self, other: Self) -> Self;
    fn root(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    fn round_ties_even(self) -> Self;
    /// With the sign of another number.
    fn signed_as(self, other: Self) -> Self;
    /// The greatest number below one half, to which a half adds up to 1.
    const BELOW_HALF: Self;
}

macro_rules! floats {
    ($($type:ident: $below_half:expr),*) => {
        $(impl Number for $type {
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self - other }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn negated(self) -> Self { -self }
            #[inline(always)]
            fn magnitude(self) -> Self { self.abs() }
            #[inline(always)]
            fn is_nan(self) -> bool { $type::is_nan(self) }
        }

        impl Float for $type {
            const ONE: Self = 1.0;
            const MINUS_ONE: Self = -1.0;
            const MAX: Self = $type::MAX;
            const BELOW_HALF: Self = $below_half;
            #[inline(always)]
            fn over(self, other: Self) -> Self { self / other }
            #[inline(always)]
            fn root(self) -> Self { self.sqrt() }
            #[inline(always)]
            fn floor(self) -> Self { $type::floor(self) }
            #[inline(always)]
            fn ceil(self) -> Self { $type::ceil(self) }
            #[inline(always)]
            fn trunc(self) -> Self { $type::trunc(self) }
            #[inline(always)]
            fn round_ties_even(self) -> Self { $type::round_ties_even(self) }
            #[inline(always)]
            fn signed_as(self, other: Self) -> Self { self.copysign(other) }
        })*
    };
}

floats! {
    f32: 0.5 - f32::EPSILON / 4.0,
    f64: 0.5 - f64::EPSILON / 4.0
}

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
