//! Loops on an NVIDIA GPU, and on a CPU with Emily's kernels: one turn is recorded as MLX queues it, and run again without
//! MLX.
//!
//! A turn has the next state and whether to go on from it. MLX writes over some arrays of the state in their place, as
//! over caches. Of the others the loop has copies of its own, which a turn reads, and which the new ones are copied to at
//! its end. Which these are, the first recorded turn tells; those that are small are copied at once. What the loop never
//! changes is read where it is. Where something else is seen, MLX goes on turn by turn.
//!
//! A recording is kept for the next run of the loop: `program/kept.rs`.

use std::time::{Duration, Instant};

use mlx_rs::Array;

use super::state::{unwanted, Kind};
use super::told;
use super::{check_condition, Run, Slot};
use crate::ops::apply::Value;
use crate::program::kept::{Kept, Part, Shelf, Told};
use crate::program::recording::{is_held, is_there, room, Recording};
use crate::program::step::{Block, Place, Step, While};
use crate::runtime::contiguous::{contiguous, copy};
use crate::runtime::error::Result;
use crate::runtime::inspect::Node;
use crate::runtime::replay::{counts, Room};
use crate::runtime::stream::StreamHandle;

/// Up to so many bytes an array of the state is copied without a look, and up to so many it is copied at all.
const SMALL: usize = 4 << 10;
pub(super) const LARGE: usize = 64 << 20;

const SHORT_WAIT: Duration = Duration::from_micros(20);
const LONGEST_WAIT: Duration = Duration::from_millis(3);

/// How a turn finds an array of the state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// Where it was: no turn changes it.
    Stays,
    /// Where the turn before has left it.
    InPlace,
    /// In a copy of the loop's own.
    Copied,
}

/// The slots of a state.
pub(super) struct Slots(Vec<Storage>);

impl Slots {
    pub(super) fn of(repeat: &While, state: &[Array]) -> Self {
        let storage = |(at, array): (usize, &Array)| {
            let result = repeat.body.results[at];
            let stays = result.element.is_none() && result.register == repeat.state[at];
            match array.nbytes() <= SMALL {
                true => Storage::Copied,
                false if stays => Storage::Stays,
                false => Storage::InPlace,
            }
        };
        Slots(state.iter().enumerate().map(storage).collect())
    }

    fn of_kind<'a>(&'a self, kind: Storage, state: &'a [Array]) -> impl Iterator<Item = &'a Array> {
        let is_kind = move |(slot, _): &(&Storage, &Array)| **slot == kind;
        self.0
            .iter()
            .zip(state)
            .filter(is_kind)
            .map(|(_, array)| array)
    }
}

/// How far a loop was run.
pub(super) enum Replayed {
    ToTheEnd,
    /// The next is worth another recording.
    OneTurn,
    /// At most by a turn, and so will be the next.
    Never,
}

impl Run<'_> {
    /// Whether turns of a loop can be recorded: nothing in them waits for the host.
    pub(super) fn records(&self, repeat: &While) -> bool {
        // What a condition tells would be told once more where the loop is recorded anew.
        let plain = is_plain(&repeat.condition, false) && is_plain(&repeat.body, true);
        plain && !self.has_linalg && is_there(self.stream)
    }

    /// Runs a loop to its end by what an earlier run has recorded, if that fits its state; answers whether it does.
    pub(super) fn replay_kept(&mut self, repeat: &While, state: &mut Vec<Array>) -> Result<bool> {
        let Some(kept) = repeat.shelf.take(self.stream) else {
            return Ok(false);
        };
        let Some(around) = self.around(repeat) else {
            return Ok(false);
        };
        let condition = self.condition(repeat, state)?;
        let read = state.iter().chain(&around).chain([&condition]);
        self.compute(&read.cloned().collect::<Vec<_>>())?;
        if self.is_true(&condition)? {
            let read: Vec<Array> = state.iter().chain(&around).cloned().collect();
            let Some(_copied) = kept.begin(&read)? else {
                return Ok(false);
            };
            let (recording, told) = kept.recording();
            self.turns(recording, told, true)?;
            *state = kept.given()?;
        }
        self.keep(&repeat.shelf, kept);
        Ok(true)
    }

    /// Has the next run find a recording, once the results of this one are on their way.
    pub(super) fn keep(&mut self, shelf: &Shelf, kept: Kept) {
        self.kept.retain(|(other, _)| !other.is(shelf));
        self.kept.push((shelf.clone(), kept));
    }

    /// What a loop reads of the steps around it, where that is there.
    fn around(&self, repeat: &While) -> Option<Vec<Array>> {
        let places = repeat.around();
        let array = |place| self.array(place).ok().cloned();
        places.into_iter().map(array).collect()
    }

    /// The same as a recorded turn is to find it.
    fn own_around(&self, repeat: &While) -> Result<Option<Vec<(Place, Part)>>> {
        let Some(around) = self.around(repeat) else {
            return Ok(None);
        };
        self.parts(&repeat.around(), around, &|_| false).map(Some)
    }

    /// Arrays as a recording is to find them, computed: of what is small, which each run may compute anew, and of others as
    /// their numbers say, copies of its own.
    pub(super) fn parts(
        &self,
        places: &[Place],
        arrays: Vec<Array>,
        changes: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<(Place, Part)>> {
        let part = |(at, (place, array)): (usize, (&Place, Array))| {
            let is_own = (array.nbytes() <= SMALL || changes(at)) && place.element.is_none();
            let array = match is_own {
                true => copy(&array, self.stream)?,
                false => array,
            };
            Ok((*place, Part { array, is_own }))
        };
        let parts = places.iter().zip(arrays).enumerate().map(part);
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let arrays: Vec<Array> = parts.iter().map(|(_, part)| part.array.clone()).collect();
        self.compute(&arrays).map(|()| parts)
    }

    /// Does something with the loop's own copies in the place of what is around it.
    pub(super) fn within<T>(
        &mut self,
        around: &[(Place, Part)],
        act: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let own = around.iter().filter(|(_, part)| part.is_own);
        let replace = |(place, part): &(Place, Part)| {
            let own = Slot::Value(Value::One(part.array.clone()));
            let slot = std::mem::replace(&mut self.registers[place.register], own);
            (place.register, slot)
        };
        let replaced: Vec<_> = own.map(replace).collect();
        let done = act(self);
        for (register, slot) in replaced {
            self.registers[register] = slot;
        }
        done
    }

    /// Runs a recording, if it goes on, until it does no more.
    fn turns(&self, recording: &Recording, told: &[Told], mut goes_on: bool) -> Result<()> {
        while goes_on {
            if !self.host.is_waiting() {
                return Err(unwanted());
            }
            goes_on = recording.run()?;
            counts::TURNS.count();
            self.tell(recording, told)?;
        }
        Ok(())
    }

    /// Runs a loop from a state on.
    pub(super) fn replay(
        &mut self,
        repeat: &While,
        kinds: &[Kind],
        state: &mut Vec<Array>,
        slots: &mut Slots,
    ) -> Result<Replayed> {
        let condition = self.condition(repeat, state)?;
        self.compute(std::slice::from_ref(&condition))?;
        if !self.is_true(&condition)? {
            return Ok(Replayed::ToTheEnd);
        }
        let own = self.own(state, slots)?;
        let around = self.own_around(repeat)?;
        let stream = self.stream;
        wait_until_given_back(slots, state, stream);
        let is_own =
            |(array, own): (&Array, &Option<Array>)| own.is_some() || !is_held(array, stream);
        let is_own: Vec<bool> = state.iter().zip(&own).map(is_own).collect();
        let room = |array: &Array| room(array, stream);
        let before: Vec<Option<Room>> = state.iter().map(room).collect();
        // What MLX may write over is held by the graph alone.
        let consumed: Vec<usize> = state.iter().map(|array| Node::of(array).id()).collect();
        let given = own.iter().zip(std::mem::take(state));
        let given = given
            .map(|(own, array)| own.clone().unwrap_or(array))
            .collect();
        let may_wait = std::mem::replace(&mut self.may_wait, false);
        self.told = Some(Vec::new());
        let turn = self.within(around.as_deref().unwrap_or(&[]), |run| {
            run.turn(repeat, kinds, given, &own)
        });
        self.may_wait = may_wait;
        let told = self.told.take().unwrap_or_default();
        let (next, condition) = turn?;

        let handed = told.iter().flat_map(|told| &told.arrays);
        let results = next.iter().chain([&condition]).chain(handed);
        let results: Vec<Array> = results.cloned().collect();
        let recording = Recording::of(&results, &consumed, self.stream, usize::MAX)?;
        drop(results);
        *state = next;
        let Some(mut recording) = recording else {
            return self.hand_over(told).map(|()| Replayed::Never);
        };
        match links(&mut recording, &room, &own, &before, state, slots) {
            Linked::Wholly => (),
            Linked::WithMoreCopies => return self.hand_over(told).map(|()| Replayed::OneTurn),
            Linked::Not => return self.hand_over(told).map(|()| Replayed::Never),
        }
        check_condition(&condition)?;
        let rooms = room(&condition).zip(told::rooms(&told, &room));
        let finished = rooms.map(|(goes_on, rooms)| recording.finish(Some(goes_on), &rooms));
        let Some(Ok(goes_on)) = finished else {
            return self.hand_over(told).map(|()| Replayed::Never);
        };
        self.tell(&recording, &told)?;
        self.turns(&recording, &told, goes_on)?;
        for (array, own) in state.iter_mut().zip(own) {
            if let Some(own) = own {
                *array = own;
            }
        }
        let part = |(array, is_own): (&Array, bool)| Part {
            array: array.clone(),
            is_own,
        };
        let parts: Vec<Part> = state.iter().zip(is_own).map(part).collect();
        let Some(around) = around else {
            return Ok(Replayed::ToTheEnd);
        };
        let around = around.into_iter().map(|(_, part)| part);
        let reads = parts.iter().cloned().chain(around).collect();
        let kept = Kept::of((recording, told), stream, (reads, parts), Some(condition))?;
        if let Some(kept) = kept {
            *state = kept.given()?;
            self.keep(&repeat.shelf, kept);
        }
        Ok(Replayed::ToTheEnd)
    }

    /// Computed copies of arrays of a state, which may lie in the memory of what the loop was given: turns that only move
    /// elements give views of it.
    fn own(&self, state: &[Array], slots: &Slots) -> Result<Vec<Option<Array>>> {
        let own = |(array, slot): (&Array, &Storage)| match slot {
            Storage::Copied => copy(array, self.stream).map(Some),
            Storage::Stays | Storage::InPlace => Ok(None),
        };
        let own = state.iter().zip(&slots.0).map(own);
        let own = own.collect::<Result<Vec<_>>>()?;
        let computed: Vec<Array> = own.iter().flatten().chain(state).cloned().collect();
        self.compute(&computed)?;
        Ok(own)
    }

    /// The next state, and whether it is not the last.
    fn turn(
        &mut self,
        repeat: &While,
        kinds: &[Kind],
        given: Vec<Array>,
        own: &[Option<Array>],
    ) -> Result<(Vec<Array>, Array)> {
        let mut next = self.next_state(repeat, kinds, given)?;
        for (array, _) in next.iter_mut().zip(own).filter(|(_, own)| own.is_some()) {
            *array = contiguous(array, self.stream)?;
        }
        let condition = self.condition(repeat, &next)?;
        Ok((next, condition))
    }
}

/// Waits, for a moment at most, until MLX's threads hold no more of a state than the loop does: a GPU's let go of what a
/// turn has read some time after it, and what they hold is not written over.
fn wait_until_given_back(slots: &Slots, state: &[Array], stream: &StreamHandle) {
    if stream.is_cpu() {
        return;
    }
    let end = Instant::now() + LONGEST_WAIT;
    for array in slots.of_kind(Storage::InPlace, state) {
        while is_held(array, stream) && Instant::now() < end {
            std::thread::sleep(SHORT_WAIT);
        }
    }
}

enum Linked {
    Wholly,
    /// Not yet: more slots are to be copied.
    WithMoreCopies,
    Not,
}

/// Has the turns of a recording follow on one another.
fn links(
    recording: &mut Recording,
    room: &dyn Fn(&Array) -> Option<Room>,
    own: &[Option<Array>],
    before: &[Option<Room>],
    next: &[Array],
    slots: &mut Slots,
) -> Linked {
    let owned: Vec<Option<Room>> = own.iter().map(|own| own.as_ref().and_then(room)).collect();
    let mut linked = Linked::Wholly;
    for (at, array) in next.iter().enumerate() {
        if slots.0[at] == Storage::Stays {
            continue;
        }
        let Some(new) = room(array) else {
            return Linked::Not;
        };
        match owned[at] {
            Some(to) if to == new => (),
            Some(to) => {
                // What is copied to others' memory would be copied before or after that is.
                let shared = owned.iter().flatten().any(|room| room.shares(&new));
                if shared || !to.is_in_a_row() || !new.is_in_a_row() {
                    return Linked::Not;
                }
                recording.copy(&to, &new);
            }
            None if before[at] == Some(new) && new.is_in_a_row() => (),
            None if array.nbytes() <= LARGE => {
                slots.0[at] = Storage::Copied;
                linked = Linked::WithMoreCopies;
            }
            None => return Linked::Not,
        }
    }
    linked
}

/// Whether a block is operations, and calls without results where it may have them.
fn is_plain(block: &Block, tells: bool) -> bool {
    let plain = |step: &Step| match step {
        Step::Operation(_) | Step::Chain(_) => true,
        Step::Call(call) => tells && call.results == 0,
        Step::Cond(_) | Step::While(_) => false,
    };
    block.steps.iter().all(plain)
}
