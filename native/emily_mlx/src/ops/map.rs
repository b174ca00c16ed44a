//! Kernels that give an element for an element, as nodes of MLX's graph.

use emily_kernels::chain::{Chain, Map, Step};
use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use mlx_rs::Array;

use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// The map of an operation on numbers of one type, if there is one.
pub(crate) type Maps = fn(Op, Dtype) -> Option<&'static dyn Map>;

/// A map for a level of the processor.
#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    pub(crate) op: Op,
    pub(crate) map: &'static dyn Map,
    pub(crate) level: Level,
}

/// A chain for a level of the processor.
pub(crate) struct LeveledChain {
    pub(crate) chain: Chain,
    pub(crate) level: Level,
}

impl Kernel for LeveledChain {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        self.chain.run(self.level, inputs, output);
    }

    fn steps(&self) -> usize {
        self.chain.steps()
    }
}

impl Mapping {
    /// What takes the place of MLX's operation on arrays of one type, where `maps` has it.
    pub(crate) fn of(
        maps: Maps,
        op: Op,
        arrays: &[&Array],
        level: Option<Level>,
    ) -> Option<Mapping> {
        let level = level?;
        let dtype = Dtype::of(arrays.first()?);
        let map = maps(op, dtype)?;
        let same = arrays[1..].iter().all(|array| Dtype::of(array) == dtype);
        same.then_some(Mapping { op, map, level })
    }

    /// The map on arrays that broadcast to one shape; the result has the type of the last.
    pub(crate) fn apply(self, arrays: &[&Array], stream: &StreamHandle) -> Result<Array> {
        let dtype = arrays.last().map_or(Dtype::F32, |array| Dtype::of(array));
        self.apply_with(arrays, dtype, 0.0, stream)
    }

    /// The map with a result of type `dtype`; what `option` means is its own affair.
    pub(crate) fn apply_with(
        self,
        arrays: &[&Array],
        dtype: Dtype,
        option: f64,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let step = Step {
            map: self.map,
            option,
            operands: (0..arrays.len()).collect(),
            width: dtype.size(),
        };
        let chain = LeveledChain {
            chain: Chain::of_one(step),
            level: self.level,
        };
        kernel::add(
            self.op.name(),
            chain,
            arrays,
            (&[], dtype),
            Placement::Elementwise,
            stream,
        )
    }
}

/// The type of an operation's result, of operands of one type.
pub(crate) fn result_type(op: Op, dtype: Dtype) -> Dtype {
    match op {
        Op::Equal
        | Op::NotEqual
        | Op::Greater
        | Op::GreaterEqual
        | Op::Less
        | Op::LessEqual
        | Op::IsPositive
        | Op::Isnan
        | Op::Isinf
        | Op::Isfinite
        | Op::LogicalNot
        | Op::LogicalAnd
        | Op::LogicalOr => Dtype::Bool,
        _ => dtype,
    }
}

/// The map of a type: `map!(dtype, floats, elementwise::sign)`.
macro_rules! map {
    ($dtype:expr, $types:ident, $($map:tt)+) => {
        $crate::runtime::dtype::by_type!($dtype, $types, T => $crate::ops::map::some(&$($map)+::<T>))
    };
}
pub(crate) use map;

pub(crate) fn some(map: &'static dyn Map) -> Option<&'static dyn Map> {
    Some(map)
}
