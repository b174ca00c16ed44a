//! Payne and Hanek's reduction: only those bits of 2 / pi are multiplied that neither make whole turns nor vanish.

use crate::math::arithmetic::{sum, Arithmetic, Separate};
use crate::math::coefficients::{HALF_PI, TWO_OVER_PI};

/// The quadrant of an `x` beyond 2^20, and what is left, up to pi / 4, with its rest; NaN of infinity.
pub(super) fn reduce(x: f64) -> (u64, f64, f64) {
    if !x.is_finite() {
        return (0, f64::NAN, f64::NAN);
    }
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as usize + 64 - 1075;
    let mantissa = u128::from(bits & ((1 << 52) - 1) | 1 << 52);

    // x = mantissa 2^(exponent - 64). What comes before this bit of 2 / pi gives multiples of four.
    let from = exponent - 2;
    let words = [0, 1, 2].map(|i| bits_of_two_over_pi(from + 64 * i));

    // The product modulo 2^192, the highest word first: quarters in the first two bits.
    let low = mantissa * u128::from(words[2]);
    let middle = mantissa * u128::from(words[1]) + (low >> 64);
    let high = mantissa * u128::from(words[0]) + (middle >> 64);
    let top = (high << 64) | (middle & u128::from(u64::MAX));
    let bottom = low as u64;

    // A quarter that is more than half full counts as whole, less what it lacks.
    let quadrant = (top >> 126) as u64 + ((top >> 125) as u64 & 1);
    let top = (top << 2) | u128::from(bottom >> 62);
    let bottom = bottom << 2;
    let lacks = top >> 127 != 0;
    let (top, bottom) = if lacks {
        (!top, !bottom)
    } else {
        (top, bottom)
    };

    // The highest 106 bits, in two doubles.
    let zeros = top.leading_zeros();
    let filled = if zeros == 0 {
        top
    } else {
        (top << zeros) | (u128::from(bottom) << 64 >> (128 - zeros))
    };
    let scale = f64::from_bits((1023 - 53 - u64::from(zeros)) << 52);
    let first = (filled >> 75) as u64 as f64 * scale;
    let second =
        ((filled >> 22) as u64 & ((1 << 53) - 1)) as f64 * scale * (1.0 / (1u64 << 53) as f64);

    let (r, error) = Separate::product(first, HALF_PI[0]);
    let (r, low) = sum(r, error + first * HALF_PI[1] + second * HALF_PI[0]);
    let (quadrant, sign) = if x < 0.0 {
        (quadrant.wrapping_neg(), -1.0)
    } else {
        (quadrant, 1.0)
    };
    let sign = if lacks { -sign } else { sign };
    (quadrant & 3, sign * r, sign * low)
}

/// Sixty-four bits of 2 / pi, counted from 64 zeros in front of the point.
fn bits_of_two_over_pi(from: usize) -> u64 {
    let word = |i: usize| if i == 0 { 0 } else { TWO_OVER_PI[i - 1] };
    let pair = u128::from(word(from / 64)) << 64 | u128::from(word(from / 64 + 1));
    (pair << (from % 64) >> 64) as u64
}
