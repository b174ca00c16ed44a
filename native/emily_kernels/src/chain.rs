//! Chains: operations that give an element for an element, one after the other over blocks of elements that stay in
//! the nearest cache. A single operation is a chain of one.

use smallvec::SmallVec;

use crate::dispatch::Level;
use crate::input::{Block, Input, Source, BLOCK, WIDEST};
use crate::pool::{self, PART};

/// An operation that gives an element for an element of each input.
pub trait Map: Sync {
    /// Computes as many elements as the output has, of inputs of as many. What `option` means is the operation's own
    /// affair.
    fn run(&self, level: Level, inputs: &[&[u8]], output: &mut [u8], option: f64);
}

impl<F: Fn(Level, &[&[u8]], &mut [u8], f64) + Sync> Map for F {
    fn run(&self, level: Level, inputs: &[&[u8]], output: &mut [u8], option: f64) {
        self(level, inputs, output, option)
    }
}

/// The most inputs that an operation has.
pub const MOST_OPERANDS: usize = 3;

/// An operation of a chain.
#[derive(Clone)]
pub struct Step {
    pub map: &'static dyn Map,
    pub option: f64,
    /// The chain's inputs by their numbers, and after them the results of earlier steps.
    pub operands: SmallVec<[usize; MOST_OPERANDS]>,
    /// The width of an element of the result in bytes.
    pub width: usize,
}

/// Steps whose last gives the result.
pub struct Chain {
    inputs: usize,
    steps: SmallVec<[Placed; 1]>,
    /// How many blocks hold what lies between steps.
    registers: usize,
}

struct Placed {
    step: Step,
    /// The block for the result; the last step's goes to the output.
    register: Option<usize>,
}

impl Chain {
    /// A chain of steps on so many inputs. There is a step at least, and each takes what comes before it.
    pub fn new(inputs: usize, steps: Vec<Step>) -> Self {
        assert!(!steps.is_empty(), "a chain has steps");
        let mut last_read = vec![0; inputs + steps.len()];
        for (at, step) in steps.iter().enumerate() {
            assert!(step.operands.len() <= MOST_OPERANDS && step.width <= WIDEST);
            for &operand in &step.operands {
                assert!(operand < inputs + at, "a step takes what comes before it");
                last_read[operand] = at;
            }
        }
        let last = steps.len() - 1;
        let mut free = Vec::new();
        let mut registers = 0;
        let mut placed: SmallVec<[Placed; 1]> = SmallVec::with_capacity(steps.len());
        for (at, step) in steps.into_iter().enumerate() {
            // Chosen before the operands' are free: a step does not write where it reads.
            let register = (at < last).then(|| {
                free.pop().unwrap_or_else(|| {
                    registers += 1;
                    registers - 1
                })
            });
            for (position, operand) in step.operands.iter().enumerate() {
                let is_again = step.operands[..position].contains(operand);
                if let (Some(earlier), true, false) = (
                    operand.checked_sub(inputs),
                    last_read[*operand] == at,
                    is_again,
                ) {
                    free.extend(placed[earlier].register);
                }
            }
            placed.push(Placed { step, register });
        }
        Chain {
            inputs,
            steps: placed,
            registers,
        }
    }

    /// A chain of one step.
    pub fn of_one(step: Step) -> Self {
        Chain {
            inputs: step.operands.len(),
            steps: SmallVec::from_buf([Placed {
                step,
                register: None,
            }]),
            registers: 0,
        }
    }

    /// Computes the output's elements in row-major order, or in the order of the inputs' where these all have one.
    pub fn run(&self, level: Level, inputs: &[Input], output: &mut [u8]) {
        assert_eq!(inputs.len(), self.inputs);
        let part = PART * self.width();
        pool::each_part(output, part, |at, output| {
            self.compute(level, inputs, at * PART, output)
        });
    }

    /// Computes as many elements as the output has from the element `first` on, on this thread.
    pub fn compute(&self, level: Level, inputs: &[Input], first: usize, output: &mut [u8]) {
        let width = self.width();
        let n = output.len() / width;
        let block = n.min(BLOCK);
        let mut sources: SmallVec<[Source; 4]> = inputs
            .iter()
            .map(|input| Source::new(input, first, block))
            .collect();
        if let ([Placed { step, .. }], true) = (&self.steps[..], sources.iter().all(Source::is_row))
        {
            // One pass needs no cache.
            let slices: SmallVec<[&[u8]; MOST_OPERANDS]> = step
                .operands
                .iter()
                .map(|operand| sources[*operand].piece(0, n))
                .collect();
            return step.map.run(level, &slices, output, step.option);
        }
        let mut registers: SmallVec<[Block; 4]> =
            (0..self.registers).map(|_| Block::new(block)).collect();
        for done in (0..n).step_by(block.max(1)) {
            let count = block.min(n - done);
            let out = &mut output[done * width..(done + count) * width];
            for source in &mut sources {
                source.read(done, count);
                source.hold(count, out);
            }
            self.block(level, &sources, &mut registers, count, out);
        }
    }

    fn block(
        &self,
        level: Level,
        sources: &[Source],
        registers: &mut [Block],
        count: usize,
        output: &mut [u8],
    ) {
        for Placed { step, register } in &self.steps {
            // No operand is in the register that is written.
            let mut own = register.map(|register| std::mem::take(&mut registers[register]));
            let slices: SmallVec<[&[u8]; MOST_OPERANDS]> = step
                .operands
                .iter()
                .map(|operand| match operand.checked_sub(self.inputs) {
                    None => sources[*operand].piece(0, count),
                    Some(earlier) => {
                        let Placed { step, register } = &self.steps[earlier];
                        let register = register.map_or(0, |register| register);
                        registers[register].bytes(count * step.width)
                    }
                })
                .collect();
            let to = match &mut own {
                Some(block) => block.bytes_mut(count * step.width),
                None => &mut *output,
            };
            step.map.run(level, &slices, to, step.option);
            drop(slices);
            if let (Some(register), Some(block)) = (register, own) {
                registers[*register] = block;
            }
        }
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The width of an element of the result in bytes.
    pub fn width(&self) -> usize {
        self.steps[self.steps.len() - 1].step.width
    }
}
