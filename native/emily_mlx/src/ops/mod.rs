//! The operations: the table of their names, and a file a family with its checks and what it adds to
//! MLX's graph.

pub(crate) mod args;
pub(crate) mod attention;
pub(crate) mod checks;
pub(crate) mod conv;
pub(crate) mod create;
mod fold;
pub(crate) mod fused;
mod index;
mod integer;
pub(crate) mod kernels;
mod linalg;
mod number;
pub(crate) mod shape;
pub(crate) mod table;
pub(crate) mod totals;
