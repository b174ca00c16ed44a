//! MLX operations by name, over lazy arrays that any thread may build on and one worker a stream
//! evaluates. Nothing here knows of the BEAM; `emily_nif` is the glue.
//!
//! Every input is checked before MLX sees it: where MLX would end the process or touch stray
//! memory, an [`Error::Argument`] is returned instead.

mod allocator;
mod args;
mod array;
mod attention;
#[cfg(target_os = "linux")]
pub mod blas;
mod cached;
mod chains;
mod checks;
mod conv;
mod create;
mod device;
mod dtype;
mod error;
pub mod exit;
mod ffi;
mod fold;
mod fused;
pub mod fusion;
mod index;
mod integer;
mod kernel;
mod kernels;
#[cfg(own_kernels)]
#[doc(hidden)]
pub mod layout;
mod limits;
mod linalg;
mod liveness;
pub mod memory;
mod number;
mod op;
mod pointer;
pub mod program;
mod shape;
mod short;
mod stream;
mod totals;
mod truth;
mod worker;

pub use emily_kernels::pool::{set_threads, threads};

pub use args::{Arg, Args, Literal};
pub use array::SharedArray;
pub use create::{from_bytes, from_file, Number};
pub use device::{devices, version, Device, Info};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use op::{apply, Op, Value};
pub use pointer::from_address;
pub use stream::StreamHandle;
pub use worker::{Job, QueueFull};
