//! Steps that are run again on an NVIDIA GPU without MLX: MLX queues one, and what it handed to the device, kept by a
//! recording, is queued as often as is wanted, with the same buffers.

mod place;

pub(crate) use place::Room;

#[cfg(all(own_kernels, target_os = "linux"))]
mod driver;
#[cfg(all(own_kernels, target_os = "linux"))]
mod encoder;
#[cfg(all(own_kernels, target_os = "linux"))]
mod recording;

#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) use recording::{is_there, room, Recording};

#[cfg(not(all(own_kernels, target_os = "linux")))]
pub(crate) use none::{is_there, room, Recording};

#[cfg(not(all(own_kernels, target_os = "linux")))]
mod none {
    use mlx_rs::Array;

    use super::Room;
    use crate::runtime::error::Result;
    use crate::runtime::stream::StreamHandle;

    pub(crate) fn is_there() -> bool {
        false
    }

    pub(crate) fn room(_array: &Array) -> Option<Room> {
        None
    }

    /// There is none.
    pub(crate) enum Recording {}

    impl Recording {
        pub(crate) fn of(_arrays: &[Array], _stream: &StreamHandle) -> Result<Option<Recording>> {
            Ok(None)
        }

        pub(crate) fn copy(&mut self, _to: &Room, _from: &Room) {
            match *self {}
        }

        pub(crate) fn finish(&mut self) -> Result<()> {
            match *self {}
        }

        pub(crate) fn run(&self) -> Result<()> {
            match *self {}
        }
    }
}
