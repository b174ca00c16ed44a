//! Programs: operations over registers, with conditions, loops and calls, turned into MLX's graph.

mod again;
mod builder;
pub mod fusion;
mod group;
mod kept;
mod liveness;
mod order;
mod recording;
mod run;
mod sparing;
mod step;
mod straight;

pub use builder::{Builder, Function};
pub use kept::forget_recordings;
pub use run::{Host, Input, NoHost, Results};
pub use step::{Operand, Place, Places, Program};
