//! Numbers of one type as numbers of another.

use crate::dispatch::for_each_level;
use crate::integer::Integer;
use crate::maps::unary;
use crate::number::{Float, Number};
use crate::view::Element;

/// A number of another type: integers wrap, and round where they become floats.
pub trait To<T>: Element {
    fn to(self) -> T;
}

macro_rules! casts {
    ($($from:ident => $($to:ident)*;)*) => {
        $($(impl To<$to> for $from {
            #[inline(always)]
            fn to(self) -> $to { self as $to }
        })*)*
    };
}

casts! {
    u8 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    u16 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    u32 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    u64 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    i8 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    i16 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    i32 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    i64 => u8 u16 u32 u64 i8 i16 i32 i64 f32 f64;
    f32 => f32 f64;
    f64 => f32 f64;
}

for_each_level! {
    /// Numbers of type `F` as numbers of type `T`.
    pub fn cast<F: To<T>, T: Element>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        unary::<F, T>(inputs, output, |x| x.to())
    }
}

for_each_level! {
    /// Whether numbers are not zero.
    pub fn to_bool<T: Number>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        unary::<T, u8>(inputs, output, |x| u8::from(x != T::ZERO))
    }
}

/// Floats that become integers.
pub trait Truncated<T: Integer>: Float {
    fn truncated(self) -> T;
}

// Truncated, and of what is left the bits that the type has. NaN becomes 0, the infinities the ends of the range.
macro_rules! truncated {
    ($($float:ident, $whole:ident, $half:expr => $($type:ident)*;)*) => {
        $($(impl Truncated<$type> for $float {
            #[inline(always)]
            fn truncated(self) -> $type {
                const HALF: $float = $half;
                let is_infinite = self.abs() > $float::MAX;
                // Every step from here on is exact.
                let whole = self.trunc();
                let left = whole - (whole / (2.0 * HALF)).trunc() * (2.0 * HALF);
                let left = if left >= HALF { left - 2.0 * HALF } else { left };
                let left = if left < -HALF { left + 2.0 * HALF } else { left };
                let left = if is_infinite || self != self { 0.0 } else { left };
                // SAFETY: it is at least -HALF and less than HALF.
                let cut = (unsafe { left.to_int_unchecked::<$whole>() }) as $type;
                let end = if self > 0.0 { $type::MAX } else { $type::MIN };
                if is_infinite { end } else { cut }
            }
        })*)*
    };
}

truncated! {
    f32, i32, 2147483648.0 => u8 u16 u32 i8 i16 i32;
    f64, i32, 2147483648.0 => u8 u16 u32 i8 i16 i32;
    f32, i64, 9223372036854775808.0 => u64 i64;
    f64, i64, 9223372036854775808.0 => u64 i64;
}

for_each_level! {
    /// Floats truncated to integers.
    pub fn to_integer<F: Truncated<T>, T: Integer>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        unary::<F, T>(inputs, output, |x| x.truncated())
    }
}
