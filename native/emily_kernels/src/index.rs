//! Rows of an array by their numbers, which are clamped to those that there are.

use crate::dispatch::Level;
use crate::number::Number;
use crate::pool::{self, PART};
use crate::view::{bytes_mut, merged, typed, typed_mut, Axis, Element, Elements, View, Walk};

/// Integers that number rows.
pub trait Index: Element {
    /// The number of the last of so many rows, or the greatest that there is.
    fn last(rows: usize) -> Self;
    fn clamped(self, last: Self) -> usize;
}

macro_rules! indices {
    ($($type:ident)*) => {
        $(impl Index for $type {
            fn last(rows: usize) -> Self {
                $type::try_from(rows - 1).unwrap_or($type::MAX)
            }
            #[inline(always)]
            fn clamped(self, last: Self) -> usize {
                // No number of a row is below zero or wider than a pointer.
                self.max(0).min(last) as usize
            }
        })*
    };
}

indices!(u8 u16 u32 u64 i8 i16 i32 i64);

/// How many indices are read at a time.
const BLOCK: usize = 256;

crate::dispatch::for_each_level! {
    fn read<I: Index>(indices: &[u8], rows: usize, numbers: &mut [usize]) {
        let last = I::last(rows);
        for (number, index) in numbers.iter_mut().zip(typed::<I>(indices)) {
            *number = index.clamped(last);
        }
    }
}

/// Indices of one type, each the number of a row.
#[derive(Clone, Copy)]
pub struct Indices<'a> {
    level: Level,
    bytes: &'a [u8],
    width: usize,
    read: fn(Level, &[u8], usize, &mut [usize]),
}

impl Indices<'_> {
    pub fn new<I: Index>(level: Level, bytes: &[u8]) -> Indices<'_> {
        Indices {
            level,
            bytes,
            width: size_of::<I>(),
            read: read::<I>,
        }
    }
}

impl<'a> Indices<'a> {
    /// Parts of so many indices.
    fn parts(self, count: usize) -> impl Iterator<Item = Indices<'a>> {
        let parts = self.bytes.chunks_exact(count * self.width);
        parts.map(move |bytes| Indices { bytes, ..self })
    }

    /// So many indices from one on.
    fn from(self, first: usize, count: usize) -> Self {
        let bytes = &self.bytes[first * self.width..(first + count) * self.width];
        Indices { bytes, ..self }
    }

    /// Reads the indices as numbers of `rows` rows, all below `rows`.
    pub fn numbers(self, rows: usize, numbers: &mut [usize]) {
        assert!(rows > 0, "there are no rows");
        (self.read)(self.level, self.bytes, rows, numbers);
    }
}

/// Calls `f` with the numbers of the rows that indices mean, a block at a time, and how many came before.
#[inline(always)]
fn each_block(indices: Indices, rows: usize, mut f: impl FnMut(usize, &[usize])) {
    let mut block = [0; BLOCK];
    let blocks = indices.bytes.chunks(BLOCK * indices.width);
    for (at, bytes) in blocks.enumerate() {
        let block = &mut block[..bytes.len() / indices.width];
        Indices { bytes, ..indices }.numbers(rows, block);
        f(at * BLOCK, block);
    }
}

/// Calls `f` with the number of each index and the number of the row that it means.
#[inline(always)]
fn each_row(indices: Indices, rows: usize, mut f: impl FnMut(usize, usize)) {
    each_block(indices, rows, |at, block| {
        for (i, row) in block.iter().enumerate() {
            f(at + i, *row);
        }
    });
}

/// Takes elements of so many by their numbers.
#[inline(always)]
fn gather<T: Element>(elements: &[T], indices: Indices, output: &mut [T]) {
    each_block(indices, elements.len(), |at, block| {
        for (out, number) in output[at..].iter_mut().zip(block) {
            // SAFETY: all numbers of a block are below the number of elements, and there are some.
            *out = unsafe { *elements.get_unchecked(*number) };
        }
    });
}

/// Takes rows of `x` along `axis`, before which all sizes are 1.
pub fn take<T: Element>(x: &View, axis: usize, indices: Indices, output: &mut [u8]) {
    let columns: usize = x.axes()[axis + 1..].iter().map(|axis| axis.size).product();
    let output = typed_mut::<T>(output);
    if output.is_empty() {
        return;
    }
    let (elements, count) = (x.elements::<T>(), (PART / columns).max(1));
    pool::each_part(output, count * columns, |at, output| {
        let indices = indices.from(at * count, output.len() / columns);
        take_rows(x, &elements, axis, indices, output);
    });
}

fn take_rows<T: Element>(
    x: &View,
    elements: &Elements<T>,
    axis: usize,
    indices: Indices,
    output: &mut [T],
) {
    let axes = x.axes();
    let (rows, inner) = (axes[axis], merged(&axes[axis + 1..]));
    let columns: usize = inner.iter().map(|axis| axis.size).product();
    match inner[..] {
        [Axis { size: 1, .. }] => match rows.stride {
            1 => gather(elements.row(0, rows.size), indices, output),
            stride => each_block(indices, rows.size, |at, block| {
                for (out, row) in output[at..].iter_mut().zip(block) {
                    *out = elements.at(*row as isize * stride);
                }
            }),
        },
        [Axis { size, stride }] => {
            each_row(indices, rows.size, |at, row| {
                let first = row as isize * rows.stride;
                let out = &mut output[at * size..(at + 1) * size];
                match stride {
                    1 => out.copy_from_slice(elements.row(first, size)),
                    _ => {
                        for (column, out) in out.iter_mut().enumerate() {
                            *out = elements.at(first + column as isize * stride);
                        }
                    }
                }
            });
        }
        // Elements without a common step.
        _ => each_row(indices, rows.size, |at, row| {
            let out = &mut output[at * columns..(at + 1) * columns];
            Walk::new(&x.within(axis, row)).copy(bytes_mut(out));
        }),
    }
}

/// Takes elements of rows of `columns` by indices of each row, `count` of them.
pub fn take_along<T: Element>(
    x: &[u8],
    columns: usize,
    indices: Indices,
    count: usize,
    output: &mut [u8],
) {
    let (x, output) = (typed::<T>(x), typed_mut::<T>(output));
    let rows = x.chunks_exact(columns).zip(indices.parts(count));
    for ((x, indices), output) in rows.zip(output.chunks_exact_mut(count)) {
        gather(x, indices, output);
    }
}

/// Writes rows of `updates` into the rows of `output`, of `columns` each, one after the other.
pub fn scatter<T: Element>(
    _level: Level,
    updates: &[u8],
    columns: usize,
    indices: Indices,
    output: &mut [u8],
) {
    let (updates, output) = (typed::<T>(updates), typed_mut::<T>(output));
    each_row(indices, output.len() / columns, |at, row| {
        let update = &updates[at * columns..(at + 1) * columns];
        output[row * columns..(row + 1) * columns].copy_from_slice(update);
    });
}

crate::dispatch::for_each_level! {
    /// Adds rows of `updates` to the rows of `output`, of `columns` each, one after the other.
    pub fn scatter_add<T: Number>(
        updates: &[u8],
        columns: usize,
        indices: Indices,
        output: &mut [u8],
    ) {
        let (updates, output) = (typed::<T>(updates), typed_mut::<T>(output));
        each_row(indices, output.len() / columns, |at, row| {
            let update = &updates[at * columns..(at + 1) * columns];
            for (out, x) in output[row * columns..(row + 1) * columns].iter_mut().zip(update) {
                *out = out.plus(*x);
            }
        });
    }
}
