//! Packed numbers: packing them, their numbers, and products with them.

mod blocks;
mod product;
mod weight;

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::quantized::{self as kernels, Of, Packing};
use emily_kernels::view::{typed_mut, Row};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::checks;
use crate::ops::quantized::weight::{float, handle, Form, Mode, Parts, Weight};
use crate::runtime::contiguous::contiguous;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx};
use crate::runtime::kernel::{self, in_rows, level, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

pub(crate) use blocks::{blocks_matmul, dequantize_blocks};
pub(crate) use product::{gather_qmm, quantized_matmul};

/// `{:quantize, x, group_size, bits, mode}`: words and scales, and biases where the mode has them.
pub(crate) fn quantize(args: &Args, stream: &StreamHandle) -> Result<Vec<Array>> {
    let x = args.array()?;
    let form = Form::read(args)?;
    let of = float(args.op, "x", x)?;
    if x.ndim() < 2 || x.dim(-1) % form.group != 0 {
        refuse!(
            "{}: x must be of rank 2 or more with a last axis of whole groups of {}, got shape {:?}",
            args.op,
            form.group,
            x.shape()
        )
    }
    if lacking(form, stream).is_some() {
        return small_floats(x, form, of, stream);
    }
    // MLX (0.32.4) takes what lies in columns for rows on CUDA.
    let rows = match stream.is_gpu() {
        true => contiguous(x, stream)?,
        false => x.clone(),
    };
    ffi::arrays(|result| {
        // SAFETY: the handles are live, the name ends with a zero, an empty handle stands for no scale, and mlx-c answers
        // what it refuses with a status.
        unsafe {
            mlx_sys::mlx_quantize(
                result,
                rows.as_ptr(),
                form.group(),
                form.bits(),
                form.name().as_ptr(),
                handle(None),
                stream.raw(),
            )
        }
    })
}

/// The level for small floats on a CPU, even where no kernels are wanted: MLX composes them there, of arrays sixteen times
/// as large, and takes an even number of groups only.
fn lacking(form: Form, stream: &StreamHandle) -> Option<Level> {
    let is_lacking = form.mode != Mode::Affine && cfg!(own_kernels) && stream.is_cpu();
    is_lacking.then_some(Level::PORTABLE)
}

struct Scales(Of, Packing);

impl Kernel for Scales {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        kernels::float_scales(row(&inputs[0]).bytes(), self.0, &self.1, output);
    }
}

struct Codes(Of, Packing);

impl Kernel for Codes {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, scales) = (row(&inputs[0]), row(&inputs[1]));
        let words = typed_mut(output);
        kernels::float_codes(x.bytes(), self.0, &self.1, scales.bytes(), words);
    }
}

fn small_floats(x: &Array, form: Form, of: Of, stream: &StreamHandle) -> Result<Vec<Array>> {
    let packing = form.packing(Dtype::U8);
    let x = in_rows(x, stream)?;
    let last = x.ndim() - 1;
    let mut shape = x.shape().to_vec();
    shape[last] = x.dim(-1) / form.group;
    let result = (&shape[..], Dtype::U8);
    let scales = kernel::add(
        "quantize",
        Scales(of, packing),
        &[&x],
        result,
        Placement::Apart,
        stream,
    )?;
    shape[last] = x.dim(-1) / (32 / form.bits);
    let result = (&shape[..], Dtype::U32);
    let words = kernel::add(
        "quantize",
        Codes(of, packing),
        &[&x, &scales],
        result,
        Placement::Apart,
        stream,
    )?;
    Ok(vec![words, scales])
}

/// `{:dequantize, words, scales, biases, group_size, bits, mode, type}`: computed in f32 and rounded once.
pub(crate) fn dequantize(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let arrays = (args.array()?, args.array()?, args.optional_array()?);
    let weight = Weight::new(args.op, Form::read(args)?, arrays)?;
    let dtype = args.float_dtype()?;
    let s = stream.raw();
    let mut shape = weight.words.shape().to_vec();
    shape[weight.words.ndim() - 1] = weight.columns;
    checks::shape(args.op, &shape)?;
    let numbers = match level(stream).or(lacking(weight.form, stream)) {
        Some(level) => {
            let arrays = weight.in_rows(stream)?;
            let inputs: SmallVec<[&Array; 6]> = arrays.iter().collect();
            let numbers = Numbers {
                parts: weight.parts(),
                level,
            };
            let result = (&shape[..], Dtype::F32);
            kernel::add(
                "dequantize",
                numbers,
                &inputs,
                result,
                Placement::Apart,
                stream,
            )?
        }
        None => weight.numbers(stream)?,
    };
    mlx!(mlx_astype, numbers.as_ptr(), dtype.raw(), s)
}

struct Numbers {
    parts: Parts,
    level: Level,
}

impl Kernel for Numbers {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let inputs: SmallVec<[Row; 3]> = inputs.iter().map(row).collect();
        let output = typed_mut::<f32>(output);
        let count = output.len() / (self.parts.rows * self.parts.columns);
        let packed = self.parts.matrices(&inputs, 0, count);
        kernels::dequantize(self.level, &packed, output);
    }
}
