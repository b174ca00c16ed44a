//! Types of numbers: what all have, and what real floats have.

use crate::view::Element;

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
