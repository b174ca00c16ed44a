//! Calls of a running program to the process that runs it.

use std::collections::VecDeque;
use std::time::Duration;

use emily_mlx::program::Host;
use emily_mlx::{Error, Result, SharedArray, StreamHandle};
use mlx_rs::Array;
use parking_lot::{Condvar, Mutex};
use rustler::{Atom, Encoder, NifResult, Resource, ResourceArc, Term};

use crate::error::raise;
use crate::evaluation::{graphs, is_alive, Caller};
use crate::resources::{array_refs, ArrayRef, ArrayResource};
use crate::room::Idle;

rustler::atoms! { ok, call }

/// How many calls without results may be unanswered before the program waits for the process.
const MOST_UNANSWERED: usize = 8;

/// How often a waiting program looks whether its process lives.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A program that runs, to the process that runs it.
#[derive(Default)]
pub struct RunResource {
    answers: Mutex<Answers>,
    changed: Condvar,
}

#[derive(Default)]
struct Answers {
    /// In the order of the calls, as the process takes one message after the other.
    given: VecDeque<Vec<Array>>,
    aborted: bool,
}

#[rustler::resource_impl]
impl Resource for RunResource {}

type RunRef = ResourceArc<RunResource>;

/// The process that runs a program.
pub struct Process<'a> {
    caller: &'a Caller,
    run: RunRef,
    stream: &'a StreamHandle,
    unanswered: Mutex<usize>,
}

impl<'a> Process<'a> {
    pub fn new(caller: &'a Caller, stream: &'a StreamHandle) -> Self {
        Process {
            caller,
            run: ResourceArc::new(RunResource::default()),
            stream,
            unanswered: Mutex::new(0),
        }
    }

    /// The answer to the oldest call that has none.
    fn answer(&self) -> Result<Vec<Array>> {
        let mut answers = self.run.answers.lock();
        let mut idle = None;
        loop {
            if answers.aborted {
                return gone();
            }
            if let Some(given) = answers.given.pop_front() {
                return Ok(given);
            }
            // The process may run programs of its own to answer, and they must find room.
            idle.get_or_insert_with(Idle::begin);
            let waited = self.run.changed.wait_for(&mut answers, LOOK_EVERY);
            if waited.timed_out() && !is_alive(self.caller.pid) {
                return gone();
            }
        }
    }
}

fn gone<T>() -> Result<T> {
    Err(Error::Argument("the call was given up".to_owned()))
}

impl Process<'_> {
    /// Hands arrays to the process, and waits for as many answers as a call of so many results wants.
    fn hand(
        &self,
        index: usize,
        operands: impl Iterator<Item = SharedArray>,
        results: usize,
    ) -> Result<Vec<Array>> {
        let wrap = |array| ResourceArc::new(ArrayResource(array));
        let arrays: Vec<ArrayRef> = operands.map(wrap).collect();
        self.caller
            .tell(|env| (call(), self.run.clone(), index, arrays).encode(env));
        let mut unanswered = self.unanswered.lock();
        *unanswered += 1;
        let most = if results == 0 { MOST_UNANSWERED } else { 0 };
        let mut last = Vec::new();
        while *unanswered > most {
            last = self.answer()?;
            *unanswered -= 1;
        }
        if results > 0 && last.len() != results {
            return Err(Error::Argument(format!(
                "call {index} gives {results} arrays, got {}",
                last.len()
            )));
        }
        last.truncate(results);
        Ok(last)
    }
}

impl Host for Process<'_> {
    fn call(&self, index: usize, operands: Vec<Array>, results: usize) -> Result<Vec<Array>> {
        let share = |array| SharedArray::lazy(array, self.stream, 0, false);
        self.hand(index, operands.into_iter().map(share), results)
    }

    fn tell(&self, index: usize, operands: Vec<Array>) -> Result<()> {
        let share = |array| SharedArray::computed(array, self.stream);
        let shared = operands.into_iter().map(share);
        self.hand(index, shared, 0).map(drop)
    }

    fn is_waiting(&self) -> bool {
        !self.run.answers.lock().aborted && is_alive(self.caller.pid)
    }
}

/// Gives a program the results of its oldest call without an answer.
#[rustler::nif]
fn answer_call(run: RunRef, arrays: Term) -> NifResult<Atom> {
    let arrays = array_refs(arrays)?;
    let arrays = graphs(&arrays).map_err(raise)?;
    run.answers.lock().given.push_back(arrays);
    run.changed.notify_one();
    Ok(ok())
}

/// Ends a program that waits for an answer.
#[rustler::nif]
fn abort_run(run: RunRef) -> Atom {
    run.answers.lock().aborted = true;
    run.changed.notify_one();
    ok()
}
