//! Emily's own kernels for a CPU, in `cpp/`: MLX's are one element at a time there, or several where Emily means
//! more than MLX. They take the place of MLX's, which mean the same.

use mlx_rs::Array;

use crate::dtype::Dtype;
use crate::op::Op;
use crate::stream::StreamHandle;

#[cfg(own_kernels)]
mod own;
#[cfg(not(own_kernels))]
#[path = "kernels/none.rs"]
mod own;

pub(crate) use own::{Fold, Indexed, Map, Rows};

/// The kernel that takes the place of MLX's operation on these arrays, if there is one.
pub(crate) fn map(op: Op, arrays: &[&Array], stream: &StreamHandle) -> Option<Map> {
    let dtype = Dtype::of(arrays.first()?);
    let same = arrays.iter().all(|array| Dtype::of(array) == dtype);
    if same {
        own::map(op, dtype, stream)
    } else {
        None
    }
}

/// The kernel that makes integers of type `to` of numbers of type `from`.
pub(crate) fn cast(from: Dtype, to: Dtype, stream: &StreamHandle) -> Option<Map> {
    own::cast(from, to, stream)
}

/// The kernel that clamps integers to `0..=option`.
pub(crate) fn clamp(x: &Array, stream: &StreamHandle) -> Option<Map> {
    own::clamp(Dtype::of(x), stream)
}

/// The kernel that makes one element of trailing axes; `last` means that it takes the last of equals.
pub(crate) fn fold(op: Op, dtype: Dtype, last: bool, stream: &StreamHandle) -> Option<Fold> {
    own::fold(op, dtype, last, stream)
}

/// The kernel that takes rows of `x` by `indices`, which it clamps, or updates them.
pub(crate) fn indexed(
    op: Op,
    x: &Array,
    indices: &Array,
    stream: &StreamHandle,
) -> Option<Indexed> {
    own::indexed(op, Dtype::of(x), Dtype::of(indices), stream)
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
