//! Emily's own kernels for a CPU, in `cpp/`: MLX's are one element at a time there. They take the place of
//! MLX's for f32, which mean the same.

use mlx_rs::Array;

use crate::dtype::Dtype;
use crate::op::Op;
use crate::stream::StreamHandle;

#[cfg(own_kernels)]
mod own;
#[cfg(not(own_kernels))]
#[path = "kernels/none.rs"]
mod own;

pub(crate) use own::{Dot, Map, Reduction, Rows};

/// Up to so many products of numbers a matrix product takes no longer here than in BLAS, in batches too.
const FEW_PRODUCTS: i64 = 8 * 8 * 8;

/// The kernel that takes the place of MLX's operation on these arrays, if there is one.
pub(crate) fn map(op: Op, arrays: &[&Array], stream: &StreamHandle) -> Option<Map> {
    let f32s = arrays.iter().all(|array| Dtype::of(array) == Dtype::F32);
    if f32s {
        own::map(op, stream)
    } else {
        None
    }
}

/// The kernel that chooses between two arrays of one type.
pub(crate) fn choice(
    condition: &Array,
    x: &Array,
    y: &Array,
    stream: &StreamHandle,
) -> Option<Map> {
    let (x, y) = (Dtype::of(x), Dtype::of(y));
    if x == y && Dtype::of(condition) == Dtype::Bool {
        own::choice(x.size(), stream)
    } else {
        None
    }
}

/// The kernel over the last axis that takes the place of MLX's operation, if there is one.
pub(crate) fn rows(op: Op, arrays: &[Option<&Array>], stream: &StreamHandle) -> Option<Rows> {
    let mut arrays = arrays.iter().flatten();
    if arrays.all(|array| Dtype::of(array) == Dtype::F32) {
        own::rows(op, stream)
    } else {
        None
    }
}

/// The kernel that reduces this array, if there is one.
pub(crate) fn reduction(op: Op, x: &Array, stream: &StreamHandle) -> Option<Reduction> {
    if Dtype::of(x) == Dtype::F32 {
        own::reduction(op, stream)
    } else {
        None
    }
}

/// The kernel for the product of two batches of matrices, where they are small.
pub(crate) fn dot(a: &Array, b: &Array, stream: &StreamHandle) -> Option<Dot> {
    let f32s = Dtype::of(a) == Dtype::F32 && Dtype::of(b) == Dtype::F32;
    let rank = a.ndim();
    if !f32s || rank < 2 || b.ndim() != rank || a.shape()[..rank - 2] != b.shape()[..rank - 2] {
        return None;
    }
    let (rows, inner, columns) = (a.dim(-2), a.dim(-1), b.dim(-1));
    let products = i64::from(rows)
        .saturating_mul(inner.into())
        .saturating_mul(columns.into());
    if inner == b.dim(-2) && products <= FEW_PRODUCTS {
        own::dot(stream)
    } else {
        None
    }
}
