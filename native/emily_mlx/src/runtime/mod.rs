//! What operations stand on: devices, streams and their workers, memory, MLX's errors, the node of
//! MLX's graph that calls a kernel, and what is run again without MLX.

pub(crate) mod allocator;
pub(crate) mod alone;
pub(crate) mod array;
#[cfg(target_os = "linux")]
pub mod blas;
mod cards;
#[cfg(all(own_kernels, target_os = "linux"))]
mod compiled;
pub(crate) mod contiguous;
pub(crate) mod cuda;
#[cfg(all(own_kernels, target_os = "linux"))]
mod cuda_stream;
#[cfg(not(all(own_kernels, target_os = "linux")))]
#[path = "no_cuda_stream.rs"]
mod cuda_stream;
#[cfg(own_kernels)]
mod cxx;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod destructors;
pub(crate) mod device;
#[cfg(all(own_kernels, target_os = "linux"))]
mod driver;
pub(crate) mod dtype;
pub(crate) mod engine;
pub(crate) mod error;
mod exit;
pub(crate) mod fetch;
pub(crate) mod ffi;
pub(crate) mod graph;
#[cfg(all(own_kernels, target_os = "linux"))]
mod host_memory;
#[cfg(own_kernels)]
pub mod inspect;
pub(crate) mod job;
pub(crate) mod kernel;
#[cfg(target_os = "linux")]
mod library;
mod limits;
pub mod memory;
#[cfg(all(own_kernels, target_os = "linux"))]
mod modules;
#[cfg(target_os = "linux")]
mod pools;
pub(crate) mod queue;
pub(crate) mod replay;
pub(crate) mod room;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod shelf;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
#[path = "no_shelf.rs"]
mod shelf;
mod short;
#[cfg(own_kernels)]
mod single;
pub(crate) mod stream;
mod sync;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod table;
#[cfg(all(own_kernels, target_os = "linux"))]
mod tasks;
pub(crate) mod truth;
pub(crate) mod worker;
