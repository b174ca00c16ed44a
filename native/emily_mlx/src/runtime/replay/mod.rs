//! Steps that are run again without MLX: MLX queues one, and what it handed to the device, kept by a recording, is run as
//! often as is wanted, with the same buffers.

pub(crate) mod counts;
mod place;

pub(crate) use place::Room;

#[cfg(all(own_kernels, target_os = "linux"))]
mod edges;
#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) mod encoder;
#[cfg(all(test, own_kernels, target_os = "linux"))]
pub(crate) mod fake;
#[cfg(all(own_kernels, target_os = "linux"))]
mod graph;
#[cfg(all(own_kernels, target_os = "linux"))]
mod host;
#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) mod recording;
#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) mod tasks;

#[cfg(not(all(own_kernels, target_os = "linux")))]
pub(crate) mod none;
#[cfg(not(all(own_kernels, target_os = "linux")))]
pub(crate) use none as recording;
#[cfg(not(all(own_kernels, target_os = "linux")))]
pub(crate) use none as tasks;
