//! What operations are as parts of a chain, which is one kernel. Each means there, bit for bit, what it means alone.

use emily_kernels::chain::{Chain, Map, Step};
use emily_kernels::dispatch::Level;
use mlx_rs::Array;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::ops::args::{Literal, Number};
use crate::ops::map::LeveledChain;
use crate::ops::op::Op;
use crate::ops::{cast, compare, elementwise, integer};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, Placement};
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// Whether an operation may be a part of a chain, of operands of some type.
pub(crate) fn may_take_part(op: Op) -> bool {
    matches!(op, Op::Astype | Op::ToInteger | Op::Where)
        || Dtype::iter().any(|dtype| map_of(op, dtype).is_some())
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
            (cast::map_cast(first, *to)?, 0.0, *to)
        }
        (Op::ToInteger, [Literal::Dtype(to)]) if arrays.len() == 1 && to.is_integer() => {
            let map = cast::map_to_integer(first, *to);
            let map = map.or_else(|| cast::map_cast(first, *to))?;
            (map, 0.0, *to)
        }
        (Op::Chop, [Literal::Number(least)]) if arrays.len() == 1 => {
            let least = match least {
                Number::Int(int) => *int as f64,
                Number::Float(float) => *float,
                Number::Complex(..) => return None,
            };
            (map_of(op, first)?, least, first)
        }
        (Op::Where, []) => match arrays {
            [(Dtype::Bool, _), (x, _), (y, _)] if x == y => {
                (elementwise::map_select(x.size())?, 0.0, *x)
            }
            _ => return None,
        },
        (Op::Astype | Op::ToInteger | Op::Where | Op::Chop, _) => return None,
        (_, []) if same && arrays.len() == arity(op) => {
            let map = map_of(op, first)?;
            (map, 0.0, result(op, first))
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
    let step = |part: &Part| Step {
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
    room::fits(last.op.name(), &array)?;
    Ok(array)
}

/// The map of an operation on operands of one type.
fn map_of(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    compare::own(op, dtype)
        .or_else(|| integer::own(op, dtype))
        .or_else(|| integer::same(op, dtype))
        .or_else(|| elementwise::own(op, dtype))
        .or_else(|| elementwise::same(op, dtype))
}

/// The type of an operation's result, of operands of one type.
fn result(op: Op, dtype: Dtype) -> Dtype {
    match op {
        Op::Equal
        | Op::NotEqual
        | Op::Greater
        | Op::GreaterEqual
        | Op::Less
        | Op::LessEqual
        | Op::Isnan
        | Op::Isinf
        | Op::Isfinite
        | Op::LogicalNot
        | Op::LogicalAnd
        | Op::LogicalOr => Dtype::Bool,
        _ => dtype,
    }
}

/// How many operands an operation of a chain has.
fn arity(op: Op) -> usize {
    match op {
        Op::Add
        | Op::Subtract
        | Op::Multiply
        | Op::Divide
        | Op::Maximum
        | Op::Minimum
        | Op::FloorDivide
        | Op::Remainder
        | Op::Fmod
        | Op::Power
        | Op::IntegerPower
        | Op::Arctan2
        | Op::Equal
        | Op::NotEqual
        | Op::Greater
        | Op::GreaterEqual
        | Op::Less
        | Op::LessEqual
        | Op::LogicalAnd
        | Op::LogicalOr
        | Op::BitwiseAnd
        | Op::BitwiseOr
        | Op::BitwiseXor
        | Op::LeftShift
        | Op::RightShift
        | Op::WideLeftShift
        | Op::WideRightShift => 2,
        Op::Clip => 3,
        _ => 1,
    }
}
