//! What a turn leaves in the host's memory.

use super::graph::Copy;
use super::place::Room;
use crate::runtime::driver::Driver;
use crate::runtime::error::Result;
use crate::runtime::host_memory::HostMemory;

/// What a turn says to the host: whether another one follows, and what the host is told. The device copies it to the host's
/// memory. Not through MLX (0.32.4), which moves memory that the host reads, unless it is the host's too: later turns would
/// write where it was.
pub(super) struct Said {
    _memory: HostMemory,
    pub(super) copies: Vec<Copy>,
}

impl Said {
    pub(super) fn new<'a>(
        driver: &Driver,
        rooms: impl Iterator<Item = &'a Room> + Clone,
    ) -> Result<Said> {
        assert!(rooms.clone().all(|room| room.row_contiguous));
        let memory = HostMemory::new(driver, rooms.clone().map(|room| room.bytes).sum())?;
        let mut offset = 0;
        let copy = |room: &Room| {
            let to = memory.at(offset);
            offset += room.bytes;
            Copy {
                to,
                from: room.data,
                bytes: room.bytes,
            }
        };
        let copies = rooms.map(copy).collect();
        let _memory = memory;
        Ok(Said { _memory, copies })
    }

    /// What was copied last of a room.
    pub(super) fn read(&self, at: usize) -> &[u8] {
        let Copy { to, bytes, .. } = self.copies[at];
        // SAFETY: it is a part of the memory, which the device writes to in a turn, and a turn is waited for.
        unsafe { std::slice::from_raw_parts(to, bytes) }
    }
}
