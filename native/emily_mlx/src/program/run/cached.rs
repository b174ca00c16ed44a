//! What a run sees of a cache that is filled up to a number of keys.
//!
//! The kernels of MLX are fastest without a mask, and on some devices not fused with one. Who may wait for
//! the arrays looks at them, and leaves out the keys that nobody sees. What is left needs a mask only where
//! it has gaps.

use mlx_rs::Array;

use super::{CacheKey, Run};
use crate::ops::apply::{checked, Value};
use crate::ops::attention::cached::{CachedAttention, Seen};
use crate::ops::attention::seen::{integer, range, rows};
use crate::ops::op::Op;
use crate::program::step::{attends, what_is_seen, Operand, Step};
use crate::runtime::contiguous;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::stream::StreamHandle;

impl Run<'_> {
    /// What is seen of the cache is looked at once for all layers of a model.
    pub(super) fn cached_attention(&mut self, operands: &[Operand]) -> Result<Value> {
        let (op, seen) = (Op::CachedAttention, self.seen.take());
        let args = self.args(op, operands)?;
        let attention = CachedAttention::read(&args)?;
        if let Some(attended) = attention.on_device(self.stream)? {
            let value = checked(op, &args, attended.into())?;
            drop(args);
            self.seen = seen;
            return Ok(value);
        }
        let key = (what_is_seen(operands), attention.queries());
        let seen = match seen {
            Some((known, seen)) if known == key => seen,
            _ if self.may_wait => look(&attention, self.has_linalg, self.stream)?,
            _ => attention.unseen(self.stream)?,
        };
        let value = attention.attend(&seen, self.stream)?;
        let value = checked(op, &args, value.into())?;
        drop(args);
        self.seen = Some((key, seen));
        Ok(value)
    }

    /// What steps see of a cache that begin with an attention to it, where it has to be looked at.
    pub(super) fn seen_by(&self, steps: &[Step]) -> Result<Option<(CacheKey, Seen)>> {
        let Some(operands) = attends(&steps[0]) else {
            return Ok(None);
        };
        let args = self.args(Op::CachedAttention, operands)?;
        let attention = CachedAttention::read(&args)?;
        if attention.on_device(self.stream)?.is_some() {
            return Ok(None);
        }
        let key = (what_is_seen(operands), attention.queries());
        let seen = look(&attention, self.has_linalg, self.stream)?;
        Ok(Some((key, seen)))
    }
}

/// Computes the mask and the offset of an attention and looks at them.
fn look(attention: &CachedAttention, may_fail: bool, stream: &StreamHandle) -> Result<Seen> {
    let arrays = [attention.key_mask, attention.offset].map(|x| contiguous::readable(x, stream));
    let [key_mask, offset] = arrays;
    let arrays = [key_mask?, offset?];
    stream.compute(&arrays, may_fail)?;
    let [key_mask, offset] = &arrays;
    let first = integer(bytes(offset)?, Dtype::of(offset).is_signed());
    let keys = attention.key_mask.dim(1) as usize;
    let rows = rows(bytes(key_mask)?, keys, Dtype::of(key_mask).size());
    let Some((keys, gaps)) = range(&rows, first, attention.queries().0 as usize) else {
        return attention.unseen(stream);
    };
    let keys = keys.start as i32..keys.end as i32;
    match gaps {
        true => attention.masked(keys, stream),
        false => Ok(Seen { keys, mask: None }),
    }
}

/// The bytes of a computed array whose elements lie in a row.
fn bytes(array: &Array) -> Result<&[u8]> {
    // SAFETY: the handle is live, and the array computed.
    let data = unsafe { mlx_sys::mlx_array_data_uint8(array.as_ptr()) };
    if data.is_null() {
        refuse!("the array of shape {:?} has no data", array.shape())
    }
    // SAFETY: the elements lie in a row, so that `nbytes` of them can be read from the data, which lives as
    // long as the array; MLX does not write to the data of an array that somebody holds.
    Ok(unsafe { std::slice::from_raw_parts(data, array.nbytes()) })
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::ops::args::{Arg, Args, Literal, Number};
    use crate::ops::create;
    use crate::ops::shape::cut;
    use crate::runtime::device::Device;
    use crate::runtime::ffi;

    #[test]
    fn the_mask_is_for_gaps_alone() {
        let stream = StreamHandle::default_on(Device::Cpu).expect("there is a CPU");
        let ints = |values: &[i64]| create::vector("test", values, Dtype::S32).expect("integers");
        let looked_at = |key_mask: &[i64], queries: usize| {
            let array = |shape: [i32; 4]| {
                let values = ints(&vec![0; shape.iter().product::<i32>() as usize]);
                let values = values.as_dtype(mlx_rs::Dtype::Float32).expect("floats");
                Arg::Owned(ffi::reshape(&values, &shape, stream.raw()).expect("as many"))
            };
            let keys = key_mask.len() as i32;
            let key_mask = ffi::reshape(&ints(key_mask), &[1, keys], stream.raw());
            let offset = cut(&ints(&[2]), 0, &(0..1), stream.raw());
            let offset = ffi::reshape(&offset.expect("one"), &[], stream.raw());
            let args = Args::new(
                "test",
                smallvec![
                    array([1, 1, queries as i32, 1]),
                    array([1, 1, keys, 1]),
                    array([1, 1, keys, 1]),
                    Literal::Number(Number::Float(1.0)).into(),
                    Arg::Owned(key_mask.expect("a row")),
                    Arg::Owned(offset.expect("a number")),
                ],
            );
            let attention = CachedAttention::read(&args).expect("they fit");
            let seen = look(&attention, false, stream).expect("they are computed");
            (seen.keys, seen.mask.is_some())
        };
        assert_eq!(looked_at(&[1, 1, 1, 0, 0, 0], 1), (0..3, false));
        assert_eq!(looked_at(&[1, 1, 1, 1, 1, 0], 3), (0..5, false));
        assert_eq!(looked_at(&[0, 1, 1, 0, 0, 0], 1), (1..3, false));
        assert_eq!(looked_at(&[1, 0, 1, 0, 0, 0], 1), (0..3, true));
        assert_eq!(looked_at(&[0, 0, 0, 1, 1, 0], 3), (0..6, true));
    }
}
