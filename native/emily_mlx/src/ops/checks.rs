//! Checks of shapes, axes and sizes, made before MLX is called.

use mlx_rs::Array;
use smallvec::{smallvec, SmallVec};

use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::room;

/// Integers, of which there is mostly one for each axis.
pub type Ints = SmallVec<[i32; 8]>;

/// How many axes an array may have. MLX sets no limit, but takes time for each axis and each pair of them.
pub(crate) const MOST_AXES: usize = 1024;

/// Refuses more axes than an array may have, or more entries of a list that has one for each.
pub(crate) fn rank(op: &str, given: usize) -> Result<()> {
    if given > MOST_AXES {
        refuse!("{op}: {given} axes are more than the {MOST_AXES} that an array may have")
    }
    Ok(())
}

/// How many elements a shape has; refuses sizes below one and products that do not fit. Nx knows no
/// empty tensors, and factorisations of MLX 0.32.4 end the process on an empty matrix.
pub(crate) fn shape(op: &str, shape: &[i32]) -> Result<usize> {
    rank(op, shape.len())?;
    let mut elements = 1usize;
    for &size in shape {
        let size = match usize::try_from(size) {
            Ok(size) if size > 0 => size,
            _ => refuse!("{op}: sizes must be at least 1, got shape {shape:?}"),
        };
        // MLX counts elements and strides in 64 bits; half of that leaves room for item sizes.
        elements = match elements.checked_mul(size) {
            Some(elements) if elements <= usize::MAX >> 8 => elements,
            _ => refuse!("{op}: shape {shape:?} has too many elements"),
        };
    }
    Ok(elements)
}

pub(crate) fn axis(op: &str, axis: i32, rank: usize) -> Result<i32> {
    let signed_rank = rank as i32;
    if axis < -signed_rank || axis >= signed_rank {
        refuse!("{op}: axis {axis} is out of bounds for rank {rank}")
    }
    Ok(if axis < 0 { axis + signed_rank } else { axis })
}

pub(crate) fn axes(op: &str, given: &[i32], rank: usize) -> Result<Ints> {
    let mut axes = Ints::with_capacity(given.len());
    let mut named: SmallVec<[bool; 8]> = smallvec![false; rank];
    for &one in given {
        let one = axis(op, one, rank)?;
        if std::mem::replace(&mut named[one as usize], true) {
            refuse!("{op}: axis {one} is named twice in {given:?}")
        }
        axes.push(one);
    }
    Ok(axes)
}

pub(crate) fn same_length(op: &str, wanted: usize, lists: &[(&str, usize)]) -> Result<()> {
    for (name, length) in lists {
        if *length != wanted {
            refuse!("{op}: {name} has {length} entries, expected {wanted}")
        }
    }
    Ok(())
}

pub(crate) fn at_least(op: &str, name: &str, values: &[i32], least: i32) -> Result<()> {
    match values.iter().find(|value| **value < least) {
        Some(value) => refuse!("{op}: {name} must be at least {least}, got {value}"),
        None => Ok(()),
    }
}

/// Refuses a result that is empty.
pub(crate) fn not_empty(op: &str, array: &Array) -> Result<()> {
    if array.size() == 0 {
        refuse!("{op}: the result of shape {:?} is empty", array.shape())
    }
    Ok(())
}

/// Refuses what would take more memory beside its result than there is.
pub(crate) fn bytes_fit(op: &str, what: &str, bytes: i128) -> Result<()> {
    let limit = room::limit();
    if bytes > limit as i128 {
        refuse!("{op}: {what} would take {bytes} bytes, more than the {limit} bytes of memory")
    }
    Ok(())
}

pub(crate) fn real_float(op: &str, name: &str, array: &Array) -> Result<()> {
    let dtype = Dtype::of(array);
    if !dtype.is_real_float() {
        refuse!(
            "{op}: {name} must have a floating-point type, got {}",
            dtype.name()
        )
    }
    Ok(())
}
