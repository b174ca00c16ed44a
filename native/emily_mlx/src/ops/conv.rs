//! Convolution.

use emily_kernels::conv::{self, Output, Window};
use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::view::{typed_mut, Axes, Axis, View};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::args::{Args, Number};
use crate::ops::{checks, create, shape};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{mlx, Stream};
use crate::runtime::kernel::{self, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// `{:conv, x, kernel, strides, low, high, kernel_dilation, input_dilation, groups, flip, channels_first}`: where
/// the channels are, behind the batch and the kernel's outputs or last, they are in the result too.
pub(crate) fn conv(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, weight) = (args.array()?, args.array()?);
    let (strides, low, high) = (args.ints()?, args.ints()?, args.ints()?);
    let (kernel_dilation, input_dilation) = (args.ints()?, args.ints()?);
    let (groups, flip, channels_first) = (args.int()?, args.bool()?, args.bool()?);
    if x.ndim() < 3 || weight.ndim() != x.ndim() {
        refuse!(
            "conv: needs input and kernel of the same rank from 3 on, got shapes {:?} and {:?}",
            x.shape(),
            weight.shape()
        )
    }
    let spatial = x.ndim() - 2;
    let lengths = [
        ("strides", strides.len()),
        ("low padding", low.len()),
        ("high padding", high.len()),
        ("kernel dilation", kernel_dilation.len()),
        ("input dilation", input_dilation.len()),
    ];
    checks::same_length("conv", spatial, &lengths)?;
    checks::at_least("conv", "stride", &strides, 1)?;
    checks::at_least("conv", "padding", &low, 0)?;
    checks::at_least("conv", "padding", &high, 0)?;
    checks::at_least("conv", "kernel dilation", &kernel_dilation, 1)?;
    checks::at_least("conv", "input dilation", &input_dilation, 1)?;
    checks::at_least("conv", "groups", &[groups], 1)?;
    let channel_axis = if channels_first { 1 } else { -1 };
    let (outputs, channels) = (weight.dim(0), weight.dim(channel_axis));
    if i64::from(channels) * i64::from(groups) != i64::from(x.dim(channel_axis))
        || outputs % groups != 0
    {
        refuse!(
            "conv: {groups} groups do not divide the channels of shapes {:?} and {:?}",
            x.shape(),
            weight.shape()
        )
    }
    let first = if channels_first { 2 } else { 1 };
    let mut sizes = Vec::with_capacity(spatial);
    for axis in 0..spatial {
        let dilated = |size: i32, dilation: i32| (i64::from(size) - 1) * i64::from(dilation) + 1;
        let at = (axis + first) as i32;
        let input =
            dilated(x.dim(at), input_dilation[axis]) + i64::from(low[axis]) + i64::from(high[axis]);
        let kernel = dilated(weight.dim(at), kernel_dilation[axis]);
        if kernel > input || input > i64::from(i32::MAX) {
            refuse!("conv: a kernel of {kernel} does not fit an input of {input} on axis {axis}")
        }
        sizes.push(((input - kernel) / i64::from(strides[axis]) + 1) as i32);
    }
    let s = stream.raw();
    let options = Options {
        strides,
        low,
        high,
        kernel_dilation,
        input_dilation,
        groups,
    };
    let dtype = Dtype::of(x);
    let has_kernel = matches!(dtype, Dtype::F32 | Dtype::F64) && Dtype::of(weight) == dtype;
    if let Some(level) = kernel::level(stream).filter(|_| has_kernel) {
        let at = if channels_first { 0 } else { sizes.len() };
        sizes.insert(at, outputs);
        sizes.insert(0, x.dim(0));
        let kernel = Convolution::new(&options, &sizes, (channels_first, flip), dtype, level);
        return kernel::add(
            "conv",
            kernel,
            &[x, weight],
            (&sizes, dtype),
            Placement::Apart,
            stream,
        );
    }
    // MLX's own flip on a CPU turns the caller's kernel round in place.
    let weight = if flip {
        let axes: Vec<i32> = (0..spatial).map(|axis| (axis + first) as i32).collect();
        mlx!(mlx_flip_axes, weight.as_ptr(), axes.as_ptr(), axes.len(), s)?
    } else {
        weight.clone()
    };
    if spatial > MOST_AXES {
        refuse!(
            "conv: MLX has up to three spatial axes, got shapes {:?} and {:?}",
            x.shape(),
            weight.shape()
        )
    }
    if !channels_first {
        return options.by_mlx(x, &weight, stream);
    }
    let last: Vec<i32> = std::iter::once(0)
        .chain(2..x.ndim() as i32)
        .chain([1])
        .collect();
    let back: Vec<i32> = [0, x.ndim() as i32 - 1]
        .into_iter()
        .chain(1..x.ndim() as i32 - 1)
        .collect();
    let moved = |x: &Array, axes: &[i32]| {
        mlx!(mlx_transpose_axes, x.as_ptr(), axes.as_ptr(), axes.len(), s)
    };
    let result = options.by_mlx(&moved(x, &last)?, &moved(&weight, &last)?, stream)?;
    moved(&result, &back)
}

/// MLX has no more spatial axes.
const MOST_AXES: usize = 3;

/// cuDNN refuses arrays that do not lie at a multiple of 16 bytes, and MLX (0.32.4) puts those of up to eight bytes on CUDA beside one
/// another: there the batch and the kernel get so many entries more, of zeros.
const PADDING: i32 = 9;

fn padded_with_zeros(x: &Array, axis: i32, s: Stream) -> Result<Array> {
    let zero = create::scalar("conv", Number::Int(0), Dtype::of(x))?;
    mlx!(
        mlx_pad,
        x.as_ptr(),
        &axis,
        1,
        &0,
        1,
        &PADDING,
        1,
        zero.as_ptr(),
        c"constant".as_ptr(),
        s
    )
}

type Ints = SmallVec<[i32; 8]>;

/// What a convolution does beside its arrays, checked.
struct Options {
    strides: Ints,
    low: Ints,
    high: Ints,
    kernel_dilation: Ints,
    input_dilation: Ints,
    groups: i32,
}

/// The kernel of convolutions.
struct Convolution {
    /// The result's.
    shape: SmallVec<[usize; 6]>,
    windows: SmallVec<[Window; 3]>,
    groups: usize,
    channels_first: bool,
    /// Whether the kernel's entries are taken from its end on.
    flip: bool,
    dtype: Dtype,
    level: Level,
}

impl Convolution {
    fn new(
        options: &Options,
        shape: &[i32],
        (channels_first, flip): (bool, bool),
        dtype: Dtype,
        level: Level,
    ) -> Self {
        let window = |axis: usize| Window {
            stride: options.strides[axis] as usize,
            low: options.low[axis] as isize,
            kernel_dilation: options.kernel_dilation[axis] as usize,
            input_dilation: options.input_dilation[axis] as usize,
        };
        Convolution {
            shape: shape.iter().map(|size| *size as usize).collect(),
            windows: (0..options.strides.len()).map(window).collect(),
            groups: options.groups as usize,
            channels_first,
            flip,
            dtype,
            level,
        }
    }

    /// Axes of which those at `grouped` are first the groups', then what is left in each.
    fn axes(&self, axes: &[Axis], grouped: usize, channel: usize) -> Axes {
        let Axis { size, stride } = axes[grouped];
        let each = size / self.groups;
        let mut result = Axes::new();
        result.push(Axis {
            size: self.groups,
            stride: stride * each as isize,
        });
        let mut axes = Axes::from_slice(axes);
        axes[grouped].size = each;
        let channel = axes.remove(channel);
        result.push(axes.remove(0));
        result.push(channel);
        result.extend(axes);
        result
    }

    fn run_as<T: conv::Number>(&self, x: &View, w: &View, output: &mut [u8]) {
        let rank = x.axes().len();
        let channel = if self.channels_first { 1 } else { rank - 1 };
        let first = if self.channels_first { 2 } else { 1 };
        let flipped = self.flip.then(|| w.flipped(first..first + rank - 2));
        let w = flipped.as_ref().unwrap_or(w);
        let x_axes = self.axes(x.axes(), channel, channel);
        let w_axes = self.axes(w.axes(), 0, channel);
        conv::convolve::<T>(
            self.level,
            &x.with_axes(x_axes),
            &w.with_axes(w_axes),
            &self.windows,
            Output {
                data: typed_mut(output),
                axes: &self.axes(&row_major(&self.shape), channel, channel),
            },
        );
    }
}

/// The axes of an array without gaps.
fn row_major(shape: &[usize]) -> Axes {
    let mut axes: Axes = shape.iter().map(|&size| Axis { size, stride: 1 }).collect();
    for at in (1..axes.len()).rev() {
        axes[at - 1].stride = axes[at].stride * axes[at].size as isize;
    }
    axes
}

impl Kernel for Convolution {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, w) = (kernel::view(&inputs[0]), kernel::view(&inputs[1]));
        match self.dtype {
            Dtype::F64 => self.run_as::<f64>(x, w, output),
            _ => self.run_as::<f32>(x, w, output),
        }
    }
}

impl Options {
    /// MLX's own, whose channels are last.
    fn by_mlx(mut self, x: &Array, weight: &Array, stream: &StreamHandle) -> Result<Array> {
        let spatial = self.strides.len();
        let (mut padded, mut patches) = (i128::from(x.dim(0)), i128::from(x.dim(0)));
        let mut results = i64::from(x.dim(0)) * i64::from(weight.dim(0));
        for axis in 0..spatial {
            let at = axis as i32 + 1;
            let dilated =
                |size: i32, dilation: i32| (i64::from(size) - 1) * i64::from(dilation) + 1;
            let padding = i64::from(self.low[axis]) + i64::from(self.high[axis]);
            let input = dilated(x.dim(at), self.input_dilation[axis]) + padding;
            let outputs = (input - dilated(weight.dim(at), self.kernel_dilation[axis]))
                / i64::from(self.strides[axis])
                + 1;
            results = results.saturating_mul(outputs);
            padded = padded.saturating_mul(input.into());
            patches = patches
                .saturating_mul(outputs.into())
                .saturating_mul(weight.dim(at).into());
        }
        // Only a CPU has the patches copied, and not those of groups or of a dilated kernel.
        let copied = self.kernel_dilation.iter().all(|step| *step == 1)
            && (self.groups == 1 || spatial == 1);
        let patches = if copied && stream.is_cpu() {
            patches
        } else {
            0
        };
        let channels = i128::from(x.dim(-1));
        let bytes = (padded + patches).saturating_mul(4 * channels);
        checks::bytes_fit("conv", "its padded input and the patches of it", bytes)?;
        let s = stream.raw();
        let (mut x, mut weight) = (self.dilated(x, s)?, weight.clone());
        let batch = x.dim(0);
        let least = x.size().min(weight.size()).min(results as usize);
        let is_padded = stream.is_gpu() && least < PADDING as usize;
        if is_padded {
            x = padded_with_zeros(&x, 0, s)?;
            weight = padded_with_zeros(&weight, spatial as i32, s)?;
            self.high[spatial - 1] += PADDING * self.kernel_dilation[spatial - 1];
        }
        let dense = [1; MOST_AXES];
        let result = mlx!(
            mlx_conv_general,
            x.as_ptr(),
            weight.as_ptr(),
            self.strides.as_ptr(),
            spatial,
            self.low.as_ptr(),
            spatial,
            self.high.as_ptr(),
            spatial,
            self.kernel_dilation.as_ptr(),
            spatial,
            dense.as_ptr(),
            spatial,
            self.groups,
            false,
            s
        )?;
        match is_padded {
            true => shape::cut(&result, 0, &(0..batch), s),
            false => Ok(result),
        }
    }

    /// What is convolved with its entries apart, and zeros between them: MLX (0.32.4) gives wrong numbers on CUDA where it is to
    /// put strides and these together.
    fn dilated(&self, x: &Array, s: Stream) -> Result<Array> {
        if self.input_dilation.iter().all(|step| *step == 1) {
            return Ok(x.clone());
        }
        let mut shape = x.shape().to_vec();
        let mut steps = vec![1; shape.len()];
        for (axis, dilation) in self.input_dilation.iter().enumerate() {
            shape[axis + 1] = (shape[axis + 1] - 1) * dilation + 1;
            steps[axis + 1] = *dilation;
        }
        let (rank, starts) = (shape.len(), vec![0; shape.len()]);
        let zeros = mlx!(mlx_zeros, shape.as_ptr(), rank, Dtype::of(x).raw(), s)?;
        mlx!(
            mlx_slice_update,
            zeros.as_ptr(),
            x.as_ptr(),
            starts.as_ptr(),
            rank,
            shape.as_ptr(),
            rank,
            steps.as_ptr(),
            rank,
            s
        )
    }
}
