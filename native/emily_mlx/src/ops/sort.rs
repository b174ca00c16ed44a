//! Sorting, and the greatest of a row: by kernels on a CPU, elsewhere by MLX's sort. NaN is greater than all numbers, and
//! equals keep their order in either direction.

use std::borrow::Cow;

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::sort as kernels;
use emily_kernels::view::View;
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::{Args, Number};
use crate::ops::create;
use crate::runtime::contiguous::contiguous;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx};
use crate::runtime::kernel::{self, level, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

type MlxSort = unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, mlx_stream) -> i32;

/// `{:sort, x, axis, descending}`
pub(crate) fn sort(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let (axis, descending) = (args.axis(x)?, args.bool()?);
    let dtype = Dtype::of(x);
    if let Some(order) = Ordered::of(dtype, |maps| maps.sort, (axis, descending), stream) {
        return order.add(args.op, x, dtype, stream);
    }
    let sorted = by_mlx(mlx_sys::mlx_sort_axis, x, axis, stream)?;
    match descending {
        true => mlx!(mlx_flip_axes, sorted.as_ptr(), &axis, 1, stream.raw()),
        false => Ok(sorted),
    }
}

/// `{:argsort, x, axis, descending}`, in numbers of 32 bits.
pub(crate) fn argsort(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    let (axis, descending) = (args.axis(x)?, args.bool()?);
    places(args.op, x, axis, descending, stream)
}

fn places(
    op: &'static str,
    x: &Array,
    axis: i32,
    descending: bool,
    stream: &StreamHandle,
) -> Result<Array> {
    let order = Ordered::of(
        Dtype::of(x),
        |maps| maps.argsort,
        (axis, descending),
        stream,
    );
    if let Some(order) = order {
        return order.add(op, x, Dtype::U32, stream);
    }
    let s = stream.raw();
    if !descending {
        return by_mlx(mlx_sys::mlx_argsort_axis, x, axis, stream);
    }
    // Equals keep their order: the input is reversed as well as the result.
    let greatest = create::scalar(op, Number::Int(i128::from(x.dim(axis)) - 1), Dtype::U32)?;
    let reversed = mlx!(mlx_flip_axes, x.as_ptr(), &axis, 1, s)?;
    let order = by_mlx(mlx_sys::mlx_argsort_axis, &reversed, axis, stream)?;
    let order = mlx!(mlx_flip_axes, order.as_ptr(), &axis, 1, s)?;
    call(mlx_sys::mlx_subtract, &greatest, &order, s)
}

/// `{:top_k, x, k}`: the places along the last axis of the `k` greatest, the greatest first, in numbers of 32 bits.
pub(crate) fn top_k(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, count) = (args.array()?, args.int()?);
    let Some((&columns, outer)) = x.shape().split_last() else {
        refuse!("{}: needs an axis, got an array without any", args.op)
    };
    if !(1..=columns).contains(&count) {
        refuse!(
            "{}: {count} elements of an axis of {columns}, shape {:?}",
            args.op,
            x.shape()
        )
    }
    let shape = [outer, &[count]].concat();
    if let (Some(kernels), Some(level)) = (Kernels::of(Dtype::of(x)), level(stream)) {
        let top = Top {
            top: kernels.top,
            count: count as usize,
            level,
        };
        let result = (&shape[..], Dtype::U32);
        return kernel::add(args.op, top, &[x], result, Placement::Apart, stream);
    }
    let axis = x.ndim() as i32 - 1;
    let order = places(args.op, x, axis, true, stream)?;
    let (starts, strides) = (vec![0; shape.len()], vec![1; shape.len()]);
    let (rank, s) = (shape.len(), stream.raw());
    mlx!(
        mlx_slice,
        order.as_ptr(),
        starts.as_ptr(),
        rank,
        shape.as_ptr(),
        rank,
        strides.as_ptr(),
        rank,
        s
    )
}

fn by_mlx(function: MlxSort, x: &Array, axis: i32, stream: &StreamHandle) -> Result<Array> {
    // MLX's kernels for a GPU (#4366) mistake the order of what is not row-major.
    let x = match stream.is_cpu() {
        true => Cow::Borrowed(x),
        false => Cow::Owned(contiguous(x, stream)?),
    };
    // SAFETY: the handles are live, and the axis is within the rank.
    ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, stream.raw()) })
}

type Order = fn(Level, &View, usize, bool, &mut [u8]);
type Greatest = fn(Level, &View, usize, &mut [u8]);

/// The kernels of a type.
struct Kernels {
    sort: Order,
    argsort: Order,
    top: Greatest,
}

impl Kernels {
    fn by<K: kernels::Ordered>() -> Self {
        Kernels {
            sort: kernels::sort::<K>,
            argsort: kernels::argsort::<K>,
            top: kernels::top::<K>,
        }
    }

    /// Complex numbers have none.
    fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::Bool | Dtype::U8 => Kernels::by::<u8>(),
            Dtype::U16 => Kernels::by::<u16>(),
            Dtype::U32 => Kernels::by::<u32>(),
            Dtype::U64 => Kernels::by::<u64>(),
            Dtype::S8 => Kernels::by::<i8>(),
            Dtype::S16 => Kernels::by::<i16>(),
            Dtype::S32 => Kernels::by::<i32>(),
            Dtype::S64 => Kernels::by::<i64>(),
            Dtype::F16 => Kernels::by::<kernels::F16>(),
            Dtype::Bf16 => Kernels::by::<kernels::Bf16>(),
            Dtype::F32 => Kernels::by::<f32>(),
            Dtype::F64 => Kernels::by::<f64>(),
            Dtype::C64 => return None,
        })
    }
}

/// An order along an axis, for a level of the processor.
struct Ordered {
    order: Order,
    axis: usize,
    descending: bool,
    level: Level,
}

impl Kernel for Ordered {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        (self.order)(
            self.level,
            view(&inputs[0]),
            self.axis,
            self.descending,
            output,
        );
    }
}

impl Ordered {
    fn of(
        dtype: Dtype,
        order: impl Fn(Kernels) -> Order,
        (axis, descending): (i32, bool),
        stream: &StreamHandle,
    ) -> Option<Self> {
        let level = level(stream)?;
        Kernels::of(dtype).map(|kernels| Ordered {
            order: order(kernels),
            axis: axis as usize,
            descending,
            level,
        })
    }

    fn add(
        self,
        op: &'static str,
        x: &Array,
        dtype: Dtype,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let result = (x.shape(), dtype);
        kernel::add(op, self, &[x], result, Placement::Apart, stream)
    }
}

/// The greatest of each row, for a level of the processor.
struct Top {
    top: Greatest,
    count: usize,
    level: Level,
}

impl Kernel for Top {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        (self.top)(self.level, view(&inputs[0]), self.count, output);
    }
}
