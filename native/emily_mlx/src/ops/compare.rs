//! Comparisons.

use emily_kernels::chain::Map;
use emily_kernels::compare;
use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::map::{map, Mapping};
use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::{call, Binary};
use crate::runtime::kernel::level;
use crate::runtime::stream::StreamHandle;

pub(crate) fn compare(
    op: Op,
    function: Binary,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let (x, y) = (args.array()?, args.array()?);
    match Mapping::of(own, op, &[x, y], level(stream)) {
        Some(kernel) => kernel.apply_with(&[x, y], Dtype::Bool, 0.0, stream),
        None => call(function, x, y, stream.raw()),
    }
}

/// The maps that take the place of MLX's comparisons.
pub(crate) fn own(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    match op {
        Op::Equal => map!(dtype, numbers, compare::equal),
        Op::NotEqual => map!(dtype, numbers, compare::not_equal),
        Op::Greater => map!(dtype, numbers, compare::greater),
        Op::GreaterEqual => map!(dtype, numbers, compare::greater_equal),
        Op::Less => map!(dtype, numbers, compare::less),
        Op::LessEqual => map!(dtype, numbers, compare::less_equal),
        _ => None,
    }
}
