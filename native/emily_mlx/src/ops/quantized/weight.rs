//! Packed weights as arguments: their form, and whether their arrays fit each other.

use std::ffi::CStr;

use emily_kernels::quantized::{Code, Factor, Of, Packed, Packing};
use emily_kernels::view::{typed, Row};
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_optional_dtype, mlx_optional_int};
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::in_rows;
use crate::runtime::stream::StreamHandle;

/// What the codes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Affine,
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

/// How numbers are packed: a mode, with groups and bits that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) mode: Mode,
    pub(super) group: i32,
    pub(super) bits: i32,
}

impl Form {
    /// `group_size, bits, mode`
    pub(super) fn read(args: &Args) -> Result<Form> {
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

    pub(super) fn name(self) -> &'static CStr {
        match self.mode {
            Mode::Affine => c"affine",
            Mode::Mxfp4 => c"mxfp4",
            Mode::Mxfp8 => c"mxfp8",
            Mode::Nvfp4 => c"nvfp4",
        }
    }

    pub(super) fn group(self) -> mlx_optional_int {
        optional(self.group)
    }

    pub(super) fn bits(self) -> mlx_optional_int {
        optional(self.bits)
    }

    /// The same for the kernels, with scales of a type.
    pub(super) fn packing(self, scales: Dtype) -> Packing {
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

pub(super) fn optional(value: i32) -> mlx_optional_int {
    mlx_optional_int {
        value,
        has_value: true,
    }
}

/// mlx-c's empty handle stands for an array that is not there.
pub(super) fn handle(array: Option<&Array>) -> mlx_array {
    array.map_or(
        mlx_array {
            ctx: std::ptr::null_mut(),
        },
        |array| array.as_ptr(),
    )
}

pub(super) fn float(op: &str, name: &str, array: &Array) -> Result<Of> {
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
pub(super) struct Weight<'a> {
    pub(super) form: Form,
    pub(super) words: &'a Array,
    pub(super) scales: &'a Array,
    pub(super) biases: Option<&'a Array>,
    /// How many numbers a row has.
    pub(super) columns: i32,
}

impl<'a> Weight<'a> {
    pub(super) fn new(
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

    pub(super) fn batch(&self) -> &'a [i32] {
        &self.words.shape()[..self.words.ndim() - 2]
    }

    /// Terms and results of a product.
    pub(super) fn sizes(&self, transpose: bool) -> (i32, i32) {
        match transpose {
            true => (self.columns, self.words.dim(-2)),
            false => (self.words.dim(-2), self.columns),
        }
    }

    /// The arrays for a kernel, in rows.
    pub(super) fn in_rows(&self, stream: &StreamHandle) -> Result<SmallVec<[Array; 6]>> {
        let arrays = [Some(self.words), Some(self.scales), self.biases];
        let arrays = arrays.into_iter().flatten();
        arrays.map(|array| in_rows(array, stream)).collect()
    }

    /// The scales and biases in f32: MLX rounds to their type at each step.
    pub(super) fn wide(&self, stream: &StreamHandle) -> Result<(Array, Option<Array>)> {
        let s = stream.raw();
        let wide = |factors: &Array| mlx!(mlx_astype, factors.as_ptr(), Dtype::F32.raw(), s);
        let scales = match self.form.mode {
            Mode::Affine => wide(self.scales)?,
            _ => self.scales.clone(),
        };
        Ok((scales, self.biases.map(wide).transpose()?))
    }

    /// The numbers in f32, by MLX.
    pub(super) fn numbers(&self, stream: &StreamHandle) -> Result<Array> {
        let (scales, biases) = self.wide(stream)?;
        let dtype = mlx_optional_dtype {
            value: Dtype::F32.raw(),
            has_value: true,
        };
        mlx!(
            mlx_dequantize,
            self.words.as_ptr(),
            scales.as_ptr(),
            handle(biases.as_ref()),
            self.form.group(),
            self.form.bits(),
            self.form.name().as_ptr(),
            handle(None),
            dtype,
            stream.raw()
        )
    }

    pub(super) fn parts(&self) -> Parts {
        Parts {
            packing: self.form.packing(Dtype::of(self.scales)),
            rows: self.words.dim(-2) as usize,
            columns: self.columns as usize,
            biases: self.biases.is_some(),
        }
    }
}

/// The parts of a batch of packed matrices, for a kernel.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) packing: Packing,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) biases: bool,
}

impl Parts {
    /// How many inputs the weight has.
    pub(super) fn inputs(&self) -> usize {
        2 + usize::from(self.biases)
    }

    /// Some matrices of a batch, as one.
    pub(super) fn matrices<'a>(&self, inputs: &'a [Row], first: usize, count: usize) -> Packed<'a> {
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
