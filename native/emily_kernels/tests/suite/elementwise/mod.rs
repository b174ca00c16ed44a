//! Floats against f64 and against what their bits say.

mod functions;
mod gates;

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::integer::Integer;
use emily_kernels::{compare, elementwise};

use crate::support::{bytes, check, check_pairs, mapped, samples, Random, Sample, LENGTHS};

#[test]
fn arithmetic_rounds_once() {
    // Two numbers of 24 bits have a sum, a product and a quotient that rounds the same from 53 bits.
    check_pairs("add", &elementwise::add::<f32>, |x: f32, y: f32| {
        (f64::from(x) + f64::from(y)) as f32
    });
    check_pairs(
        "subtract",
        &elementwise::subtract::<f32>,
        |x: f32, y: f32| (f64::from(x) - f64::from(y)) as f32,
    );
    check_pairs(
        "multiply",
        &elementwise::multiply::<f32>,
        |x: f32, y: f32| (f64::from(x) * f64::from(y)) as f32,
    );
    check_pairs("divide", &elementwise::divide::<f32>, |x: f32, y: f32| {
        (f64::from(x) / f64::from(y)) as f32
    });
    check("sqrt", &elementwise::sqrt::<f32>, 0.0, |x: f32| {
        f64::from(x).sqrt() as f32
    });
    check("square", &elementwise::square::<f32>, 0.0, |x: f32| {
        (f64::from(x) * f64::from(x)) as f32
    });
    check("negative", &elementwise::negative::<f32>, 0.0, |x: f32| {
        f32::from_bits(x.to_bits() ^ 1 << 31)
    });
    check("abs", &elementwise::abs::<f32>, 0.0, |x: f32| {
        f32::from_bits(x.to_bits() & !(1 << 31))
    });
}

#[test]
fn rounding() {
    // Every f32 of a fraction is small enough for an i64.
    let whole = |x: f32| x.is_nan() || x.abs() >= 8_388_608.0;
    let floor = |x: f32| match x {
        x if whole(x) || x == 0.0 => x,
        x => (x as i64 - i64::from((x as i64) as f32 > x)) as f32,
    };
    check("floor", &elementwise::floor::<f32>, 0.0, floor);
    check("ceil", &elementwise::ceil::<f32>, 0.0, |x: f32| -floor(-x));
    check(
        "round_away",
        &elementwise::round_away::<f32>,
        0.0,
        |x: f32| {
            let away = (f64::from(x.abs()) + 0.5).floor() as f32;
            match x {
                x if x.is_nan() => x,
                x if x.abs() >= 8_388_608.0 => x,
                x if x < 0.0 => -away,
                _ => away,
            }
        },
    );
    check(
        "rectify",
        &elementwise::rectify::<f32>,
        0.0,
        |x: f32| match x.partial_cmp(&0.0) {
            Some(std::cmp::Ordering::Less) => -0.0,
            Some(std::cmp::Ordering::Equal) => 0.0,
            _ => x,
        },
    );
    check("round", &elementwise::round::<f32>, 0.0, |x: f32| {
        let (below, rest) = (floor(x), f64::from(x) - f64::from(floor(x)));
        let odd = (below / 2.0).fract() != 0.0;
        let up = rest > 0.5 || (rest == 0.5 && odd);
        match x {
            x if whole(x) => x,
            x => (if up { below + 1.0 } else { below }).copysign(x),
        }
    });
}

#[test]
fn signs_and_kinds() {
    check("sign", &elementwise::sign::<f32>, 0.0, |x: f32| {
        match x.partial_cmp(&0.0) {
            None => x,
            Some(order) => order as i8 as f32,
        }
    });
    let exponent = |x: f64| x.to_bits() >> 52 & 0x7FF;
    check("is_nan", &elementwise::is_nan::<f64>, 0.0, |x: f64| {
        u8::from(exponent(x) == 0x7FF && x.to_bits() << 12 != 0)
    });
    check(
        "is_infinite",
        &elementwise::is_infinite::<f64>,
        0.0,
        |x: f64| u8::from(exponent(x) == 0x7FF && x.to_bits() << 12 == 0),
    );
    check(
        "is_finite",
        &elementwise::is_finite::<f64>,
        0.0,
        |x: f64| u8::from(exponent(x) != 0x7FF),
    );
    check("chop", &elementwise::chop, 1.0, |x: f32| {
        if (-1.0..=1.0).contains(&x) {
            0.0
        } else {
            x
        }
    });
    check_pairs(
        "logical_and",
        &elementwise::logical_and::<f32>,
        |x: f32, y: f32| u8::from(x.to_bits() << 1 != 0 && y.to_bits() << 1 != 0),
    );
    check_pairs(
        "logical_or",
        &elementwise::logical_or::<f32>,
        |x: f32, y: f32| u8::from(x.to_bits() << 1 != 0 || y.to_bits() << 1 != 0),
    );
    check(
        "logical_not",
        &elementwise::logical_not::<f32>,
        0.0,
        |x: f32| u8::from(x.to_bits() << 1 == 0),
    );
}

/// Floats in the order of their numbers, with both zeros at 0.
fn order(x: f64) -> i128 {
    let size = i128::from(x.to_bits() & !(1 << 63));
    if x.is_sign_negative() {
        -size
    } else {
        size
    }
}

#[test]
fn extremes_and_comparisons() {
    let either_nan = |x: f64, y: f64| x.is_nan() || y.is_nan();
    // Of equal numbers the second.
    check_pairs(
        "maximum",
        &elementwise::maximum::<f64>,
        |x: f64, y: f64| match either_nan(x, y) {
            true => f64::NAN,
            false if order(x) > order(y) => x,
            false => y,
        },
    );
    check_pairs(
        "minimum",
        &elementwise::minimum::<f64>,
        |x: f64, y: f64| match either_nan(x, y) {
            true => f64::NAN,
            false if order(x) < order(y) => x,
            false => y,
        },
    );
    type Test<'a> = (&'a dyn Map, fn(i128, i128) -> bool);
    let tests: [Test; 5] = [
        (&compare::equal::<f64>, |x, y| x == y),
        (&compare::greater::<f64>, |x, y| x > y),
        (&compare::greater_equal::<f64>, |x, y| x >= y),
        (&compare::less::<f64>, |x, y| x < y),
        (&compare::less_equal::<f64>, |x, y| x <= y),
    ];
    for (map, wanted) in tests {
        check_pairs("comparison", map, |x: f64, y: f64| {
            u8::from(!either_nan(x, y) && wanted(order(x), order(y)))
        });
    }
    check_pairs("not_equal", &compare::not_equal::<f64>, |x: f64, y: f64| {
        u8::from(either_nan(x, y) || order(x) != order(y))
    });
}

fn check_select<T: Sample + Integer>() {
    let mut random = Random::new(3);
    for length in LENGTHS {
        let chosen: Vec<u8> = (0..length).map(|_| random.bits() as u8 & 1).collect();
        let (x, y) = (
            samples::<T>(&mut random, length),
            samples::<T>(&mut random, length),
        );
        for level in Level::available() {
            let got = mapped::<T>(
                &elementwise::select::<T>,
                level,
                &[&chosen, bytes(&x), bytes(&y)],
                length,
                0.0,
            );
            let wanted = (0..length).map(|i| [y[i], x[i]][usize::from(chosen[i])]);
            assert!(
                got.iter().zip(wanted).all(|(got, wanted)| got.is(wanted)),
                "{length} at {level:?}"
            );
        }
    }
}

#[test]
fn choices() {
    check_select::<u8>();
    check_select::<u16>();
    check_select::<u32>();
    check_select::<u64>();
}

#[test]
fn bounds() {
    let mut random = Random::new(4);
    let (x, low, high) = (
        samples(&mut random, 300),
        samples(&mut random, 300),
        samples::<f32>(&mut random, 300),
    );
    for level in Level::available() {
        let inputs = [bytes(&x), bytes(&low), bytes(&high)];
        let got = mapped::<f32>(&elementwise::clip::<f32>, level, &inputs, 300, 0.0);
        for i in 0..300 {
            let [x, low, high] = [x[i], low[i], high[i]];
            let above = if order(x.into()) > order(low.into()) {
                x
            } else {
                low
            };
            let within = if order(above.into()) < order(high.into()) {
                above
            } else {
                high
            };
            let wanted = if [x, low, high].iter().any(|x| x.is_nan()) {
                f32::NAN
            } else {
                within
            };
            assert!(
                got[i].is(wanted),
                "{x} from {low} to {high}: {}, not {wanted}",
                got[i]
            );
        }
    }
}
