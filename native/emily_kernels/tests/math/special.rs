//! Limits, infinities, NaN and signs of zero, which are those of C99 and so of the platform's library.

use crate::table::{functions, functions2, oracle, oracle2};

const NUMBERS: [f64; 32] = [
    0.0,
    -0.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    2.5,
    -2.5,
    1e-310,
    -1e-310,
    5e-324,
    f64::MAX,
    f64::MIN,
    4_503_599_627_370_497.0,
    -4_503_599_627_370_497.0,
    9_007_199_254_740_992.0,
    -9_007_199_254_740_991.0,
    1e-45,
    -1e-45,
    1e300,
    1e-300,
    1e30,
    -1e30,
    90.0,
    -104.5,
];

/// The same in kind: NaN, infinite, or zero, with the sign; else near.
fn agrees(value: f64, wanted: f64, tolerance: f64) -> bool {
    if value.is_nan() || wanted.is_nan() {
        return value.is_nan() && wanted.is_nan();
    }
    if value.is_infinite() || wanted.is_infinite() || value == 0.0 || wanted == 0.0 {
        return value == wanted && value.is_sign_negative() == wanted.is_sign_negative();
    }
    (value - wanted).abs() <= tolerance * wanted.abs() + 1e-323
}

#[test]
fn of_one_number() {
    let narrow = NUMBERS.map(|x| x as f32);
    for row in functions() {
        let oracle = oracle(row.name);
        for compiled in (row.double)() {
            let mut y = NUMBERS;
            (compiled.function)(&NUMBERS, &mut y);
            for (x, y) in NUMBERS.iter().zip(y) {
                let wanted = oracle(*x);
                assert!(
                    agrees(y, wanted, 1e-15),
                    "{} {} of {x}: {y}, not {wanted}",
                    row.name,
                    compiled.level
                );
            }
        }
        for compiled in (row.single)() {
            let mut y = narrow;
            (compiled.function)(&narrow, &mut y);
            for (x, y) in narrow.iter().zip(y) {
                let wanted = oracle(f64::from(*x)) as f32;
                let agrees = agrees(f64::from(y), f64::from(wanted), 1.2e-7);
                assert!(
                    agrees,
                    "{} {} of {x}f32: {y}, not {wanted}",
                    row.name, compiled.level
                );
            }
        }
    }
}

#[test]
fn of_two_numbers() {
    let pairs = |numbers: &[f64]| -> (Vec<f64>, Vec<f64>) {
        numbers
            .iter()
            .flat_map(|x| numbers.iter().map(move |y| (*x, *y)))
            .unzip()
    };
    for row in functions2() {
        let oracle = oracle2(row.name);
        let (x, y) = pairs(&NUMBERS);
        for compiled in (row.double)() {
            let mut z = vec![0.0; x.len()];
            (compiled.function)(&x, &y, &mut z);
            for ((x, y), z) in x.iter().zip(&y).zip(z) {
                let wanted = oracle(*x, *y);
                assert!(
                    agrees(z, wanted, 1e-15),
                    "{} {} of {x}, {y}: {z}, not {wanted}",
                    row.name,
                    compiled.level
                );
            }
        }
        let narrow = |numbers: &[f64]| -> Vec<f32> { numbers.iter().map(|x| *x as f32).collect() };
        let (x, y) = (narrow(&x), narrow(&y));
        for compiled in (row.single)() {
            let mut z = vec![0.0; x.len()];
            (compiled.function)(&x, &y, &mut z);
            for ((x, y), z) in x.iter().zip(&y).zip(z) {
                let wanted = oracle(f64::from(*x), f64::from(*y)) as f32;
                let agrees = agrees(f64::from(z), f64::from(wanted), 1.2e-7);
                assert!(
                    agrees,
                    "{} {} of {x}f32, {y}: {z}, not {wanted}",
                    row.name, compiled.level
                );
            }
        }
    }
}
