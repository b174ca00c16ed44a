//! Products of batches of matrices of any strides.

use super::levels::round;
use super::matrix::{Matrix, Output};
use super::parts::{wanted, Parts, FUSED};
use super::product::multiply;
use super::scratch::{with_scratch, Scratch};
use super::simd::Element;
#[cfg(target_arch = "x86_64")]
use super::split;
use super::stored::Stored;
use super::work::Work;
use crate::dispatch::Level;
use crate::pool;
use crate::view::{Axis, Elements, View};

/// So many sums stay in the second cache until they are rounded.
const SUMS: usize = 1 << 16;

thread_local! {
    static UNROUNDED: Scratch = const { Scratch::new() };
}

/// The products of two batches of matrices, whose axes fit, in row-major order. Floats of 16 bits are multiplied and
/// added up in `f32`, and rounded once.
pub fn products<T: Stored>(level: Level, a: &View, b: &View, output: &mut [T]) {
    let (left, right) = (a.elements::<T>(), b.elements::<T>());
    let (Batch(batch, [rows, inner]), Batch(other, [terms, columns])) =
        (Batch::of(a), Batch::of(b));
    let count: usize = batch.iter().map(|axis| axis.size).product();
    assert!(
        inner.size == terms.size
            && batch
                .iter()
                .map(|axis| axis.size)
                .eq(other.iter().map(|axis| axis.size))
            && output.len() == count * rows.size * columns.size,
        "matrices of these sizes have no products"
    );
    if output.is_empty() {
        return;
    }
    if inner.size == 0 {
        return output.fill(T::default());
    }
    let output = Output {
        data: output.as_mut_ptr(),
        row: columns.size as isize,
        column: 1,
    };
    let work = |number: usize| Work {
        rows: rows.size,
        inner: inner.size,
        columns: columns.size,
        alpha: T::Number::ONE,
        a: matrix(&left, batch, [rows, inner], number),
        b: matrix(&right, other, [terms, columns], number),
        beta: T::Number::ZERO,
        // SAFETY: the products' rows follow each other in the output.
        c: unsafe { output.from(number * rows.size, 0) },
    };
    let first = work(0).along_vectors();
    let tasks = wanted(first.cost().saturating_mul(count));
    let most = match T::as_numbers(output.data) {
        Some(_) => usize::MAX,
        None => SUMS,
    };
    #[cfg(target_arch = "x86_64")]
    let (in_parts, grain) = match split::fits(&first, level) {
        true => (true, split::GRAIN),
        false => (false, FUSED),
    };
    #[cfg(not(target_arch = "x86_64"))]
    let grain = FUSED;
    let parts = Parts::of(&first, tasks.div_ceil(count), most, grain);
    let units = count * parts.count();
    let tasks = tasks.min(units);
    pool::each_in_a_row(tasks, |task| {
        for unit in task * units / tasks..(task + 1) * units / tasks {
            let work = work(unit / parts.count()).along_vectors();
            // SAFETY: `View` has made sure that the elements lie in its memory, and the parts of the output, which
            // is borrowed for us alone, are apart.
            unsafe {
                let part = parts.get(&work, unit % parts.count());
                #[cfg(target_arch = "x86_64")]
                if let (true, Some(part)) = (in_parts, floats(&part)) {
                    split::multiply(&part, level);
                    continue;
                }
                multiply_and_round(&part, level);
            }
        }
    });
}

/// The same product, where its numbers are `f32`.
#[cfg(target_arch = "x86_64")]
fn floats<T: Stored>(work: &Work<T, T>) -> Option<Work<f32>> {
    let matrix = |from: Matrix<T>| {
        Some(Matrix {
            data: T::as_floats(from.data)?,
            row: from.row,
            column: from.column,
        })
    };
    Some(Work {
        rows: work.rows,
        inner: work.inner,
        columns: work.columns,
        alpha: 1.0,
        a: matrix(work.a)?,
        b: matrix(work.b)?,
        beta: 0.0,
        c: Output {
            data: T::as_floats(work.c.data)?.cast_mut(),
            row: work.c.row,
            column: work.c.column,
        },
    })
}

/// The axes before the last two, and these.
struct Batch<'a>(&'a [Axis], [&'a Axis; 2]);

impl<'a> Batch<'a> {
    fn of(view: &'a View) -> Self {
        match view.axes() {
            [batch @ .., rows, columns] => Batch(batch, [rows, columns]),
            _ => panic!("matrices have two axes"),
        }
    }
}

/// A matrix of a batch by its number.
fn matrix<T: Stored>(
    elements: &Elements<T>,
    batch: &[Axis],
    [rows, columns]: [&Axis; 2],
    number: usize,
) -> Matrix<T> {
    let (mut rest, mut place) = (number, 0);
    for axis in batch.iter().rev() {
        place += (rest % axis.size) as isize * axis.stride;
        rest /= axis.size;
    }
    let (memory, first) = elements.memory();
    Matrix {
        data: memory.as_ptr().wrapping_offset(first + place),
        row: rows.stride,
        column: columns.stride,
    }
}

/// Computes a product, by way of sums that are rounded where it is not computed as it is stored.
///
/// # Safety
/// As for [`multiply`].
unsafe fn multiply_and_round<T: Stored>(work: &Work<T, T>, level: Level) {
    if let Some(data) = T::as_numbers(work.c.data) {
        let c = Output {
            data: data.cast_mut(),
            row: work.c.row,
            column: work.c.column,
        };
        // SAFETY: the caller's promise.
        return unsafe { multiply(&work.to(c), level) };
    }
    with_scratch(
        &UNROUNDED,
        work.rows * work.columns,
        |sums: *mut T::Number| {
            let c = Output {
                data: sums,
                row: work.columns as isize,
                column: 1,
            };
            // SAFETY: the caller's promise; there are as many sums as the product has, which it writes.
            let sums = unsafe {
                multiply(&work.to(c), level);
                std::slice::from_raw_parts(sums, work.rows * work.columns)
            };
            for (i, sums) in sums.chunks_exact(work.columns).enumerate() {
                // SAFETY: the caller's promise.
                unsafe { round_row(work.c.from(i, 0), sums, level) };
            }
        },
    );
}

/// # Safety
/// The output must have as many columns, and nobody else may read or write them.
unsafe fn round_row<T: Stored>(to: Output<T>, sums: &[T::Number], level: Level) {
    // SAFETY: the caller's promise; memory that was given out has elements in it.
    unsafe {
        if to.column == 1 {
            let to = std::slice::from_raw_parts_mut(to.data, sums.len());
            return round(level, sums, to);
        }
        for (j, sum) in sums.iter().enumerate() {
            *to.from(0, j).data = T::nearest(*sum);
        }
    }
}
