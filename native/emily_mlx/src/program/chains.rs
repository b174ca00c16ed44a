//! Chains of operations that give an element for an element: runs of them become one kernel each, on a CPU. Each
//! operation means there, bit for bit, what it means alone.

use std::collections::HashMap;

use emily_kernels::chain::{Chain, Map, Step as ChainStep};
use emily_kernels::dispatch::Level;
use mlx_rs::Array;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::ops::args::Literal;
use crate::ops::checks;
use crate::ops::create::Number;
use crate::ops::kernels::elementwise::{self, LeveledChain};
use crate::ops::table::Op;
use crate::program::{Block, Operand, Operation, Place, Register, Step};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, Placement};
use crate::runtime::stream::StreamHandle;

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
                    block.steps.extend(chains.remove(&end).map(chain));
                }
            }
            (step, _) => block.steps.push(step),
        }
    }
}

fn chain(mut operations: Vec<Operation>) -> Step {
    match (operations.len(), operations.pop()) {
        (1, Some(operation)) => Step::Operation(operation),
        (_, last) => {
            operations.extend(last);
            Step::Chain(operations)
        }
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
        if !may_take_part(operation.op) {
            continue;
        }
        let end_of = |reader: &usize| ends.get(*reader).copied().flatten();
        let readers = readers
            .get(&operation.to)
            .map_or(&[][..], |readers| readers);
        let joined = readers.first().and_then(end_of).filter(|end| {
            let all = readers.iter().all(|reader| end_of(reader) == Some(*end));
            all && *end < barrier && sizes[end] < MOST_OPERATIONS
        });
        let end = joined.unwrap_or(at);
        *sizes.entry(end).or_default() += 1;
        ends[at] = Some(end);
    }
    ends
}

fn may_take_part(op: Op) -> bool {
    matches!(op, Op::Astype | Op::ToInteger | Op::Where)
        || Dtype::iter().any(|dtype| {
            elementwise::own(op, dtype)
                .or(elementwise::same(op, dtype))
                .is_some()
        })
}

/// What an operation of a chain is on operands of known types and shapes.
pub(crate) struct Known {
    map: &'static dyn Map,
    option: f64,
    pub(crate) dtype: Dtype,
    pub(crate) shape: SmallVec<[i32; 4]>,
}

/// An operand whose type and shape are known.
pub(crate) type Typed<'a> = (Dtype, &'a [i32]);

/// What the operation is as a part of a chain, if it can be one. What it refuses alone is none.
pub(crate) fn known(op: Op, arrays: &[Typed], literals: &[&Literal]) -> Option<Known> {
    let (first, _) = *arrays.first()?;
    let same = arrays.iter().all(|(dtype, _)| *dtype == first);
    let (map, option, dtype) = match (op, literals) {
        (Op::Astype, [Literal::Dtype(to)]) if arrays.len() == 1 => {
            (elementwise::cast(first, *to)?, 0.0, *to)
        }
        (Op::ToInteger, [Literal::Dtype(to)]) if arrays.len() == 1 && to.is_integer() => {
            let map = elementwise::to_integer(first, *to);
            let map = map.or_else(|| elementwise::cast(first, *to))?;
            (map, 0.0, *to)
        }
        (Op::Chop, [Literal::Number(least)]) if arrays.len() == 1 => {
            let least = match least {
                Number::Int(int) => *int as f64,
                Number::Float(float) => *float,
                Number::Complex(..) => return None,
            };
            (elementwise::own(op, first)?, least, first)
        }
        (Op::Where, []) => match arrays {
            [(Dtype::Bool, _), (x, _), (y, _)] if x == y => {
                (elementwise::select(x.size())?, 0.0, *x)
            }
            _ => return None,
        },
        (Op::Astype | Op::ToInteger | Op::Where | Op::Chop, _) => return None,
        (_, []) if same && arrays.len() == elementwise::arity(op) => {
            let map = elementwise::own(op, first).or_else(|| elementwise::same(op, first))?;
            (map, 0.0, elementwise::result(op, first))
        }
        _ => return None,
    };
    let shape = broadcast(arrays)?;
    Some(Known {
        map,
        option,
        dtype,
        shape,
    })
}

/// The shape that all are broadcast to, if there is one.
fn broadcast(arrays: &[Typed]) -> Option<SmallVec<[i32; 4]>> {
    let rank = arrays.iter().map(|(_, shape)| shape.len()).max()?;
    let mut to: SmallVec<[i32; 4]> = SmallVec::from_elem(1, rank);
    for (_, shape) in arrays {
        for (to, &size) in to.iter_mut().rev().zip(shape.iter().rev()) {
            match (*to, size) {
                (_, 1) => (),
                (1, size) => *to = size,
                (to, size) if to == size => (),
                _ => return None,
            }
        }
    }
    Some(to)
}

/// A part of a chain: an operation, and where its operands come from.
pub(crate) struct Part<'a> {
    pub(crate) op: Op,
    pub(crate) known: &'a Known,
    pub(crate) operands: SmallVec<[Source; 3]>,
}

/// Where an operand of a part comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// An array, by its number.
    Array(usize),
    /// The result of an earlier part, by its number.
    Part(usize),
}

/// Adds a chain to the graph, whose last part gives its result. All parts give arrays of its shape.
pub(crate) fn add(
    parts: &[Part],
    arrays: &[&Array],
    level: Level,
    stream: &StreamHandle,
) -> Result<Array> {
    let last = &parts[parts.len() - 1];
    let step = |part: &Part| ChainStep {
        map: part.known.map,
        option: part.known.option,
        operands: part
            .operands
            .iter()
            .map(|source| match source {
                Source::Array(at) => *at,
                Source::Part(at) => arrays.len() + at,
            })
            .collect(),
        width: part.known.dtype.size(),
    };
    let chain = LeveledChain {
        chain: Chain::new(arrays.len(), parts.iter().map(step).collect()),
        level,
    };
    let result = (&[][..], last.known.dtype);
    let array = kernel::add(
        "chain",
        chain,
        arrays,
        result,
        Placement::Elementwise,
        stream,
    )?;
    checks::fits_memory(last.op.name(), &array)?;
    Ok(array)
}

/// The operands of an operation that has arrays and literals alone.
pub(crate) struct Operands<'a> {
    pub(crate) arrays: SmallVec<[Place; 3]>,
    pub(crate) literals: SmallVec<[&'a Literal; 1]>,
}

impl<'a> Operands<'a> {
    pub(crate) fn of(operation: &'a Operation) -> Option<Self> {
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
