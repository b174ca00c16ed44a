//! The loops that compute on a CPU, over slices and strides. Nothing here knows of MLX or of the BEAM.

pub mod gemm;
pub mod pool;
