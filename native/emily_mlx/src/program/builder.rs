//! Builds programs. What a step reads must have been set before it, in its block or in one around it.

use std::borrow::Cow;
use std::collections::HashMap;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::group;
use super::kept::Shelf;
use super::liveness;
use super::step::{
    Block, Call, Cond, Operand, Operation, Place, Places, Program, Register, Step, While,
};
use crate::ops::apply::{apply, Value};
use crate::ops::args::{Arg, Args};
use crate::ops::op::Op;
use crate::runtime::array::SharedArray;
use crate::runtime::device::Device;
use crate::runtime::error::{refuse, Result};
use crate::runtime::graph::schedule;
use crate::runtime::stream::StreamHandle;

/// Constants up to this many elements are kept; larger ones would only hold memory.
const SMALL_CONSTANT: usize = 4096;

/// A program in the making: inputs, steps and blocks in the order in which they are met, then the results.
#[derive(Default)]
pub struct Builder {
    program: Box<Program>,
    /// The steps of the block that is open, and the blocks around it.
    steps: Vec<Step>,
    around: Vec<Around>,
    /// For each register, whether steps that come next may read it.
    readable: SmallVec<[bool; 8]>,
    /// Registers by the operation and the operands of what they hold, where that is computed once for all that need it.
    known: Option<HashMap<String, Register>>,
    calls: usize,
}

/// A block that waits for the one inside it, of which it knows the beginning.
struct Around {
    steps: Vec<Step>,
    parameters: Vec<Register>,
    first: Register,
    calls: usize,
}

/// A block with parameters, for a condition or a loop.
#[derive(Debug)]
pub struct Function {
    parameters: Vec<Register>,
    block: Block,
    calls: bool,
}

impl Builder {
    pub fn new() -> Self {
        Builder::default()
    }

    /// Has small arrays that are made of literals computed now, once, instead of in each run, and operations on the same
    /// operands computed once in a run.
    pub fn keep_constants(&mut self) {
        self.known.get_or_insert_default();
    }

    /// One more input, which every block may read, wherever it is met.
    pub fn input(&mut self) -> Place {
        let register = self.register();
        self.program.inputs.push(register);
        Place::whole(register)
    }

    fn register(&mut self) -> Register {
        self.readable.push(true);
        self.readable.len() - 1
    }

    fn check(&self, place: Place) -> Result<()> {
        match self.readable.get(place.register) {
            Some(true) => Ok(()),
            _ => refuse!("register {} is not set here", place.register),
        }
    }

    fn check_all(&self, places: &[Place]) -> Result<()> {
        places.iter().try_for_each(|place| self.check(*place))
    }

    pub fn operation(&mut self, op: Op, operands: Vec<Operand>) -> Result<Place> {
        for operand in &operands {
            match operand {
                Operand::Place(place) => self.check(*place)?,
                Operand::Places(places) => self.check_all(places)?,
                Operand::Literal(_) => (),
            }
        }
        let key = self.known.is_some().then(|| format!("{op:?}{operands:?}"));
        if let Some(register) = key.as_ref().and_then(|key| self.known(key)) {
            return Ok(Place::whole(register));
        }
        let is_creation = matches!(op, Op::Full | Op::Arange | Op::Eye);
        if is_creation && key.is_some() {
            if let Some(array) = constant(op, &operands)? {
                let register = self.register();
                self.program.constants.push((register, array));
                self.know(key, register);
                return Ok(Place::whole(register));
            }
        }
        self.program.operations = self.program.operations.saturating_add(1);
        self.program.has_linalg |= op.is_linalg();
        self.program.looks |= op == Op::CachedAttention;
        let to = self.register();
        // Large arrays of literals are made for each, since loops may update them where they are.
        if !is_creation {
            self.know(key, to);
        }
        let operation = Operation { op, operands, to };
        self.steps.push(Step::Operation(operation));
        Ok(Place::whole(to))
    }

    /// The register that holds what is known by a key, if steps that come next may read it.
    fn known(&self, key: &str) -> Option<Register> {
        let register = *self.known.as_ref()?.get(key)?;
        self.readable[register].then_some(register)
    }

    fn know(&mut self, key: Option<String>, register: Register) {
        if let (Some(known), Some(key)) = (&mut self.known, key) {
            known.insert(key, register);
        }
    }

    /// Opens a block with so many parameters, which is to be ended.
    pub fn begin(&mut self, parameters: usize) -> Places {
        let parameters: Vec<Register> = (0..parameters).map(|_| self.register()).collect();
        let places = parameters.iter().copied().map(Place::whole).collect();
        self.around.push(Around {
            steps: std::mem::take(&mut self.steps),
            parameters,
            first: self.readable.len(),
            calls: self.calls,
        });
        places
    }

    /// Ends the block that was begun last. What it has set is not known outside.
    pub fn end(&mut self, results: Places) -> Result<Function> {
        self.check_all(&results)?;
        let Some(around) = self.around.pop() else {
            refuse!("no block has been begun")
        };
        let steps = std::mem::replace(&mut self.steps, around.steps);
        let set = steps.iter().map(Step::to).chain(around.parameters.clone());
        for register in set {
            self.readable[register] = false;
        }
        Ok(Function {
            parameters: around.parameters,
            block: Block {
                steps,
                results,
                own: around.first..self.readable.len(),
                plans: Mutex::default(),
            },
            calls: self.calls > around.calls,
        })
    }

    /// The results of `yes` where the predicate is true, and else of `no`.
    pub fn cond(&mut self, predicate: Place, yes: Function, no: Function) -> Result<Place> {
        self.check(predicate)?;
        if !yes.parameters.is_empty() || !no.parameters.is_empty() {
            refuse!(":cond takes branches without parameters")
        }
        let (yes, no) = (yes.block, no.block);
        if yes.results.len() != no.results.len() {
            refuse!(":cond takes branches of as many results")
        }
        let to = self.waiting();
        self.steps.push(Step::Cond(Box::new(Cond {
            predicate,
            yes,
            no,
            to,
            ended: Vec::new(),
        })));
        Ok(Place::whole(to))
    }

    /// The state that `body` has made of `initial` when `condition` no longer holds of it.
    pub fn repeat(
        &mut self,
        initial: Places,
        condition: Function,
        body: Function,
    ) -> Result<Place> {
        self.check_all(&initial)?;
        let (tested, state) = (condition.parameters, body.parameters);
        let lengths = [tested.len(), state.len(), body.block.results.len()];
        let conditions = condition.block.results.len();
        if lengths.iter().any(|length| *length != initial.len()) || conditions != 1 {
            refuse!(
                ":while has {} initial values, a condition of {} that gives {conditions}, and a body of {} that gives {}",
                initial.len(),
                tested.len(),
                state.len(),
                body.block.results.len()
            )
        }
        let to = self.waiting();
        self.steps.push(Step::While(Box::new(While {
            initial,
            tested,
            condition: condition.block,
            state,
            calls: condition.calls || body.calls,
            body: body.block,
            to,
            ended: Vec::new(),
            shelf: Shelf::default(),
        })));
        Ok(Place::whole(to))
    }

    /// What the host gives for the operands: `results` arrays.
    pub fn call(&mut self, index: usize, operands: Places, results: usize) -> Result<Place> {
        self.check_all(&operands)?;
        self.calls += 1;
        let to = self.waiting();
        self.steps.push(Step::Call(Call {
            index,
            operands,
            results,
            to,
            ended: Vec::new(),
        }));
        Ok(Place::whole(to))
    }

    /// The register of a step that waits.
    fn waiting(&mut self) -> Register {
        self.program.waits = true;
        self.register()
    }

    /// The program of what has been built, which gives `results`. Eager operations are programs too, and a box is moved sooner.
    pub fn finish(self, results: Places) -> Result<Box<Program>> {
        self.check_all(&results)?;
        if !self.around.is_empty() {
            refuse!("{} blocks have not been ended", self.around.len())
        }
        let mut program = self.program;
        program.registers = self.readable.len();
        program.body = Block {
            steps: self.steps,
            results,
            own: 0..program.registers,
            plans: Mutex::default(),
        };
        if program.waits {
            liveness::mark(&mut program.body, &program.inputs);
        }
        Ok(program)
    }
}

impl Program {
    /// Makes chains of operations that give an element for an element, which a CPU computes in one pass, and finds what one
    /// operation alone reads, which a GPU may compute with that. To be called once.
    pub fn chain(&mut self) {
        self.read_once = liveness::read_once(&self.body, self.registers);
        group::group(&mut self.body);
    }
}

/// The array of an operation on literals, if it is worth keeping.
fn constant(op: Op, operands: &[Operand]) -> Result<Option<SharedArray>> {
    let mut items = SmallVec::with_capacity(operands.len());
    for operand in operands {
        let Operand::Literal(literal) = operand else {
            return Ok(None);
        };
        items.push(Arg::Literal(Cow::Borrowed(literal)));
    }
    let stream = StreamHandle::default_on(Device::Cpu)?;
    match apply(op, &Args::new(op.name(), items), stream)? {
        Value::One(array) if array.size() <= SMALL_CONSTANT => {
            schedule(std::slice::from_ref(&array))?;
            Ok(Some(SharedArray::lazy(array, stream, 0, false)))
        }
        _ => Ok(None),
    }
}
