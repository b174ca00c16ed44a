//! The functions of f32: computed in f64 with shorter polynomials, and rounded once.

pub mod error;
pub mod exponential;
pub mod gate;
pub mod hyperbolic;
pub mod logarithm;
pub mod power;
pub mod root;
pub mod trigonometric;
