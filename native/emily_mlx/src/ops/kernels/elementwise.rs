//! The kernels that give an element for an element, by operation and type.

use emily_kernels::chain::{Chain, Input, Map, Step};
use emily_kernels::dispatch::Level;
use emily_kernels::{cast, compare, elementwise, functions, integer, math};
use mlx_rs::Array;

use crate::ops::table::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

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

/// `by_type!(dtype, integers, T => f::<T>())` is the value for the type, if it is among those named, and else `None`.
macro_rules! by_type {
    ($dtype:expr, floats, $type:ident => $value:expr) => {
        by_type!(@match $dtype, $type => $value, F32 f32, F64 f64)
    };
    ($dtype:expr, integers, $type:ident => $value:expr) => {
        by_type!(
            @match $dtype, $type => $value,
            U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64
        )
    };
    ($dtype:expr, numbers, $type:ident => $value:expr) => {
        by_type!(
            @match $dtype, $type => $value,
            U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64, F32 f32, F64 f64
        )
    };
    (@match $dtype:expr, $type:ident => $value:expr, $($name:ident $own:ident),*) => {
        match $dtype {
            $(Dtype::$name => {
                type $type = $own;
                $value
            })*
            _ => None,
        }
    };
}
pub(super) use by_type;

/// The map of a type.
macro_rules! map {
    ($dtype:expr, $types:ident, $($map:tt)+) => {
        by_type!($dtype, $types, T => some(&$($map)+::<T>))
    };
}

/// The map of an operation on numbers of one type where MLX has none, a slower one, or one that means less.
pub(crate) fn own(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Equal => map!(dtype, numbers, compare::equal),
        Op::NotEqual => map!(dtype, numbers, compare::not_equal),
        Op::Greater => map!(dtype, numbers, compare::greater),
        Op::GreaterEqual => map!(dtype, numbers, compare::greater_equal),
        Op::Less => map!(dtype, numbers, compare::less),
        Op::LessEqual => map!(dtype, numbers, compare::less_equal),
        Op::FloorDivide => map!(dtype, integers, integer::floor_divide),
        Op::Remainder => map!(dtype, integers, integer::remainder),
        Op::WideLeftShift => map!(dtype, integers, integer::wide_left_shift),
        Op::WideRightShift => map!(dtype, integers, integer::wide_right_shift),
        Op::Fmod if dtype.is_integer() => map!(dtype, integers, integer::fmod),
        Op::Power | Op::IntegerPower if dtype.is_integer() => {
            map!(dtype, integers, integer::power)
        }
        Op::Sign => map!(dtype, floats, elementwise::sign),
        Op::Chop if matches!(dtype, Dtype::F32 | Dtype::C64) => Some(&elementwise::chop),
        Op::Sqrt if dtype == Dtype::F32 => Some(&elementwise::sqrt::<f32>),
        Op::Floor if dtype == Dtype::F32 => Some(&elementwise::floor::<f32>),
        Op::Ceil if dtype == Dtype::F32 => Some(&elementwise::ceil::<f32>),
        Op::RoundAway if dtype == Dtype::F32 => Some(&elementwise::round_away::<f32>),
        Op::Fmod if dtype == Dtype::F32 => Some(&functions::fmod),
        _ => function(op, dtype),
    }
}

/// The map of a function on floats of one type, of which MLX has a slower one or, of f64, one of f32's digits. Its other
/// functions of f64 are the C library's, which are nearer than those of `math`.
fn function(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    if dtype == Dtype::F64 && !is_only_here(op, dtype) {
        return None;
    }
    macro_rules! unary {
        ($function:ident) => {
            by_type!(dtype, floats, T => some(&functions::unary::<math::$function, T>))
        };
    }
    match op {
        Op::Exp => unary!(Exp),
        Op::Expm1 => unary!(Expm1),
        Op::Sigmoid if dtype == Dtype::F64 => Some(&functions::unary::<functions::NxSigmoid, f64>),
        Op::Sigmoid => unary!(Sigmoid),
        Op::Log => unary!(Log),
        Op::Log1p => unary!(Log1p),
        Op::Log2 => unary!(Log2),
        Op::Log10 => unary!(Log10),
        Op::Sin => unary!(Sin),
        Op::Cos => unary!(Cos),
        Op::Tan => unary!(Tan),
        Op::Arcsin => unary!(Asin),
        Op::Arccos => unary!(Acos),
        Op::Arctan => unary!(Atan),
        Op::Sinh => unary!(Sinh),
        Op::Cosh => unary!(Cosh),
        Op::Tanh => unary!(Tanh),
        Op::Arcsinh => unary!(Asinh),
        Op::Arccosh => unary!(Acosh),
        Op::Arctanh => unary!(Atanh),
        Op::Erf => unary!(Erf),
        Op::Erfc => unary!(Erfc),
        Op::Erfinv if dtype == Dtype::F32 => Some(&functions::unary::<functions::NxErfInv, f32>),
        Op::Erfinv => unary!(ErfInv),
        Op::Cbrt => unary!(Cbrt),
        Op::Rsqrt => unary!(Rsqrt),
        Op::Power => by_type!(dtype, floats, T => some(&functions::power::<math::Pow, T>)),
        Op::Arctan2 => by_type!(dtype, floats, T => some(&functions::binary::<math::Atan2, T>)),
        _ => None,
    }
}

/// Whether MLX has the function with f32's digits alone. A GPU has no f64.
pub(super) fn is_only_here(op: Op, dtype: Dtype) -> bool {
    dtype == Dtype::F64
        && matches!(
            op,
            Op::Exp | Op::Sigmoid | Op::Sin | Op::Cos | Op::Erf | Op::Erfc | Op::Erfinv
        )
}

/// The map of an operation on numbers of one type that means what MLX's means.
pub(crate) fn same(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Add => map!(dtype, numbers, elementwise::add),
        Op::Subtract => map!(dtype, numbers, elementwise::subtract),
        Op::Multiply => map!(dtype, numbers, elementwise::multiply),
        Op::Divide => map!(dtype, floats, elementwise::divide),
        Op::Maximum => map!(dtype, numbers, elementwise::maximum),
        Op::Minimum => map!(dtype, numbers, elementwise::minimum),
        Op::Clip => map!(dtype, numbers, elementwise::clip),
        Op::Negative => map!(dtype, numbers, elementwise::negative),
        Op::Abs => map!(dtype, numbers, elementwise::abs),
        Op::Square => map!(dtype, numbers, elementwise::square),
        Op::Sqrt => map!(dtype, floats, elementwise::sqrt),
        Op::Floor => map!(dtype, floats, elementwise::floor),
        Op::Ceil => map!(dtype, floats, elementwise::ceil),
        Op::Round => map!(dtype, floats, elementwise::round),
        Op::Isnan => map!(dtype, floats, elementwise::is_nan),
        Op::Isinf => map!(dtype, floats, elementwise::is_infinite),
        Op::Isfinite => map!(dtype, floats, elementwise::is_finite),
        Op::LogicalNot | Op::LogicalAnd | Op::LogicalOr if dtype == Dtype::Bool => {
            same(op, Dtype::U8)
        }
        Op::LogicalNot => map!(dtype, numbers, elementwise::logical_not),
        Op::LogicalAnd => map!(dtype, numbers, elementwise::logical_and),
        Op::LogicalOr => map!(dtype, numbers, elementwise::logical_or),
        Op::BitwiseAnd => map!(dtype, integers, integer::bitwise_and),
        Op::BitwiseOr => map!(dtype, integers, integer::bitwise_or),
        Op::BitwiseXor => map!(dtype, integers, integer::bitwise_xor),
        Op::BitwiseInvert => map!(dtype, integers, integer::bitwise_invert),
        Op::LeftShift => map!(dtype, integers, integer::left_shift),
        Op::RightShift => map!(dtype, integers, integer::right_shift),
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
    match from {
        Dtype::F32 => by_type!(to, integers, T => some(&cast::to_integer::<f32, T>)),
        Dtype::F64 => by_type!(to, integers, T => some(&cast::to_integer::<f64, T>)),
        _ => None,
    }
}

/// The map that clamps integers to `0..=option`.
pub(crate) fn clamp(dtype: Dtype) -> Option<&'static dyn Map> {
    map!(dtype, integers, integer::clamp)
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
    match (from, to) {
        (Dtype::Bool, Dtype::Bool) => Some(&elementwise::copy),
        (Dtype::Bool, _) => cast(Dtype::U8, to),
        (_, Dtype::Bool) => map!(from, numbers, cast::to_bool),
        (Dtype::F32 | Dtype::F64, _) => {
            by_type!(from, floats, F => by_type!(to, floats, T => some(&cast::cast::<F, T>)))
        }
        _ => by_type!(from, integers, F => by_type!(to, numbers, T => some(&cast::cast::<F, T>))),
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
