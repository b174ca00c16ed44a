//! Calls without results, as hooks are, in turns that are recorded: each turn leaves what it hands over where the host reads it.

use super::Run;
use crate::ops::create::new_data;
use crate::program::kept::Told;
use crate::program::recording::Recording;
use crate::program::step::Call;
use crate::runtime::contiguous::copy;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::replay::Room;

/// Up to so many bytes of a turn are told; with more MLX goes on turn by turn.
const MOST: usize = 1 << 20;

/// The rooms of what turns tell, where it is little.
pub(super) fn rooms(
    told: &[Told],
    room: &dyn Fn(&mlx_rs::Array) -> Option<Room>,
) -> Option<Vec<Room>> {
    let arrays = || told.iter().flat_map(|told| &told.arrays);
    let bytes: usize = arrays().map(|array| array.nbytes()).sum();
    let rooms = (bytes <= MOST).then(|| arrays().map(room).collect::<Option<Vec<_>>>())??;
    rooms.iter().all(Room::is_in_a_row).then_some(rooms)
}

impl Run<'_> {
    /// Notes a call instead of making it, where a turn is recorded; answers whether it was noted.
    pub(super) fn note(&mut self, call: &Call) -> Result<bool> {
        if self.told.is_none() {
            return Ok(false);
        }
        let own = |array| copy(array, self.stream);
        let arrays = self.arrays(&call.operands)?;
        let arrays = arrays.iter().map(own).collect::<Result<_>>()?;
        let index = call.index;
        self.told
            .get_or_insert_default()
            .push(Told { index, arrays });
        Ok(true)
    }

    /// Makes the calls of a turn that MLX runs.
    pub(super) fn hand_over(&self, told: Vec<Told>) -> Result<()> {
        told.into_iter()
            .try_for_each(|Told { index, arrays }| self.host.call(index, arrays, 0).map(drop))
    }

    /// Makes the calls of the turn that a recording has run last.
    pub(super) fn tell(&self, recording: &Recording, told: &[Told]) -> Result<()> {
        let mut said = 0..;
        for Told { index, arrays } in told {
            let said = arrays.iter().zip(&mut said);
            let array = |(array, at): (&mlx_rs::Array, usize)| {
                new_data(recording.told(at), array.shape(), Dtype::of(array))
            };
            let arrays = said.map(array).collect::<Result<_>>()?;
            self.host.tell(*index, arrays)?;
        }
        Ok(())
    }
}
