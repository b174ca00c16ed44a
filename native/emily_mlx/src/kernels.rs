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

pub(crate) use own::{Map, Rows};

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
