//! The plain crate against numbers worked out by hand or by loops written here.

mod conv;
mod evaluation;
mod index;
mod integer;
#[cfg(own_kernels)]
mod kernels;
#[cfg(own_kernels)]
mod layouts;
mod operations;
mod pointers;
#[cfg(target_os = "linux")]
mod products;
mod programs;
mod recordings;
mod reduce;
mod refusals;
mod sizes;
mod support;
mod system;
mod threads;
#[cfg(own_kernels)]
mod totals;
