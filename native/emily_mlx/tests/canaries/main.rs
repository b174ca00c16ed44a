//! Faults of MLX that Emily works around, shown without Emily: what fails here says that MLX is mended, and which
//! workaround may go. Faults of a GPU alone are not among them, since they need one: sorting what is not row-major
//! (#4366, `src/ops/sort.rs`), the copy of a scalar that is a part of a larger array (`src/runtime/contiguous.rs`), rotary
//! embeddings with a negative offset (`src/ops/rope.rs`), sums of 16-bit floats in their own type (`src/ops/reduce.rs`),
//! scattered updates of 64-bit types, and of one element several times (`src/ops/scatter.rs`), masks of the least
//! numbers of bf16 (`src/ops/attention/mod.rs`), and products of several rows with packed weights, in sums of 64 terms
//! (`src/ops/quantized/product.rs`).
#![cfg(target_os = "linux")]

mod functions;
mod indices;
mod integers;
mod layouts;
mod linalg;
mod memory;
mod reductions;
mod streams;
mod support;
