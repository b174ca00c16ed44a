//! Steps that are run again on an NVIDIA GPU without MLX: MLX queues one, and what it handed to the device, kept by a
//! recording, is queued as often as is wanted, with the same buffers.

#[cfg(all(own_kernels, target_os = "linux"))]
mod driver;
#[cfg(all(own_kernels, target_os = "linux"))]
mod encoder;
#[cfg(all(own_kernels, target_os = "linux"))]
mod recording;

#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) use recording::{is_there, room, Recording};

/// Where the elements of a scheduled array are on the device.
#[cfg_attr(not(all(own_kernels, target_os = "linux")), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    data: *mut u8,
    /// What tells the memory of two arrays apart.
    buffer: *mut u8,
    bytes: usize,
    row_contiguous: bool,
}

impl Room {
    pub(crate) fn shares(&self, other: &Room) -> bool {
        self.buffer == other.buffer
    }

    /// Whether elements lie one after the other, so that they can be copied as bytes.
    pub(crate) fn is_in_a_row(&self) -> bool {
        self.row_contiguous
    }
}

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
