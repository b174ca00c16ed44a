//! Scattered updates that MLX lacks on CUDA, by the places of elements in row-major order.

use mlx_rs::Array;
use once_cell::sync::OnceCell;

use crate::ops::args::Number;
use crate::ops::create::scalar;
use crate::ops::{cast, checks};
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx, Arrays};
use crate::runtime::stream::StreamHandle;

/// `x` with each element replaced by the last of its updates. The greatest number of an update is found first, so
/// that it does not matter which of them a GPU comes to first.
pub(super) fn last(
    x: &Array,
    places: &Array,
    updates: &Array,
    stream: &StreamHandle,
) -> Result<Array> {
    let (op, s) = ("scatter", stream.raw());
    let count = numbered(op, places)?;
    let updates = cast::cast(updates, Dtype::of(x), s)?;
    let updates = ffi::reshape(&updates, &[count], s)?;
    let number = |number: i128| scalar(op, Number::Int(number), Dtype::S32);
    let none = number(-1)?;
    let size = [x.size() as i32];
    let none = mlx!(
        mlx_full,
        size.as_ptr(),
        1,
        none.as_ptr(),
        Dtype::S32.raw(),
        s
    )?;
    let numbers = mlx!(mlx_arange, 0.0, f64::from(count), 1.0, Dtype::S32.raw(), s)?;
    let numbers = ffi::reshape(&numbers, &[count, 1], s)?;
    let (indices, axes) = (Arrays::new([places])?, [0]);
    let latest = mlx!(
        mlx_scatter_max,
        none.as_ptr(),
        indices.as_ptr(),
        numbers.as_ptr(),
        axes.as_ptr(),
        axes.len(),
        s
    )?;
    let is_updated = call(mlx_sys::mlx_greater_equal, &latest, &number(0)?, s)?;
    let latest = call(mlx_sys::mlx_maximum, &latest, &number(0)?, s)?;
    let updated = mlx!(mlx_take_axis, updates.as_ptr(), latest.as_ptr(), 0, s)?;
    let before = ffi::reshape(x, &size, s)?;
    let chosen = mlx!(
        mlx_where,
        is_updated.as_ptr(),
        updated.as_ptr(),
        before.as_ptr(),
        s
    )?;
    ffi::reshape(&chosen, x.shape(), s)
}

static ADD: Source = Source {
    name: "scatter_add",
    inputs: &[c"places", c"updates"],
    header: c"",
    ahead: "",
    text: include_str!("scatter.cu.h"),
    in_rows: true,
    made: OnceCell::new(),
};

/// `x` of 64-bit integers with all updates of each element added.
pub(super) fn add(
    x: &Array,
    places: &Array,
    updates: &Array,
    stream: &StreamHandle,
) -> Result<Array> {
    let (s, dtype) = (stream.raw(), Dtype::of(x));
    let count = numbered("scatter_add", places)?;
    let updates = cast::cast(updates, dtype, s)?;
    let updates = ffi::reshape(&updates, &[count], s)?;
    let launch = Launch {
        inputs: &[places, &updates],
        output: (x.shape(), dtype),
        threads: count.min(1 << 24),
        in_block: 256,
        dtype: None,
        numbers: &[],
        zeroed: true,
    };
    let added = cuda::launch(&ADD, &launch, stream)?;
    call(mlx_sys::mlx_add, x, &added, s)
}

/// How many places there are, where 32 bits number them.
fn numbered(op: &str, places: &Array) -> Result<i32> {
    checks::not_empty(op, places)?;
    match i32::try_from(places.size()) {
        Ok(count) => Ok(count),
        Err(_) => refuse!("{op}: {} updates are more than 2^31", places.size()),
    }
}
