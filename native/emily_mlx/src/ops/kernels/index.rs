//! The kernels that take rows by their numbers, or update them.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::index::{self, Indices};
use mlx_rs::Array;

use super::elementwise::by_type;
use crate::ops::table::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, copy_into, row, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

type Take = fn(&emily_kernels::view::View, usize, Indices, &mut [u8]);
type Along = fn(&[u8], usize, Indices, usize, &mut [u8]);
type Update = fn(Level, &[u8], usize, Indices, &mut [u8]);
/// Bytes as indices of a type.
type Read = fn(Level, &[u8]) -> Indices<'_>;

/// A kernel of one operation.
#[derive(Clone, Copy)]
pub(crate) struct IndexKernel {
    op: Op,
    dtype: Dtype,
    read: Read,
    level: Level,
}

struct Taken {
    take: Take,
    axis: usize,
    read: Read,
    level: Level,
}

impl Kernel for Taken {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let indices = row(&inputs[1]);
        let indices = (self.read)(self.level, indices.bytes());
        (self.take)(view(&inputs[0]), self.axis, indices, output);
    }
}

struct TakenAlong {
    along: Along,
    columns: usize,
    count: usize,
    read: Read,
    level: Level,
}

impl Kernel for TakenAlong {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, indices) = (row(&inputs[0]), row(&inputs[1]));
        let indices = (self.read)(self.level, indices.bytes());
        (self.along)(x.bytes(), self.columns, indices, self.count, output);
    }
}

struct Updated {
    update: Update,
    columns: usize,
    read: Read,
    level: Level,
}

impl Kernel for Updated {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        copy_into(&inputs[0], output);
        let (indices, updates) = (row(&inputs[1]), row(&inputs[2]));
        let indices = (self.read)(self.level, indices.bytes());
        (self.update)(self.level, updates.bytes(), self.columns, indices, output);
    }
}

/// The kernel that takes or updates elements of type `dtype` by indices of type `index`.
pub(super) fn of(op: Op, dtype: Dtype, index: Dtype, level: Level) -> Option<IndexKernel> {
    let read: Option<Read> = by_type!(index, integers, I => Some(Indices::new::<I>));
    let read = read?;
    let found = match op {
        Op::Take => true,
        _ => update(op, dtype).is_some(),
    };
    found.then_some(IndexKernel {
        op,
        dtype,
        read,
        level,
    })
}

fn take(width: usize) -> Take {
    match width {
        1 => index::take::<u8>,
        2 => index::take::<u16>,
        4 => index::take::<u32>,
        _ => index::take::<u64>,
    }
}

fn along(width: usize) -> Along {
    match width {
        1 => index::take_along::<u8>,
        2 => index::take_along::<u16>,
        4 => index::take_along::<u32>,
        _ => index::take_along::<u64>,
    }
}

/// Half-precision floats and complex numbers are not added here.
fn update(op: Op, dtype: Dtype) -> Option<Update> {
    match (op, dtype.size()) {
        (Op::Scatter, 1) => Some(index::scatter::<u8>),
        (Op::Scatter, 2) => Some(index::scatter::<u16>),
        (Op::Scatter, 4) => Some(index::scatter::<u32>),
        (Op::Scatter, _) => Some(index::scatter::<u64>),
        (Op::ScatterAdd, _) => by_type!(dtype, numbers, T => Some(index::scatter_add::<T>)),
        _ => None,
    }
}

impl IndexKernel {
    /// Rows of `x` along `axis`, before which all sizes are 1; the result has `shape`.
    pub(crate) fn take(
        self,
        x: &Array,
        indices: &Array,
        axis: usize,
        shape: &[i32],
        stream: &StreamHandle,
    ) -> Result<Array> {
        let kernel = Taken {
            take: take(self.dtype.size()),
            axis,
            read: self.read,
            level: self.level,
        };
        let indices = kernel::in_rows(indices, stream)?;
        let result = (shape, self.dtype);
        kernel::add(
            self.op.name(),
            kernel,
            &[x, &indices],
            result,
            Placement::Apart,
            stream,
        )
    }

    /// Elements along the last axis, by indices whose other axes have the sizes of the array's.
    pub(crate) fn along(self, x: &Array, indices: &Array, stream: &StreamHandle) -> Result<Array> {
        let kernel = TakenAlong {
            along: along(self.dtype.size()),
            columns: x.dim(-1) as usize,
            count: indices.dim(-1) as usize,
            read: self.read,
            level: self.level,
        };
        let result = (indices.shape(), self.dtype);
        let (x, rows) = (
            kernel::in_rows(x, stream)?,
            kernel::in_rows(indices, stream)?,
        );
        kernel::add(
            self.op.name(),
            kernel,
            &[&x, &rows],
            result,
            Placement::Apart,
            stream,
        )
    }

    /// The rows of `x` along `axis`, before which all sizes are 1, with updates that fit them.
    pub(crate) fn update(
        self,
        [x, indices, updates]: [&Array; 3],
        axis: usize,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let Some(update) = update(self.op, self.dtype) else {
            unreachable!("`of` has found it")
        };
        let kernel = Updated {
            update,
            columns: x.shape()[axis + 1..]
                .iter()
                .map(|size| *size as usize)
                .product(),
            read: self.read,
            level: self.level,
        };
        let result = (x.shape(), self.dtype);
        let (indices, updates) = (
            kernel::in_rows(indices, stream)?,
            kernel::in_rows(updates, stream)?,
        );
        kernel::add(
            self.op.name(),
            kernel,
            &[x, &indices, &updates],
            result,
            Placement::InFirst,
            stream,
        )
    }
}
