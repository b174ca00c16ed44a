//! f32 against f64 of other libraries.

use crate::table::{functions, functions2, oracle, oracle2, Random};

/// The functions round once from a value whose error hardly counts, so each result is the nearest but for near ties.
const LIMIT: f64 = 0.502;

const PER_EXPONENT: usize = if cfg!(miri) { 1 } else { 200 };

/// Every exponent and sign alike, and more where functions change.
fn places(seed: u64) -> Vec<f32> {
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
        places.extend((0..100 * PER_EXPONENT).map(|_| random.between(low, high) as f32));
    }
    for step in 0..20 * PER_EXPONENT as u32 {
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
    let place = 2f64.powi(exponent.max(-126) - 23);
    ((f64::from(value) - wanted) / place).abs()
}

#[derive(Default)]
struct Greatest {
    error: f64,
    at: Vec<f32>,
    others: usize,
    count: usize,
}

impl Greatest {
    fn take(&mut self, at: &[f32], value: f32, wanted: f64) {
        let error = error(value, wanted);
        self.count += 1;
        self.others += usize::from(error > 0.5);
        if error > self.error {
            self.error = error;
            self.at = at.to_vec();
        }
    }

    fn check(&self, name: &str, level: &str) -> Option<String> {
        let line = format!(
            "f32 {name:8} {level:8} {:.5} at {:?}, {} of {} not the nearest",
            self.error, self.at, self.others, self.count
        );
        println!("{line}");
        (self.error > LIMIT).then_some(line)
    }
}

#[test]
fn errors_of_f32() {
    let mut failures = vec![];
    let x = places(1);
    for row in functions() {
        let oracle = oracle(row.name);
        let wanted: Vec<f64> = x.iter().map(|x| oracle(f64::from(*x))).collect();
        for compiled in (row.single)() {
            let mut y = vec![0.0; x.len()];
            (compiled.function)(&x, &mut y);
            let mut greatest = Greatest::default();
            for ((x, y), wanted) in x.iter().zip(&y).zip(&wanted) {
                greatest.take(&[*x], *y, *wanted);
            }
            failures.extend(greatest.check(row.name, compiled.level));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn errors_of_f32_pairs() {
    let mut failures = vec![];
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
            let mut greatest = Greatest::default();
            for ((x, y), z) in x.iter().zip(&y).zip(&z) {
                greatest.take(&[*x, *y], *z, oracle(f64::from(*x), f64::from(*y)));
            }
            failures.extend(greatest.check(row.name, compiled.level));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
