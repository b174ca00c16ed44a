//! Totals of rows in lanes of their own, which vectors hold.

use std::hint::black_box;

/// Takes the elements of a row into lanes that begin with `start`, as many at a time as there are lanes. Gives the
/// lanes and the elements that are left over.
#[inline(always)]
pub(crate) fn in_lanes<T: Copy, A: Copy, const COUNT: usize>(
    x: &[T],
    start: [A; COUNT],
    take: impl Fn(A, T) -> A,
) -> ([A; COUNT], &[T]) {
    let mut lanes = start;
    // The compiler makes vectors of a loop whose length it does not know; one that it knows it unrolls.
    let count = black_box(COUNT).min(COUNT);
    let (blocks, rest) = x.as_chunks::<COUNT>();
    let (groups, blocks) = blocks.as_chunks::<8>();
    for group in groups {
        for lane in 0..count {
            lanes[lane] = group
                .iter()
                .fold(lanes[lane], |total, block| take(total, block[lane]));
        }
    }
    for block in blocks {
        for lane in 0..count {
            lanes[lane] = take(lanes[lane], block[lane]);
        }
    }
    (lanes, rest)
}
