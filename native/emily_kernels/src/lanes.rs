//! Totals of rows in lanes of their own, which vectors hold.

use std::hint::black_box;

use crate::prefetch::prefetch;

/// So many bytes are asked for before they are read: what is computed in f64 keeps a processor from looking as far ahead
/// as memory is away.
const AHEAD: usize = 4096;
/// Those of a line of the cache.
const LINE: usize = 64;

/// Takes the elements of a row into lanes that begin with `start`, as many at a time as there are lanes. Gives the
/// lanes and the elements that are left over.
#[inline(always)]
pub(crate) fn in_lanes<T: Copy, A: Copy, const COUNT: usize>(
    x: &[T],
    start: [A; COUNT],
    take: impl Fn(A, T) -> A,
) -> ([A; COUNT], &[T]) {
    let mut lanes = start;
    let (blocks, rest) = x.as_chunks::<COUNT>();
    for block in blocks {
        for at in (0..COUNT).step_by((LINE / size_of::<T>()).max(1)) {
            prefetch(block.as_ptr().wrapping_add(AHEAD / size_of::<T>() + at));
        }
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = take(*lane, *x);
        }
    }
    // The compiler makes vectors of lanes that are wanted in memory, whatever becomes of them there.
    (black_box(lanes), rest)
}

/// Takes what fills all lanes, of a piece of one of several rows, which are walked over in turn: a processor looks ahead in
/// each of them by itself.
#[inline(always)]
pub(crate) fn into_lanes<T: Copy, A: Copy, const COUNT: usize>(
    x: &[T],
    lanes: &mut [A; COUNT],
    take: impl Fn(A, T) -> A,
) {
    let mut own = *lanes;
    for block in x.as_chunks::<COUNT>().0 {
        for (lane, x) in own.iter_mut().zip(block) {
            *lane = take(*lane, *x);
        }
    }
    *lanes = own;
}
