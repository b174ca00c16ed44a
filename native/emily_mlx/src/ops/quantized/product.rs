//! Products with packed numbers.

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::quantized as kernels;
use emily_kernels::view::{typed, typed_mut, Row};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::cast::cast;
use crate::ops::checks;
use crate::ops::dot;
use crate::ops::index::clamp;
use crate::ops::quantized::weight::{float, handle, Form, Mode, Parts, Weight};
use crate::runtime::cuda::is_cuda;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, in_rows, level, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// Which matrices make the products.
enum Pairs {
    /// The only ones there are.
    One,
    /// Those at the same place of batches that broadcast: the sizes, and the steps of both.
    Batches(Vec<(usize, usize, usize)>),
    /// Those whose numbers the last two inputs have.
    Chosen,
}

struct Product {
    parts: Parts,
    transpose: bool,
    /// How many rows a matrix of `x` has.
    rows: usize,
    pairs: Pairs,
    level: Level,
}

impl Kernel for Product {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let inputs: SmallVec<[Row; 6]> = inputs.iter().map(row).collect();
        let (inner, columns) = match self.transpose {
            true => (self.parts.columns, self.parts.rows),
            false => (self.parts.rows, self.parts.columns),
        };
        let x = typed::<f32>(inputs[0].bytes());
        let (weight, indices) = inputs[1..].split_at(self.parts.inputs());
        let size = self.rows * inner;
        let products = typed_mut::<f32>(output).chunks_exact_mut(self.rows * columns);
        for (number, output) in products.enumerate() {
            let (left, right) = match &self.pairs {
                Pairs::One => (0, 0),
                Pairs::Batches(axes) => places(axes, number),
                Pairs::Chosen => {
                    let index = |row: &Row| typed::<u32>(row.bytes())[number] as usize;
                    (index(&indices[0]), index(&indices[1]))
                }
            };
            let packed = self.parts.matrices(weight, right, 1);
            let x = &x[left * size..][..size];
            kernels::multiply(self.level, x, &packed, self.transpose, output);
        }
    }
}

/// The places of a product's matrices in two batches.
fn places(axes: &[(usize, usize, usize)], number: usize) -> (usize, usize) {
    let (mut rest, mut left, mut right) = (number, 0, 0);
    for (size, left_step, right_step) in axes.iter().rev() {
        left += rest % size * left_step;
        right += rest % size * right_step;
        rest /= size;
    }
    (left, right)
}

/// The type of a product.
fn product_type(x: &Array, weight: &Weight) -> Dtype {
    match (weight.form.mode, Dtype::of(x), Dtype::of(weight.scales)) {
        (Mode::Affine, x, scales) if x != scales => Dtype::F32,
        (_, x, _) => x,
    }
}

/// Refuses what cannot be multiplied; gives the number of results of a row.
fn product_fits(op: &str, x: &Array, weight: &Weight, transpose: bool) -> Result<i32> {
    float(op, "x", x)?;
    let (inner, columns) = weight.sizes(transpose);
    let least = if weight.batch().is_empty() { 1 } else { 2 };
    if x.ndim() < least || x.dim(-1) != inner {
        refuse!(
            "{op}: x must be of rank {least} or more with a last axis of {inner}, got shape {:?} and words of shape {:?}",
            x.shape(),
            weight.words.shape()
        )
    }
    Ok(columns)
}

/// `{:quantized_matmul, x, words, scales, biases, transpose, group_size, bits, mode}`
pub(crate) fn quantized_matmul(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let op = args.op;
    let x = args.array()?;
    let arrays = (args.array()?, args.array()?, args.optional_array()?);
    let transpose = args.bool()?;
    let weight = Weight::new(op, Form::read(args)?, arrays)?;
    let columns = product_fits(op, x, &weight, transpose)?;
    let dtype = product_type(x, &weight);
    let s = stream.raw();
    let (leading, last) = x.shape().split_at(x.ndim() - 1);
    if weight.batch().is_empty() {
        let shape = [leading, &[columns]].concat();
        let rows = checks::shape(op, &shape)? / columns as usize;
        let Ok(height) = i32::try_from(rows) else {
            refuse!("{op}: {rows} rows are too many")
        };
        let matrix = [height, last[0]];
        let matrix = mlx!(mlx_reshape, x.as_ptr(), matrix.as_ptr(), matrix.len(), s)?;
        let result = match level(stream) {
            Some(level) => {
                let product = Product {
                    parts: weight.parts(),
                    transpose,
                    rows,
                    pairs: Pairs::One,
                    level,
                };
                add(
                    op,
                    product,
                    &matrix,
                    &weight,
                    &[],
                    &[height, columns],
                    stream,
                )?
            }
            None => mlx_product(&matrix, &weight, transpose, stream)?,
        };
        let result = mlx!(mlx_reshape, result.as_ptr(), shape.as_ptr(), shape.len(), s)?;
        return mlx!(mlx_astype, result.as_ptr(), dtype.raw(), s);
    }
    let left = &leading[..leading.len() - 1];
    let batch = broadcast(op, left, weight.batch())?;
    let rows = x.dim(-2);
    let shape = [&batch[..], &[rows, columns]].concat();
    checks::shape(op, &shape)?;
    let result = match level(stream) {
        Some(level) => {
            let product = Product {
                parts: weight.parts(),
                transpose,
                rows: rows as usize,
                pairs: Pairs::Batches(steps(&batch, left, weight.batch())),
                level,
            };
            add(op, product, x, &weight, &[], &shape, stream)?
        }
        None => {
            // MLX takes the first of a batch of weights where `x` has none.
            let wide = [&batch[..], &x.shape()[x.ndim() - 2..]].concat();
            let wide = mlx!(mlx_broadcast_to, x.as_ptr(), wide.as_ptr(), wide.len(), s)?;
            mlx_product(&wide, &weight, transpose, stream)?
        }
    };
    mlx!(mlx_astype, result.as_ptr(), dtype.raw(), s)
}

/// What MLX multiplies: as it is on a GPU, and in f32 on a CPU, where it adds up in the type of `x`.
fn operands(
    x: &Array,
    weight: &Weight,
    stream: &StreamHandle,
) -> Result<(Array, Array, Option<Array>)> {
    if stream.is_gpu() {
        return Ok((x.clone(), weight.scales.clone(), weight.biases.cloned()));
    }
    let x = mlx!(mlx_astype, x.as_ptr(), Dtype::F32.raw(), stream.raw())?;
    let (scales, biases) = weight.wide(stream)?;
    Ok((x, scales, biases))
}

fn mlx_product(
    x: &Array,
    weight: &Weight,
    transpose: bool,
    stream: &StreamHandle,
) -> Result<Array> {
    if is_cuda(stream) && x.dim(-2) > 1 {
        return dense_product(x, weight, transpose, stream);
    }
    let (x, scales, biases) = operands(x, weight, stream)?;
    mlx!(
        mlx_quantized_matmul,
        x.as_ptr(),
        weight.words.as_ptr(),
        scales.as_ptr(),
        handle(biases.as_ref()),
        transpose,
        weight.form.group(),
        weight.form.bits(),
        weight.form.name().as_ptr(),
        stream.raw()
    )
}

/// By the weight's numbers, unpacked: MLX (0.32.4) takes a minute and more on CUDA to compile its kernel for several rows, which
/// gives wrong numbers where a sum has 64 terms.
fn dense_product(
    x: &Array,
    weight: &Weight,
    transpose: bool,
    stream: &StreamHandle,
) -> Result<Array> {
    let (s, dtype) = (stream.raw(), product_type(x, weight));
    let numbers = weight.numbers(stream)?;
    let numbers = cast(&numbers, dtype, s)?;
    let numbers = match transpose {
        true => mlx!(mlx_swapaxes, numbers.as_ptr(), -2, -1, s)?,
        false => numbers,
    };
    dot::product(&cast(x, dtype, s)?, &numbers, stream)
}

/// Adds the kernel of products, with arrays of indices behind the weight's.
fn add(
    op: &'static str,
    product: Product,
    x: &Array,
    weight: &Weight,
    indices: &[Array],
    shape: &[i32],
    stream: &StreamHandle,
) -> Result<Array> {
    let x = mlx!(mlx_astype, x.as_ptr(), Dtype::F32.raw(), stream.raw())?;
    let x = in_rows(&x, stream)?;
    let arrays = weight.in_rows(stream)?;
    let inputs: SmallVec<[&Array; 6]> = std::iter::once(&x).chain(&arrays).chain(indices).collect();
    let result = (shape, Dtype::F32);
    kernel::add(op, product, &inputs, result, Placement::Apart, stream)
}

/// The shape to which two broadcast.
fn broadcast(op: &str, left: &[i32], right: &[i32]) -> Result<Vec<i32>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[i32], axis: usize| {
        let missing = rank - shape.len();
        if axis < missing {
            1
        } else {
            shape[axis - missing]
        }
    };
    let axis = |axis: usize| match (size(left, axis), size(right, axis)) {
        (1, size) | (size, 1) => Ok(size),
        (a, b) if a == b => Ok(a),
        _ => refuse!("{op}: the batches {left:?} and {right:?} do not broadcast"),
    };
    (0..rank).map(axis).collect()
}

/// The sizes of a batch and how far a step of each leads in what broadcasts to it.
fn steps(batch: &[i32], left: &[i32], right: &[i32]) -> Vec<(usize, usize, usize)> {
    let steps_of = |shape: &[i32]| {
        let mut step = 1;
        let mut steps: Vec<usize> = shape
            .iter()
            .rev()
            .map(|&size| {
                let own = if size == 1 { 0 } else { step };
                step *= size as usize;
                own
            })
            .collect();
        steps.resize(batch.len(), 0);
        steps.reverse();
        steps
    };
    let steps = steps_of(left).into_iter().zip(steps_of(right));
    let axes = batch.iter().zip(steps);
    axes.map(|(&size, (left, right))| (size as usize, left, right))
        .collect()
}

/// `{:gather_qmm, x, words, scales, biases, lhs_indices, rhs_indices, transpose, group_size, bits, mode}`: indices count
/// the matrices of a batch, and are clamped.
pub(crate) fn gather_qmm(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let op = args.op;
    let x = args.array()?;
    let arrays = (args.array()?, args.array()?, args.optional_array()?);
    let (left, right) = (args.array()?, args.array()?);
    let transpose = args.bool()?;
    let weight = Weight::new(op, Form::read(args)?, arrays)?;
    let columns = product_fits(op, x, &weight, transpose)?;
    if x.ndim() < 2 || weight.batch().is_empty() {
        refuse!(
            "{op}: x must be of rank 2 or more and the words of rank 3 or more, got shapes {:?} and {:?}",
            x.shape(),
            weight.words.shape()
        )
    }
    let s = stream.raw();
    let batch = broadcast(op, left.shape(), right.shape())?;
    let rows = x.dim(-2);
    let shape = [&batch[..], &[rows, columns]].concat();
    checks::shape(op, &shape)?;
    let indices = |indices: &Array, matrices: &[i32]| {
        let count: i64 = matrices.iter().map(|size| i64::from(*size)).product();
        let indices = clamp(op, indices, &[count - 1], stream)?;
        let indices = mlx!(mlx_astype, indices.as_ptr(), Dtype::U32.raw(), s)?;
        let indices = mlx!(
            mlx_broadcast_to,
            indices.as_ptr(),
            batch.as_ptr(),
            batch.len(),
            s
        )?;
        in_rows(&indices, stream)
    };
    let left = indices(left, &x.shape()[..x.ndim() - 2])?;
    let right = indices(right, weight.batch())?;
    let result = match level(stream) {
        Some(level) => {
            let product = Product {
                parts: weight.parts(),
                transpose,
                rows: rows as usize,
                pairs: Pairs::Chosen,
                level,
            };
            add(op, product, x, &weight, &[left, right], &shape, stream)?
        }
        None => {
            let (x, scales, biases) = operands(x, &weight, stream)?;
            mlx!(
                mlx_gather_qmm,
                x.as_ptr(),
                weight.words.as_ptr(),
                scales.as_ptr(),
                handle(biases.as_ref()),
                left.as_ptr(),
                right.as_ptr(),
                transpose,
                weight.form.group(),
                weight.form.bits(),
                weight.form.name().as_ptr(),
                false,
                s
            )?
        }
    };
    mlx!(
        mlx_astype,
        result.as_ptr(),
        product_type(x, &weight).raw(),
        s
    )
}
