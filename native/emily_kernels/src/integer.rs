//! Arithmetic of integers where the processor means less than Emily says: divisors of zero, shifts by the width or
//! more, negative exponents.

use crate::dispatch::for_each_level;
use crate::maps::maps;
use crate::number::Number;
use crate::view::{typed, typed_mut};

/// How many powers are taken at a time.
const LANES: usize = 64;

pub trait Integer: Number {
    const IS_SIGNED: bool;
    const ONE: Self;
    const ALL_BITS: Self;
    const LEAST: Self;
    const MOST: Self;
    /// The quotient by what is neither 0 nor -1.
    fn over(self, divisor: Self) -> Self;
    /// By the width or more, or a negative count, all bits are shifted out.
    fn shifted_left(self, count: Self) -> Self;
    fn shifted_right(self, count: Self) -> Self;
    /// As the processor shifts, which takes the count's lowest bits.
    fn shl(self, count: Self) -> Self;
    fn shr(self, count: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn not(self) -> Self;
    fn from_f64(number: f64) -> Self;
    fn powers(base: &mut [Self; LANES], exponents: &[Self; LANES]);
}

/// Of up to 32 bits: a quotient of doubles never rounds up to the next integer.
macro_rules! narrow_quotient {
    (u32, $x:expr, $y:expr) => {{
        // Processors convert signed integers, so that the range is moved to theirs and back. (`powi` promises no digits.)
        let half = f64::from(1u32 << 31);
        let wide = |x: u32| f64::from((x ^ 0x8000_0000) as i32) + half;
        let quotient = (wide($x) / wide($y)).trunc();
        // SAFETY: the quotient is no larger than the dividend and not below zero.
        (unsafe { (quotient - half).to_int_unchecked::<i32>() }) as u32 ^ 0x8000_0000
    }};
    (u64, $x:expr, $y:expr) => {
        $x.wrapping_div($y)
    };
    (i64, $x:expr, $y:expr) => {
        $x.wrapping_div($y)
    };
    ($type:ident, $x:expr, $y:expr) => {{
        let quotient = f64::from($x) / f64::from($y);
        // SAFETY: the quotient is no larger than the dividend, which has 32 bits, and the divisor is not -1.
        (unsafe { quotient.to_int_unchecked::<i32>() }) as $type
    }};
}

macro_rules! integers {
    ($($type:ident, $unsigned:ident, $wide:ident, $shifting:ident;)*) => {
        $(impl Integer for $type {
            const IS_SIGNED: bool = $type::MIN != 0;
            const ONE: Self = 1;
            const ALL_BITS: Self = !0;
            const LEAST: Self = $type::MIN;
            const MOST: Self = $type::MAX;

            #[inline(always)]
            fn over(self, divisor: Self) -> Self {
                narrow_quotient!($type, self, divisor)
            }

            #[inline(always)]
            fn shifted_left(self, count: Self) -> Self {
                let count = count as $unsigned;
                let shifted = self.wrapping_shl(count as u32);
                if count < $unsigned::BITS as $unsigned { shifted } else { 0 }
            }

            #[inline(always)]
            fn shifted_right(self, count: Self) -> Self {
                let count = count as $unsigned;
                let is_within = count < $unsigned::BITS as $unsigned;
                let shifted = self.wrapping_shr(if is_within { count as u32 } else { $unsigned::BITS - 1 });
                if Self::IS_SIGNED || is_within { shifted } else { 0 }
            }

            #[inline(always)]
            fn shl(self, count: Self) -> Self { (self as $shifting).wrapping_shl(count as u32) as $type }
            #[inline(always)]
            fn shr(self, count: Self) -> Self { (self as $shifting).wrapping_shr(count as u32) as $type }
            #[inline(always)]
            fn and(self, other: Self) -> Self { self & other }
            #[inline(always)]
            fn or(self, other: Self) -> Self { self | other }
            #[inline(always)]
            fn xor(self, other: Self) -> Self { self ^ other }
            #[inline(always)]
            fn not(self) -> Self { !self }
            #[inline(always)]
            fn from_f64(number: f64) -> Self { number as $type }

            // By squares. A negative power is the integer part of the reciprocal: 1 and -1 keep their parity, the rest
            // are 0.
            #[inline(always)]
            fn powers(base: &mut [Self; LANES], exponents: &[Self; LANES]) {
                let (mut square, mut exponent) = ([0 as $wide; LANES], [0 as $wide; LANES]);
                let mut result = [0 as $wide; LANES];
                let mut bits = 0;
                for i in 0..LANES {
                    // All bits set, or none: without branches.
                    let unit = base[i] == 1 || is_minus_one(base[i]);
                    let unit = (0 as $wide).wrapping_sub(unit as $wide);
                    let negative = (0 as $wide).wrapping_sub((exponents[i] < Self::ZERO) as $wide);
                    square[i] = base[i] as $wide;
                    exponent[i] = exponents[i] as $wide & (!negative | (unit & 1));
                    result[i] = 1 & (!negative | unit);
                    bits |= exponent[i];
                }
                while bits != 0 {
                    for i in 0..LANES {
                        // By the square or 1.
                        let odd = (0 as $wide).wrapping_sub(exponent[i] & 1);
                        let factor = (square[i].wrapping_sub(1) & odd).wrapping_add(1);
                        result[i] = result[i].wrapping_mul(factor);
                        square[i] = square[i].wrapping_mul(square[i]);
                        exponent[i] >>= 1;
                    }
                    bits >>= 1;
                }
                for i in 0..LANES {
                    base[i] = result[i] as $type;
                }
            }
        })*
    };
}

integers! {
    u8, u8, u32, i32;
    u16, u16, u32, i32;
    u32, u32, u32, u32;
    u64, u64, u64, u64;
    i8, u8, u32, i32;
    i16, u16, u32, i32;
    i32, u32, u32, i32;
    i64, u64, u64, i64;
}

#[inline(always)]
fn is_minus_one<T: Integer>(x: T) -> bool {
    T::IS_SIGNED && x == T::ALL_BITS
}

/// The quotient towards zero, with a divisor of 1 in the place of those that have none.
#[inline(always)]
fn whole<T: Integer>(x: T, y: T) -> T {
    let has_none = y == T::ZERO || is_minus_one(y);
    x.over(if has_none { T::ONE } else { y })
}

#[inline(always)]
fn quotient<T: Integer>(x: T, y: T) -> T {
    let whole = whole(x, y);
    let whole = if is_minus_one(y) { x.negated() } else { whole };
    if y == T::ZERO {
        T::ALL_BITS
    } else {
        whole
    }
}

#[inline(always)]
fn rest<T: Integer>(x: T, y: T) -> T {
    let left = x.minus(y.times(whole(x, y)));
    if is_minus_one(y) {
        T::ZERO
    } else {
        left
    }
}

maps! {
    /// Towards zero. By 0 all bits are set; the least number by -1 is itself.
    floor_divide<T: Integer>(x, y) -> T = quotient(x, y);
    /// With the sign of the dividend. By 0 it is the dividend.
    fmod<T: Integer>(x, y) -> T = rest(x, y);
    /// With the sign of the divisor.
    remainder<T: Integer>(x, y) -> T = {
        let left = rest(x, y);
        let differs = left != T::ZERO && ((left < T::ZERO) != (y < T::ZERO));
        if differs { left.plus(y) } else { left }
    };
    /// By the width or more, or a negative count, all bits are shifted out.
    wide_left_shift<T: Integer>(x, y) -> T = x.shifted_left(y);
    wide_right_shift<T: Integer>(x, y) -> T = x.shifted_right(y);
    /// By the lowest bits of the count alone; of up to 16 bits as numbers of 32.
    left_shift<T: Integer>(x, y) -> T = x.shl(y);
    right_shift<T: Integer>(x, y) -> T = x.shr(y);
    bitwise_and<T: Integer>(x, y) -> T = x.and(y);
    bitwise_or<T: Integer>(x, y) -> T = x.or(y);
    bitwise_xor<T: Integer>(x, y) -> T = x.xor(y);
    bitwise_invert<T: Integer>(x) -> T = x.not();
}

for_each_level! {
    /// From 0 to `most`, which the type holds.
    pub fn clamp<T: Integer>(inputs: &[&[u8]], output: &mut [u8], most: f64) {
        let most = T::from_f64(most);
        crate::maps::unary::<T, T>(inputs, output, |x| {
            let x = if x < T::ZERO { T::ZERO } else { x };
            if x > most { most } else { x }
        })
    }
}

for_each_level! {
    /// A power; of a negative exponent its integer part.
    pub fn power<T: Integer>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        let (x, y, out) = (typed::<T>(inputs[0]), typed::<T>(inputs[1]), typed_mut::<T>(output));
        assert!(x.len() == out.len() && y.len() == out.len());
        let blocks = out.chunks_mut(LANES).zip(x.chunks(LANES)).zip(y.chunks(LANES));
        for ((out, x), y) in blocks {
            let (mut base, mut exponents) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            base[..x.len()].copy_from_slice(x);
            exponents[..y.len()].copy_from_slice(y);
            T::powers(&mut base, &exponents);
            out.copy_from_slice(&base[..x.len()]);
        }
    }
}
