//! One operation by its name, added to the graph.

use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::op::Op;
use crate::ops::table::operations;
use crate::ops::{
    attention, cast, checks, compare, conv, create, dot, einsum, elementwise, fft, gate, index,
    integer, linalg, norm, quantized, reduce, rope, scan, shape, sort,
};
use crate::runtime::contiguous::copy;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// What an operation gives: one array, or several that MLX computes together.
#[derive(Debug)]
pub enum Value {
    One(Array),
    Many(Vec<Array>),
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Value::One(array)
    }
}

impl From<Vec<Array>> for Value {
    fn from(arrays: Vec<Array>) -> Self {
        Value::Many(arrays)
    }
}

macro_rules! arms {
    (
        ($op:ident, $args:ident, $stream:ident)
        $($name:ident $($column:ident)? => $arm:expr,)*
    ) => {
        fn build($op: Op, $args: &Args, $stream: &StreamHandle) -> Result<Value> {
            Ok(match $op {
                $(Op::$name => Value::from($arm?),)*
            })
        }
    };
}

operations!(arms);

/// Adds one operation to the lazy graph. Nothing is computed.
pub fn apply(op: Op, args: &Args, stream: &StreamHandle) -> Result<Value> {
    if op.is_linalg() && stream.is_gpu() {
        let own = args.with_arrays(|array| own(array, stream))?;
        return checked(op, &own, build(op, &own, stream)?);
    }
    let value = build(op, args, stream)?;
    checked(op, args, value)
}

/// An array of a GPU's for a CPU to compute with: MLX (0.32.4) moves it to memory that both see, and frees the memory that it had
/// under what the GPU has still to compute with it. A GPU copies no f64, which it has not either.
fn own(array: &Array, stream: &StreamHandle) -> Result<Array> {
    match Dtype::of(array) {
        Dtype::F64 => Ok(array.clone()),
        _ => copy(array, stream),
    }
}

/// What an operation gave, unless it left arguments or no memory could hold it.
pub(crate) fn checked(op: Op, args: &Args, value: Value) -> Result<Value> {
    args.finish()?;
    let results = match &value {
        Value::One(array) => std::slice::from_ref(array),
        Value::Many(arrays) => arrays,
    };
    for array in results {
        checks::rank(args.op, array.ndim())?;
        checks::not_empty(args.op, array)?;
        // A broadcast takes no memory of its own.
        if op != Op::BroadcastTo {
            room::fits(args.op, array)?;
        }
    }
    Ok(value)
}
