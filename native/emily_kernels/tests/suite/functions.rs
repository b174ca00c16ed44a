//! Functions against those of the C library in f64, rounded once.

use emily_kernels::functions;

use crate::support::{check, check_pairs};

/// The same number, or the next one where f64 lies close to the middle between both.
fn near(wanted: f64) -> impl Fn(f32) -> bool {
    move |got| {
        let rounded = wanted as f32;
        let same = got.to_bits() == rounded.to_bits() || (got.is_nan() && rounded.is_nan());
        let apart = (i64::from(got.to_bits()) - i64::from(rounded.to_bits())).abs();
        let middle = (f64::from(got) + f64::from(rounded)) / 2.0;
        same || (apart == 1 && (wanted - middle).abs() <= 1e-8 * wanted.abs())
    }
}

#[test]
fn exponentials_and_roots() {
    // What is near is taken for the same.
    let exp = |x: f32| f64::from(x).exp();
    let same = |map: &'static dyn emily_kernels::chain::Map, f: &dyn Fn(f32) -> f64| {
        let got = |x: f32| {
            let mut out = [0.0f32];
            let level = emily_kernels::dispatch::Level::PORTABLE;
            map.run(
                level,
                &[&x.to_ne_bytes()],
                crate::support::bytes_mut(&mut out),
                0.0,
            );
            out[0]
        };
        check("function", map, 0.0, |x: f32| {
            if near(f(x))(got(x)) {
                got(x)
            } else {
                f(x) as f32
            }
        });
    };
    same(&functions::exp, &exp);
    same(&functions::sigmoid, &|x| 1.0 / (1.0 + exp(-x)));
    check("rsqrt", &functions::rsqrt, 0.0, |x: f32| {
        (1.0 / f64::from(x).sqrt()) as f32
    });
}

#[test]
fn rests_of_floats() {
    // A rest of two f32 is an f32.
    check_pairs("fmod", &functions::fmod, |x: f32, y: f32| {
        (f64::from(x) % f64::from(y)) as f32
    });
}
