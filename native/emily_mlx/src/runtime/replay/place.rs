//! Places on a device.

use crate::runtime::inspect::Memory;

/// Where the elements of a scheduled array are.
#[cfg_attr(not(all(own_kernels, target_os = "linux")), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(super) data: *mut u8,
    /// What tells the memory of two arrays apart.
    pub(super) buffer: *mut u8,
    pub(super) bytes: usize,
    pub(super) row_contiguous: bool,
}

impl Room {
    #[cfg_attr(not(all(own_kernels, target_os = "linux")), allow(dead_code))]
    pub(super) fn of(memory: &Memory, bytes: usize) -> Room {
        Room {
            data: memory.data,
            buffer: memory.data.wrapping_offset(-(memory.offset as isize)),
            bytes,
            row_contiguous: memory.row_contiguous,
        }
    }

    pub(crate) fn shares(&self, other: &Room) -> bool {
        self.buffer == other.buffer
    }

    /// Whether elements lie one after the other, so that they can be copied as bytes.
    pub(crate) fn is_in_a_row(&self) -> bool {
        self.row_contiguous
    }
}
