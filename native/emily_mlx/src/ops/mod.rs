//! The operations: the table of them, and a file a family with its checks, what it adds to MLX's graph, what is composed
//! where MLX lacks it, and the choice of its kernels.

pub(crate) mod apply;
pub(crate) mod args;
pub(crate) mod attention;
mod cast;
pub(crate) mod chain;
mod checks;
mod compare;
mod conv;
pub(crate) mod create;
pub(crate) mod dot;
mod einsum;
mod elementwise;
mod fft;
mod gate;
pub(crate) mod index;
mod integer;
mod linalg;
mod map;
mod norm;
pub(crate) mod op;
pub(crate) mod pointer;
mod quantized;
mod reduce;
pub(crate) mod rope;
pub(crate) mod rows;
mod scan;
mod scatter;
pub(crate) mod shape;
mod sort;
mod table;
