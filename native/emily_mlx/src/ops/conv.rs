//! Convolution.

use mlx_rs::Array;

use crate::ops::args::{Args, Number};
use crate::ops::checks;
use crate::ops::create::scalar;
use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{mlx, Stream};
use crate::runtime::stream::StreamHandle;

/// Channels-last convolution of one to three spatial axes.
pub(crate) fn conv(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, weight) = (args.array()?, args.array()?);
    let (strides, mut low, mut high) = (args.ints()?, args.ints()?, args.ints()?);
    let (kernel_dilation, input_dilation) = (args.ints()?, args.ints()?);
    let (groups, flip) = (args.int()?, args.bool()?);
    if !(3..=5).contains(&x.ndim()) || weight.ndim() != x.ndim() {
        refuse!(
            "conv: needs input and kernel of the same rank from 3 to 5, got shapes {:?} and {:?}",
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
    let (outputs, channels) = (weight.dim(0), weight.dim(-1));
    if i64::from(channels) * i64::from(groups) != i64::from(x.dim(-1)) || outputs % groups != 0 {
        refuse!(
            "conv: {groups} groups do not divide the channels of shapes {:?} and {:?}",
            x.shape(),
            weight.shape()
        )
    }
    let mut pad_first = false;
    let (mut padded, mut patches) = (i128::from(x.dim(0)), i128::from(x.dim(0)));
    for axis in 0..spatial {
        let dilated = |size: i32, dilation: i32| (i64::from(size) - 1) * i64::from(dilation) + 1;
        let input = dilated(x.dim(axis as i32 + 1), input_dilation[axis])
            + i64::from(low[axis])
            + i64::from(high[axis]);
        let kernel = dilated(weight.dim(axis as i32 + 1), kernel_dilation[axis]);
        if kernel > input || input > i64::from(i32::MAX) {
            refuse!("conv: a kernel of {kernel} does not fit an input of {input} on axis {axis}")
        }
        // MLX's own padding on a CPU writes beyond a result that is shorter than what it takes for
        // the part that the low padding reaches.
        let (stride, low) = (i64::from(strides[axis]), i64::from(low[axis]));
        let outputs = (input - kernel) / stride + 1;
        pad_first |= (low + stride - 1) / stride > outputs;
        padded = padded.saturating_mul(input.into());
        patches = patches
            .saturating_mul(outputs.into())
            .saturating_mul(weight.dim(axis as i32 + 1).into());
    }
    // Only a CPU has the patches copied, and not those of groups or of a dilated kernel.
    let copied = kernel_dilation.iter().all(|step| *step == 1) && (groups == 1 || spatial == 1);
    let patches = if copied && stream.device() == Device::Cpu {
        patches
    } else {
        0
    };
    let channels = i128::from(x.dim(-1));
    let bytes = (padded + patches).saturating_mul(4 * channels);
    checks::bytes_fit("conv", "its padded input and the patches of it", bytes)?;
    let s = stream.raw();
    let mut x = dilate(x, &input_dilation, s)?;
    if pad_first {
        x = pad_spatial(&x, &low, &high, s)?;
        low.fill(0);
        high.fill(0);
    }
    let weight = if flip {
        flip_spatial(weight, s)?
    } else {
        weight.clone()
    };
    mlx!(
        mlx_conv_general,
        x.as_ptr(),
        weight.as_ptr(),
        strides.as_ptr(),
        strides.len(),
        low.as_ptr(),
        low.len(),
        high.as_ptr(),
        high.len(),
        kernel_dilation.as_ptr(),
        kernel_dilation.len(),
        std::ptr::null(),
        0,
        groups,
        false,
        s
    )
}

/// Zeros between the entries of the spatial axes. MLX's own input dilation on a CPU writes beyond
/// its memory for some strides.
fn dilate(x: &Array, dilation: &[i32], s: Stream) -> Result<Array> {
    if dilation.iter().all(|step| *step == 1) {
        return Ok(x.clone());
    }
    let mut strides = vec![1; x.ndim()];
    strides[1..x.ndim() - 1].copy_from_slice(dilation);
    let dilated = |(size, step): (&i32, &i32)| (size - 1) * step + 1;
    let shape: Vec<i32> = x.shape().iter().zip(&strides).map(dilated).collect();
    let starts = vec![0; x.ndim()];
    let dtype = Dtype::of(x).raw();
    let zeros = mlx!(mlx_zeros, shape.as_ptr(), shape.len(), dtype, s)?;
    mlx!(
        mlx_slice_update,
        zeros.as_ptr(),
        x.as_ptr(),
        starts.as_ptr(),
        starts.len(),
        shape.as_ptr(),
        shape.len(),
        strides.as_ptr(),
        strides.len(),
        s
    )
}

/// MLX's own flip on a CPU turns the caller's kernel round in place.
fn flip_spatial(weight: &Array, s: Stream) -> Result<Array> {
    let axes: Vec<i32> = (1..weight.ndim() as i32 - 1).collect();
    mlx!(mlx_flip_axes, weight.as_ptr(), axes.as_ptr(), axes.len(), s)
}

fn pad_spatial(x: &Array, low: &[i32], high: &[i32], s: Stream) -> Result<Array> {
    let axes: Vec<i32> = (1..x.ndim() as i32 - 1).collect();
    let zero = scalar("conv", Number::Int(0), Dtype::of(x))?;
    mlx!(
        mlx_pad,
        x.as_ptr(),
        axes.as_ptr(),
        axes.len(),
        low.as_ptr(),
        low.len(),
        high.as_ptr(),
        high.len(),
        zero.as_ptr(),
        c"constant".as_ptr(),
        s
    )
}
