//! Steps that give the same numbers, bit for bit, and need fewer arrays for long.
//!
//! The gradient of `max(x, 0)` asks where `x` was less than zero, where it was greater, and where it was neither, and
//! products read the maximum. Both are in one array: zeros that come of numbers below zero are negative. And what a later
//! operation asks of an array, a truth for each element, takes a fourth of the array's memory, or less.

use std::collections::{HashMap, HashSet};

use smallvec::{smallvec, SmallVec};

use super::step::{Operand, Operation, Place, Register, Steps};
use crate::ops::chain::{may_reduce, may_take_part};
use crate::ops::op::Op;

/// What is known of the arrays that steps give and read.
pub(super) trait Known {
    /// Whether it is an array of floats of 32 or 64 bits.
    fn is_float(&self, register: Register) -> bool;
    /// Whether it is zero, of any type, in a scalar; no negative one.
    fn is_zero(&self, place: Place) -> bool;
    fn bytes(&self, register: Register) -> u64;
    /// Bytes of an element.
    fn width(&self, register: Register) -> u64;
    /// Whether nobody but the steps reads it.
    fn may_end(&self, register: Register) -> bool;
}

fn whole(operand: &Operand) -> Option<Register> {
    match operand {
        Operand::Place(Place {
            register,
            element: None,
        }) => Some(*register),
        _ => None,
    }
}

fn place(register: Register) -> Operand {
    Operand::Place(Place::whole(register))
}

fn compares(op: Op) -> bool {
    matches!(
        op,
        Op::Equal | Op::NotEqual | Op::Greater | Op::GreaterEqual | Op::Less | Op::LessEqual
    )
}

/// Whether what an operation gives is a truth for each element.
fn is_truth(op: Op) -> bool {
    compares(op)
        || matches!(
            op,
            Op::IsPositive
                | Op::Isnan
                | Op::Isinf
                | Op::Isfinite
                | Op::LogicalNot
                | Op::LogicalAnd
                | Op::LogicalOr
        )
}

/// Whether an operation gives the elements that it takes.
fn is_view(op: Op) -> bool {
    matches!(
        op,
        Op::Reshape | Op::Transpose | Op::BroadcastTo | Op::ExpandDims | Op::Squeeze
    )
}

/// Has maxima with zero, of which it is asked later where they come from, keep that in the signs of their zeros. `next`
/// is a register that nobody has.
pub(super) fn rectify(steps: &mut Steps, known: &impl Known, next: &mut Register) -> bool {
    let mut changed = false;
    for at in 0..steps.len() {
        let at = hoist(steps, at);
        if let Some(maximum) = Maximum::find(steps, at, known) {
            maximum.rectify(steps, known, next);
            changed = true;
        }
    }
    changed
}

/// Puts a maximum right behind what it is of, before all that asks for it; answers where it is.
fn hoist(steps: &mut Steps, at: usize) -> usize {
    let [Operation {
        op: Op::Maximum, ..
    }] = &steps[at][..]
    else {
        return at;
    };
    let mut reads: SmallVec<[Register; 2]> = SmallVec::new();
    steps[at][0].each_read(&mut |place| reads.push(place.register));
    let gives = |one: &Vec<Operation>| one.last().is_some_and(|last| reads.contains(&last.to));
    let to = steps[..at]
        .iter()
        .rposition(gives)
        .map_or(0, |giver| giver + 1);
    let maximum = steps.remove(at);
    steps.insert(to, maximum);
    to
}

/// A maximum with zero.
struct Maximum {
    /// The step that it ends.
    at: usize,
    x: Register,
    zero: Place,
    /// Whether negative zeros of `x` become positive ones, as they do of the first of two equals.
    is_x_first: bool,
    to: Register,
    /// The registers of zeros of other types that are cast.
    zeros: HashSet<Register>,
    /// The registers that hold it, in some shape.
    held: HashSet<Register>,
}

impl Maximum {
    fn find(steps: &Steps, at: usize, known: &impl Known) -> Option<Maximum> {
        let last = steps[at].last().filter(|last| last.op == Op::Maximum)?;
        let [Operand::Place(one), Operand::Place(other)] = last.operands[..] else {
            return None;
        };
        let (x, zero) = match (known.is_zero(one), known.is_zero(other)) {
            (false, true) => (one, other),
            (true, false) => (other, one),
            _ => return None,
        };
        let is_inside = steps[at].iter().any(|one| one.to == x.register);
        let is_x_first = x == one;
        let (x, to) = (x.element.is_none().then_some(x.register)?, last.to);
        let same = known.is_float(x) && known.is_float(zero.register);
        let same = same && known.bytes(x) == known.bytes(to);
        if is_inside || !same || !known.may_end(x) || !known.may_end(to) {
            return None;
        }
        let cast_zero = |one: &Operation| match one.operands.first() {
            Some(Operand::Place(of)) if one.op == Op::Astype => {
                known.is_zero(*of).then_some(one.to)
            }
            _ => None,
        };
        let held = HashSet::from([to]);
        let mut maximum = Maximum {
            at,
            x,
            zero,
            is_x_first,
            to,
            zeros: steps.iter().flatten().filter_map(cast_zero).collect(),
            held,
        };
        let mut asked = false;
        for (number, operations) in steps.iter().enumerate() {
            for (part, operation) in operations.iter().enumerate() {
                let is_itself = (number, part) == (at, operations.len() - 1);
                let mut allowed = || maximum.allows(operation, number > at, known, &mut asked);
                if !is_itself && !allowed() {
                    return None;
                }
            }
        }
        asked.then_some(maximum)
    }

    /// Whether an operation may go on with the rectified array; notes whether it asks for what it came from.
    fn allows(
        &mut self,
        operation: &Operation,
        is_later: bool,
        known: &impl Known,
        asked: &mut bool,
    ) -> bool {
        let (mut reads_x, mut reads_held) = (false, false);
        operation.each_read(&mut |place| {
            reads_x |= place.register == self.x;
            reads_held |= self.held.contains(&place.register);
        });
        if reads_x {
            *asked = true;
            return is_later && self.question(operation, known).is_some();
        }
        if !reads_held || compares(operation.op) {
            return true;
        }
        match operation.op {
            op if is_view(op) => {
                self.held.insert(operation.to);
                known.may_end(operation.to)
            }
            Op::Matmul | Op::Conv => true,
            op => self.is_x_first && (may_take_part(op) || may_reduce(op)),
        }
    }

    /// What asks the same of the rectified array as a comparison does of `x`.
    fn question(&self, operation: &Operation, known: &impl Known) -> Option<Operation> {
        let [Operand::Place(one), Operand::Place(other)] = operation.operands[..] else {
            return None;
        };
        let (x, to) = (Place::whole(self.x), Place::whole(self.to));
        let (is_x_first, other) = match (one == x, other == x) {
            (true, false) => (true, other),
            (false, true) => (false, one),
            _ => return None,
        };
        let (op, operands) = match (operation.op, is_x_first) {
            (Op::Equal, _) if other == to => (Op::IsPositive, vec![place(self.to)]),
            _ if !known.is_zero(other) && !self.zeros.contains(&other.register) => return None,
            (Op::GreaterEqual, true) | (Op::LessEqual, false) => {
                (Op::IsPositive, vec![place(self.to)])
            }
            (Op::Greater, true) | (Op::Less, false) => {
                let zero = Operand::Place(self.zero);
                (Op::Greater, vec![place(self.to), zero])
            }
            _ => return None,
        };
        let to = operation.to;
        Some(Operation { op, operands, to })
    }

    fn rectify(&self, steps: &mut Steps, known: &impl Known, next: &mut Register) {
        if let Some(last) = steps[self.at].last_mut() {
            (last.op, last.operands) = (Op::Rectify, vec![place(self.x)]);
        }
        for operations in &mut steps[self.at + 1..] {
            for mut operation in std::mem::take(operations) {
                if let Some(question) = self.question(&operation, known) {
                    operations.push(question);
                    continue;
                }
                let goes_on = compares(operation.op)
                    || is_view(operation.op)
                    || matches!(operation.op, Op::Matmul | Op::Conv);
                for operand in &mut operation.operands {
                    match whole(operand) {
                        Some(register) if !goes_on && self.held.contains(&register) => {
                            // What others read is the maximum: all zeros are positive.
                            operations.push(Operation {
                                op: Op::Add,
                                operands: vec![place(register), Operand::Place(self.zero)],
                                to: *next,
                            });
                            *operand = place(*next);
                            *next += 1;
                        }
                        _ => (),
                    }
                }
                operations.push(operation);
            }
        }
    }
}

/// The truths that were taken out of a step, and the register of the step's result.
pub(super) struct Split {
    truths: Vec<Register>,
    to: Register,
}

/// Makes steps of their own of what chains ask of arrays that they do not read otherwise.
pub(super) fn split(steps: &mut Steps, known: &impl Known) -> Vec<Split> {
    let mut splits = Vec::new();
    for operations in std::mem::take(steps) {
        let roots = roots(&operations, known);
        let Some(last) = operations.last().filter(|_| !roots.is_empty()) else {
            steps.push(operations);
            continue;
        };
        splits.push(Split {
            truths: roots.iter().map(|root| operations[*root].to).collect(),
            to: last.to,
        });
        let mut taken = HashSet::new();
        for root in &roots {
            let of = behind(&operations, *root, &roots);
            steps.push(of.iter().map(|one| operations[*one].clone()).collect());
            taken.extend(of);
        }
        let rest = operations.into_iter().enumerate();
        let rest = rest.filter(|(at, _)| !taken.contains(at));
        steps.push(rest.map(|(_, operation)| operation).collect());
    }
    splits
}

/// The numbers of the operations of a chain that an operation needs, itself included, in their order; none behind `ends`.
fn behind(operations: &[Operation], at: usize, ends: &[usize]) -> Vec<usize> {
    let mut needed = HashSet::from([operations[at].to]);
    let mut found = Vec::new();
    for (number, operation) in operations[..=at].iter().enumerate().rev() {
        let is_needed = needed.contains(&operation.to);
        if is_needed && (number == at || !ends.contains(&number)) {
            operation.each_read(&mut |place| {
                needed.insert(place.register);
            });
            found.push(number);
        }
    }
    found.reverse();
    found
}

/// The numbers of the operations of a chain that give truths to others, and alone read some large array.
fn roots(operations: &[Operation], known: &impl Known) -> Vec<usize> {
    let number = |register: Register| operations.iter().position(|one| one.to == register);
    let mut readers: Vec<SmallVec<[usize; 2]>> = vec![smallvec![]; operations.len()];
    for (at, operation) in operations.iter().enumerate() {
        operation.each_read(&mut |place| {
            if let Some(earlier) = number(place.register) {
                readers[earlier].push(at);
            }
        });
    }
    let is_root = |at: &usize| {
        let goes_on = |reader: &usize| !is_truth(operations[*reader].op);
        is_truth(operations[*at].op) && readers[*at].iter().any(goes_on)
    };
    let mut roots: Vec<usize> = (0..operations.len()).filter(is_root).collect();
    // What a root needs nothing else may read, which would not be there.
    loop {
        let before = roots.len();
        let taken: Vec<Vec<usize>> = roots
            .iter()
            .map(|root| behind(operations, *root, &roots))
            .collect();
        let all: HashSet<usize> = taken.iter().flatten().copied().collect();
        let alone = |(at, of): (usize, &Vec<usize>)| {
            let is_inside = |one: &usize| {
                *one == roots[at] || readers[*one].iter().all(|reader| all.contains(reader))
            };
            of.iter().all(is_inside)
        };
        let kept: Vec<usize> = taken
            .iter()
            .enumerate()
            .filter(|one| alone(*one))
            .map(|(at, _)| roots[at])
            .collect();
        roots = kept;
        if roots.len() == before {
            return match frees(operations, &roots, &all, known) {
                true => roots,
                false => Vec::new(),
            };
        }
    }
}

/// Smaller arrays are not worth a step.
const SMALL: u64 = 1 << 16;

/// Whether truths take less than an array that nothing but them reads, while the rest waits for another array.
fn frees(
    operations: &[Operation],
    roots: &[usize],
    taken: &HashSet<usize>,
    known: &impl Known,
) -> bool {
    let own: HashSet<Register> = operations.iter().map(|one| one.to).collect();
    let (mut asked, mut others) = (HashSet::new(), HashSet::new());
    for (at, operation) in operations.iter().enumerate() {
        operation.each_read(&mut |place| {
            let register = place.register;
            let is_large = !own.contains(&register) && known.bytes(register) >= SMALL;
            match taken.contains(&at) {
                _ if !is_large => (),
                true => _ = asked.insert(register),
                false => _ = others.insert(register),
            }
        });
    }
    let is_freed = |register: &&Register| {
        known.may_end(**register) && known.width(**register) > roots.len() as u64
    };
    let mut freed = asked.difference(&others).filter(is_freed);
    !others.is_empty() && freed.next().is_some()
}

/// Puts truths back that stand right before the step that they were taken out of.
pub(super) fn join(steps: &mut Steps, splits: &[Split]) {
    let splits: HashMap<Register, &Split> = splits.iter().map(|one| (one.to, one)).collect();
    let mut joined: Steps = Vec::with_capacity(steps.len());
    for operations in std::mem::take(steps) {
        let split = operations.last().and_then(|last| splits.get(&last.to));
        let count = split.map_or(0, |split| split.truths.len());
        let first = joined.len().saturating_sub(count);
        let are_before = split.is_some_and(|split| {
            let ends = joined[first..]
                .iter()
                .map(|one| one.last().map(|last| last.to));
            ends.flatten().all(|to| split.truths.contains(&to)) && joined.len() >= count
        });
        if are_before {
            let truths: Vec<Operation> = joined.drain(first..).flatten().collect();
            joined.push(truths.into_iter().chain(operations).collect());
        } else {
            joined.push(operations);
        }
    }
    *steps = joined;
}
