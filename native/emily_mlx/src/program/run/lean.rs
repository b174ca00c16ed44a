//! Runs that were given arrays: step by step on a CPU, each computed before the next, in an order that needs little
//! memory, so that a step writes over what it was the last to read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mlx_rs::Array;

use super::{Run, Slot};
use crate::ops::apply::Value;
use crate::ops::chain::may_take_part;
use crate::program::again::{Memories, Ordered};
use crate::program::order::{Memory, Task};
use crate::program::sparing::{self, Known};
use crate::program::step::{Block, Operation, Place, Plan, Register, Step, Steps};
use crate::runtime::alone;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel;

/// So many times it is looked for what is to be computed again, as long as the memory needed falls by such a part.
const MOST_AGAIN: usize = 4;
const WORTH: u64 = 100;

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
            self.reserve(plan.registers);
            self.clear(plan.unread.iter().copied());
            for (step, ended) in &plan.steps {
                self.step(step)?;
                self.clear(ended.iter().copied());
                self.compute_register(step.to())?;
            }
            at = end;
        }
        Ok(())
    }

    fn reserve(&mut self, registers: usize) {
        if self.registers.len() < registers {
            self.registers.resize_with(registers, || Slot::Empty);
        }
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
        let mut later: HashSet<Register> = HashSet::new();
        let mut note = |place: Place| {
            later.insert(place.register);
        };
        for step in &block.steps[end..] {
            step.each_read(&mut note);
        }
        block.results.iter().copied().for_each(note);
        let own = parameters.iter().copied();
        let own = own.chain(block.steps[..end].iter().map(Step::to)).collect();
        let mut ends = Ends { own, later };

        let steps = block.steps[at..end].iter();
        let mut steps: Steps = steps.map(|step| step.operations().to_vec()).collect();
        self.build(&steps)?;
        let mut next = self.registers.len();
        let mut splits = Vec::new();
        if kernel::level(self.stream).is_some() {
            let known = Arrays {
                run: self,
                ends: &ends,
            };
            let changed = sparing::rectify(&mut steps, &known, &mut next);
            splits = sparing::split(&mut steps, &known);
            if changed || !splits.is_empty() {
                self.reserve(next);
                self.build(&steps)?;
            }
        }
        let mut order = self.order(&steps, &mut ends);
        for _ in 0..MOST_AGAIN {
            let Some(again) = order.with_less(&steps, &mut next) else {
                break;
            };
            self.reserve(next);
            self.build(&again)?;
            let with = self.order(&again, &mut ends);
            if with.peak + with.peak / WORTH >= order.peak {
                self.clear(again.iter().flatten().map(|one| one.to));
                break;
            }
            (order, steps) = (with, again);
        }
        // What was built is built again in order, without what was looked up for it.
        self.clear(steps.iter().flatten().map(|one| one.to));
        self.seen = None;
        self.within.clear();

        let tasks = order.tasks.iter();
        let mut steps: Steps = tasks.map(|one| std::mem::take(&mut steps[*one])).collect();
        sparing::join(&mut steps, &splits);
        let steps: Vec<Step> = steps.into_iter().map(Step::of).collect();
        let mut last: HashMap<Register, usize> = HashMap::new();
        for (place, step) in steps.iter().enumerate() {
            last.insert(step.to(), place);
            step.each_read(&mut |read| {
                last.insert(read.register, place);
            });
        }
        let mut ended = vec![Vec::new(); steps.len()];
        let mut unread = Vec::new();
        for register in ends.own.iter().filter(|one| ends.may_end(**one)) {
            match last.get(register) {
                Some(place) => ended[*place].push(*register),
                None => unread.push(*register),
            }
        }
        Ok(Plan {
            steps: steps.into_iter().zip(ended).collect(),
            unread,
            registers: self.registers.len(),
        })
    }

    /// The order of steps that are built.
    fn order(&self, steps: &Steps, ends: &mut Ends) -> Ordered {
        let given = steps.iter().filter_map(|one| one.last());
        ends.own.extend(given.map(|last| last.to));
        let mut found = Found::default();
        for (number, operations) in steps.iter().enumerate() {
            found.add(self, number, operations, ends);
        }
        Ordered::of(found.tasks, found.memories, found.of)
    }

    /// Builds steps without a look at any array.
    fn build(&mut self, steps: &Steps) -> Result<()> {
        let may_wait = std::mem::replace(&mut self.may_wait, false);
        let mut steps = steps.iter().map(|one| Step::of(one.clone()));
        let built = steps.try_for_each(|step| self.step(&step));
        self.may_wait = may_wait;
        built
    }
}

fn value_arrays(value: &Value) -> &[Array] {
    match value {
        Value::One(array) => std::slice::from_ref(array),
        Value::Many(arrays) => arrays,
    }
}

/// What the run has in its registers, where steps are built.
struct Arrays<'a, 'b> {
    run: &'a Run<'b>,
    ends: &'a Ends,
}

/// The block's registers, and those of them that are read behind the steps.
struct Ends {
    own: HashSet<Register>,
    later: HashSet<Register>,
}

impl Ends {
    fn may_end(&self, register: Register) -> bool {
        self.own.contains(&register) && !self.later.contains(&register)
    }
}

impl Known for Arrays<'_, '_> {
    fn is_float(&self, register: Register) -> bool {
        let is_float = |array: &Array| matches!(Dtype::of(array), Dtype::F32 | Dtype::F64);
        self.run.one(register).is_some_and(is_float)
    }

    fn is_zero(&self, place: Place) -> bool {
        match (self.run.one(place.register), place.element) {
            (Some(array), None) => alone::is_zero(array),
            _ => false,
        }
    }

    fn bytes(&self, register: Register) -> u64 {
        self.run.bytes(register)
    }

    fn width(&self, register: Register) -> u64 {
        let width = |array: &Array| Dtype::of(array).size() as u64;
        self.run.one(register).map_or(0, width)
    }

    fn may_end(&self, register: Register) -> bool {
        self.ends.may_end(register)
    }
}

/// What steps are, as tasks.
#[derive(Default)]
struct Found {
    tasks: Vec<Task>,
    memories: Vec<Memory>,
    /// The memory that each register has, and the task that gives it.
    of: Memories,
}

impl Found {
    fn add(&mut self, run: &Run, number: usize, operations: &[Operation], ends: &Ends) {
        let Some(last) = operations.last() else {
            return;
        };
        let to = last.to;
        let mut task = Task {
            in_place: may_take_part(last.op),
            wanted: ends.later.contains(&to),
            ..Task::default()
        };
        let mut viewed = None;
        let mut read = |place: Place| {
            let register = place.register;
            let lent = matches!(run.registers[register], Slot::Input(_));
            let memories = &mut self.memories;
            let (memory, giver) = *self.of.entry(register).or_insert_with(|| {
                memories.push(Memory {
                    bytes: run.bytes(register),
                    stays: lent || !ends.may_end(register),
                });
                (memories.len() - 1, None)
            });
            if !task.reads.contains(&memory) {
                task.reads.push(memory);
            }
            task.needs
                .extend(giver.filter(|giver| !task.needs.contains(giver)));
            if run.is_view(to, register) {
                viewed = Some(memory);
            }
        };
        let inside = |register| operations.iter().any(|one| one.to == register);
        for operation in operations {
            operation.each_read(&mut |place| {
                if !inside(place.register) {
                    read(place);
                }
            });
        }
        let memory = match viewed {
            Some(memory) => {
                // It stays as long as its views.
                self.memories[memory].stays |= task.wanted;
                memory
            }
            None => {
                self.memories.push(Memory {
                    bytes: run.bytes(to),
                    stays: task.wanted,
                });
                task.gives = Some(self.memories.len() - 1);
                self.memories.len() - 1
            }
        };
        self.of.insert(to, (memory, Some(number)));
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

    fn bytes(&self, register: Register) -> u64 {
        let bytes = |array: &Array| array.nbytes() as u64;
        match &self.registers[register] {
            Slot::Empty => 0,
            Slot::Input(array) => bytes(array),
            Slot::Value(value) => value_arrays(value).iter().map(bytes).sum(),
        }
    }

    pub(super) fn one(&self, register: Register) -> Option<&Array> {
        match &self.registers[register] {
            Slot::Input(array) => Some(array),
            Slot::Value(Value::One(array)) => Some(array),
            _ => None,
        }
    }
}
