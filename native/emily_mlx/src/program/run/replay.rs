//! Loops on an NVIDIA GPU, and on a CPU with Emily's kernels: one turn is recorded as MLX queues it, and run again without
//! MLX.
//!
//! A turn has the next state and whether to go on from it. MLX writes over some arrays of the state in their place, as
//! over caches. Of the others the loop has copies of its own, which a turn reads, and which the new ones are copied to at
//! its end. Which these are, the first recorded turn tells; those that are small are copied at once. Where something
//! else is seen, MLX goes on turn by turn.

use std::time::{Duration, Instant};

use mlx_rs::Array;

use super::state::{unwanted, Kind};
use super::{check_condition, is_true, Run};
use crate::program::step::{Block, Step, While};
use crate::runtime::contiguous::{contiguous, copy};
use crate::runtime::error::Result;
use crate::runtime::replay::{recording, tasks, turns, Room};
use crate::runtime::stream::StreamHandle;

/// Up to so many bytes an array of the state is copied without a look, and up to so many it is copied at all.
const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 20;

const SHORT_WAIT: Duration = Duration::from_micros(20);
const LONGEST_WAIT: Duration = Duration::from_millis(3);

/// Which arrays of a state the loop has copies of.
pub(super) struct Slots(Vec<bool>);

impl Slots {
    pub(super) fn of(state: &[Array]) -> Self {
        Slots(state.iter().map(|array| array.nbytes() <= SMALL).collect())
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
        let plain = [&repeat.condition, &repeat.body].into_iter().all(is_plain);
        let is_there = match self.stream.is_cpu() {
            true => tasks::is_there(),
            false => recording::is_there(),
        };
        plain && !self.has_linalg && is_there
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
        if !is_true(&condition)? {
            return Ok(Replayed::ToTheEnd);
        }
        let own = self.own(state, slots)?;
        let stream = self.stream;
        wait_until_given_back(repeat, state, stream);
        let room = |array: &Array| room(array, stream);
        let before: Vec<Option<Room>> = state.iter().map(room).collect();
        // What MLX may write over is held by the graph alone.
        let consumed: Vec<usize> = state.iter().map(tasks::id).collect();
        let given = own.iter().zip(std::mem::take(state));
        let given = given
            .map(|(own, array)| own.clone().unwrap_or(array))
            .collect();
        let may_wait = std::mem::replace(&mut self.may_wait, false);
        let turn = self.turn(repeat, kinds, given, &own);
        self.may_wait = may_wait;
        let (next, condition) = turn?;

        let results: Vec<Array> = next.iter().chain([&condition]).cloned().collect();
        let recording = Recording::of(&results, &consumed, self.stream)?;
        drop(results);
        *state = next;
        let Some(mut recording) = recording else {
            return Ok(Replayed::Never);
        };
        match links(&mut recording, &room, &own, &before, state, slots) {
            Linked::Wholly => (),
            Linked::WithMoreCopies => return Ok(Replayed::OneTurn),
            Linked::Not => return Ok(Replayed::Never),
        }
        check_condition(&condition)?;
        let finished = room(&condition).map(|goes_on| recording.finish(goes_on));
        let Some(Ok(mut goes_on)) = finished else {
            return Ok(Replayed::Never);
        };
        while goes_on {
            if !self.host.is_waiting() {
                return Err(unwanted());
            }
            goes_on = recording.run()?;
            turns::count();
        }
        for (array, own) in state.iter_mut().zip(own) {
            if let Some(own) = own {
                *array = own;
            }
        }
        Ok(Replayed::ToTheEnd)
    }

    /// Computed copies of arrays of a state, which may lie in the memory of what the loop was given: turns that only move
    /// elements give views of it.
    fn own(&self, state: &[Array], slots: &Slots) -> Result<Vec<Option<Array>>> {
        let own = |(array, copied): (&Array, &bool)| match copied {
            true => copy(array, self.stream).map(Some),
            false => Ok(None),
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
fn wait_until_given_back(repeat: &While, state: &[Array], stream: &StreamHandle) {
    if stream.is_cpu() {
        return;
    }
    let stays = |at: &usize| {
        let result = repeat.body.results[*at];
        result.element.is_none() && result.register == repeat.state[*at]
    };
    let changed = (0..state.len()).filter(|at| !stays(at));
    let held = |at: usize| recording::is_held(&state[at]);
    let end = Instant::now() + LONGEST_WAIT;
    for at in changed {
        while held(at) && Instant::now() < end {
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

fn room(array: &Array, stream: &StreamHandle) -> Option<Room> {
    match stream.is_cpu() {
        true => tasks::room(array),
        false => recording::room(array),
    }
}

/// A recorded turn, on either device.
enum Recording {
    OnCpu(tasks::Recording),
    OnGpu(recording::Recording),
}

impl Recording {
    /// Schedules arrays and records it, where that can be. Of what they read MLX may write over arrays of these numbers.
    fn of(
        arrays: &[Array],
        consumed: &[usize],
        stream: &StreamHandle,
    ) -> Result<Option<Recording>> {
        Ok(match stream.is_cpu() {
            true => tasks::Recording::of(arrays, consumed, stream)?.map(Recording::OnCpu),
            false => recording::Recording::of(arrays, consumed, stream)?.map(Recording::OnGpu),
        })
    }

    fn copy(&mut self, to: &Room, from: &Room) {
        match self {
            Recording::OnCpu(tasks) => tasks.copy(to, from),
            Recording::OnGpu(recording) => recording.copy(to, from),
        }
    }

    fn finish(&mut self, goes_on: Room) -> Result<bool> {
        match self {
            Recording::OnCpu(tasks) => tasks.finish(goes_on),
            Recording::OnGpu(recording) => recording.finish(goes_on),
        }
    }

    fn run(&self) -> Result<bool> {
        match self {
            Recording::OnCpu(tasks) => tasks.run(),
            Recording::OnGpu(recording) => recording.run(),
        }
    }
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
                slots.0[at] = true;
                linked = Linked::WithMoreCopies;
            }
            None => return Linked::Not,
        }
    }
    linked
}

/// Whether a block is operations alone.
fn is_plain(block: &Block) -> bool {
    let plain = |step: &Step| matches!(step, Step::Operation(_) | Step::Chain(_));
    block.steps.iter().all(plain)
}
