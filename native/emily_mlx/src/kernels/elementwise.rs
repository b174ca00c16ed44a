//! The kernels that give an element for an element, by operation and type.

use emily_kernels::chain::{Chain, Input, Map, Step};
use emily_kernels::dispatch::Level;
use emily_kernels::{cast, compare, elementwise, integer};
use mlx_rs::Array;

use super::foreign;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernel::{self, Kernel, Placement};
use crate::op::Op;
use crate::stream::StreamHandle;

/// A kernel of one operation.
#[derive(Clone, Copy)]
pub(crate) struct ElementwiseKernel {
    pub(super) op: Op,
    pub(super) map: &'static dyn Map,
    pub(super) level: Level,
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
}

impl ElementwiseKernel {
    /// The kernel on arrays that broadcast to one shape; the result has the type of the last.
    pub(crate) fn apply(self, arrays: &[&Array], stream: &StreamHandle) -> Result<Array> {
        let dtype = arrays.last().map_or(Dtype::F32, |array| Dtype::of(array));
        self.apply_with(arrays, dtype, 0.0, stream)
    }

    /// The kernel with a result of type `dtype`; what `option` means is its own affair.
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

fn some(map: &'static dyn Map) -> Option<&'static dyn Map> {
    Some(map)
}

/// `by_type!(dtype, integers, map)` is the map of a type that is among those named, if it is.
macro_rules! by_type {
    ($dtype:expr, floats, $($map:tt)+) => {
        match $dtype {
            Dtype::F32 => some(&$($map)+::<f32>),
            Dtype::F64 => some(&$($map)+::<f64>),
            _ => None,
        }
    };
    ($dtype:expr, integers, $($map:tt)+) => {
        match $dtype {
            Dtype::U8 => some(&$($map)+::<u8>),
            Dtype::U16 => some(&$($map)+::<u16>),
            Dtype::U32 => some(&$($map)+::<u32>),
            Dtype::U64 => some(&$($map)+::<u64>),
            Dtype::S8 => some(&$($map)+::<i8>),
            Dtype::S16 => some(&$($map)+::<i16>),
            Dtype::S32 => some(&$($map)+::<i32>),
            Dtype::S64 => some(&$($map)+::<i64>),
            _ => None,
        }
    };
    ($dtype:expr, numbers, $($map:tt)+) => {
        match by_type!($dtype, floats, $($map)+) {
            None => by_type!($dtype, integers, $($map)+),
            found => found,
        }
    };
}

/// The map of an operation on numbers of one type where MLX has none, a slower one, or one that means less.
pub(crate) fn own(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Equal => by_type!(dtype, numbers, compare::equal),
        Op::NotEqual => by_type!(dtype, numbers, compare::not_equal),
        Op::Greater => by_type!(dtype, numbers, compare::greater),
        Op::GreaterEqual => by_type!(dtype, numbers, compare::greater_equal),
        Op::Less => by_type!(dtype, numbers, compare::less),
        Op::LessEqual => by_type!(dtype, numbers, compare::less_equal),
        Op::FloorDivide => by_type!(dtype, integers, integer::floor_divide),
        Op::Remainder => by_type!(dtype, integers, integer::remainder),
        Op::WideLeftShift => by_type!(dtype, integers, integer::wide_left_shift),
        Op::WideRightShift => by_type!(dtype, integers, integer::wide_right_shift),
        Op::Fmod if dtype.is_integer() => by_type!(dtype, integers, integer::fmod),
        Op::Power | Op::IntegerPower if dtype.is_integer() => {
            by_type!(dtype, integers, integer::power)
        }
        Op::Sign => by_type!(dtype, floats, elementwise::sign),
        Op::Chop if matches!(dtype, Dtype::F32 | Dtype::C64) => Some(&elementwise::chop),
        Op::Sqrt if dtype == Dtype::F32 => Some(&elementwise::sqrt::<f32>),
        Op::Floor if dtype == Dtype::F32 => Some(&elementwise::floor::<f32>),
        Op::Ceil if dtype == Dtype::F32 => Some(&elementwise::ceil::<f32>),
        Op::RoundAway if dtype == Dtype::F32 => Some(&elementwise::round_away::<f32>),
        _ if dtype == Dtype::F32 => foreign::map(op),
        _ => None,
    }
}

/// The map of an operation on numbers of one type that means what MLX's means.
pub(crate) fn same(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Add => by_type!(dtype, numbers, elementwise::add),
        Op::Subtract => by_type!(dtype, numbers, elementwise::subtract),
        Op::Multiply => by_type!(dtype, numbers, elementwise::multiply),
        Op::Divide => by_type!(dtype, floats, elementwise::divide),
        Op::Maximum => by_type!(dtype, numbers, elementwise::maximum),
        Op::Minimum => by_type!(dtype, numbers, elementwise::minimum),
        Op::Clip => by_type!(dtype, numbers, elementwise::clip),
        Op::Negative => by_type!(dtype, numbers, elementwise::negative),
        Op::Abs => by_type!(dtype, numbers, elementwise::abs),
        Op::Square => by_type!(dtype, numbers, elementwise::square),
        Op::Sqrt => by_type!(dtype, floats, elementwise::sqrt),
        Op::Floor => by_type!(dtype, floats, elementwise::floor),
        Op::Ceil => by_type!(dtype, floats, elementwise::ceil),
        Op::Round => by_type!(dtype, floats, elementwise::round),
        Op::Isnan => by_type!(dtype, floats, elementwise::is_nan),
        Op::Isinf => by_type!(dtype, floats, elementwise::is_infinite),
        Op::Isfinite => by_type!(dtype, floats, elementwise::is_finite),
        Op::LogicalNot | Op::LogicalAnd | Op::LogicalOr if dtype == Dtype::Bool => {
            same(op, Dtype::U8)
        }
        Op::LogicalNot => by_type!(dtype, numbers, elementwise::logical_not),
        Op::LogicalAnd => by_type!(dtype, numbers, elementwise::logical_and),
        Op::LogicalOr => by_type!(dtype, numbers, elementwise::logical_or),
        Op::BitwiseAnd => by_type!(dtype, integers, integer::bitwise_and),
        Op::BitwiseOr => by_type!(dtype, integers, integer::bitwise_or),
        Op::BitwiseXor => by_type!(dtype, integers, integer::bitwise_xor),
        Op::BitwiseInvert => by_type!(dtype, integers, integer::bitwise_invert),
        Op::LeftShift => by_type!(dtype, integers, integer::left_shift),
        Op::RightShift => by_type!(dtype, integers, integer::right_shift),
        _ => None,
    }
}

/// The type of an operation's result, of operands of one type.
pub(crate) fn result(op: Op, dtype: Dtype) -> Dtype {
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

/// The map that makes integers of type `to` of floats of type `from`.
pub(crate) fn to_integer(from: Dtype, to: Dtype) -> Option<&'static dyn Map> {
    macro_rules! from {
        ($from:ident, $($dtype:ident $to:ident),*) => {
            match to {
                $(Dtype::$dtype => some(&cast::to_integer::<$from, $to>),)*
                _ => None,
            }
        };
    }
    match from {
        Dtype::F32 => {
            from!(f32, U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64)
        }
        Dtype::F64 => {
            from!(f64, U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64)
        }
        _ => None,
    }
}

/// The map that clamps integers to `0..=option`.
pub(crate) fn clamp(dtype: Dtype) -> Option<&'static dyn Map> {
    by_type!(dtype, integers, integer::clamp)
}

/// The map that chooses between elements of so many bytes.
pub(crate) fn select(bytes: usize) -> Option<&'static dyn Map> {
    match bytes {
        1 => Some(&elementwise::select::<u8>),
        2 => Some(&elementwise::select::<u16>),
        4 => Some(&elementwise::select::<u32>),
        8 => Some(&elementwise::select::<u64>),
        _ => None,
    }
}

/// The map that casts numbers as MLX does; of floats to integers MLX has nothing that is defined for all numbers.
pub(crate) fn cast(from: Dtype, to: Dtype) -> Option<&'static dyn Map> {
    macro_rules! from {
        ($from:ident, $($dtype:ident $to:ident),*) => {
            match to {
                Dtype::Bool => some(&cast::to_bool::<$from>),
                $(Dtype::$dtype => some(&cast::cast::<$from, $to>),)*
                _ => None,
            }
        };
    }
    macro_rules! from_integer {
        ($from:ident) => {
            from!(
                $from, U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64, F32 f32, F64 f64
            )
        };
    }
    match from {
        Dtype::Bool if to == Dtype::Bool => Some(&elementwise::copy),
        Dtype::Bool | Dtype::U8 => from_integer!(u8),
        Dtype::U16 => from_integer!(u16),
        Dtype::U32 => from_integer!(u32),
        Dtype::U64 => from_integer!(u64),
        Dtype::S8 => from_integer!(i8),
        Dtype::S16 => from_integer!(i16),
        Dtype::S32 => from_integer!(i32),
        Dtype::S64 => from_integer!(i64),
        Dtype::F32 => from!(f32, F32 f32, F64 f64),
        Dtype::F64 => from!(f64, F32 f32, F64 f64),
        _ => None,
    }
}

/// How many operands an operation of `own` or `same` has.
pub(crate) fn arity(op: Op) -> usize {
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
