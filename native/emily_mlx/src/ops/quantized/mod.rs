//! Packed numbers: packing them, their numbers, and products with them.

mod product;

use std::ffi::CStr;

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::quantized::{self as kernels, Code, Factor, Of, Packed, Packing};
use emily_kernels::view::{typed, typed_mut, Row};
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_optional_dtype, mlx_optional_int};
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::checks;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx};
use crate::runtime::kernel::{self, in_rows, level, row, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

pub(crate) use product::{gather_qmm, quantized_matmul};

/// What the codes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Affine,
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

/// How numbers are packed: a mode, with groups and bits that it has.
#[derive(Clone, Copy, Debug)]
struct Form {
    mode: Mode,
    group: i32,
    bits: i32,
}

impl Form {
    /// `group_size, bits, mode`
    fn read(args: &Args) -> Result<Form> {
        let (group, bits, name) = (args.int()?, args.int()?, args.text()?);
        let (mode, groups, widths): (Mode, &[i32], &[i32]) = match name {
            "affine" => (Mode::Affine, &[32, 64, 128], &[2, 3, 4, 5, 6, 8]),
            "mxfp4" => (Mode::Mxfp4, &[32], &[4]),
            "mxfp8" => (Mode::Mxfp8, &[32], &[8]),
            "nvfp4" => (Mode::Nvfp4, &[16], &[4]),
            _ => refuse!(
                "{}: mode must be affine, mxfp4, mxfp8 or nvfp4, got {name:?}",
                args.op
            ),
        };
        for (what, value, allowed) in [("group_size", group, groups), ("bits", bits, widths)] {
            if !allowed.contains(&value) {
                refuse!(
                    "{}: {what} of mode {name} must be one of {allowed:?}, got {value}",
                    args.op
                )
            }
        }
        Ok(Form { mode, group, bits })
    }

    fn name(self) -> &'static CStr {
        match self.mode {
            Mode::Affine => c"affine",
            Mode::Mxfp4 => c"mxfp4",
            Mode::Mxfp8 => c"mxfp8",
            Mode::Nvfp4 => c"nvfp4",
        }
    }

    fn group(self) -> mlx_optional_int {
        optional(self.group)
    }

    fn bits(self) -> mlx_optional_int {
        optional(self.bits)
    }

    /// The same for the kernels, with scales of a type.
    fn packing(self, scales: Dtype) -> Packing {
        Packing {
            code: match self.mode {
                Mode::Affine => Code::Unsigned(self.bits as usize),
                Mode::Mxfp4 | Mode::Nvfp4 => Code::E2m1,
                Mode::Mxfp8 => Code::E4m3,
            },
            group: self.group as usize,
            factor: match (self.mode, scales) {
                (Mode::Nvfp4, _) => Factor::E4m3,
                (Mode::Mxfp4 | Mode::Mxfp8, _) => Factor::E8m0,
                (Mode::Affine, Dtype::F16) => Factor::F16,
                (Mode::Affine, Dtype::Bf16) => Factor::Bf16,
                (Mode::Affine, _) => Factor::F32,
            },
        }
    }
}

fn optional(value: i32) -> mlx_optional_int {
    mlx_optional_int {
        value,
        has_value: true,
    }
}

/// mlx-c's empty handle stands for an array that is not there.
fn handle(array: Option<&Array>) -> mlx_array {
    array.map_or(
        mlx_array {
            ctx: std::ptr::null_mut(),
        },
        |array| array.as_ptr(),
    )
}

fn float(op: &str, name: &str, array: &Array) -> Result<Of> {
    match Dtype::of(array) {
        Dtype::F32 => Ok(Of::F32),
        Dtype::F16 => Ok(Of::F16),
        Dtype::Bf16 => Ok(Of::Bf16),
        other => refuse!(
            "{op}: {name} must be of type f32, f16 or bf16, got {}",
            other.name()
        ),
    }
}

/// A packed weight whose arrays fit each other.
#[derive(Clone, Copy)]
struct Weight<'a> {
    form: Form,
    words: &'a Array,
    scales: &'a Array,
    biases: Option<&'a Array>,
    /// How many numbers a row has.
    columns: i32,
}

impl<'a> Weight<'a> {
    fn new(
        op: &str,
        form: Form,
        (words, scales, biases): (&'a Array, &'a Array, Option<&'a Array>),
    ) -> Result<Self> {
        if Dtype::of(words) != Dtype::U32 || words.ndim() < 2 {
            refuse!(
                "{op}: a packed weight must be u32 of rank 2 or more, got {} of shape {:?}",
                Dtype::of(words).name(),
                words.shape()
            )
        }
        let bits = i64::from(words.dim(-1)) * 32;
        let columns = bits / i64::from(form.bits);
        let whole = bits % i64::from(form.bits) == 0 && columns % i64::from(form.group) == 0;
        let Some(columns) = i32::try_from(columns).ok().filter(|_| whole) else {
            refuse!(
                "{op}: rows of a packed weight must hold whole groups of {} numbers of {} bits, got shape {:?}",
                form.group,
                form.bits,
                words.shape()
            )
        };
        let mut shape = words.shape().to_vec();
        shape[words.ndim() - 1] = columns / form.group;
        for (name, factors) in [("scales", Some(scales)), ("biases", biases)] {
            if let Some(factors) = factors {
                if factors.shape() != shape {
                    refuse!(
                        "{op}: {name} must have shape {shape:?}, got {:?}",
                        factors.shape()
                    )
                }
            }
        }
        match (form.mode, biases) {
            (Mode::Affine, Some(biases)) => {
                float(op, "scales", scales)?;
                if Dtype::of(biases) != Dtype::of(scales) {
                    refuse!(
                        "{op}: biases must be of the type of scales, {}, got {}",
                        Dtype::of(scales).name(),
                        Dtype::of(biases).name()
                    )
                }
            }
            (Mode::Affine, None) => refuse!("{op}: mode affine needs biases"),
            (_, Some(_)) => refuse!("{op}: mode affine alone has biases"),
            (_, None) if Dtype::of(scales) != Dtype::U8 => {
                refuse!("{op}: scales must be u8, got {}", Dtype::of(scales).name())
            }
            (_, None) => {}
        }
        Ok(Weight {
            form,
            words,
            scales,
            biases,
            columns,
        })
    }

    fn batch(&self) -> &'a [i32] {
        &self.words.shape()[..self.words.ndim() - 2]
    }

    /// Terms and results of a product.
    fn sizes(&self, transpose: bool) -> (i32, i32) {
        match transpose {
            true => (self.columns, self.words.dim(-2)),
            false => (self.words.dim(-2), self.columns),
        }
    }

    /// The arrays for a kernel, in rows.
    fn in_rows(&self, stream: &StreamHandle) -> Result<SmallVec<[Array; 6]>> {
        let arrays = [Some(self.words), Some(self.scales), self.biases];
        let arrays = arrays.into_iter().flatten();
        arrays.map(|array| in_rows(array, stream)).collect()
    }

    /// The scales and biases in f32: MLX rounds to their type at each step.
    fn wide(&self, stream: &StreamHandle) -> Result<(Array, Option<Array>)> {
        let s = stream.raw();
        let wide = |factors: &Array| mlx!(mlx_astype, factors.as_ptr(), Dtype::F32.raw(), s);
        let scales = match self.form.mode {
            Mode::Affine => wide(self.scales)?,
            _ => self.scales.clone(),
        };
        Ok((scales, self.biases.map(wide).transpose()?))
    }

    fn parts(&self) -> Parts {
        Parts {
            packing: self.form.packing(Dtype::of(self.scales)),
            rows: self.words.dim(-2) as usize,
            columns: self.columns as usize,
            biases: self.biases.is_some(),
        }
    }
}

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
    ffi::arrays(|result| {
        // SAFETY: the handles are live, the name ends with a zero, an empty handle stands for no scale, and mlx-c answers
        // what it refuses with a status.
        unsafe {
            mlx_sys::mlx_quantize(
                result,
                x.as_ptr(),
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
    let is_lacking =
        form.mode != Mode::Affine && cfg!(own_kernels) && stream.device() == Device::Cpu;
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
    let dtype = args.dtype()?;
    if !dtype.is_real_float() {
        refuse!(
            "{}: the type must be one of floats, got {}",
            args.op,
            dtype.name()
        )
    }
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
        None => mlx_dequantize(&weight, stream)?,
    };
    mlx!(mlx_astype, numbers.as_ptr(), dtype.raw(), s)
}

/// The numbers by MLX.
fn mlx_dequantize(weight: &Weight, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (scales, biases) = weight.wide(stream)?;
    let dtype = mlx_optional_dtype {
        value: Dtype::F32.raw(),
        has_value: true,
    };
    mlx!(
        mlx_dequantize,
        weight.words.as_ptr(),
        scales.as_ptr(),
        handle(biases.as_ref()),
        weight.form.group(),
        weight.form.bits(),
        weight.form.name().as_ptr(),
        handle(None),
        dtype,
        s
    )
}

/// The parts of a batch of packed matrices, for a kernel.
#[derive(Clone, Copy)]
struct Parts {
    packing: Packing,
    rows: usize,
    columns: usize,
    biases: bool,
}

impl Parts {
    /// How many inputs the weight has.
    fn inputs(&self) -> usize {
        2 + usize::from(self.biases)
    }

    /// Some matrices of a batch, as one.
    fn matrices<'a>(&self, inputs: &'a [Row], first: usize, count: usize) -> Packed<'a> {
        let numbers = self.rows * self.columns;
        let words = numbers * self.packing.code.bits() / 32;
        let factors = numbers / self.packing.group * self.packing.factor.bytes();
        let factors_of = |row: &'a Row| &row.bytes()[first * factors..][..count * factors];
        Packed {
            packing: self.packing,
            columns: self.columns,
            words: &typed(inputs[0].bytes())[first * words..][..count * words],
            scales: factors_of(&inputs[1]),
            biases: inputs.get(2).map(factors_of),
        }
    }
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
