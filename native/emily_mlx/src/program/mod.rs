//! Programs: operations over registers, with conditions and loops, turned into MLX's graph.

mod cached;
mod chain;
mod chains;
pub mod fusion;
mod liveness;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::apply::{apply, checked, Value};
use crate::ops::args::{Arg, Args, Literal};
use crate::ops::attention::cached::{CachedAttention, Seen};
use crate::ops::op::Op;
use crate::program::cached::look;
use crate::runtime::array::SharedArray;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Error, Result};
use crate::runtime::stream::StreamHandle;
use crate::runtime::worker::{compute, schedule};

/// The arrays that a run gives; mostly one.
pub type Results = SmallVec<[Array; 2]>;

/// Where a step leaves its result.
pub type Register = usize;

/// A register, or one of several results in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub register: Register,
    pub element: Option<usize>,
}

/// An argument of a step.
#[derive(Debug)]
pub enum Operand {
    Place(Place),
    Places(Vec<Place>),
    Literal(Literal),
}

/// An operation on arguments, and where its result goes.
#[derive(Debug)]
pub struct Operation {
    pub op: Op,
    pub operands: Vec<Operand>,
    pub to: Register,
}

impl Operation {
    /// Calls `f` with each place that the operation reads.
    pub(crate) fn each_read(&self, f: &mut impl FnMut(Place)) {
        for operand in &self.operands {
            match operand {
                Operand::Place(place) => f(*place),
                Operand::Places(places) => places.iter().copied().for_each(&mut *f),
                Operand::Literal(_) => (),
            }
        }
    }
}

#[derive(Debug)]
pub enum Step {
    Operation(Operation),
    /// Operations of which the last alone is read by other steps.
    Chain(Vec<Operation>),
    Cond(Box<Cond>),
    While(Box<While>),
    Call(Call),
}

impl Step {
    /// The register that the step writes.
    pub(crate) fn to(&self) -> Register {
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
    pub(crate) fn each_read(&self, f: &mut impl FnMut(Place)) {
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

/// One of two blocks, chosen when the predicate is computed.
#[derive(Debug)]
pub struct Cond {
    pub predicate: Place,
    pub yes: Block,
    pub no: Block,
    pub to: Register,
    /// Registers that nothing reads from here on, but for the predicate.
    pub ended: Vec<Register>,
}

/// `body` over a state as long as `condition` holds. Each has registers of its own for the state.
#[derive(Debug)]
pub struct While {
    pub initial: Vec<Place>,
    pub tested: Vec<Register>,
    pub condition: Block,
    pub state: Vec<Register>,
    pub body: Block,
    /// Whether an iteration calls the host, so that none may run too many.
    pub calls: bool,
    pub to: Register,
    /// Registers that nothing reads from here on, but for the initial state.
    pub ended: Vec<Register>,
}

/// Arrays handed to the host, which gives `results` arrays for them.
#[derive(Debug)]
pub struct Call {
    pub index: usize,
    pub operands: Vec<Place>,
    pub results: usize,
    pub to: Register,
    /// Registers that nothing reads from here on, but for the operands.
    pub ended: Vec<Register>,
}

/// Who runs a program that waits.
pub trait Host {
    /// Computes the results of a call. One without results may go on behind the program's back.
    fn call(&self, index: usize, operands: Vec<Array>, results: usize) -> Result<Vec<Array>>;

    /// Whether anybody still waits for the program.
    fn is_waiting(&self) -> bool;
}

/// The host of programs that call nothing and are always wanted.
pub struct NoHost;

impl Host for NoHost {
    fn call(&self, index: usize, _operands: Vec<Array>, _results: usize) -> Result<Vec<Array>> {
        refuse!("there is no host for call {index}")
    }

    fn is_waiting(&self) -> bool {
        true
    }
}

#[derive(Debug, Default)]
pub struct Block {
    pub steps: Vec<Step>,
    pub results: SmallVec<[Place; 2]>,
    /// The registers that the block's own steps write.
    pub own: std::ops::Range<Register>,
}

impl Block {
    fn each_read(&self, f: &mut impl FnMut(Place)) {
        self.steps.iter().for_each(|step| step.each_read(f));
        self.results.iter().copied().for_each(f);
    }
}

#[derive(Default)]
pub struct Program {
    /// The registers that the inputs of a run go to, in order.
    pub inputs: SmallVec<[Register; 4]>,
    pub constants: Vec<(Register, SharedArray)>,
    pub body: Block,
    pub registers: usize,
    pub operations: u32,
    pub has_linalg: bool,
    /// Whether it has conditions, loops or calls, which wait for what they depend on.
    pub waits: bool,
    /// Whether it looks at arrays where it may wait for them.
    pub looks: bool,
    pub calls: usize,
    /// What the results have to be, where that is known.
    pub declared: Option<Vec<(Dtype, Vec<i32>)>>,
}

/// Constants up to this many elements are kept; larger ones would only hold memory.
const SMALL_CONSTANT: usize = 4096;

/// Whether an operation makes an array from literals.
pub fn is_creation(op: Op) -> bool {
    matches!(op, Op::Full | Op::Arange | Op::Eye)
}

/// The array of an operation on literals, if it is worth keeping: it is computed once, not in each run.
pub fn constant(op: Op, operands: &[Operand]) -> Result<Option<SharedArray>> {
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

impl Program {
    /// Notes where registers end. To be called once the program is complete.
    pub fn mark_ended(&mut self) {
        liveness::mark(&mut self.body, &[]);
    }

    /// Makes chains of operations that give an element for an element, which a CPU computes in one pass. To be called
    /// once, with the registers marked.
    pub fn chain(&mut self) {
        chains::group(&mut self.body);
    }

    /// The results on `inputs`, uncomputed, without a look at any array. For programs without conditions
    /// and loops.
    pub fn run(&self, inputs: &[&Array], stream: &StreamHandle) -> Result<Results> {
        self.run_on(inputs, stream, false, &NoHost)
    }

    /// The results on `inputs`, on their way to being computed. The calling thread waits for what
    /// conditions, loops and calls depend on.
    pub fn run_waiting(
        &self,
        inputs: &[&Array],
        stream: &StreamHandle,
        host: &dyn Host,
    ) -> Result<Results> {
        let results = self.run_on(inputs, stream, true, host)?;
        if self.has_linalg {
            compute(&results, true, stream)?;
        } else {
            schedule(&results)?;
        }
        Ok(results)
    }

    fn run_on(
        &self,
        inputs: &[&Array],
        stream: &StreamHandle,
        may_wait: bool,
        host: &dyn Host,
    ) -> Result<Results> {
        let mut registers = SmallVec::new();
        registers.resize_with(self.registers, || Slot::Empty);
        for (register, array) in self.inputs.iter().zip(inputs) {
            registers[*register] = Slot::Input(array);
        }
        for (register, constant) in &self.constants {
            registers[*register] = Slot::Input(constant.array());
        }
        let mut run = Run {
            registers,
            stream,
            has_linalg: self.has_linalg,
            may_wait,
            seen: None,
            host,
        };
        run.block(&self.body)?;
        let results = run.results(&self.body)?;
        self.check(&results)?;
        Ok(results)
    }

    fn check(&self, results: &[Array]) -> Result<()> {
        let Some(declared) = &self.declared else {
            return Ok(());
        };
        if declared.len() != results.len() {
            refuse!(
                "the program gives {} results, not {}",
                results.len(),
                declared.len()
            )
        }
        for (at, (result, (dtype, shape))) in results.iter().zip(declared).enumerate() {
            if Dtype::of(result) != *dtype || result.shape() != shape {
                refuse!(
                    "result {at} of the program is {} of shape {:?}, declared as {} of shape {shape:?}",
                    Dtype::of(result).name(),
                    result.shape(),
                    dtype.name()
                )
            }
        }
        Ok(())
    }
}

enum Slot<'a> {
    Empty,
    Input(&'a Array),
    Value(Value),
}

struct Run<'a> {
    registers: SmallVec<[Slot<'a>; 8]>,
    stream: &'a StreamHandle,
    has_linalg: bool,
    may_wait: bool,
    seen: Option<(CacheKey, Seen)>,
    host: &'a dyn Host,
}

/// The operands that say what is seen of a cache, which the layers of a model share.
type CacheKey = ([Option<Place>; 2], (i32, Dtype));

impl Run<'_> {
    fn block(&mut self, block: &Block) -> Result<()> {
        for step in &block.steps {
            match step {
                Step::Operation(operation) => self.operation(operation)?,
                Step::Chain(operations) => self.chain(operations)?,
                Step::Cond(cond) => self.cond(cond)?,
                Step::While(repeat) => self.repeat(repeat)?,
                Step::Call(call) => self.call(call)?,
            }
        }
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<()> {
        let Operation { op, operands, to } = operation;
        let value = match op {
            Op::CachedAttention => self.cached_attention(operands)?,
            _ => apply(*op, &self.args(*op, operands)?, self.stream)?,
        };
        self.registers[*to] = Slot::Value(value);
        Ok(())
    }

    fn args<'b>(&'b self, op: Op, operands: &'b [Operand]) -> Result<Args<'b>> {
        let mut items = SmallVec::with_capacity(operands.len());
        for operand in operands {
            items.push(match operand {
                Operand::Place(place) => Arg::Borrowed(self.array(*place)?),
                Operand::Places(places) => Arg::Arrays(self.arrays(places)?),
                Operand::Literal(literal) => Arg::Literal(Cow::Borrowed(literal)),
            });
        }
        Ok(Args::new(op.name(), items))
    }

    /// What is seen of the cache is looked at once for all layers of a model.
    fn cached_attention(&mut self, operands: &[Operand]) -> Result<Value> {
        let (op, seen) = (Op::CachedAttention, self.seen.take());
        let place = |at: usize| match operands.get(at) {
            Some(Operand::Place(place)) => Some(*place),
            _ => None,
        };
        let args = self.args(op, operands)?;
        let attention = CachedAttention::read(&args)?;
        let key = ([place(4), place(5)], attention.queries());
        let seen = match seen {
            Some((known, seen)) if known == key => seen,
            _ if self.may_wait => look(&attention, self.has_linalg, self.stream)?,
            _ => attention.unseen(self.stream)?,
        };
        let value = attention.attend(&seen, self.stream)?;
        let value = checked(op, &args, value.into())?;
        drop(args);
        self.seen = Some((key, seen));
        Ok(value)
    }

    fn array(&self, place: Place) -> Result<&Array> {
        match (&self.registers[place.register], place.element) {
            (Slot::Input(array), None) => Ok(array),
            (Slot::Value(Value::One(array)), None) => Ok(array),
            (Slot::Value(Value::Many(_)), None) => {
                refuse!("an operation of several results needs :elem")
            }
            (Slot::Value(Value::Many(arrays)), Some(index)) => match arrays.get(index) {
                Some(array) => Ok(array),
                None => refuse!("there is no element {index} of {}", arrays.len()),
            },
            (Slot::Empty, _) => refuse!("register {} is empty", place.register),
            (_, Some(_)) => refuse!(":elem takes an operation of several results"),
        }
    }

    fn arrays(&self, places: &[Place]) -> Result<Vec<Array>> {
        let array = |place: &Place| self.array(*place).cloned();
        places.iter().map(array).collect()
    }

    /// The results of a block; an operation of several gives as many.
    fn results(&self, block: &Block) -> Result<Results> {
        let mut results = Results::with_capacity(block.results.len());
        for place in &block.results {
            match (&self.registers[place.register], place.element) {
                (Slot::Value(Value::Many(arrays)), None) => results.extend(arrays.iter().cloned()),
                _ => results.push(self.array(*place)?.clone()),
            }
        }
        Ok(results)
    }

    /// Inputs are not the run's own, and stay.
    fn clear(&mut self, registers: impl IntoIterator<Item = Register>) {
        for register in registers {
            if let Slot::Value(_) = self.registers[register] {
                self.registers[register] = Slot::Empty;
            }
        }
    }

    fn cond(&mut self, cond: &Cond) -> Result<()> {
        let predicate = self.array(cond.predicate)?.clone();
        self.clear(cond.ended.iter().copied());
        self.compute(std::slice::from_ref(&predicate))?;
        let chosen = if is_true(&predicate)? {
            &cond.yes
        } else {
            &cond.no
        };
        let results = self.results_on(&[], Vec::new(), chosen)?;
        self.registers[cond.to] = Slot::Value(Value::Many(results.into_vec()));
        Ok(())
    }

    fn call(&mut self, call: &Call) -> Result<()> {
        let operands = self.arrays(&call.operands)?;
        self.clear(call.ended.iter().copied());
        if self.has_linalg {
            self.compute(&operands)?;
        } else if !operands.is_empty() {
            schedule(&operands)?;
        }
        let results = self.host.call(call.index, operands, call.results)?;
        self.registers[call.to] = Slot::Value(Value::Many(results));
        Ok(())
    }

    fn repeat(&mut self, repeat: &While) -> Result<()> {
        let mut state = self.arrays(&repeat.initial)?;
        self.clear(repeat.ended.iter().copied());
        let mut pace = Pace::new();
        loop {
            let ahead = match self.has_linalg || repeat.calls {
                true => 1,
                false => pace.ahead,
            };
            let begun = Instant::now();
            let going = match ahead {
                1 => self.step(repeat, &mut state)?,
                _ => self.steps(repeat, &mut state, ahead)?,
            };
            if !going {
                break;
            }
            if !self.host.is_waiting() {
                return Err(Error::Argument("nobody waits for the loop".to_owned()));
            }
            pace.learn(begun.elapsed(), &state);
        }
        self.registers[repeat.to] = Slot::Value(Value::Many(state));
        Ok(())
    }

    /// One iteration: the body is built once the condition is known.
    fn step(&mut self, repeat: &While, state: &mut Vec<Array>) -> Result<bool> {
        let condition = self.condition(repeat, state)?;
        // The condition first, so that the wait is for no more than it needs; the state goes on
        // while the next graph is built.
        self.compute(std::slice::from_ref(&condition))?;
        let going = is_true(&condition)?;
        if going {
            *state = self.next_state(repeat, std::mem::take(state))?;
            if self.has_linalg {
                self.compute(state)?;
            } else {
                schedule(state)?;
            }
        }
        Ok(going)
    }

    /// Several iterations built at once, so that a short body is not outweighed by the waits. What
    /// lies beyond the first false condition is dropped: operations change nothing but their
    /// results.
    fn steps(&mut self, repeat: &While, state: &mut Vec<Array>, ahead: usize) -> Result<bool> {
        let mut conditions = Vec::with_capacity(ahead + state.len());
        let mut states = Vec::with_capacity(ahead);
        for _ in 0..ahead {
            conditions.push(self.condition(repeat, state)?);
            let next = self.next_state(repeat, state.clone())?;
            states.push(std::mem::replace(state, next));
        }
        conditions.extend(state.iter().cloned());
        self.compute(&conditions)?;
        for (condition, before) in conditions.iter().zip(states) {
            if !is_true(condition)? {
                *state = before;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn set(&mut self, registers: &[Register], arrays: impl IntoIterator<Item = Array>) {
        if !registers.is_empty() {
            self.seen = None;
        }
        for (register, array) in registers.iter().zip(arrays) {
            self.registers[*register] = Slot::Value(Value::One(array));
        }
    }

    fn condition(&mut self, repeat: &While, state: &[Array]) -> Result<Array> {
        let mut results = self.results_on(&repeat.tested, state.to_vec(), &repeat.condition)?;
        match (results.pop(), results.is_empty()) {
            (Some(condition), true) => Ok(condition),
            _ => refuse!("while: the condition must be one array"),
        }
    }

    fn next_state(&mut self, repeat: &While, state: Vec<Array>) -> Result<Vec<Array>> {
        let next = self.results_on(&repeat.state, state, &repeat.body)?;
        if next.len() != repeat.state.len() {
            refuse!(
                "while: the body gives {} arrays for a state of {}",
                next.len(),
                repeat.state.len()
            )
        }
        Ok(next.into_vec())
    }

    /// The results of a block on `arrays`, whose handles end here, so that MLX can write over what
    /// nobody else holds.
    fn results_on(
        &mut self,
        parameters: &[Register],
        arrays: Vec<Array>,
        block: &Block,
    ) -> Result<Results> {
        self.set(parameters, arrays);
        self.block(block)?;
        let results = self.results(block)?;
        self.clear(block.own.clone());
        self.clear(parameters.iter().copied());
        Ok(results)
    }

    fn compute(&self, arrays: &[Array]) -> Result<()> {
        compute(arrays, self.has_linalg, self.stream)
    }
}

/// How many iterations of a loop are built before their conditions are read.
struct Pace {
    ahead: usize,
}

/// Iterations that take longer gain nothing when they are built ahead, and one too many costs more.
const SHORT: Duration = Duration::from_micros(200);
/// The memory that the states of iterations built ahead may take.
const SMALL: usize = 1 << 20;
const MOST_AHEAD: usize = 64;
/// How long what is built ahead may take, since the last of it may be in vain.
const MOST_IN_VAIN: Duration = Duration::from_millis(2);

impl Pace {
    fn new() -> Self {
        Pace { ahead: 1 }
    }

    fn learn(&mut self, elapsed: Duration, state: &[Array]) {
        let bytes: usize = state.iter().map(Array::nbytes).sum();
        let short = elapsed < SHORT * self.ahead as u32 && bytes < SMALL;
        self.ahead = if !short {
            1
        } else if elapsed * 2 < MOST_IN_VAIN {
            (self.ahead * 2).min(MOST_AHEAD)
        } else {
            self.ahead
        };
    }
}

/// The value of a computed condition.
fn is_true(condition: &Array) -> Result<bool> {
    if Dtype::of(condition) != Dtype::Bool || condition.size() != 1 {
        refuse!(
            "a condition must be one boolean, got {} of shape {:?}",
            Dtype::of(condition).name(),
            condition.shape()
        )
    }
    // SAFETY: the array is computed, has one element of one byte, and lives through the read.
    unsafe {
        let data = mlx_sys::mlx_array_data_bool(condition.as_ptr());
        if data.is_null() {
            refuse!("a condition has no data")
        }
        Ok(*data)
    }
}
