//! GGML's blocks as they lie in a file: their numbers, and products with them. MLX has neither.

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::quantized::blocks::{self as kernels, Blocks, Type};
use emily_kernels::view::{typed, typed_mut};
use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::checks;
use crate::ops::quantized::weight::float;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, in_rows, level, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// A matrix of blocks, or a batch of them.
struct Weight<'a> {
    bytes: &'a Array,
    of: Type,
    /// How many numbers a row has.
    columns: i32,
}

impl<'a> Weight<'a> {
    /// Blocks and the name of their type.
    fn read(args: &'a Args) -> Result<Self> {
        let op = args.op;
        let (bytes, name) = (args.array()?, args.text()?);
        let Some(of) = Type::named(name) else {
            let names = Type::ALL.map(|(name, _)| name).join(", ");
            refuse!("{op}: the type of blocks must be one of {names}, got {name:?}")
        };
        let (numbers, size) = of.block();
        let row = match (Dtype::of(bytes), bytes.shape()) {
            (Dtype::U8, [_, .., row]) => *row as usize,
            _ => 0,
        };
        let columns = row / size * numbers;
        match i32::try_from(columns) {
            Ok(columns) if row > 0 && row % size == 0 => Ok(Weight { bytes, of, columns }),
            _ => refuse!(
                "{op}: blocks of {name} must be u8 of rank 2 or more with rows of whole blocks of {size} bytes, got {} of shape {:?}",
                Dtype::of(bytes).name(),
                bytes.shape()
            ),
        }
    }
}

/// The level for blocks on a CPU, even where no kernels are wanted: there is nothing else.
fn level_for(op: &str, stream: &StreamHandle) -> Result<Level> {
    let portable = (cfg!(own_kernels) && stream.is_cpu()).then_some(Level::PORTABLE);
    match level(stream).or(portable) {
        Some(level) => Ok(level),
        None => refuse!("{op}: only the kernels of a CPU take blocks"),
    }
}

struct Numbers {
    of: Type,
    columns: usize,
    level: Level,
}

impl Kernel for Numbers {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let bytes = row(&inputs[0]);
        let blocks = Blocks {
            of: self.of,
            columns: self.columns,
            bytes: bytes.bytes(),
        };
        kernels::dequantize(self.level, &blocks, typed_mut(output));
    }
}

/// `{:dequantize_blocks, blocks, of, type}`: computed in f32 and rounded once.
pub(crate) fn dequantize_blocks(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let weight = Weight::read(args)?;
    let dtype = args.float_dtype()?;
    let mut shape = weight.bytes.shape().to_vec();
    shape[weight.bytes.ndim() - 1] = weight.columns;
    checks::shape(args.op, &shape)?;
    let numbers = Numbers {
        of: weight.of,
        columns: weight.columns as usize,
        level: level_for(args.op, stream)?,
    };
    let numbers = kernel::add(
        args.op,
        numbers,
        &[&in_rows(weight.bytes, stream)?],
        (&shape, Dtype::F32),
        Placement::Apart,
        stream,
    )?;
    mlx!(mlx_astype, numbers.as_ptr(), dtype.raw(), stream.raw())
}

struct Product {
    of: Type,
    columns: usize,
    transpose: bool,
    level: Level,
}

impl Kernel for Product {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, bytes) = (row(&inputs[0]), row(&inputs[1]));
        let blocks = Blocks {
            of: self.of,
            columns: self.columns,
            bytes: bytes.bytes(),
        };
        let x = typed(x.bytes());
        kernels::multiply(self.level, x, &blocks, self.transpose, typed_mut(output));
    }
}

/// `{:blocks_matmul, x, blocks, of, transpose}`: of rows of `x` and one matrix, in f32, and rounded to the type of `x`.
pub(crate) fn blocks_matmul(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let op = args.op;
    let x = args.array()?;
    let weight = Weight::read(args)?;
    let transpose = args.bool()?;
    float(op, "x", x)?;
    let [height, _] = *weight.bytes.shape() else {
        refuse!(
            "{op}: blocks must be a matrix, got shape {:?}",
            weight.bytes.shape()
        )
    };
    let (inner, outer) = match transpose {
        true => (weight.columns, height),
        false => (height, weight.columns),
    };
    let leading = match x.shape() {
        [leading @ .., last] if *last == inner => leading,
        shape => refuse!(
            "{op}: x must be of rank 1 or more with a last axis of {inner}, got shape {shape:?} and blocks of shape {:?}",
            weight.bytes.shape()
        ),
    };
    let shape = [leading, &[outer]].concat();
    checks::shape(op, &shape)?;
    let product = Product {
        of: weight.of,
        columns: weight.columns as usize,
        transpose,
        level: level_for(op, stream)?,
    };
    let s = stream.raw();
    let wide = mlx!(mlx_astype, x.as_ptr(), Dtype::F32.raw(), s)?;
    let (wide, bytes) = (in_rows(&wide, stream)?, in_rows(weight.bytes, stream)?);
    let result = kernel::add(
        op,
        product,
        &[&wide, &bytes],
        (&shape, Dtype::F32),
        Placement::Apart,
        stream,
    )?;
    mlx!(mlx_astype, result.as_ptr(), Dtype::of(x).raw(), s)
}
