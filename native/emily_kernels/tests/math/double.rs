//! f64 against the fixture.

use std::collections::BTreeMap;

use once_cell::sync::Lazy;

use crate::guide::{self, Measured};
use crate::table::{functions, functions2};

/// The greatest error that a function may have at the fixture's places; elsewhere it is somewhat more, below 2.
fn limit(name: &str) -> f64 {
    match name {
        "atan2" | "erf_inv" | "erfc" | "rsqrt" | "tanh" => 1.5,
        _ => 1.0,
    }
}

struct Case {
    arguments: Vec<f64>,
    nearest: f64,
    /// How far the true value is from the nearest, in units of the last place.
    rest: f64,
}

fn fixture() -> BTreeMap<&'static str, Vec<Case>> {
    let mut cases: BTreeMap<_, Vec<Case>> = BTreeMap::new();
    let mut rest = include_str!("../fixtures/math/functions.txt");
    // Not by `lines`, which borrows the whole text for each: Miri then looks at all borrows of the lines before.
    let lines = std::iter::from_fn(|| {
        let (line, behind) = rest.split_once('\n')?;
        rest = behind;
        Some(line)
    });
    for line in lines.step_by(if cfg!(miri) { 7 } else { 1 }) {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, arguments @ .., nearest, rest] = words.as_slice() else {
            panic!("a line of too few words");
        };
        let number = |bits: &&str| f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
        cases.entry(*name).or_default().push(Case {
            arguments: arguments.iter().map(number).collect(),
            nearest: number(nearest),
            rest: rest.parse::<f64>().unwrap() / (1 << 20) as f64,
        });
    }
    cases
}

/// The size of the last place of a finite number.
fn last_place(x: f64) -> f64 {
    let exponent = ((x.to_bits() >> 52) & 0x7ff).max(1);
    if exponent > 52 {
        f64::from_bits((exponent - 52) << 52)
    } else {
        f64::from_bits(1 << (exponent - 1))
    }
}

fn error(case: &Case, value: f64) -> f64 {
    let error = ((value - case.nearest) / last_place(case.nearest) - case.rest).abs();
    if error.is_nan() {
        f64::INFINITY
    } else {
        error
    }
}

fn greatest(name: &'static str, level: &'static str, cases: &[Case], values: &[f64]) -> Measured {
    let (error, worst) = cases
        .iter()
        .zip(values)
        .map(|(case, value)| (error(case, *value), case))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap();
    Measured {
        name,
        level,
        error,
        at: format!("{:?}", worst.arguments),
    }
}

/// The greatest errors at the fixture's places.
pub static ERRORS: Lazy<Vec<Measured>> = Lazy::new(|| {
    let fixture = fixture();
    let mut errors = vec![];
    for row in functions() {
        let cases = &fixture[row.name];
        let x: Vec<f64> = cases.iter().map(|case| case.arguments[0]).collect();
        for compiled in (row.double)() {
            let mut y = vec![0.0; x.len()];
            (compiled.function)(&x, &mut y);
            errors.push(greatest(row.name, compiled.level, cases, &y));
        }
    }
    for row in functions2() {
        let cases = &fixture[row.name];
        let x: Vec<f64> = cases.iter().map(|case| case.arguments[0]).collect();
        let y: Vec<f64> = cases.iter().map(|case| case.arguments[1]).collect();
        for compiled in (row.double)() {
            let mut z = vec![0.0; x.len()];
            (compiled.function)(&x, &y, &mut z);
            errors.push(greatest(row.name, compiled.level, cases, &z));
        }
    }
    errors
});

#[test]
fn errors_of_f64() {
    guide::check(&ERRORS, limit);
}

#[test]
fn exact_powers_have_whole_logarithms() {
    for row in functions() {
        // `powi` promises no digits.
        let power: fn(&i32) -> f64 = match row.name {
            "log2" => |e| f64::from_bits(((e + 1023) as u64) << 52),
            "log10" => |e| format!("1e{e}").parse().expect("a number"),
            _ => continue,
        };
        let most = if row.name == "log2" { 1023 } else { 22 };
        let exponents: Vec<i32> = (if row.name == "log2" { -1022 } else { 0 }..=most).collect();
        let x: Vec<f64> = exponents.iter().map(power).collect();
        for compiled in (row.double)() {
            let mut y = vec![0.0; x.len()];
            (compiled.function)(&x, &mut y);
            let wanted: Vec<f64> = exponents.iter().map(|e| f64::from(*e)).collect();
            assert_eq!(y, wanted, "{} {}", row.name, compiled.level);
        }
    }
}
