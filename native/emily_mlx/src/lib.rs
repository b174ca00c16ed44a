//! MLX operations by name, over lazy arrays that any thread may build on and one worker a stream
//! evaluates. Nothing here knows of the BEAM; `emily_nif` is the glue.
//!
//! Every input is checked before MLX sees it: where MLX would end the process or touch stray
//! memory, an [`Error::Argument`] is returned instead.

mod ops;
pub mod program;
mod runtime;

pub use emily_kernels::pool::{set_threads, threads};

pub use ops::apply::{apply, Value};
pub use ops::args::{Arg, Args, Literal, Number};
pub use ops::create::{from_bytes, from_file};
pub use ops::op::Op;
pub use ops::pointer::from_address;
pub use program::fusion;
pub use runtime::array::{Held, SharedArray};
#[cfg(target_os = "linux")]
pub use runtime::blas;
pub use runtime::device::{devices, version, Device, Info};
pub use runtime::dtype::Dtype;
pub use runtime::engine::Job;
pub use runtime::error::{Error, Result};
pub use runtime::fetch::Fetched;
#[cfg(own_kernels)]
#[doc(hidden)]
pub use runtime::inspect;
pub use runtime::job::QueueFull;
pub use runtime::kernel::kernels;
pub use runtime::memory;
pub use runtime::queue::finish_on_exit;
pub use runtime::replay::counts::{replayed_runs, replayed_turns};
pub use runtime::stream::StreamHandle;
