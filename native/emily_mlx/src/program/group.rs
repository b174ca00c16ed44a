//! Chains of operations that give an element for an element, and of totals among them: runs of them become one kernel each,
//! or a few, on a CPU. So does a product of matrices that is transposed.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::step::{Block, Operand, Operation, Register, Step};
use crate::ops::args::Literal;
use crate::ops::chain::{may_reduce, may_reshape, may_take_part};
use crate::ops::op::Op;

/// The most operations of a chain: what lies between them is to stay in the nearest cache.
const MOST_OPERATIONS: usize = 32;

/// Puts operations into chains, of which the last alone is read by others. A chain stands where that one stood, and
/// none goes over a condition, a loop or a call, where arrays end.
pub(crate) fn group(block: &mut Block) {
    for step in &mut block.steps {
        match step {
            Step::Cond(cond) => {
                group(&mut cond.yes);
                group(&mut cond.no);
            }
            Step::While(repeat) => {
                group(&mut repeat.condition);
                group(&mut repeat.body);
            }
            Step::Operation(_) | Step::Chain(_) | Step::Call(_) => (),
        }
    }
    let ends = ends(block);
    let mut chains: HashMap<usize, Vec<Operation>> = HashMap::new();
    for (at, step) in std::mem::take(&mut block.steps).into_iter().enumerate() {
        match (step, ends[at]) {
            (Step::Operation(operation), Some(end)) => {
                chains.entry(end).or_default().push(operation);
                if end == at {
                    block.steps.extend(chains.remove(&end).map(Step::of));
                }
            }
            (step, _) => block.steps.push(step),
        }
    }
}

/// Whether the operation transposes a matrix.
fn transposes(operation: &Operation) -> bool {
    match &operation.operands[..] {
        [Operand::Place(place), Operand::Literal(Literal::Ints(axes))] => {
            operation.op == Op::Transpose && place.element.is_none() && axes[..] == [1, 0]
        }
        _ => false,
    }
}

/// For each step that may take part in a chain, the step at which its chain ends.
fn ends(block: &Block) -> Vec<Option<usize>> {
    let mut readers: HashMap<Register, SmallVec<[usize; 2]>> = HashMap::new();
    for (at, step) in block.steps.iter().enumerate() {
        step.each_read(&mut |place| readers.entry(place.register).or_default().push(at));
    }
    // What the block gives is read by nobody inside.
    for place in &block.results {
        readers.entry(place.register).or_default().push(usize::MAX);
    }
    let is_transposed = |end: &usize| match &block.steps[*end] {
        Step::Operation(operation) => transposes(operation),
        _ => false,
    };
    let mut ends = vec![None; block.steps.len()];
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    // The first step behind which nothing interrupts a chain.
    let mut barrier = block.steps.len();
    for at in (0..block.steps.len()).rev() {
        let operation = match &block.steps[at] {
            Step::Operation(operation) => operation,
            _ => {
                barrier = at;
                continue;
            }
        };
        if transposes(operation) {
            // It ends the chain of what it reads.
            ends[at] = Some(at);
            sizes.insert(at, 1);
            continue;
        }
        let is_product = operation.op == Op::Matmul;
        let may_be_last = may_take_part(operation.op) || may_reduce(operation.op);
        if !is_product && !may_reshape(operation.op) && !may_be_last {
            continue;
        }
        let end_of = |reader: &usize| ends.get(*reader).copied().flatten();
        let readers = readers
            .get(&operation.to)
            .map_or(&[][..], |readers| readers);
        let joined = readers.first().and_then(end_of).filter(|end| {
            let all = readers.iter().all(|reader| end_of(reader) == Some(*end));
            let fits = is_product == is_transposed(end);
            all && fits && *end < barrier && sizes[end] < MOST_OPERATIONS
        });
        if !may_be_last && joined.is_none() {
            continue;
        }
        let end = joined.unwrap_or(at);
        *sizes.entry(end).or_default() += 1;
        ends[at] = Some(end);
    }
    ends
}
