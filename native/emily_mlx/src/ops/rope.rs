//! Rotary embeddings.

use std::ffi::CStr;
use std::marker::PhantomData;

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::real::Real;
use emily_kernels::rope::{self as kernels, Rotary};
use emily_kernels::view::{typed, typed_mut, View};
use half::{bf16, f16};
use mlx_rs::{fast, Array};
use once_cell::sync::OnceCell;
use smallvec::SmallVec;

use crate::ops::args::Args;
use crate::ops::cast;
use crate::ops::checks::real_float;
use crate::ops::op::Op;
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, mlx};
use crate::runtime::kernel::{self, level, row, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// How a rotary embedding turns its planes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) dims: i32,
    pub(crate) traditional: bool,
    /// The base of the geometric progression of periods, or none with `freqs`.
    base: Option<f64>,
    scale: f64,
    /// The position of the first entry: a scalar, or one for each of the first axis.
    pub(crate) offset: &'a Array,
    /// The period of each plane.
    freqs: Option<&'a Array>,
}

impl<'a> Turn<'a> {
    /// The array that is turned, and how.
    pub(crate) fn read(args: &'a Args) -> Result<(&'a Array, Turn<'a>)> {
        let x = args.array()?;
        let turn = Turn {
            dims: args.int()?,
            traditional: args.bool()?,
            base: args.optional_float()?,
            scale: args.float()?,
            offset: args.array()?,
            freqs: args.optional_array()?,
        };
        real_float("rope", "x", x)?;
        let Turn {
            dims,
            offset,
            freqs,
            ..
        } = turn;
        if x.ndim() < 3 {
            refuse!(
                "rope: x must have at least three axes, got shape {:?}",
                x.shape()
            )
        }
        if dims < 2 || dims % 2 != 0 || dims > x.dim(-1) {
            refuse!(
                "rope: dims must be even and from 2 to the last axis of shape {:?}, got {dims}",
                x.shape()
            )
        }
        if !Dtype::of(offset).is_integer() || offset.ndim() > 1 {
            refuse!(
                "rope: offset must be integers of rank 0 or 1, got {} of shape {:?}",
                Dtype::of(offset).name(),
                offset.shape()
            )
        }
        if offset.ndim() == 1 && offset.dim(0) != x.dim(0) && offset.dim(0) != 1 {
            refuse!("rope: {} offsets for shape {:?}", offset.dim(0), x.shape())
        }
        if turn.base.is_some() == freqs.is_some() {
            refuse!("rope: takes either a base or freqs")
        }
        if let Some(freqs) = freqs {
            real_float("rope", "freqs", freqs)?;
            if freqs.shape() != [dims / 2] {
                refuse!(
                    "rope: freqs must have shape [{}], got {:?}",
                    dims / 2,
                    freqs.shape()
                )
            }
        }
        Ok((x, turn))
    }

    /// What `angle.cu.h` names of it. They become a part of a name, where no sign may be.
    pub(crate) fn numbers(&self) -> [(&'static CStr, i32); 3] {
        [
            (c"dims", self.dims),
            (c"backwards", self.scale.is_sign_negative().into()),
            (c"scale_bits", bits(self.scale.abs())),
        ]
    }

    /// The offset as a row of integers, for a kernel on CUDA.
    pub(crate) fn offsets(&self, stream: &StreamHandle) -> Result<Array> {
        let offset = cast::cast(self.offset, Dtype::S32, stream.raw())?;
        ffi::reshape(&offset, &[offset.size() as i32], stream.raw())
    }

    /// The periods in f32.
    pub(crate) fn periods(&self, stream: &StreamHandle) -> Result<Option<Array>> {
        let periods = self
            .freqs
            .map(|freqs| cast::cast(freqs, Dtype::F32, stream.raw()));
        periods.transpose()
    }
}

fn bits(number: f64) -> i32 {
    (number as f32).to_bits() as i32
}

/// `{:rope, x, dims, traditional, base, scale, offset, freqs}`
pub(crate) fn rope(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, turn) = Turn::read(args)?;
    let Turn {
        dims,
        offset,
        freqs,
        ..
    } = turn;
    let is_f32 = |freqs: &&Array| Dtype::of(freqs) == Dtype::F32;
    if let Some(level) = level(stream).filter(|_| freqs.iter().all(is_f32)) {
        match Dtype::of(x) {
            Dtype::F32 => return rotate::<f32>(level, x, &turn, stream),
            Dtype::F16 => return rotate::<f16>(level, x, &turn, stream),
            Dtype::Bf16 => return rotate::<bf16>(level, x, &turn, stream),
            _ => {}
        }
    }
    if cuda::is_cuda(stream) {
        return on_cuda(x, &turn, stream);
    }
    let (base, scale) = (turn.base.map(|base| base as f32), turn.scale as f32);
    stream.on(|| fast::rope_dynamic(x, dims, turn.traditional, base, scale, offset, freqs))
}

struct Rotation<T> {
    rotary: Rotary,
    level: Level,
    of: PhantomData<fn(T)>,
}

impl<T: Real> Kernel for Rotation<T> {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let Rotary {
            batches,
            heads,
            positions,
            columns,
            ..
        } = self.rotary;
        let (x, offsets) = (view(&inputs[0]), row(&inputs[1]));
        let periods = inputs.get(2).map(row);
        let periods = periods.as_ref().map(|periods| typed(periods.bytes()));
        let mut rotate = |x: &View| {
            let output = typed_mut::<T>(output);
            kernels::rotate(
                self.level,
                &self.rotary,
                x,
                typed(offsets.bytes()),
                periods,
                output,
            )
        };
        match x.axes() {
            [.., last] if x.axes().len() == 4 && last.stride == 1 => rotate(x),
            _ => {
                let x = x.to_row();
                rotate(&View::in_rows(
                    x.bytes(),
                    size_of::<T>(),
                    &[batches, heads, positions, columns],
                ))
            }
        }
    }
}

/// The turned rows. The arguments fit each other.
fn rotate<T: Real>(level: Level, x: &Array, turn: &Turn, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let offset = mlx!(mlx_astype, turn.offset.as_ptr(), Dtype::S32.raw(), s)?;
    let size = |axis: usize| x.dim(axis as i32) as usize;
    let last = x.ndim() - 1;
    let rotation = Rotation::<T> {
        rotary: Rotary {
            batches: size(0),
            heads: (1..last - 1).map(size).product(),
            positions: size(last - 1),
            columns: size(last),
            dims: turn.dims as usize,
            traditional: turn.traditional,
            scale: turn.scale,
            base: turn.base.unwrap_or(1.0),
        },
        level,
        of: PhantomData,
    };
    let arrays: SmallVec<[&Array; 3]> = [Some(x), Some(&offset), turn.freqs]
        .into_iter()
        .flatten()
        .collect();
    let (name, result) = (Op::Rope.name(), (x.shape(), Dtype::of(x)));
    kernel::add(name, rotation, &arrays, result, Placement::Apart, stream)
}

/// Frequencies by the array of periods.
pub(crate) const PERIODS: &CStr =
    c"#define FREQUENCY(plane) 1.0f / periods[plane * periods_strides[0]]\n";

/// The rotation on CUDA. MLX's kernel takes negative positions for positions of 2^32 and more.
static BY_PERIODS: Source = Source {
    name: "rope_periods",
    inputs: &[c"x", c"offset", c"periods"],
    header: PERIODS,
    ahead: "",
    text: concat!(include_str!("angle.cu.h"), include_str!("rope.cu.h")),
    in_rows: false,
    made: OnceCell::new(),
};

static BY_BASE: Source = Source {
    name: "rope_base",
    inputs: &[c"x", c"offset"],
    header: c"#define FREQUENCY(plane) exp2f(-(float(plane) / half) * log2f(__int_as_float(base_bits)))\n",
    ahead: "",
    text: concat!(include_str!("angle.cu.h"), include_str!("rope.cu.h")),
    in_rows: false,
    made: OnceCell::new(),
};

/// The turned rows, on CUDA. The arguments fit each other.
fn on_cuda(x: &Array, turn: &Turn, stream: &StreamHandle) -> Result<Array> {
    let (s, dtype, shape) = (stream.raw(), Dtype::of(x), x.shape());
    let last = shape.len() - 1;
    let heads = shape[1..last - 1].iter().product();
    let of_four = [shape[0], heads, shape[last - 1], shape[last]];
    let four = ffi::reshape(x, &of_four, s)?;
    let (offset, periods) = (turn.offsets(stream)?, turn.periods(stream)?);
    let inputs: SmallVec<[&Array; 3]> = [Some(&four), Some(&offset), periods.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    let positions = i64::from(shape[0]) * i64::from(shape[last - 1] * (turn.dims / 2));
    // The heads that one thread turns by one angle: more for many, of which a GPU has no thread each.
    let each = if positions * i64::from(heads) < 1 << 17 {
        1
    } else {
        4
    };
    let mut numbers: SmallVec<[(&CStr, i32); 6]> = SmallVec::from_slice(&turn.numbers());
    numbers.push((c"each", each));
    numbers.push((c"traditional", turn.traditional.into()));
    if let Some(base) = turn.base {
        numbers.push((c"base_bits", bits(base)));
    }
    let source = if periods.is_some() {
        &BY_PERIODS
    } else {
        &BY_BASE
    };
    let threads = positions * i64::from((heads + each - 1) / each);
    let launch = Launch {
        inputs: &inputs,
        output: (&of_four, dtype),
        threads: threads.min(1 << 24) as i32,
        in_block: 128,
        dtype: Some((c"T", dtype)),
        numbers: &numbers,
        zeroed: false,
    };
    ffi::reshape(&cuda::launch(source, &launch, stream)?, shape, s)
}
