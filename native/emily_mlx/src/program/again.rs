//! What is computed again rather than kept: where the most memory is needed, an array that comes element by element of others
//! which are kept as well.

use std::collections::{HashMap, HashSet};

use super::order::{order, peak, Memory, Task};
use super::step::{Operand, Operation, Register, Steps};
use crate::ops::chain::may_take_part;

/// A part of all memory that is worth it, and how many times smaller what is kept for it has to be.
const PART: u64 = 100;
const SMALLER: u64 = 16;

/// The memory that each register has, and the task that gives it.
pub(super) type Memories = HashMap<Register, (usize, Option<usize>)>;

/// Tasks, by the steps' numbers, in their order.
pub(super) struct Ordered {
    all: Vec<Task>,
    memories: Vec<Memory>,
    of: Memories,
    pub tasks: Vec<usize>,
    /// The most memory that is taken at once, where that is, and how much.
    at: usize,
    pub peak: u64,
}

/// The memories that are not read where the most is needed, are read later, and can be computed again by then.
struct Search<'a> {
    of: &'a Ordered,
    /// The place of each task in the order.
    places: Vec<usize>,
    /// The places of the readers of each memory.
    readers: Vec<Vec<usize>>,
}

impl Ordered {
    pub fn of(all: Vec<Task>, memories: Vec<Memory>, of: Memories) -> Self {
        let tasks = order(&all, &memories);
        let (at, peak) = peak(&all, &memories, &tasks);
        Ordered {
            all,
            memories,
            of,
            tasks,
            at,
            peak,
        }
    }

    /// Steps with which less memory is needed, if there are any. `next` is a register that nobody has.
    pub fn with_less(&self, steps: &Steps, next: &mut Register) -> Option<Steps> {
        let mut places = vec![0; self.tasks.len()];
        let mut readers = vec![Vec::new(); self.memories.len()];
        for (place, task) in self.tasks.iter().enumerate() {
            places[*task] = place;
            for memory in &self.all[*task].reads {
                readers[*memory].push(place);
            }
        }
        let search = Search {
            of: self,
            places,
            readers,
        };
        let mut found: Vec<usize> = (0..steps.len())
            .filter(|task| search.may_come_again(*task, &steps[*task]))
            .collect();
        let gives = |task: usize| self.all[task].gives.unwrap_or(0);
        found.sort_by_key(|task| std::cmp::Reverse(self.memories[gives(*task)].bytes));
        // What is computed again of something else needs that.
        let mut gone: HashSet<usize> = HashSet::new();
        let mut kept: HashSet<usize> = HashSet::new();
        let mut steps = steps.clone();
        let mut first = Vec::new();
        for task in found {
            let reads = &self.all[task].reads;
            if !kept.contains(&gives(task)) && !reads.iter().any(|read| gone.contains(read)) {
                gone.insert(gives(task));
                kept.extend(reads);
                first.extend(search.rewrite(&mut steps, task, next));
            }
        }
        if first.is_empty() {
            return None;
        }
        let mut result = Vec::with_capacity(steps.len() + first.len());
        for (number, operations) in steps.into_iter().enumerate() {
            for (at, copies) in &mut first {
                if *at == number {
                    result.append(copies);
                }
            }
            result.push(operations);
        }
        Some(result)
    }
}

impl Search<'_> {
    fn may_come_again(&self, task: usize, operations: &[Operation]) -> bool {
        let Task { gives, reads, .. } = &self.of.all[task];
        let Some(given) = *gives else {
            return false;
        };
        let Memory { bytes, stays } = self.of.memories[given];
        let Some(next) = self.readers[given]
            .iter()
            .find(|place| **place >= self.of.at)
        else {
            return false;
        };
        let lasts = |read: &usize| {
            let last = self.readers[*read].last();
            let memory = self.of.memories[*read];
            memory.stays || last >= Some(next) || memory.bytes * SMALLER <= bytes
        };
        !stays
            && bytes > self.of.peak / PART
            && *next > self.of.at
            && self.places[task] < self.of.at
            && operations.iter().all(|one| may_take_part(one.op))
            && reads.iter().all(lasts)
    }

    /// Has what comes behind the peak read a copy of what a task gives; answers the number of the first step that does, and
    /// the steps that make the copy.
    fn rewrite(
        &self,
        steps: &mut Steps,
        task: usize,
        next: &mut Register,
    ) -> Option<(usize, Steps)> {
        let memory = self.of.all[task].gives?;
        let is_late = |number: usize| self.places[number] > self.of.at;
        let mut copy = Copy {
            original: steps.clone(),
            steps: Vec::new(),
            of: HashMap::new(),
            next,
        };
        let mut first = None;
        for (number, operations) in steps.iter_mut().enumerate() {
            if !is_late(number) {
                continue;
            }
            for operation in operations {
                for register in registers_mut(operation) {
                    let is_of = self.of.of.get(register).is_some_and(|of| of.0 == memory);
                    let is_given_late = copy.giver(*register).is_some_and(is_late);
                    if is_of && !is_given_late {
                        *register = copy.register(*register);
                        first = first.or(Some(number));
                    }
                }
            }
        }
        let made = copy.steps;
        first.map(|first| (first, made))
    }
}

/// Copies of steps, in their order.
struct Copy<'a> {
    original: Steps,
    steps: Steps,
    of: HashMap<Register, Register>,
    next: &'a mut Register,
}

impl Copy<'_> {
    fn giver(&self, register: Register) -> Option<usize> {
        let gives = |one: &Vec<Operation>| one.last().is_some_and(|last| last.to == register);
        self.original.iter().position(gives)
    }

    /// The register of the copy of what a step gives, which is a view of the array or the array itself.
    fn register(&mut self, register: Register) -> Register {
        if let Some(copied) = self.of.get(&register) {
            return *copied;
        }
        let Some(giver) = self.giver(register) else {
            return register;
        };
        let mut operations = self.original[giver].clone();
        let is_view = operations.len() == 1 && !may_take_part(operations[0].op);
        if is_view {
            for read in registers_mut(&mut operations[0]) {
                *read = self.register(*read);
            }
        }
        let copied = *self.next;
        *self.next += 1;
        if let Some(last) = operations.last_mut() {
            last.to = copied;
        }
        self.steps.push(operations);
        self.of.insert(register, copied);
        copied
    }
}

fn registers_mut(operation: &mut Operation) -> impl Iterator<Item = &mut Register> {
    operation.operands.iter_mut().flat_map(|operand| {
        match operand {
            Operand::Place(place) => std::slice::from_mut(place).iter_mut(),
            Operand::Places(places) => places.iter_mut(),
            Operand::Literal(_) => Default::default(),
        }
        .map(|place| &mut place.register)
    })
}
