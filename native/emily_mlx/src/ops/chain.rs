//! What operations are as parts of a chain, which is one kernel. Each means there, bit for bit, what it means alone.

use emily_kernels::chain::{Chain, Map, Step};
use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::reduce;
use emily_kernels::view::{bytes_mut, typed_mut};
use mlx_rs::Array;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::ops::args::{Literal, Number};
use crate::ops::checks::{self, Ints};
use crate::ops::map::{result_type, LeveledChain};
use crate::ops::op::Op;
use crate::ops::reduce::{shape_without, total_of_f32};
use crate::ops::{cast, compare, elementwise, gate, integer};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, view, Kernel, Placement};
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// Whether an operation may reduce what a chain gives.
pub(crate) fn may_reduce(op: Op) -> bool {
    total_of_f32(op).is_some()
}

/// Whether an operation gives nothing but another shape of what it takes, which a program over rows may need.
pub(crate) fn may_reshape(op: Op) -> bool {
    matches!(op, Op::Reshape | Op::BroadcastTo)
}

/// Whether an operation may be a part of a chain, of operands of some type.
pub(crate) fn may_take_part(op: Op) -> bool {
    matches!(op, Op::Astype | Op::ToInteger | Op::Where)
        || Dtype::iter().any(|dtype| map_of(op, dtype).is_some())
}

/// What an operation of a chain is on operands of known types and shapes.
pub(crate) struct Known {
    pub(crate) means: Means,
    pub(crate) dtype: Dtype,
    pub(crate) shape: SmallVec<[i32; 4]>,
}

pub(crate) enum Means {
    Map {
        map: &'static dyn Map,
        option: f64,
    },
    Total(Reduction),
    /// The same elements in another shape.
    Reshaped,
    /// The same elements, some of them many times.
    Broadcast,
}

impl Known {
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.means, Means::Map { .. })
    }

    pub(crate) fn total(&self) -> Option<&Reduction> {
        match &self.means {
            Means::Total(reduction) => Some(reduction),
            _ => None,
        }
    }
}

/// An operand whose type and shape are known.
pub(crate) type Typed<'a> = (Dtype, &'a [i32]);

/// What the operation is as a part of a chain, if it can be one. What it refuses alone is none.
pub(crate) fn known(op: Op, arrays: &[Typed], literals: &[&Literal]) -> Option<Known> {
    let (first, first_shape) = *arrays.first()?;
    if may_reduce(op) {
        let [(dtype, shape)] = arrays else {
            return None;
        };
        let reduction = Reduction::of(op, *dtype, shape, literals)?;
        let shape = shape_without(shape, &reduction.axes, reduction.keep);
        return Some(Known {
            means: Means::Total(reduction),
            dtype: *dtype,
            shape: SmallVec::from_slice(&shape),
        });
    }
    if may_reshape(op) {
        let ([Literal::Ints(sizes)], true) = (literals, arrays.len() == 1) else {
            return None;
        };
        let sizes: Option<SmallVec<[i32; 4]>> =
            sizes.iter().map(|size| i32::try_from(*size).ok()).collect();
        let shape = sizes.filter(|sizes| sizes.iter().all(|size| *size > 0))?;
        let means = match op {
            Op::Reshape if is_as_large(first_shape, &shape) => Means::Reshaped,
            Op::BroadcastTo if broadcast(&[(first, first_shape), (first, &shape)])? == shape => {
                Means::Broadcast
            }
            _ => return None,
        };
        return Some(Known {
            means,
            dtype: first,
            shape,
        });
    }
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
            (map, 0.0, result_type(op, first))
        }
        _ => return None,
    };
    let shape = broadcast(arrays)?;
    Some(Known {
        means: Means::Map { map, option },
        dtype,
        shape,
    })
}

fn is_as_large(one: &[i32], other: &[i32]) -> bool {
    let size = |shape: &[i32]| shape.iter().map(|size| i64::from(*size)).product::<i64>();
    size(one) == size(other)
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
pub(crate) struct Part {
    pub(crate) op: Op,
    pub(crate) map: &'static dyn Map,
    pub(crate) option: f64,
    pub(crate) dtype: Dtype,
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

/// A reduction of what a chain gives.
pub(crate) struct Reduction {
    op: Op,
    pub(super) total: reduce::Reduction,
    pub(super) axes: Ints,
    keep: bool,
    /// The shape of what is reduced.
    pub(super) from: SmallVec<[i32; 4]>,
}

impl Reduction {
    /// What an operation of such literals is on what a chain gives, if it can be that. What it refuses alone is none.
    fn of(op: Op, dtype: Dtype, shape: &[i32], literals: &[&Literal]) -> Option<Self> {
        let [Literal::Ints(axes), Literal::Bool(keep)] = literals else {
            return None;
        };
        let axes: Option<Ints> = axes.iter().map(|axis| i32::try_from(*axis).ok()).collect();
        let axes = checks::axes(op.name(), &axes?, shape.len()).ok()?;
        let reduction = Reduction {
            op,
            total: total_of_f32(op)?,
            axes,
            keep: *keep,
            from: SmallVec::from_slice(shape),
        };
        let (sizes, reduced) = reduction.sizes();
        (dtype == Dtype::F32 && reduce::is_computable(&sizes, &reduced)).then_some(reduction)
    }

    /// The sizes of what is reduced, and the axes that are.
    fn sizes(&self) -> (Vec<usize>, Vec<usize>) {
        let all = |numbers: &[i32]| numbers.iter().map(|number| *number as usize).collect();
        (all(&self.from), all(&self.axes))
    }
}

/// A chain whose result is reduced as it is computed.
struct Reduced {
    chain: LeveledChain,
    total: reduce::Reduction,
    sizes: Vec<usize>,
    axes: Vec<usize>,
}

impl Kernel for Reduced {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let LeveledChain { chain, level } = &self.chain;
        let inputs: SmallVec<[Input; 4]> = inputs
            .iter()
            .map(|input| Input::Array(view(input).broadcast(&self.sizes)))
            .collect();
        let compute = |first: usize, to: &mut [f32]| {
            chain.compute(*level, &inputs, first, bytes_mut(to));
        };
        let shape = (&self.sizes[..], &self.axes[..]);
        reduce::reduce_computed(*level, self.total, &compute, shape, typed_mut(output));
    }

    fn steps(&self) -> usize {
        self.chain.steps() + 1
    }
}

/// Adds a chain to the graph, whose last part gives its result, which may be reduced. All parts give arrays of its shape.
pub(crate) fn add(
    parts: &[Part],
    reduction: Option<&Reduction>,
    arrays: &[&Array],
    level: Level,
    stream: &StreamHandle,
) -> Result<Array> {
    let last = &parts[parts.len() - 1];
    let step = |part: &Part| Step {
        map: part.map,
        option: part.option,
        operands: part
            .operands
            .iter()
            .map(|source| match source {
                Source::Array(at) => *at,
                Source::Part(at) => arrays.len() + at,
            })
            .collect(),
        width: part.dtype.size(),
    };
    let chain = LeveledChain {
        chain: Chain::new(arrays.len(), parts.iter().map(step).collect()),
        level,
    };
    let Some(reduction) = reduction else {
        let (result, placement) = ((&[][..], last.dtype), Placement::Elementwise);
        let array = kernel::add("chain", chain, arrays, result, placement, stream)?;
        room::fits(last.op.name(), &array)?;
        return Ok(array);
    };
    let (sizes, axes) = reduction.sizes();
    let shape = shape_without(&reduction.from, &reduction.axes, reduction.keep);
    let kernel = Reduced {
        chain,
        total: reduction.total,
        sizes,
        axes,
    };
    let (result, placement) = ((&shape[..], Dtype::F32), Placement::Apart);
    let array = kernel::add("chain", kernel, arrays, result, placement, stream)?;
    room::fits(reduction.op.name(), &array)?;
    Ok(array)
}

/// The map of an operation on operands of one type.
fn map_of(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    compare::own(op, dtype)
        .or_else(|| integer::own(op, dtype))
        .or_else(|| integer::same(op, dtype))
        .or_else(|| elementwise::own(op, dtype))
        .or_else(|| elementwise::same(op, dtype))
        .or_else(|| gate::own(op, dtype))
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
        | Op::WideRightShift
        | Op::Swiglu
        | Op::Geglu
        | Op::GegluTanh => 2,
        Op::Clip => 3,
        _ => 1,
    }
}
