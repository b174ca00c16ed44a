//! Loops.

use std::time::{Duration, Instant};

use mlx_rs::Array;

use super::replay::{Replayed, Slots};
use super::state::{unwanted, Kind, Kinds};
use super::{Run, Slot};
use crate::ops::apply::Value;
use crate::program::step::While;
use crate::runtime::error::{refuse, Result};
use crate::runtime::graph::schedule;
use crate::runtime::stream::Scheduled;

impl Run<'_> {
    pub(super) fn repeat(&mut self, repeat: &While) -> Result<()> {
        let mut state = self.arrays(&repeat.initial)?;
        let kinds: Kinds = state.iter().map(Kind::of).collect();
        self.clear(repeat.ended.iter().copied());
        // What is small is computed several turns at a time.
        let lean = self.lean;
        self.lean &= bytes(&state) >= SMALL;
        // A lean run computes a turn while it builds it.
        let records = !self.lean && self.records(repeat);
        let ended = match records && self.replay_kept(repeat, &mut state)? {
            true => Ok(()),
            false => {
                let slots = records.then(|| Slots::of(repeat, &state));
                self.turns_from(repeat, &kinds, &mut state, slots)
            }
        };
        if let Err(error) = ended {
            self.free(Slot::Value(Value::Many(state)));
            return Err(error);
        }
        self.lean = lean;
        self.registers[repeat.to] = Slot::Value(Value::Many(state));
        Ok(())
    }

    /// All turns from a state on. With slots one is recorded.
    fn turns_from(
        &mut self,
        repeat: &While,
        kinds: &[Kind],
        state: &mut Vec<Array>,
        mut slots: Option<Slots>,
    ) -> Result<()> {
        let mut pace = Pace::new();
        let mut before = None;
        let mut turns = 0;
        loop {
            if let Some(known) = slots.as_mut().filter(|_| turns >= RECORD_AT) {
                match self.replay(repeat, kinds, state, known)? {
                    Replayed::ToTheEnd => return Ok(()),
                    Replayed::OneTurn => continue,
                    Replayed::Never => slots = None,
                }
            }
            turns += 1;
            let ahead = match self.has_linalg || repeat.calls {
                true => 1,
                false if slots.is_some() => 1,
                false => pace.ahead,
            };
            let begun = Instant::now();
            let next = match ahead {
                1 => self.turn_of(repeat, kinds, state, &mut before)?,
                _ => self.steps(repeat, kinds, state, ahead)?,
            };
            match next {
                Next::None => return Ok(()),
                Next::Waited => pace.learn(begun.elapsed(), state),
                Next::Known => {}
            }
            if !self.host.is_waiting() {
                return Err(unwanted());
            }
        }
    }

    /// One iteration: the body is built once the condition is known.
    fn turn_of(
        &mut self,
        repeat: &While,
        kinds: &[Kind],
        state: &mut Vec<Array>,
        before: &mut Option<Scheduled>,
    ) -> Result<Next> {
        let condition = [self.condition(repeat, state)?];
        // What is large is written into its place, by MLX, where nothing that is scheduled reads it any more.
        let known = bytes(state) < LARGE && self.stream.worker().compute_here(&condition);
        if !known {
            // The condition first, so that the wait is for no more than it needs; the state goes on while the next graph
            // is built.
            self.compute(&condition)?;
        }
        if !self.is_true(&condition[0])? {
            return Ok(Next::None);
        }
        *state = self.next_state(repeat, kinds, std::mem::take(state))?;
        if self.has_linalg {
            self.compute(state)?;
        } else {
            self.go_on(state, known, before)?;
        }
        Ok(if known { Next::Known } else { Next::Waited })
    }

    /// Starts to compute a state. What is quick, as a counter, is computed at once: where the next condition needs no
    /// more, its iteration is built meanwhile. No more than two iterations are computed at a time, since each holds
    /// memory.
    fn go_on(
        &mut self,
        state: &[Array],
        known: bool,
        before: &mut Option<Scheduled>,
    ) -> Result<()> {
        let worker = self.stream.worker();
        let here = |array| worker.compute_here(std::slice::from_ref(array));
        if state.iter().filter(|array| !here(array)).count() == 0 {
            return Ok(());
        }
        self.has_scheduled = true;
        if !known {
            return schedule(state);
        }
        match before.replace(self.stream.schedule(state)?) {
            Some(before) => before.wait(),
            None => Ok(()),
        }
    }

    /// Several iterations built at once, so that a short body is not outweighed by the waits. What
    /// lies beyond the first false condition is dropped: operations change nothing but their
    /// results.
    fn steps(
        &mut self,
        repeat: &While,
        kinds: &[Kind],
        state: &mut Vec<Array>,
        ahead: usize,
    ) -> Result<Next> {
        let mut conditions = Vec::with_capacity(ahead + state.len());
        let mut states = Vec::with_capacity(ahead);
        for _ in 0..ahead {
            conditions.push(self.condition(repeat, state)?);
            let next = self.next_state(repeat, kinds, state.clone())?;
            states.push(std::mem::replace(state, next));
        }
        conditions.extend(state.iter().cloned());
        self.compute(&conditions)?;
        for (condition, before) in conditions.iter().zip(states) {
            if !self.is_true(condition)? {
                *state = before;
                return Ok(Next::None);
            }
        }
        Ok(Next::Waited)
    }

    pub(super) fn condition(&mut self, repeat: &While, state: &[Array]) -> Result<Array> {
        let mut results = self.results_on(&repeat.tested, state.to_vec(), &repeat.condition)?;
        match (results.pop(), results.is_empty()) {
            (Some(condition), true) => Ok(condition),
            _ => refuse!("while: the condition must be one array"),
        }
    }

    pub(super) fn next_state(
        &mut self,
        repeat: &While,
        kinds: &[Kind],
        state: Vec<Array>,
    ) -> Result<Vec<Array>> {
        let next = self.results_on(&repeat.state, state, &repeat.body)?;
        if next.len() != repeat.state.len() {
            refuse!(
                "while: the body gives {} arrays for a state of {}",
                next.len(),
                repeat.state.len()
            )
        }
        for (at, (next, kind)) in next.iter().zip(kinds).enumerate() {
            kind.check(at, next)?;
        }
        Ok(next.into_vec())
    }
}

/// How a loop goes on after an iteration: not at all, or by a condition that was waited for or known without.
enum Next {
    None,
    Waited,
    Known,
}

/// The turn of a loop that is recorded on a device that can run it again by itself. Those before have the kernels
/// compiled, and give the state memory of the loop's own.
const RECORD_AT: usize = 2;

fn bytes(state: &[Array]) -> usize {
    state.iter().map(Array::nbytes).sum()
}

/// How many iterations of a loop are built before their conditions are read.
struct Pace {
    ahead: usize,
}

/// Iterations that take longer gain nothing when they are built ahead, and one too many costs more.
const SHORT: Duration = Duration::from_micros(200);
/// The memory that the states of iterations built ahead may take.
const SMALL: usize = 1 << 20;
/// A state from this size on is copied in more time than it takes to wait.
const LARGE: usize = 16 << 20;
const MOST_AHEAD: usize = 64;
/// How long what is built ahead may take, since the last of it may be in vain.
const MOST_IN_VAIN: Duration = Duration::from_millis(2);

impl Pace {
    fn new() -> Self {
        Pace { ahead: 1 }
    }

    fn learn(&mut self, elapsed: Duration, state: &[Array]) {
        let short = elapsed < SHORT * self.ahead as u32 && bytes(state) < SMALL;
        self.ahead = if !short {
            1
        } else if elapsed * 2 < MOST_IN_VAIN {
            (self.ahead * 2).min(MOST_AHEAD)
        } else {
            self.ahead
        };
    }
}
