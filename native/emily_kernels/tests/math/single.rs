//! f32 against f64 of other libraries.

use once_cell::sync::Lazy;

use crate::guide::{self, Measured};
use crate::table::{functions, functions2, oracle, oracle2, Random};

/// The functions round once from a value whose error hardly counts, so each result is the nearest but for near ties.
const LIMIT: f64 = 0.502;

const PER_EXPONENT: usize = if cfg!(miri) { 1 } else { 200 };
/// Under Miri these are fewer than the exponents.
const PER_RANGE: usize = if cfg!(miri) { 15 } else { 20_000 };
const NEAR_ONE: u32 = if cfg!(miri) { 3 } else { 4000 };

/// Every exponent and sign alike, and more where functions change.
pub fn places(seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut places = vec![];
    for high in 0..512u32 {
        for _ in 0..PER_EXPONENT {
            places.push(f32::from_bits(
                (high << 23) | (random.bits() as u32 & 0x7f_ffff),
            ));
        }
    }
    for (low, high) in [
        (-1.0, 1.0),
        (0.5, 2.0),
        (-5.0, 5.0),
        (-110.0, 95.0),
        (-1e4, 1e4),
        (-1.2e6, 1.2e6),
    ] {
        places.extend((0..PER_RANGE).map(|_| random.between(low, high) as f32));
    }
    for step in 0..NEAR_ONE {
        places.push(f32::from_bits(1f32.to_bits() - step));
        places.push(f32::from_bits(1f32.to_bits() + step));
    }
    places.retain(|x| x.is_finite());
    places
}

/// How far a result is from the true value in units of the last place of that.
fn error(value: f32, wanted: f64) -> f64 {
    if value.is_nan() || wanted.is_nan() {
        return if value.is_nan() && wanted.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if f64::from(value) == wanted || value == wanted as f32 && value.is_infinite() {
        return 0.0;
    }
    let exponent = ((wanted.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let place = f64::from_bits(((exponent.max(-126) - 23 + 1023) as u64) << 52);
    ((f64::from(value) - wanted) / place).abs()
}

/// The greatest of the errors at some places.
fn greatest(
    name: &'static str,
    level: &'static str,
    errors: impl Iterator<Item = (f64, [f32; 2])>,
) -> Measured {
    let start = (0.0, [0.0; 2]);
    let (error, at) = errors.fold(
        start,
        |most, next| if next.0 > most.0 { next } else { most },
    );
    Measured {
        name,
        level,
        error,
        at: format!("{at:?}"),
    }
}

/// The greatest errors of all functions, of one number and then of two.
pub static ERRORS: Lazy<Vec<Measured>> = Lazy::new(|| {
    let mut errors = vec![];
    let x = places(1);
    for row in functions() {
        let oracle = oracle(row.name);
        let wanted: Vec<f64> = x.iter().map(|x| oracle(f64::from(*x))).collect();
        for compiled in (row.single)() {
            let mut y = vec![0.0; x.len()];
            (compiled.function)(&x, &mut y);
            let all = x.iter().zip(&y).zip(&wanted);
            let all = all.map(|((x, y), wanted)| (error(*y, *wanted), [*x, 0.0]));
            errors.push(greatest(row.name, compiled.level, all));
        }
    }
    let mut random = Random(3);
    for row in functions2() {
        let oracle = oracle2(row.name);
        let mut x = places(2);
        let mut y = places(4);
        for i in 0..x.len() {
            let j = (random.bits() % x.len() as u64) as usize;
            y.swap(i, j);
            // A second number that makes a finite power, or an angle between the axes.
            if i % 4 != 0 && row.name == "pow" {
                x[i] = x[i].abs();
                y[i] = (random.between(-150.0, 128.0) / f64::from(x[i]).log2()) as f32;
            } else if i % 4 != 0 {
                y[i] = (f64::from(x[i]) * random.between(-4.0, 4.0)) as f32;
            }
        }
        for compiled in (row.single)() {
            let mut z = vec![0.0; x.len()];
            (compiled.function)(&x, &y, &mut z);
            let all = x.iter().zip(&y).zip(&z);
            let all =
                all.map(|((x, y), z)| (error(*z, oracle(f64::from(*x), f64::from(*y))), [*x, *y]));
            errors.push(greatest(row.name, compiled.level, all));
        }
    }
    errors
});

#[test]
fn errors_of_f32() {
    guide::check(&ERRORS, |_| LIMIT);
}
