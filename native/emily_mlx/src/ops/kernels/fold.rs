//! The kernels that make one element of trailing axes.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::fold::{self, Fold};
use mlx_rs::Array;

use super::elementwise::by_type;
use crate::ops::table::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// A kernel of one operation.
#[derive(Clone, Copy)]
pub(crate) struct FoldKernel {
    pub(super) op: Op,
    pub(super) fold: Fold,
    pub(super) level: Level,
}

struct Rows {
    fold: Fold,
    columns: usize,
    level: Level,
}

impl Kernel for Rows {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        (self.fold)(self.level, row(&inputs[0]).bytes(), output, self.columns);
    }
}

impl FoldKernel {
    /// One element of type `dtype` for all axes from `kept` on.
    pub(crate) fn apply(
        self,
        x: &Array,
        kept: usize,
        keep_axes: bool,
        dtype: Dtype,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let (before, folded) = x.shape().split_at(kept);
        let mut shape = before.to_vec();
        if keep_axes {
            shape.resize(x.ndim(), 1);
        }
        let rows = Rows {
            fold: self.fold,
            columns: folded.iter().map(|size| *size as usize).product(),
            level: self.level,
        };
        let result = (&shape[..], dtype);
        let x = kernel::in_rows(x, stream)?;
        let name = self.op.name();
        kernel::add(name, rows, &[&x], result, Placement::Apart, stream)
    }
}

/// The fold of an operation on numbers of one type; `last` means that it takes the last of equals.
pub(super) fn of(op: Op, dtype: Dtype, last: bool) -> Option<Fold> {
    match (op, dtype) {
        (Op::All, Dtype::F16 | Dtype::Bf16) => Some(fold::all_halves::<u16>),
        (Op::Any, Dtype::F16 | Dtype::Bf16) => Some(fold::any_halves::<u16>),
        (Op::All | Op::Any, Dtype::Bool) => of(op, Dtype::U8, last),
        (Op::All, _) => by_type!(dtype, numbers, T => Some(fold::all::<T>)),
        (Op::Any, _) => by_type!(dtype, numbers, T => Some(fold::any::<T>)),
        (Op::ArgmaxNan, _) if last => by_type!(dtype, numbers, T => Some(fold::argmax_last::<T>)),
        (Op::ArgminNan, _) if last => by_type!(dtype, numbers, T => Some(fold::argmin_last::<T>)),
        (Op::ArgmaxNan, _) => by_type!(dtype, numbers, T => Some(fold::argmax::<T>)),
        (Op::ArgminNan, _) => by_type!(dtype, numbers, T => Some(fold::argmin::<T>)),
        (Op::WindowArgmax, _) => by_type!(dtype, numbers, T => Some(fold::window_argmax::<T>)),
        (Op::WindowArgmin, _) => by_type!(dtype, numbers, T => Some(fold::window_argmin::<T>)),
        _ => None,
    }
}
