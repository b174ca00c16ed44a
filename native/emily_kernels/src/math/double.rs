//! The functions of f64.

pub mod error;
pub mod exponential;
pub mod hyperbolic;
pub mod logarithm;
mod payne_hanek;
pub mod power;
pub mod root;
pub mod trigonometric;
