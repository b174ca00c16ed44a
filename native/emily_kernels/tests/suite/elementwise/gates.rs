//! Activations and gates against their formulas in f64, with the C library's functions.

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::elementwise::gates::{activate, gate};
use emily_kernels::math::{Gelu, GeluTanh, Silu};
use emily_kernels::real::Real;
use half::{bf16, f16};

use crate::support::{Random, LENGTHS, LONG};

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn bytes<T: Real>(x: &[T]) -> &[u8] {
    // SAFETY: elements are bytes without gaps.
    unsafe { x.align_to().1 }
}

fn run<T: Real>(map: &dyn Map, level: Level, inputs: &[&[T]]) -> Vec<T> {
    let mut output = vec![T::narrow(f32::NAN); inputs[0].len()];
    let inputs: Vec<&[u8]> = inputs.iter().map(|x| bytes(x)).collect();
    // SAFETY: elements are bytes without gaps, and all bytes are elements.
    map.run(level, &inputs, unsafe { output.align_to_mut().1 }, 0.0);
    output
}

/// Each is `epsilon` of what it should be, or `least` for each one of the second input; what is too small for a normal f16
/// has fewer digits.
fn check<T: Real>(
    single: &dyn Map,
    double: &dyn Map,
    wanted: fn(f64) -> f64,
    epsilon: f64,
    least: f64,
) {
    let mut random = Random::new(51);
    for length in LENGTHS.into_iter().chain([2 * LONG]) {
        let mut numbers = |most: f32| -> Vec<T> {
            let number = |_| T::narrow((random.below(20_001) as f32 / 10_000.0 - 1.0) * most);
            (0..length).map(number).collect()
        };
        for most in [1.0, 12.0, 200.0] {
            let (x, y) = (numbers(most), numbers(3.0));
            let near = |got: T, wanted: f64, factor: f64, what: &str| {
                let small = if size_of::<T>() == 2 { 6e-8 } else { 0.0 };
                let error = (epsilon * wanted.abs())
                    .max(small)
                    .max(least * factor.abs());
                let got = f64::from(got.wide());
                assert!(
                    (got - wanted).abs() <= error,
                    "{what}: {got:e}, not {wanted:e}"
                );
            };
            for level in Level::available() {
                for (x, got) in x.iter().zip(run(single, level, &[&x])) {
                    near(got, wanted(x.wide().into()), 1.0, level.name());
                }
                for ((x, y), got) in x.iter().zip(&y).zip(run(double, level, &[&x, &y])) {
                    let y = f64::from(y.wide());
                    near(got, wanted(x.wide().into()) * y, y, level.name());
                }
            }
        }
    }
}

#[test]
fn silus() {
    check::<f32>(
        &activate::<Silu, f32>,
        &gate::<Silu, f32>,
        silu,
        6.1e-8,
        1e-12,
    );
    check::<f16>(
        &activate::<Silu, f16>,
        &gate::<Silu, f16>,
        silu,
        4.9e-4,
        1e-12,
    );
    check::<bf16>(
        &activate::<Silu, bf16>,
        &gate::<Silu, bf16>,
        silu,
        4e-3,
        1e-12,
    );
}

#[test]
fn gelus() {
    check::<f32>(
        &activate::<Gelu, f32>,
        &gate::<Gelu, f32>,
        gelu,
        6.5e-8,
        4.5e-8,
    );
    check::<f16>(
        &activate::<Gelu, f16>,
        &gate::<Gelu, f16>,
        gelu,
        4.9e-4,
        4.5e-8,
    );
    check::<bf16>(
        &activate::<Gelu, bf16>,
        &gate::<Gelu, bf16>,
        gelu,
        4e-3,
        4.5e-8,
    );
}

#[test]
fn gelus_by_tanh() {
    check::<f32>(
        &activate::<GeluTanh, f32>,
        &gate::<GeluTanh, f32>,
        gelu_tanh,
        6.1e-8,
        1e-12,
    );
    check::<f16>(
        &activate::<GeluTanh, f16>,
        &gate::<GeluTanh, f16>,
        gelu_tanh,
        4.9e-4,
        1e-12,
    );
    check::<bf16>(
        &activate::<GeluTanh, bf16>,
        &gate::<GeluTanh, bf16>,
        gelu_tanh,
        4e-3,
        1e-12,
    );
}

#[test]
fn limits() {
    let x = [f32::INFINITY, f32::MAX, -f32::MAX, f32::NAN, 0.0, -0.0];
    let wanted = [f32::INFINITY, f32::MAX, -0.0, f32::NAN, 0.0, -0.0];
    let maps: [&dyn Map; 3] = [
        &activate::<Silu, f32>,
        &activate::<Gelu, f32>,
        &activate::<GeluTanh, f32>,
    ];
    for map in maps {
        for level in Level::available() {
            for (got, wanted) in run(map, level, &[&x[..]]).into_iter().zip(wanted) {
                let same = got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan());
                assert!(same, "{got} for {wanted} at {}", level.name());
            }
        }
    }
}
