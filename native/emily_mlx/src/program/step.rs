//! What programs are made of: steps over registers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::kept::{Luck, Shelf};
use crate::ops::args::Literal;
use crate::ops::op::Op;
use crate::runtime::array::SharedArray;
use crate::runtime::dtype::Dtype;

/// From so many operations on a program waits for a GPU's recording.
const LONG: u32 = 64;

/// Where a step leaves its result.
pub(super) type Register = usize;

/// What a step gives, or one of several results of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) register: Register,
    pub(super) element: Option<usize>,
}

impl Place {
    pub(super) fn whole(register: Register) -> Self {
        let element = None;
        Place { register, element }
    }

    /// One of several results; none of what is one already.
    pub fn element(self, index: usize) -> Option<Place> {
        self.element.is_none().then_some(Place {
            element: Some(index),
            ..self
        })
    }
}

pub type Places = SmallVec<[Place; 2]>;

/// An argument of a step.
#[derive(Clone, Debug)]
pub enum Operand {
    Place(Place),
    Places(Vec<Place>),
    Literal(Literal),
}

impl Operand {
    /// Calls `f` with each place that is read.
    pub(super) fn each_read(&self, f: &mut impl FnMut(Place)) {
        match self {
            Operand::Place(place) => f(*place),
            Operand::Places(places) => places.iter().copied().for_each(f),
            Operand::Literal(_) => (),
        }
    }
}

/// An operation on arguments, and where its result goes.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub op: Op,
    pub operands: Vec<Operand>,
    pub to: Register,
}

impl Operation {
    /// Calls `f` with each place that the operation reads.
    pub fn each_read(&self, f: &mut impl FnMut(Place)) {
        self.operands
            .iter()
            .for_each(|operand| operand.each_read(f));
    }
}

/// The operations of each step that is no condition, loop or call; more than one are a chain.
pub(super) type Steps = Vec<Vec<Operation>>;

/// The operands of an operation that has arrays and literals alone.
pub(super) struct Operands<'a> {
    pub arrays: SmallVec<[Place; 3]>,
    pub literals: SmallVec<[&'a Literal; 1]>,
}

impl<'a> Operands<'a> {
    pub fn of(operation: &'a Operation) -> Option<Self> {
        let (mut arrays, mut literals) = (SmallVec::new(), SmallVec::new());
        for operand in &operation.operands {
            match operand {
                Operand::Place(place) => arrays.push(*place),
                Operand::Literal(literal) => literals.push(literal),
                Operand::Places(_) => return None,
            }
        }
        Some(Operands { arrays, literals })
    }
}

#[derive(Debug)]
pub(super) enum Step {
    Operation(Operation),
    /// Operations of which the last alone is read by other steps.
    Chain(Vec<Operation>),
    Cond(Box<Cond>),
    While(Box<While>),
    Call(Call),
}

impl Step {
    /// A step of operations, of which there is one at least.
    pub fn of(mut operations: Vec<Operation>) -> Self {
        match (operations.len(), operations.pop()) {
            (1, Some(operation)) => Step::Operation(operation),
            (_, last) => {
                operations.extend(last);
                Step::Chain(operations)
            }
        }
    }

    /// The operations of a step that is no condition, loop or call.
    pub fn operations(&self) -> &[Operation] {
        match self {
            Step::Operation(operation) => std::slice::from_ref(operation),
            Step::Chain(operations) => operations,
            Step::Cond(_) | Step::While(_) | Step::Call(_) => &[],
        }
    }

    /// The register that the step writes.
    pub fn to(&self) -> Register {
        match self {
            Step::Operation(operation) => operation.to,
            // It has operations.
            Step::Chain(operations) => operations[operations.len() - 1].to,
            Step::Cond(cond) => cond.to,
            Step::While(repeat) => repeat.to,
            Step::Call(call) => call.to,
        }
    }

    /// Calls `f` with each place that the step reads, in the blocks inside too.
    pub fn each_read(&self, f: &mut impl FnMut(Place)) {
        match self {
            Step::Operation(operation) => operation.each_read(f),
            Step::Chain(operations) => operations.iter().for_each(|one| one.each_read(f)),
            Step::Call(call) => call.operands.iter().copied().for_each(f),
            Step::Cond(cond) => {
                f(cond.predicate);
                cond.yes.each_read(f);
                cond.no.each_read(f);
            }
            Step::While(repeat) => {
                repeat.initial.iter().copied().for_each(&mut *f);
                repeat.condition.each_read(f);
                repeat.body.each_read(f);
            }
        }
    }
}

/// The operands of a step that is an attention to a cache.
pub(super) fn attends(step: &Step) -> Option<&[Operand]> {
    match step {
        Step::Operation(operation) if operation.op == Op::CachedAttention => {
            Some(&operation.operands)
        }
        _ => None,
    }
}

/// The operands of a cached attention that say what is seen.
pub(super) fn what_is_seen(operands: &[Operand]) -> [Option<Place>; 2] {
    [4, 5].map(|at| match operands.get(at) {
        Some(Operand::Place(place)) => Some(*place),
        _ => None,
    })
}

/// One of two blocks, chosen when the predicate is computed.
#[derive(Debug)]
pub(super) struct Cond {
    pub predicate: Place,
    pub yes: Block,
    pub no: Block,
    pub to: Register,
    /// Registers that nothing reads from here on, but for the predicate.
    pub ended: Vec<Register>,
}

/// `body` over a state as long as `condition` holds. Each has registers of its own for the state.
#[derive(Debug)]
pub(super) struct While {
    pub initial: Places,
    pub tested: Vec<Register>,
    pub condition: Block,
    pub state: Vec<Register>,
    pub body: Block,
    /// Whether an iteration calls the host, so that none may run too many.
    pub calls: bool,
    pub to: Register,
    /// Registers that nothing reads from here on, but for the initial state.
    pub ended: Vec<Register>,
    pub shelf: Shelf,
}

impl While {
    /// The places outside the loop that a turn reads, where its blocks have no others inside.
    pub fn around(&self) -> Vec<Place> {
        let mut around = Vec::new();
        let mut note = |place: Place, inside: &dyn Fn(Register) -> bool| {
            if !inside(place.register) && !around.contains(&place) {
                around.push(place);
            }
        };
        let blocks = [(&self.condition, &self.tested), (&self.body, &self.state)];
        for (block, parameters) in blocks {
            let inside = |register| block.own.contains(&register) || parameters.contains(&register);
            block.each_read(&mut |place| note(place, &inside));
        }
        around
    }
}

/// Steps of a program's body without conditions, loops and calls, which can be recorded as one.
#[derive(Debug)]
pub(super) struct Straight {
    pub steps: Range<usize>,
    /// What the steps read of others.
    pub reads: Vec<Place>,
    /// The registers that others read of them.
    pub gives: Vec<Register>,
    pub shelf: Shelf,
    pub luck: Mutex<Luck>,
}

/// Arrays handed to the host, which gives `results` arrays for them.
#[derive(Debug)]
pub(super) struct Call {
    pub index: usize,
    pub operands: Places,
    pub results: usize,
    pub to: Register,
    /// Registers that nothing reads from here on, but for the operands.
    pub ended: Vec<Register>,
}

/// How steps between conditions, loops and calls run, as it was found when they ran first.
#[derive(Debug)]
pub(super) struct Plan {
    /// The steps in their order, and the registers that nothing reads any more once each is built.
    pub steps: Vec<(Step, Vec<Register>)>,
    /// Registers that the steps do not read, nor anybody else.
    pub unread: Vec<Register>,
    /// How many registers there are, with those of the plan's own.
    pub registers: usize,
}

#[derive(Debug, Default)]
pub(super) struct Block {
    pub steps: Vec<Step>,
    pub results: Places,
    /// The registers that the block's own steps write.
    pub own: std::ops::Range<Register>,
    /// How runs that were given arrays run the steps from a number on.
    pub plans: Mutex<BTreeMap<usize, Arc<Plan>>>,
}

impl Block {
    /// Calls `f` with each place that the block reads or gives, and those inside.
    pub fn each_read(&self, f: &mut impl FnMut(Place)) {
        self.steps.iter().for_each(|step| step.each_read(f));
        self.results.iter().copied().for_each(f);
    }
}

/// Steps over registers, from inputs to results. A [`Builder`](super::Builder) makes one.
#[derive(Default)]
pub struct Program {
    /// The registers that the inputs of a run go to, in order.
    pub(super) inputs: SmallVec<[Register; 4]>,
    pub(super) constants: Vec<(Register, SharedArray)>,
    pub(super) body: Block,
    pub(super) registers: usize,
    pub(super) operations: u32,
    pub(super) has_linalg: bool,
    pub(super) waits: bool,
    pub(super) looks: bool,
    /// For each register whether one operand reads it, where that is known.
    pub(super) read_once: Vec<bool>,
    pub(super) declared: Option<Vec<(Dtype, Vec<i32>)>>,
    /// What of the body can be recorded, found in the first run.
    pub(super) straight: OnceCell<Vec<Straight>>,
}

impl Program {
    /// How many arrays a run takes.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// How many operations there are, in all blocks.
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// Whether LAPACK computes something.
    pub fn has_linalg(&self) -> bool {
        self.has_linalg
    }

    /// Whether it has conditions, loops or calls, which wait for what they depend on.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether it looks at arrays where it may wait for them.
    pub fn looks(&self) -> bool {
        self.looks
    }

    /// Whether it is worth a recording by a device that Emily does not compute on itself.
    pub fn is_long(&self) -> bool {
        self.operations >= LONG && !self.has_linalg
    }

    /// Says what the results have to be: a run that gives others is refused.
    pub fn declare(&mut self, results: Vec<(Dtype, Vec<i32>)>) {
        self.declared = Some(results);
    }
}
