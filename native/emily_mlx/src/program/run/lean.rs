//! Runs that were given arrays: step by step on a CPU, each computed before the next, in an order that needs little
//! memory, so that a step writes over what it was the last to read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mlx_rs::Array;

use super::{Run, Slot};
use crate::ops::apply::Value;
use crate::ops::chain::may_take_part;
use crate::program::order::{order, Memory, Task};
use crate::program::step::{Block, Place, Plan, Register, Step};
use crate::runtime::alone;
use crate::runtime::error::Result;

fn is_plain(step: &Step) -> bool {
    matches!(step, Step::Operation(_) | Step::Chain(_))
}

impl Run<'_> {
    /// Runs a block of which `parameters` are the block's own.
    pub(super) fn lean_block(&mut self, block: &Block, parameters: &[Register]) -> Result<()> {
        let mut at = 0;
        while at < block.steps.len() {
            if !is_plain(&block.steps[at]) {
                self.step(&block.steps[at])?;
                at += 1;
                continue;
            }
            let plain = block.steps[at..].iter().take_while(|step| is_plain(step));
            let end = at + plain.count();
            let plan = self.plan(block, parameters, at, end)?;
            self.clear(plan.unread.iter().copied());
            for (number, ended) in &plan.steps {
                let step = &block.steps[*number];
                self.step(step)?;
                self.clear(ended.iter().copied());
                self.compute_register(step.to())?;
            }
            at = end;
        }
        Ok(())
    }

    /// Computes what a step gave. What is not computed of it is this run's own: its operands are computed, and what calls
    /// answer is.
    fn compute_register(&self, register: Register) -> Result<()> {
        match &self.registers[register] {
            Slot::Value(value) => {
                let arrays = value_arrays(value);
                self.stream.compute_own(arrays, self.has_linalg)
            }
            _ => Ok(()),
        }
    }

    fn plan(
        &mut self,
        block: &Block,
        parameters: &[Register],
        at: usize,
        end: usize,
    ) -> Result<Arc<Plan>> {
        if let Some(plan) = block.plans.lock().get(&at) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(self.find_plan(block, parameters, at, end)?);
        block.plans.lock().insert(at, plan.clone());
        Ok(plan)
    }

    /// Builds the steps, to see what memory each takes.
    fn find_plan(
        &mut self,
        block: &Block,
        parameters: &[Register],
        at: usize,
        end: usize,
    ) -> Result<Plan> {
        let steps = &block.steps[at..end];
        let mut later: HashSet<Register> = HashSet::new();
        let mut note = |place: Place| {
            later.insert(place.register);
        };
        for step in &block.steps[end..] {
            step.each_read(&mut note);
        }
        block.results.iter().copied().for_each(note);

        let may_wait = std::mem::replace(&mut self.may_wait, false);
        let built = steps.iter().try_for_each(|step| self.step(step));
        self.may_wait = may_wait;
        built?;
        let mut found = Found::default();
        let own: HashSet<Register> = parameters
            .iter()
            .copied()
            .chain(block.steps[..end].iter().map(Step::to))
            .collect();
        let may_end = |register: &Register| own.contains(register) && !later.contains(register);
        for (number, step) in steps.iter().enumerate() {
            found.add(self, number, step, &may_end);
        }
        // What was built is built again in order, without what was looked up for it.
        self.clear(steps.iter().map(Step::to));
        self.seen = None;
        self.within.clear();

        let order = order(&found.tasks, &found.memories);
        let mut last: HashMap<Register, usize> = HashMap::new();
        for (place, number) in order.iter().enumerate() {
            last.insert(steps[*number].to(), place);
            steps[*number].each_read(&mut |read| {
                last.insert(read.register, place);
            });
        }
        let mut ended = vec![Vec::new(); order.len()];
        let mut unread = Vec::new();
        for register in own.iter().filter(|register| may_end(register)) {
            match last.get(register) {
                Some(place) => ended[*place].push(*register),
                None => unread.push(*register),
            }
        }
        let numbers = order.into_iter().map(|number| at + number);
        Ok(Plan {
            steps: numbers.zip(ended).collect(),
            unread,
        })
    }
}

fn value_arrays(value: &Value) -> &[Array] {
    match value {
        Value::One(array) => std::slice::from_ref(array),
        Value::Many(arrays) => arrays,
    }
}

/// What steps are, as tasks.
#[derive(Default)]
struct Found {
    tasks: Vec<Task>,
    memories: Vec<Memory>,
    /// The memory that each register has, and the task that gives it.
    of: HashMap<Register, (usize, Option<usize>)>,
}

impl Found {
    fn add(&mut self, run: &Run, number: usize, step: &Step, may_end: &impl Fn(&Register) -> bool) {
        let mut task = Task {
            in_place: match step {
                Step::Chain(operations) => {
                    operations.last().is_some_and(|last| may_take_part(last.op))
                }
                Step::Operation(operation) => may_take_part(operation.op),
                _ => false,
            },
            wanted: !may_end(&step.to()),
            ..Task::default()
        };
        let bytes = |register: Register| match &run.registers[register] {
            Slot::Empty => 0,
            Slot::Input(array) => array.nbytes() as u64,
            Slot::Value(value) => value_arrays(value)
                .iter()
                .map(|one| one.nbytes() as u64)
                .sum(),
        };
        let mut viewed = None;
        step.each_read(&mut |place| {
            let register = place.register;
            let lent = matches!(run.registers[register], Slot::Input(_));
            let memories = &mut self.memories;
            let (memory, giver) = *self.of.entry(register).or_insert_with(|| {
                memories.push(Memory {
                    bytes: bytes(register),
                    stays: lent || !may_end(&register),
                });
                (memories.len() - 1, None)
            });
            if !task.reads.contains(&memory) {
                task.reads.push(memory);
            }
            task.needs
                .extend(giver.filter(|giver| !task.needs.contains(giver)));
            if run.is_view(step.to(), register) {
                viewed = Some(memory);
            }
        });
        let memory = match viewed {
            Some(memory) => {
                // It stays as long as its views.
                self.memories[memory].stays |= task.wanted;
                memory
            }
            None => {
                self.memories.push(Memory {
                    bytes: bytes(step.to()),
                    stays: task.wanted,
                });
                task.gives = Some(self.memories.len() - 1);
                self.memories.len() - 1
            }
        };
        self.of.insert(step.to(), (memory, Some(number)));
        self.tasks.push(task);
    }
}

impl Run<'_> {
    /// Whether a register's array is nothing but a view of another's.
    fn is_view(&self, register: Register, of: Register) -> bool {
        match (self.one(register), self.one(of)) {
            (Some(view), Some(base)) => alone::is_view(view, base),
            _ => false,
        }
    }

    fn one(&self, register: Register) -> Option<&Array> {
        match &self.registers[register] {
            Slot::Input(array) => Some(array),
            Slot::Value(Value::One(array)) => Some(array),
            _ => None,
        }
    }
}
