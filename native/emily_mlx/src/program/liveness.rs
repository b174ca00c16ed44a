//! Which registers of a program nothing reads any more when a condition, a loop or a call computes:
//! MLX can write over an array that nobody holds, and free what is dead.

use std::collections::{HashMap, HashSet};

use super::step::{Block, Place, Register, Step};

type Registers = HashSet<Register>;

/// Fills the lists of ended registers of a block and of those inside; `parameters` are set when it
/// begins. Answers what the block reads and does not write.
///
/// A register ends once, at the first step that computes after its last reader. One that is read within a step
/// ends after that step: a branch, or the next iteration of a loop, may read it.
pub(crate) fn mark(block: &mut Block, parameters: &[Register]) -> Registers {
    let mut live = Registers::new();
    let mut ended: HashMap<Register, usize> = HashMap::new();
    let end = block.steps.len();
    read(&block.results, end, &mut live, &mut ended);
    for (at, step) in block.steps.iter_mut().enumerate().rev() {
        let to = step.to();
        if live.insert(to) {
            ended.insert(to, at + 1);
        }
        match step {
            Step::Operation(_) | Step::Chain(_) => step.each_read(&mut |place| {
                read(std::slice::from_ref(&place), at, &mut live, &mut ended);
            }),
            Step::Call(call) => read(&call.operands, at, &mut live, &mut ended),
            Step::Cond(cond) => {
                let within = [mark(&mut cond.yes, &[]), mark(&mut cond.no, &[])];
                note(within.into_iter().flatten(), at + 1, &mut live, &mut ended);
                let predicate = std::slice::from_ref(&cond.predicate);
                read(predicate, at, &mut live, &mut ended);
            }
            Step::While(repeat) => {
                let condition = mark(&mut repeat.condition, &repeat.tested);
                let within = [condition, mark(&mut repeat.body, &repeat.state)];
                note(within.into_iter().flatten(), at + 1, &mut live, &mut ended);
                read(&repeat.initial, at, &mut live, &mut ended);
            }
        }
    }
    for parameter in parameters {
        if live.insert(*parameter) {
            ended.insert(*parameter, 0);
        }
    }

    let own = parameters.iter().copied();
    let own: Vec<Register> = own.chain(block.steps.iter().map(Step::to)).collect();
    let mut ending: Vec<Vec<Register>> = vec![Vec::new(); end + 1];
    for register in own {
        live.remove(&register);
        if let Some(at) = ended.get(&register) {
            ending[*at].push(register);
        }
    }
    let mut due = Vec::new();
    for (step, mut registers) in block.steps.iter_mut().zip(ending) {
        due.append(&mut registers);
        match step {
            Step::Operation(_) | Step::Chain(_) => (),
            Step::Call(call) => call.ended = std::mem::take(&mut due),
            Step::Cond(cond) => cond.ended = std::mem::take(&mut due),
            Step::While(repeat) => repeat.ended = std::mem::take(&mut due),
        }
    }
    live
}

/// For each register whether one operand reads it, in the block or in those inside.
pub(crate) fn read_once(block: &Block, registers: usize) -> Vec<bool> {
    let mut reads = vec![0_u32; registers];
    block.each_read(&mut |place| reads[place.register] += 1);
    reads.into_iter().map(|reads| reads == 1).collect()
}

fn read(places: &[Place], at: usize, live: &mut Registers, ended: &mut HashMap<Register, usize>) {
    note(places.iter().map(|place| place.register), at, live, ended);
}

/// Notes registers that are read, whose last reader is the first that is met on the way back.
fn note(
    registers: impl Iterator<Item = Register>,
    at: usize,
    live: &mut Registers,
    ended: &mut HashMap<Register, usize>,
) {
    for register in registers {
        if live.insert(register) {
            ended.insert(register, at);
        }
    }
}
