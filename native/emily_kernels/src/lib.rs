//! The loops that compute on a CPU, over slices and strides. Nothing here knows of MLX or of the BEAM.

pub mod attention;
pub mod cast;
pub mod chain;
pub mod compare;
pub mod conv;
pub mod dispatch;
pub mod dot;
pub mod elementwise;
pub mod gemm;
pub mod index;
pub mod input;
pub mod integer;
mod lanes;
mod maps;
pub mod math;
pub mod norm;
pub mod number;
pub mod pool;
mod prefetch;
pub mod quantized;
pub mod real;
pub mod reduce;
pub mod rope;
pub mod rows;
pub mod scan;
pub mod sort;
pub mod view;
