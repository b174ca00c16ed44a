//! Floats of 16 bits against the library that defines them, all of them.

use emily_kernels::real::Real;
use half::{bf16, f16};

/// Every number of 16 bits; under Miri a few of each exponent.
fn every() -> impl Iterator<Item = u16> {
    (0..=u16::MAX).step_by(if cfg!(miri) { 101 } else { 1 })
}

/// Those numbers, those between two that are neighbours, and those beside those.
fn samples(widen: impl Fn(u16) -> f32) -> Vec<f32> {
    let mut samples = Vec::new();
    for bits in every() {
        let (x, next) = (widen(bits), widen(bits.wrapping_add(1)));
        let middle = ((f64::from(x) + f64::from(next)) / 2.0) as f32;
        for bits in [x.to_bits(), middle.to_bits()] {
            samples.extend([-1, 0, 1].map(|by| f32::from_bits(bits.wrapping_add_signed(by))));
        }
    }
    samples
}

fn same(got: f32, wanted: f32) -> bool {
    got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan())
}

#[test]
fn f16_is_the_librarys() {
    for bits in every() {
        let x = f16::from_bits(bits);
        assert!(same(x.wide(), x.to_f32()), "{x:?}");
    }
    for x in samples(|bits| f16::from_bits(bits).to_f32()) {
        let (got, wanted) = (<f16 as Real>::narrow(x), f16::from_f32(x));
        assert!(same(got.to_f32(), wanted.to_f32()), "{got} for {x:e}");
    }
}

#[test]
fn bf16_is_the_librarys() {
    for bits in every() {
        let x = bf16::from_bits(bits);
        assert!(same(x.wide(), x.to_f32()), "{x:?}");
    }
    for x in samples(|bits| bf16::from_bits(bits).to_f32()) {
        let (got, wanted) = (<bf16 as Real>::narrow(x), bf16::from_f32(x));
        assert!(same(got.to_f32(), wanted.to_f32()), "{got} for {x:e}");
    }
}
