//! Products of small matrices and of vectors of f32, taken in f64 and rounded once: the product of two f32 is exact
//! there.

use std::hint::black_box;

use crate::dispatch::{for_each_level, Level};
use crate::pool::{self, PART};
use crate::reduce::{folded, Sum};
use crate::view::{Axis, Elements, View};

/// A vector has so many totals.
const WIDTH: usize = 4;
/// How many totals of a row are taken at a time.
const BLOCK: usize = 8;
/// Longer rows are taken in parts, on all threads. Reading as much takes longer than to wake one.
const LONG: usize = 8 * PART;

/// Two axes of an array that make a matrix.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    elements: &'a Elements<'a, f32>,
    first: isize,
    rows: Axis,
    columns: Axis,
}

impl Matrix<'_> {
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> f32 {
        let place = row as isize * self.rows.stride + column as isize * self.columns.stride;
        self.elements.at(self.first + place)
    }

    /// A row that lies in memory.
    #[inline(always)]
    fn row(&self, row: usize) -> &[f32] {
        let first = self.first + row as isize * self.rows.stride;
        self.elements.row(first, self.columns.size)
    }

    /// A column that lies in memory.
    #[inline(always)]
    fn column(&self, column: usize) -> &[f32] {
        let first = self.first + column as isize * self.columns.stride;
        self.elements.row(first, self.rows.size)
    }
}

/// The products of two batches of matrices of f32, whose axes fit, in row-major order.
pub fn products(level: Level, a: &View, b: &View, output: &mut [f32]) {
    let ([batch @ .., rows, inner], [other @ .., _, columns]) = (a.axes(), b.axes()) else {
        panic!("matrices have two axes");
    };
    let (left, right) = (a.elements::<f32>(), b.elements::<f32>());
    let size = rows.size * columns.size;
    let mut copy = Vec::new();
    for (number, output) in output.chunks_exact_mut(size).enumerate() {
        let a = matrix(&left, batch, [*rows, *inner], number);
        let b = matrix(&right, other, [b.axes()[other.len()], *columns], number);
        match output {
            [out] if a.columns.size > LONG && a.columns.stride == 1 && b.rows.stride == 1 => {
                *out = long(level, a.row(0), b.column(0)) as f32;
            }
            _ => product(level, a, b, &mut copy, output),
        }
    }
}

/// The product of two long rows, whose parts are added up in their order.
fn long(level: Level, x: &[f32], y: &[f32]) -> f64 {
    let mut totals = vec![0.0; x.len().div_ceil(PART)];
    pool::each_part(&mut totals, 1, |part, total| {
        let range = part * PART..x.len().min((part + 1) * PART);
        total[0] = in_rows(level, &x[range.clone()], &y[range]);
    });
    totals.iter().sum()
}

/// A matrix of a batch by its number.
fn matrix<'a>(
    elements: &'a Elements<'a, f32>,
    batch: &[Axis],
    [rows, columns]: [Axis; 2],
    number: usize,
) -> Matrix<'a> {
    let (mut rest, mut first) = (number, 0);
    for axis in batch.iter().rev() {
        first += (rest % axis.size) as isize * axis.stride;
        rest /= axis.size;
    }
    Matrix {
        elements,
        first,
        rows,
        columns,
    }
}

for_each_level! {
    fn product(a: Matrix, b: Matrix, copy: &mut Vec<f32>, output: &mut [f32]) {
        let columns = b.columns.size;
        // Few dot products take less time than a copy of `b`.
        let is_few = a.rows.size < WIDTH || columns < WIDTH;
        let in_rows = a.columns.stride == 1 && b.rows.stride == 1;
        if (is_few && in_rows) || output.len() == 1 {
            for (i, output) in output.chunks_exact_mut(columns).enumerate() {
                for (j, out) in output.iter_mut().enumerate() {
                    *out = dot(a, i, b, j) as f32;
                }
            }
            return;
        }
        if b.columns.stride == 1 {
            let first = |k: usize| b.first + k as isize * b.rows.stride;
            multiply(a, |k| b.elements.row(first(k), columns), output, columns);
            return;
        }
        copy.resize(b.rows.size * columns, 0.0);
        for (k, row) in copy.chunks_exact_mut(columns).enumerate() {
            for (j, x) in row.iter_mut().enumerate() {
                *x = b.at(k, j);
            }
        }
        multiply(a, |k| &copy[k * columns..(k + 1) * columns], output, columns);
    }
}

/// The product of a matrix and of one that has its rows in memory.
#[inline(always)]
fn multiply<'a>(a: Matrix, row: impl Fn(usize) -> &'a [f32], output: &mut [f32], columns: usize) {
    let mut i = 0;
    while i + 4 <= a.rows.size {
        let output = &mut output[i * columns..(i + 4) * columns];
        multiply_rows::<4>(a, i, &row, output, columns);
        i += 4;
    }
    for i in i..a.rows.size {
        let output = &mut output[i * columns..(i + 1) * columns];
        multiply_rows::<1>(a, i, &row, output, columns);
    }
}

/// So many rows of the product from `first` on, a block of columns at a time.
#[inline(always)]
fn multiply_rows<'a, const ROWS: usize>(
    a: Matrix,
    first: usize,
    row: impl Fn(usize) -> &'a [f32],
    output: &mut [f32],
    columns: usize,
) {
    let whole = columns - columns % BLOCK;
    for column in (0..whole).step_by(BLOCK) {
        let mut totals = [[0.0; BLOCK]; ROWS];
        for k in 0..a.columns.size {
            let mut x = [0.0; BLOCK];
            x.copy_from_slice(&row(k)[column..column + BLOCK]);
            let x = x.map(f64::from);
            for (i, totals) in totals.iter_mut().enumerate() {
                let factor = f64::from(a.at(first + i, k));
                for (total, x) in totals.iter_mut().zip(&x) {
                    *total += factor * x;
                }
            }
        }
        for (i, totals) in totals.iter().enumerate() {
            let out = &mut output[i * columns + column..][..BLOCK];
            out.copy_from_slice(&totals.map(|total| total as f32));
        }
    }
    for i in 0..ROWS {
        for column in whole..columns {
            let term = |k: usize| f64::from(a.at(first + i, k)) * f64::from(row(k)[column]);
            let total = (0..a.columns.size).fold(0.0, |total, k| total + term(k));
            output[i * columns + column] = total as f32;
        }
    }
}

/// The product of a row and a column. Few terms are added up in their order.
#[inline(always)]
fn dot(a: Matrix, row: usize, b: Matrix, column: usize) -> f64 {
    let size = a.columns.size;
    let term = |k: usize| f64::from(a.at(row, k)) * f64::from(b.at(k, column));
    if size < 4 * WIDTH {
        return (0..size).fold(0.0, |total, k| total + term(k));
    }
    if a.columns.stride == 1 && b.rows.stride == 1 {
        return dot_in_rows(a.row(row), b.column(column));
    }
    let mut lanes = [0.0; 2 * WIDTH];
    let whole = size - size % lanes.len();
    for k in (0..whole).step_by(2 * WIDTH) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(k + lane);
        }
    }
    (whole..size).fold(folded::<Sum>(&mut lanes), |total, k| total + term(k))
}

for_each_level! {
    fn in_rows(x: &[f32], y: &[f32]) -> f64 {
        dot_in_rows(x, y)
    }
}

#[inline(always)]
fn dot_in_rows(x: &[f32], y: &[f32]) -> f64 {
    match x.len() < 32 * WIDTH {
        true => dot_in_lanes::<{ 2 * WIDTH }>(x, y),
        false => dot_in_lanes::<{ 8 * WIDTH }>(x, y),
    }
}

#[inline(always)]
fn dot_in_lanes<const COUNT: usize>(x: &[f32], y: &[f32]) -> f64 {
    let mut lanes = [0.0; COUNT];
    let (xs, x) = x.as_chunks::<COUNT>();
    let (ys, y) = y.as_chunks::<COUNT>();
    for (x, y) in xs.iter().zip(ys) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += f64::from(*x) * f64::from(*y);
        }
    }
    let terms = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y));
    // As in `in_lanes`.
    let mut lanes = black_box(lanes);
    terms.fold(folded::<Sum>(&mut lanes), |total, term| total + term)
}
