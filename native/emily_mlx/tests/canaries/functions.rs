//! Functions of one or two numbers.

use mlx_rs::Array;

use crate::support::*;

const ELEMENTWISE: &str = "native/emily_mlx/src/ops/elementwise.rs";

#[test]
fn functions_of_f64_have_the_digits_of_f32() {
    let x = Array::from_slice(&[0.75f32], &[1]);
    let x = raw!(mlx_astype, x.as_ptr(), mlx_sys::mlx_dtype__MLX_FLOAT64);
    let x = x.as_ptr();
    let wrong = [
        (raw!(mlx_exp, x), 0.75f64.exp()),
        (raw!(mlx_sin, x), 0.75f64.sin()),
        (raw!(mlx_cos, x), 0.75f64.cos()),
        (raw!(mlx_sigmoid, x), 1.0 / (1.0 + (-0.75f64).exp())),
        (raw!(mlx_erf, x), libm::erf(0.75)),
    ]
    .map(|(got, wanted)| {
        computed(&got).expect("it can be computed");
        (got.as_slice::<f64>()[0] - wanted).abs() > 1e-12
    });
    leans_on(
        wrong == [true; 5],
        "some functions of f64",
        Some(3047),
        &[ELEMENTWISE],
    );
}

#[test]
fn the_error_function_of_zero_is_minus_zero() {
    let zero = floats(&raw!(mlx_erf, Array::from_slice(&[0.0f32], &[1]).as_ptr()));
    leans_on(
        zero[0].is_sign_negative(),
        "erf of 0.0",
        None,
        &[ELEMENTWISE],
    );
}

#[test]
fn the_sine_of_minus_zero_is_zero() {
    let sine = floats(&raw!(mlx_sin, Array::from_slice(&[-0.0f32], &[1]).as_ptr()));
    leans_on(
        sine[0].is_sign_positive(),
        "the sine of -0.0",
        None,
        &[ELEMENTWISE],
    );
}

#[test]
fn the_sign_of_nan_is_zero() {
    let sign = floats(&raw!(
        mlx_sign,
        Array::from_slice(&[f32::NAN], &[1]).as_ptr()
    ));
    leans_on(sign == [0.0], "the sign of NaN", None, &[ELEMENTWISE]);
}

#[test]
fn the_exponential_loses_subnormals() {
    let power = floats(&raw!(
        mlx_exp,
        Array::from_slice(&[-90.0f32], &[1]).as_ptr()
    ));
    leans_on(
        power == [0.0],
        "subnormal results of exp",
        Some(1341),
        &[ELEMENTWISE],
    );
}

#[test]
fn zero_to_the_power_of_zero_is_nan_among_complex_numbers() {
    let zero = Array::from_slice(&[0.0f32, 0.0], &[2]);
    let zero = raw!(mlx_view, zero.as_ptr(), mlx_sys::mlx_dtype__MLX_COMPLEX64);
    let power = raw!(mlx_power, zero.as_ptr(), zero.as_ptr());
    let real = floats(&raw!(mlx_real, power.as_ptr()));
    let files = ["lib/emily/lower/complex_math.ex"];
    leans_on(real[0].is_nan(), "0 to the power of 0 in c64", None, &files);
}
