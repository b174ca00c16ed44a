//! Steps without conditions, loops and calls, recorded in one run and run again in the next, as turns of loops are
//! (`program/run/replay.rs`), without MLX: its part of their time, some microseconds each, is most of what a GPU's take.

use mlx_rs::Array;

use super::replay::LARGE;
use super::{Run, Slot};
use crate::ops::apply::Value;
use crate::ops::attention::cached::Seen;
use crate::program::kept::{largest, Kept, Part};
use crate::program::recording::{is_there, Recording};
use crate::program::step::{Program, Register, Step, Straight};
use crate::program::straight;
use crate::runtime::error::Result;
use crate::runtime::replay::counts;

/// Up to so many bytes steps take that a CPU records: those of more have little of their time in MLX, and take their memory
/// once more.
const LARGEST_ON_CPU: usize = 1 << 20;

impl Run<'_> {
    /// Runs a program's body, of which it records what can be.
    pub(super) fn body(&mut self, program: &Program) -> Result<()> {
        // What was given away may be written over.
        let is_given = |register: &Register| matches!(self.registers[*register], Slot::Value(_));
        let given = program.inputs.iter().any(is_given);
        let waits = self.may_wait && !self.lean && !self.has_linalg;
        if !waits || given || !is_there(self.stream) {
            return self.block(&program.body, &program.inputs);
        }
        let all = program
            .straight
            .get_or_init(|| straight::all(&program.body));
        let mut first = 0;
        for straight in all {
            self.all(&program.body.steps[first..straight.steps.start])?;
            self.straight(&program.body.steps[straight.steps.clone()], straight)?;
            first = straight.steps.end;
        }
        self.all(&program.body.steps[first..])
    }

    fn straight(&mut self, steps: &[Step], straight: &Straight) -> Result<()> {
        self.seen = self.seen_by(steps)?;
        let keys = match &self.seen {
            // A mask is another one in each run.
            Some((_, Seen { mask: Some(_), .. })) => return self.all(steps),
            Some((_, Seen { keys, mask: None })) => Some(keys.clone()),
            None => None,
        };
        let reads = self.arrays(&straight.reads)?;
        let was_full = straight.shelf.is_full();
        if let Some(kept) = straight.shelf.take(self.stream) {
            self.stream.compute_unless(reads.clone(), false)?;
            let fits = kept.keys == keys;
            let copied = fits.then(|| kept.begin(&reads)).transpose()?.flatten();
            if let Some(copied) = copied {
                kept.recording().0.launch()?;
                counts::RUNS.count();
                return self.hand_on(straight, kept, &copied);
            }
            let is_small = |at: &usize| reads[*at].nbytes() <= LARGE;
            let mut luck = straight.luck.lock();
            match kept.others(&reads).all(|at| is_small(&at)) {
                true => luck.missed(kept.others(&reads)),
                false => luck.never(),
            }
        } else if was_full {
            // Several threads run the program, of which each would drop what another has recorded.
            straight.luck.lock().missed(std::iter::empty());
        }
        if !straight.luck.lock().records() {
            return self.all(steps);
        }
        self.record(steps, straight, reads)
    }

    /// Runs steps, recorded where that can be.
    fn record(&mut self, steps: &[Step], straight: &Straight, reads: Vec<Array>) -> Result<()> {
        let changes = straight.luck.lock().changes.clone();
        let parts = self.parts(&straight.reads, reads, &|at| changes.contains(&at))?;
        let may_wait = std::mem::replace(&mut self.may_wait, false);
        let seen = self.seen.take();
        let keys = seen.as_ref().map(|(_, seen)| seen.keys.clone());
        let ran = self.within(&parts, |run| {
            run.forget_found();
            run.seen = seen;
            run.all(steps)
        });
        self.may_wait = may_wait;
        self.forget_found();
        ran?;
        let given: Option<Vec<Array>> = straight
            .gives
            .iter()
            .map(|to| self.one(*to).cloned())
            .collect();
        let Some(given) = given else {
            straight.luck.lock().never();
            return Ok(());
        };
        let most = match self.stream.is_cpu() {
            true => LARGEST_ON_CPU,
            false => largest(self.stream)?,
        };
        self.has_scheduled = true;
        let recording = Recording::of(&given, &[], self.stream, most)?;
        let finished = recording.map(|mut recording| {
            let finished = recording.finish(None, &[]);
            finished.map(|_| recording)
        });
        let kept = match finished {
            Some(Ok(recording)) => {
                let reads = parts.into_iter().map(|(_, part)| part).collect();
                let own = |array| Part {
                    array,
                    is_own: true,
                };
                let gives = given.into_iter().map(own).collect();
                Kept::of((recording, Vec::new()), self.stream, (reads, gives), None)?
            }
            Some(Err(_)) | None => None,
        };
        match kept {
            Some(mut kept) => {
                kept.keys = keys;
                self.hand_on(straight, kept, &[])
            }
            None => {
                straight.luck.lock().never();
                Ok(())
            }
        }
    }

    /// Has the steps behind read copies of what a recording has left, and the next run find it. What it reads copies of is kept
    /// until it has.
    fn hand_on(&mut self, straight: &Straight, kept: Kept, copied: &[Array]) -> Result<()> {
        let given = kept.given()?;
        self.stream.schedule_keeping(&given, copied)?;
        self.has_scheduled = true;
        for (to, array) in straight.gives.iter().zip(given) {
            self.registers[*to] = Slot::Value(Value::One(array));
        }
        self.keep(&straight.shelf, kept);
        Ok(())
    }

    /// What is found once for several steps may lie in a recording's memory, or be what a recording does not know.
    fn forget_found(&mut self) {
        self.seen = None;
        self.within.clear();
        self.few.clear();
    }
}
