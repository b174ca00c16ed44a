//! Activations, of an f32 in a double: `x` times how likely it is to stay.

use super::error::error_function;
use super::exponential::power;
use crate::math::arithmetic::{clamp, Arithmetic};

/// An activation.
pub trait Gate {
    /// The value for an f32, in the digits that an f32 needs.
    fn of<A: Arithmetic>(x: f64) -> f64;
}

/// `x / (1 + e^-x)`.
#[derive(Clone, Copy, Debug)]
pub struct Silu;

/// `x (1 + erf(x / sqrt(2))) / 2`.
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

/// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
#[derive(Clone, Copy, Debug)]
pub struct GeluTanh;

/// `x / (1 + e^-at)`, and `x` times zero where that is no number of f32.
#[inline(always)]
fn logistic<A: Arithmetic>(x: f64, at: f64) -> f64 {
    let value = x / (1.0 + power::<A>(-clamp(at, -600.0, 600.0)));
    if at < -600.0 {
        x * 0.0
    } else {
        value
    }
}

impl Gate for Silu {
    #[inline(always)]
    fn of<A: Arithmetic>(x: f64) -> f64 {
        logistic::<A>(x, x)
    }
}

impl Gate for Gelu {
    #[inline(always)]
    fn of<A: Arithmetic>(x: f64) -> f64 {
        const ROOT_OF_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
        let value = 0.5 * x * (1.0 + error_function::<A>(x * ROOT_OF_HALF));
        // Where the error function is -1 in f32.
        if x < -5.65 {
            x * 0.0
        } else {
            value
        }
    }
}

impl Gate for GeluTanh {
    #[inline(always)]
    fn of<A: Arithmetic>(x: f64) -> f64 {
        // 2 sqrt(2 / pi)
        const FACTOR: f64 =
            2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
        logistic::<A>(x, FACTOR * A::mul_add(0.044715 * x, x * x, x))
    }
}
