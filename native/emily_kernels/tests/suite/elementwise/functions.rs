//! Functions as operations of chains. How near they are to the true values is tested in `tests/math`.

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::elementwise::functions::{self, binary, power, unary};
use emily_kernels::math::{Atan2, Binary, Exp, Fused, Pow, Separate, Sin, Unary};
use emily_kernels::view::Element;

use crate::support::{bytes, check_pairs, mapped, samples, Random, Sample, LENGTHS, LONG};

fn is_fused(level: Level) -> bool {
    level != Level::PORTABLE
}

/// Each element, at every level, is what the level's arithmetic gives of it alone.
fn one_by_one<F: Unary<T>, T: Sample>() {
    let mut random = Random::new(31);
    for length in LENGTHS.into_iter().chain([LONG]) {
        let x: Vec<T> = samples(&mut random, length);
        for level in Level::available() {
            let got: Vec<T> = mapped(&unary::<F, T>, level, &[bytes(&x)], length, 0.0);
            for (x, got) in x.iter().zip(got) {
                let wanted = match is_fused(level) {
                    true => F::value::<Fused>(*x),
                    false => F::value::<Separate>(*x),
                };
                assert!(got.is(wanted), "{} of {x:?}: {got:?}", level.name());
            }
        }
    }
}

fn pair_by_pair<T: Sample>(map: &dyn Map, fused: impl Fn(T, T) -> T, separate: impl Fn(T, T) -> T) {
    let mut random = Random::new(32);
    for length in LENGTHS.into_iter().chain([LONG]) {
        let (x, y): (Vec<T>, Vec<T>) = (samples(&mut random, length), samples(&mut random, length));
        for level in Level::available() {
            let got: Vec<T> = mapped(map, level, &[bytes(&x), bytes(&y)], length, 0.0);
            for i in 0..length {
                let wanted = match is_fused(level) {
                    true => fused(x[i], y[i]),
                    false => separate(x[i], y[i]),
                };
                let name = level.name();
                assert!(got[i].is(wanted), "{name} of {:?}, {:?}", x[i], y[i]);
            }
        }
    }
}

#[test]
fn of_one_number() {
    one_by_one::<Exp, f32>();
    one_by_one::<Exp, f64>();
    // Some angles are far.
    one_by_one::<Sin, f32>();
    one_by_one::<Sin, f64>();
}

#[test]
fn of_two_numbers() {
    type Angle = Atan2;
    pair_by_pair::<f32>(
        &binary::<Angle, f32>,
        Angle::value::<Fused>,
        Angle::value::<Separate>,
    );
    pair_by_pair::<f64>(
        &binary::<Angle, f64>,
        Angle::value::<Fused>,
        Angle::value::<Separate>,
    );
}

#[test]
fn powers() {
    let fused = |x: f64, y: f64| {
        if y == 2.0 {
            x * x
        } else {
            Pow::value::<Fused>(x, y)
        }
    };
    let separate = |x: f64, y: f64| {
        if y == 2.0 {
            x * x
        } else {
            Pow::value::<Separate>(x, y)
        }
    };
    pair_by_pair::<f64>(&power::<Pow, f64>, fused, separate);
}

fn squares<T: Element + Sample + std::ops::Mul<Output = T>>(map: &dyn Map, two: T) {
    let mut random = Random::new(33);
    for length in LENGTHS {
        let x: Vec<T> = samples(&mut random, length);
        // Alone, and beside another power.
        let twos = vec![two; length];
        let mut mixed = twos.clone();
        mixed[0] = T::default();
        for level in Level::available() {
            for (exponents, first) in [(&twos, 0), (&mixed, 1)] {
                let got: Vec<T> = mapped(map, level, &[bytes(&x), bytes(exponents)], length, 0.0);
                for i in first..length {
                    assert!(got[i].is(x[i] * x[i]), "{} of {:?}", level.name(), x[i]);
                }
            }
        }
    }
}

#[test]
fn second_powers_are_products() {
    squares::<f32>(&power::<Pow, f32>, 2.0);
    squares::<f64>(&power::<Pow, f64>, 2.0);
}

#[test]
fn rests_of_floats() {
    // A rest of two f32 is an f32.
    check_pairs("fmod", &functions::fmod, |x: f32, y: f32| {
        (f64::from(x) % f64::from(y)) as f32
    });
}
