//! Integers against wide ones.

use emily_kernels::{cast, compare, elementwise, integer};

use crate::support::{check, check_pairs};

/// Bits cut to a type.
macro_rules! for_integers {
    ($test:ident) => {
        $test!(u8 u16 u32 u64 i8 i16 i32 i64)
    };
}

#[test]
fn quotients_and_rests() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            let wide = |x: $type| i128::from(x);
            check_pairs("floor_divide", &integer::floor_divide::<$type>, |x: $type, y: $type| match y {
                0 => !0,
                y => (wide(x) / wide(y)) as $type,
            });
            check_pairs("fmod", &integer::fmod::<$type>, |x: $type, y: $type| match y {
                0 => x,
                y => (wide(x) % wide(y)) as $type,
            });
            check_pairs("remainder", &integer::remainder::<$type>, |x: $type, y: $type| match y {
                0 => x,
                y => {
                    let floor = wide(x).div_euclid(wide(y)) - i128::from(wide(y) < 0 && wide(x).rem_euclid(wide(y)) != 0);
                    (wide(x) - floor * wide(y)) as $type
                }
            });
        )*};
    }
    for_integers!(test);
}

#[test]
fn powers() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            check_pairs("power", &integer::power::<$type>, |x: $type, y: $type| {
                let y = i128::from(y);
                if y < 0 {
                    let parity = if y % 2 == 0 { 1 } else { x };
                    return if x == 1 || i128::from(x) == -1 { parity } else { 0 };
                }
                // Bit by bit from the highest on, where the kernel goes from the lowest.
                (0..64).rev().fold(1, |power: $type, bit| {
                    let square = power.wrapping_mul(power);
                    if y >> bit & 1 == 1 { square.wrapping_mul(x) } else { square }
                })
            });
        )*};
    }
    for_integers!(test);
}

#[test]
fn shifts() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            let bits = $type::BITS as i128;
            let is_out = |y: $type| !(0..bits).contains(&i128::from(y));
            check_pairs("wide_left_shift", &integer::wide_left_shift::<$type>, |x: $type, y: $type| {
                if is_out(y) { 0 } else { (i128::from(x) << y) as $type }
            });
            check_pairs("wide_right_shift", &integer::wide_right_shift::<$type>, |x: $type, y: $type| {
                if is_out(y) { if i128::from(x) < 0 { !0 } else { 0 } } else { (i128::from(x) >> y) as $type }
            });
        )*};
    }
    for_integers!(test);
}

#[test]
fn arithmetic_wraps() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            let wide = |x: $type| i128::from(x);
            check_pairs("add", &elementwise::add::<$type>, |x: $type, y: $type| (wide(x) + wide(y)) as $type);
            check_pairs("subtract", &elementwise::subtract::<$type>, |x: $type, y: $type| (wide(x) - wide(y)) as $type);
            check_pairs("multiply", &elementwise::multiply::<$type>, |x: $type, y: $type| {
                wide(x).wrapping_mul(wide(y)) as $type
            });
            check_pairs("maximum", &elementwise::maximum::<$type>, |x: $type, y: $type| x.max(y));
            check_pairs("minimum", &elementwise::minimum::<$type>, |x: $type, y: $type| x.min(y));
            check("negative", &elementwise::negative::<$type>, 0.0, |x: $type| (-wide(x)) as $type);
            check("abs", &elementwise::abs::<$type>, 0.0, |x: $type| wide(x).unsigned_abs() as $type);
            check("clamp", &integer::clamp::<$type>, 100.0, |x: $type| wide(x).clamp(0, 100) as $type);
            check_pairs("bitwise_and", &integer::bitwise_and::<$type>, |x: $type, y: $type| x & y);
            check_pairs("bitwise_or", &integer::bitwise_or::<$type>, |x: $type, y: $type| x | y);
            check_pairs("bitwise_xor", &integer::bitwise_xor::<$type>, |x: $type, y: $type| x ^ y);
            check("bitwise_invert", &integer::bitwise_invert::<$type>, 0.0, |x: $type| !x);
        )*};
    }
    for_integers!(test);
}

#[test]
fn comparisons() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            // In f64 what is equal could be more.
            check_pairs("equal", &compare::equal::<$type>, |x: $type, y: $type| u8::from(x - x.min(y) == y - y.min(x)));
            check_pairs("not_equal", &compare::not_equal::<$type>, |x: $type, y: $type| u8::from(i128::from(x) != i128::from(y)));
            check_pairs("greater", &compare::greater::<$type>, |x: $type, y: $type| u8::from(i128::from(x) - i128::from(y) > 0));
            check_pairs("greater_equal", &compare::greater_equal::<$type>, |x: $type, y: $type| {
                u8::from(i128::from(x) - i128::from(y) >= 0)
            });
            check_pairs("less", &compare::less::<$type>, |x: $type, y: $type| u8::from(i128::from(x) - i128::from(y) < 0));
            check_pairs("less_equal", &compare::less_equal::<$type>, |x: $type, y: $type| {
                u8::from(i128::from(x) - i128::from(y) <= 0)
            });
        )*};
    }
    test!(u8 u16 u32 u64);
    macro_rules! signed {
        ($($type:ident)*) => {$(
            check_pairs("greater", &compare::greater::<$type>, |x: $type, y: $type| u8::from(i128::from(x) - i128::from(y) > 0));
            check_pairs("less_equal", &compare::less_equal::<$type>, |x: $type, y: $type| {
                u8::from(i128::from(x) - i128::from(y) <= 0)
            });
        )*};
    }
    signed!(i8 i16 i32 i64);
}

/// Of a float what an integer has: the bits of its integer part, by the digits of the float itself.
fn integer_part(x: f64) -> i128 {
    let (bits, sign) = (x.to_bits(), if x < 0.0 { -1 } else { 1 });
    let exponent = (bits >> 52 & 0x7FF) as i32 - 1075;
    let digits = i128::from(bits & ((1 << 52) - 1) | 1 << 52);
    sign * match exponent {
        // Below 2^-52 of the digits nothing is left; above 2^64 of an integer's bits neither.
        ..-60 => 0,
        -60..0 => digits >> -exponent,
        0..70 => digits << exponent,
        _ => 0,
    }
}

#[test]
fn floats_become_integers() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            let wanted = |x: f64| match x {
                x if x.is_nan() => 0,
                f64::INFINITY => $type::MAX,
                f64::NEG_INFINITY => $type::MIN,
                x => integer_part(x) as $type,
            };
            check("to_integer", &cast::to_integer::<f64, $type>, 0.0, wanted);
            check("to_integer", &cast::to_integer::<f32, $type>, 0.0, |x: f32| wanted(x.into()));
        )*};
    }
    for_integers!(test);
}

#[test]
fn casts() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            check("cast", &cast::cast::<$type, u8>, 0.0, |x: $type| x.to_le_bytes()[0]);
            check("cast", &cast::cast::<$type, i64>, 0.0, |x: $type| i128::from(x) as i64);
            check("cast", &cast::cast::<$type, f64>, 0.0, |x: $type| i128::from(x) as f64);
            check("cast", &cast::cast::<$type, f32>, 0.0, |x: $type| i128::from(x) as f32);
            check("to_bool", &cast::to_bool::<$type>, 0.0, |x: $type| u8::from(x != 0));
        )*};
    }
    for_integers!(test);
    check("cast", &cast::cast::<f64, f32>, 0.0, |x: f64| x as f32);
    check("to_bool", &cast::to_bool::<f32>, 0.0, |x: f32| {
        u8::from(x.to_bits() << 1 != 0)
    });
}
