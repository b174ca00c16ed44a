//! Which registers of a program nothing reads any more when a condition, a loop or a call computes:
//! MLX can write over an array that nobody holds, and free what is dead.

use std::collections::HashSet;

use crate::program::{Block, Register, Step};

type Registers = HashSet<Register>;

/// Fills the lists of ended registers of a block and of those inside; `parameters` are set when it
/// begins, `live` are the registers that are read after it. Adds what the block reads to `live`.
pub(crate) fn mark(block: &mut Block, parameters: &[Register], live: &mut Registers) {
    live.extend(block.results.iter().map(|place| place.register));
    let written = parameters.iter().copied();
    let written: Vec<Register> = written.chain(block.steps.iter().map(Step::to)).collect();
    for (at, step) in block.steps.iter_mut().enumerate().rev() {
        let ended = |live: &Registers| -> Vec<Register> {
            let before = written[..parameters.len() + at].iter().copied();
            before.filter(|register| !live.contains(register)).collect()
        };
        match step {
            Step::Operation(_) | Step::Chain(_) => step.each_read(&mut |place| {
                live.insert(place.register);
            }),
            Step::Call(call) => {
                call.ended = ended(live);
                live.extend(call.operands.iter().map(|place| place.register));
            }
            Step::Cond(cond) => {
                let mut before_no = live.clone();
                mark(&mut cond.yes, &[], live);
                mark(&mut cond.no, &[], &mut before_no);
                live.extend(before_no);
                cond.ended = ended(live);
                live.insert(cond.predicate.register);
            }
            Step::While(repeat) => {
                // The next iteration reads what this one has read of the values around the loop, so
                // a first walk collects it. What an iteration writes is written anew in the next.
                mark(&mut repeat.condition, &repeat.tested, live);
                mark(&mut repeat.body, &repeat.state, live);
                let own = repeat.condition.own.clone().chain(repeat.body.own.clone());
                for register in own.chain(repeat.tested.iter().chain(&repeat.state).copied()) {
                    live.remove(&register);
                }
                let mut before_condition = live.clone();
                mark(&mut repeat.condition, &repeat.tested, &mut before_condition);
                mark(&mut repeat.body, &repeat.state, live);
                live.extend(before_condition);
                repeat.ended = ended(live);
                live.extend(repeat.initial.iter().map(|place| place.register));
            }
        }
    }
}
