//! Places on a device.

/// Where the elements of a scheduled array are on the device.
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
    pub(crate) fn shares(&self, other: &Room) -> bool {
        self.buffer == other.buffer
    }

    /// Whether elements lie one after the other, so that they can be copied as bytes.
    pub(crate) fn is_in_a_row(&self) -> bool {
        self.row_contiguous
    }
}
