//! The loops that compute on a CPU, over slices and strides. Nothing here knows of MLX or of the BEAM.

pub mod cast;
pub mod chain;
pub mod compare;
pub mod dispatch;
pub mod elementwise;
pub mod integer;
pub mod view;
