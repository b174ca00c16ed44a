//! A program's run: its steps, one after the other, on the registers.

mod cached;
mod chain;
mod dynamic;
mod few;
mod lean;
mod repeat;
mod replay;
mod state;
mod straight;
mod told;

use std::borrow::Cow;
use std::collections::BTreeMap;

use mlx_rs::Array;
use smallvec::{smallvec, SmallVec};

use super::kept::{Kept, Shelf, Told};
use super::step::{Block, Call, Cond, Operand, Operation, Place, Program, Register, Step};
use crate::ops::apply::{apply, Value};
use crate::ops::args::{Arg, Args};
use crate::ops::attention::cached::Seen;
use crate::ops::dot::few::Made;
use crate::ops::op::Op;
use crate::runtime::array::Held;
use crate::runtime::contiguous::readable;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::graph::schedule;
use crate::runtime::inspect::{is_awaited, is_part};
use crate::runtime::stream::StreamHandle;

/// The arrays that a run gives; mostly one.
pub type Results = SmallVec<[Array; 2]>;

/// An array for a run.
pub enum Input {
    Lent(Array),
    /// What the run may write over, where nobody else holds it.
    Given(Array),
}

/// Who runs a program that waits.
pub trait Host {
    /// Computes the results of a call. One without results may go on behind the program's back.
    fn call(&self, index: usize, operands: Vec<Array>, results: usize) -> Result<Vec<Array>>;

    /// Makes a call without results, of arrays that are computed and that the processor can read.
    fn tell(&self, index: usize, operands: Vec<Array>) -> Result<()>;

    /// Whether anybody still waits for the program.
    fn is_waiting(&self) -> bool;
}

/// The host of programs that call nothing and are always wanted.
pub struct NoHost;

impl Host for NoHost {
    fn call(&self, index: usize, _operands: Vec<Array>, _results: usize) -> Result<Vec<Array>> {
        refuse!("there is no host for call {index}")
    }

    fn tell(&self, index: usize, _operands: Vec<Array>) -> Result<()> {
        refuse!("there is no host for call {index}")
    }

    fn is_waiting(&self) -> bool {
        true
    }
}

impl Program {
    /// The results on `inputs`, uncomputed, without a look at any array. For programs without conditions
    /// and loops.
    pub fn run<'a>(
        &'a self,
        inputs: impl ExactSizeIterator<Item = &'a Array>,
        stream: &'a StreamHandle,
    ) -> Result<Results> {
        let inputs = inputs.map(Slot::Input);
        let (results, _) = self.run_on(inputs, stream, (false, false), &NoHost)?;
        Ok(results)
    }

    /// The results on `inputs`, on their way to being computed. The calling thread waits for what
    /// conditions, loops and calls depend on.
    pub fn run_waiting(
        &self,
        inputs: Vec<Input>,
        stream: &StreamHandle,
        host: &dyn Host,
    ) -> Result<Results> {
        let is_lean = is_lean(&inputs, stream);
        if is_lean {
            // Others may have what they are made of.
            stream.compute_unless(arrays(&inputs), self.has_linalg)?;
        }
        let apart = inputs.into_iter().map(|input| match input {
            Input::Lent(array) => (Some(array), None),
            Input::Given(array) => (None, Some(array)),
        });
        let (lent, given): (Vec<_>, Vec<_>) = apart.unzip();
        let slot = |(lent, given)| match (lent, given) {
            (Some(array), _) => Slot::Input(array),
            (None, Some(array)) => Slot::Value(Value::One(array)),
            (None, None) => Slot::Empty,
        };
        let slots = lent.iter().map(Option::as_ref).zip(given).map(slot);
        let (results, kept) = self.run_on(slots, stream, (true, is_lean), host)?;
        match is_lean {
            // Its steps are computed; what was lent, and others may have, may not be.
            true => stream.compute_unless(results.to_vec(), self.has_linalg)?,
            false if self.has_linalg => stream.compute(&results, true)?,
            false => schedule(&results)?,
        }
        kept.into_iter().for_each(|(shelf, kept)| shelf.put(kept));
        Ok(results)
    }

    fn run_on<'a>(
        &'a self,
        inputs: impl ExactSizeIterator<Item = Slot<'a>>,
        stream: &'a StreamHandle,
        (may_wait, lean): (bool, bool),
        host: &'a dyn Host,
    ) -> Result<(Results, Recordings)> {
        if inputs.len() != self.inputs.len() {
            refuse!(
                "the program takes {} arrays, got {}",
                self.inputs.len(),
                inputs.len()
            )
        }
        let mut constants: SmallVec<[(Register, Held); 8]> = SmallVec::new();
        for (register, array) in &self.constants {
            constants.push((*register, array.array()?));
        }
        let mut registers = SmallVec::new();
        registers.resize_with(self.registers, || Slot::Empty);
        for (register, input) in self.inputs.iter().zip(inputs) {
            registers[*register] = input;
        }
        for (register, constant) in &constants {
            registers[*register] = Slot::Input(constant);
        }
        let mut run = Run {
            registers,
            stream,
            has_linalg: self.has_linalg,
            may_wait,
            lean,
            seen: None,
            within: SmallVec::new(),
            few: BTreeMap::new(),
            read_once: &self.read_once,
            kept: Recordings::new(),
            told: None,
            has_scheduled: false,
            host,
        };
        run.body(self)?;
        let results = run.end(&self.body)?;
        self.check(&results)?;
        Ok((results, std::mem::take(&mut run.kept)))
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

fn arrays(inputs: &[Input]) -> Vec<Array> {
    let array = |input: &Input| match input {
        Input::Lent(array) | Input::Given(array) => array.clone(),
    };
    inputs.iter().map(array).collect()
}

/// Whether each step of a run is computed before the next, so that it may write over what was given. A GPU's queue keeps
/// what its kernels read.
fn is_lean(inputs: &[Input], stream: &StreamHandle) -> bool {
    let is_given = |input: &Input| matches!(input, Input::Given(_));
    stream.is_cpu() && inputs.iter().any(is_given)
}

pub(super) enum Slot<'a> {
    Empty,
    Input(&'a Array),
    Value(Value),
}

pub(super) struct Run<'a> {
    registers: SmallVec<[Slot<'a>; 8]>,
    stream: &'a StreamHandle,
    has_linalg: bool,
    may_wait: bool,
    /// Whether each step is computed before the next.
    lean: bool,
    seen: Option<(CacheKey, Seen)>,
    within: SmallVec<[Within; 0]>,
    few: BTreeMap<Register, Made>,
    /// For each register whether one operand reads it, where that is known.
    read_once: &'a [bool],
    kept: Recordings,
    /// The calls of a turn that is recorded.
    told: Option<Vec<Told>>,
    /// Whether some of what it has computed may be on its way.
    has_scheduled: bool,
    host: &'a dyn Host,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.clear(0..self.registers.len());
    }
}

/// What a run has recorded, each for its shelf once the results are on their way.
type Recordings = Vec<(Shelf, Kept)>;

/// The operands that say what is seen of a cache, which the layers of a model share.
type CacheKey = ([Option<Place>; 2], (i32, Dtype));

/// Starts of slices, their limits, and what they are within these.
type Within = (Place, SmallVec<[i64; 4]>, Array);

impl Run<'_> {
    fn block(&mut self, block: &Block, parameters: &[Register]) -> Result<()> {
        if self.lean {
            return self.lean_block(block, parameters);
        }
        self.all(&block.steps)
    }

    fn all(&mut self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Operation(operation) => self.operation(operation),
            Step::Chain(operations) => self.chain(operations),
            Step::Cond(cond) => self.cond(cond),
            Step::While(repeat) => self.repeat(repeat),
            Step::Call(call) => self.call(call),
        }
    }

    fn operation(&mut self, operation: &Operation) -> Result<()> {
        let Operation { op, operands, to } = operation;
        let value = match (self.few(operation)?, op) {
            (Some(value), _) => value,
            (None, Op::CachedAttention) => self.cached_attention(operands)?,
            (None, Op::SliceDynamic | Op::SliceUpdateDynamic) => self.dynamic(*op, operands)?,
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

    /// The results of the whole run. What one operation alone gives is not copied.
    fn end(&mut self, body: &Block) -> Result<Results> {
        let only = match body.results[..] {
            [Place {
                register,
                element: None,
            }] => std::mem::replace(&mut self.registers[register], Slot::Empty),
            _ => Slot::Empty,
        };
        match only {
            Slot::Value(Value::One(array)) => Ok(smallvec![array]),
            Slot::Value(Value::Many(arrays)) => Ok(arrays.into()),
            Slot::Input(array) => Ok(smallvec![array.clone()]),
            Slot::Empty => self.results(body),
        }
    }

    /// What was lent is not the run's own, and stays.
    fn clear(&mut self, registers: impl IntoIterator<Item = Register>) {
        for register in registers {
            if let Slot::Value(_) = self.registers[register] {
                let slot = std::mem::replace(&mut self.registers[register], Slot::Empty);
                self.free(slot);
            }
        }
    }

    /// What is on its way stays until it is computed.
    fn free(&self, slot: Slot) {
        let arrays = match slot {
            Slot::Value(Value::One(array)) if self.has_scheduled => vec![array],
            Slot::Value(Value::Many(arrays)) if self.has_scheduled => arrays,
            _ => return,
        };
        self.stream
            .have_freed(arrays.into_iter().filter(is_awaited));
    }

    fn cond(&mut self, cond: &Cond) -> Result<()> {
        let predicate = self.array(cond.predicate)?.clone();
        self.clear(cond.ended.iter().copied());
        self.compute(std::slice::from_ref(&predicate))?;
        let chosen = if self.is_true(&predicate)? {
            &cond.yes
        } else {
            &cond.no
        };
        let results = self.results_on(&[], Vec::new(), chosen)?;
        self.registers[cond.to] = Slot::Value(Value::Many(results.into_vec()));
        Ok(())
    }

    fn call(&mut self, call: &Call) -> Result<()> {
        if self.note(call)? {
            self.clear(call.ended.iter().copied());
            self.registers[call.to] = Slot::Value(Value::Many(Vec::new()));
            return Ok(());
        }
        let operands = self.arrays(&call.operands)?;
        self.clear(call.ended.iter().copied());
        if self.has_linalg {
            self.compute(&operands)?;
        } else if !operands.is_empty() {
            self.has_scheduled = true;
            schedule(&operands)?;
        }
        let results = self.host.call(call.index, operands, call.results)?;
        self.registers[call.to] = Slot::Value(Value::Many(results));
        Ok(())
    }

    fn set(&mut self, registers: &[Register], arrays: impl IntoIterator<Item = Array>) {
        if !registers.is_empty() {
            self.seen = None;
            self.within.clear();
            self.few.clear();
        }
        for (register, array) in registers.iter().zip(arrays) {
            self.registers[*register] = Slot::Value(Value::One(array));
        }
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
        self.block(block, parameters)?;
        let results = self.results(block)?;
        self.few.clear();
        self.clear(block.own.clone());
        self.clear(parameters.iter().copied());
        Ok(results)
    }

    fn compute(&self, arrays: &[Array]) -> Result<()> {
        self.stream.compute(arrays, self.has_linalg)
    }

    /// The value of a computed condition. Of a GPU that is a part of a larger array is copied: MLX moves the whole to where
    /// the processor reads it, and frees it under what computes with it meanwhile.
    fn is_true(&self, condition: &Array) -> Result<bool> {
        if self.stream.is_cpu() || !is_part(condition) {
            return is_true(condition);
        }
        let own = readable(condition, self.stream)?;
        self.compute(std::slice::from_ref(&own))?;
        is_true(&own)
    }
}

fn check_condition(condition: &Array) -> Result<()> {
    if Dtype::of(condition) != Dtype::Bool || condition.size() != 1 {
        refuse!(
            "a condition must be one boolean, got {} of shape {:?}",
            Dtype::of(condition).name(),
            condition.shape()
        )
    }
    Ok(())
}

/// The value of a computed condition, which the processor may read.
fn is_true(condition: &Array) -> Result<bool> {
    check_condition(condition)?;
    // SAFETY: the array is computed, has one element of one byte, and lives through the read.
    unsafe {
        let data = mlx_sys::mlx_array_data_bool(condition.as_ptr());
        if data.is_null() {
            refuse!("a condition has no data")
        }
        Ok(*data)
    }
}
