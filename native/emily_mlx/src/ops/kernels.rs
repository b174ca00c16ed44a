//! Kernels of Emily's own for a CPU: MLX's are one element at a time there, or several where Emily means more than
//! MLX. They take the place of MLX's, which mean the same.

use emily_kernels::chain::Map as KernelMap;
use emily_kernels::dispatch::Level;
use mlx_rs::Array;

use crate::ops::table::Op;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::stream::StreamHandle;

pub(crate) mod elementwise;
mod fold;
mod index;
mod norm;
mod rope;

pub(crate) use elementwise::ElementwiseKernel;
pub(crate) use fold::FoldKernel;
pub(crate) use index::IndexKernel;
pub(crate) use norm::RowKernels;
pub(crate) use rope::RopeKernel;

/// The level of the processor that kernels are taken for, if any are.
pub(crate) fn level(stream: &StreamHandle) -> Option<Level> {
    if cfg!(not(own_kernels)) || stream.device() != Device::Cpu {
        return None;
    }
    // What names no level is refused where streams are made.
    Level::chosen().ok().flatten()
}

fn elementwise(
    op: Op,
    map: impl FnOnce() -> Option<&'static dyn KernelMap>,
    level: Option<Level>,
) -> Option<ElementwiseKernel> {
    let level = level?;
    map().map(|map| ElementwiseKernel { op, map, level })
}

/// The kernel that takes the place of MLX's operation on these arrays, if there is one.
pub(crate) fn map(op: Op, arrays: &[&Array], stream: &StreamHandle) -> Option<ElementwiseKernel> {
    let dtype = Dtype::of(arrays.first()?);
    let same = arrays.iter().all(|array| Dtype::of(array) == dtype);
    // What MLX lacks is taken from here even where no kernels are wanted; a build without any refuses it.
    let is_needed = stream.device() == Device::Cpu && elementwise::is_only_here(op, dtype);
    let level = level(stream).or(is_needed.then_some(Level::PORTABLE));
    elementwise(op, || elementwise::own(op, dtype).filter(|_| same), level)
}

/// The kernel that makes integers of type `to` of numbers of type `from`.
pub(crate) fn cast(from: Dtype, to: Dtype, stream: &StreamHandle) -> Option<ElementwiseKernel> {
    elementwise(
        Op::ToInteger,
        || elementwise::to_integer(from, to),
        level(stream),
    )
}

/// The kernel that clamps integers to `0..=option`.
pub(crate) fn clamp(x: &Array, stream: &StreamHandle) -> Option<ElementwiseKernel> {
    elementwise(Op::Clip, || elementwise::clamp(Dtype::of(x)), level(stream))
}

/// The kernel that chooses between two arrays of one type.
pub(crate) fn choice(
    condition: &Array,
    x: &Array,
    y: &Array,
    stream: &StreamHandle,
) -> Option<ElementwiseKernel> {
    let (x, y) = (Dtype::of(x), Dtype::of(y));
    let fits = x == y && Dtype::of(condition) == Dtype::Bool;
    elementwise(
        Op::Where,
        || elementwise::select(x.size()).filter(|_| fits),
        level(stream),
    )
}

/// The kernel that makes one element of trailing axes; `last` means that it takes the last of equals.
pub(crate) fn fold(op: Op, dtype: Dtype, last: bool, stream: &StreamHandle) -> Option<FoldKernel> {
    let level = level(stream)?;
    fold::of(op, dtype, last).map(|fold| FoldKernel { op, fold, level })
}

/// The kernel that takes rows of `x` by `indices`, which it clamps, or updates them.
pub(crate) fn indexed(
    op: Op,
    x: &Array,
    indices: &Array,
    stream: &StreamHandle,
) -> Option<IndexKernel> {
    index::of(op, Dtype::of(x), Dtype::of(indices), level(stream)?)
}

/// The kernels over the last axis, where all arrays are f32.
pub(crate) fn rows(arrays: &[Option<&Array>], stream: &StreamHandle) -> Option<RowKernels> {
    all_f32(arrays, stream).map(RowKernels)
}

/// The kernel of rotary embeddings, where all arrays are f32.
pub(crate) fn rope(arrays: &[Option<&Array>], stream: &StreamHandle) -> Option<RopeKernel> {
    all_f32(arrays, stream).map(RopeKernel)
}

fn all_f32(arrays: &[Option<&Array>], stream: &StreamHandle) -> Option<Level> {
    let mut arrays = arrays.iter().flatten();
    level(stream).filter(|_| arrays.all(|array| Dtype::of(array) == Dtype::F32))
}
