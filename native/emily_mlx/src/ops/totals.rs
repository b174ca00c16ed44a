//! Sums and products of f32 and products of small matrices of f32, taken in f64 by kernels of Emily's own on a CPU.
//! Elsewhere, and for everything else, there are MLX's.
//!
//! Floats of 16 bits lose every addend beyond a few thousand where they accumulate in their own type, as MLX has them
//! on a CPU. Whatever accumulates them does so in f32, and rounds once.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::dot;
use emily_kernels::reduce::{self, Reduction};
use emily_kernels::view::typed_mut;
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::kernels;
use crate::ops::table::{Op, Stream};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::mlx;
use crate::runtime::kernel::{self, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// What `total` gives of `x`, in its type.
pub(crate) fn accumulate(
    x: &Array,
    s: Stream,
    total: impl FnOnce(&Array) -> Result<Array>,
) -> Result<Array> {
    let dtype = Dtype::of(x);
    if !dtype.is_half() {
        return total(x);
    }
    cast(&total(&widened(x, s)?)?, dtype, s)
}

/// An array of f32 in the place of one of 16-bit floats.
pub(crate) fn widened(x: &Array, s: Stream) -> Result<Array> {
    match Dtype::of(x) {
        dtype if dtype.is_half() => cast(x, Dtype::F32, s),
        _ => Ok(x.clone()),
    }
}

pub(crate) fn cast(x: &Array, dtype: Dtype, s: Stream) -> Result<Array> {
    mlx!(mlx_astype, x.as_ptr(), dtype.raw(), s)
}

/// Up to so many products of numbers a matrix product takes no longer here than in BLAS, in batches too. That of
/// two vectors never does.
const FEW_PRODUCTS: i64 = 8 * 8 * 8;

/// A reduction over some axes, for a level of the processor.
struct Totals {
    reduction: Reduction,
    axes: SmallVec<[usize; 6]>,
    level: Level,
}

impl Kernel for Totals {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let output = typed_mut(output);
        reduce::reduce(
            self.level,
            self.reduction,
            view(&inputs[0]),
            &self.axes,
            output,
        );
    }
}

/// The reduction over `axes`, each named once and within the rank, if there is a kernel for it.
pub(crate) fn reduce(
    op: Op,
    x: &Array,
    axes: &[i32],
    keep: bool,
    stream: &StreamHandle,
) -> Option<Result<Array>> {
    let reduction = match op {
        Op::Sum => Reduction::Sum,
        Op::Prod => Reduction::Product,
        _ => return None,
    };
    if Dtype::of(x) != Dtype::F32 || axes.is_empty() {
        return None;
    }
    let totals = Totals {
        reduction,
        axes: axes.iter().map(|axis| *axis as usize).collect(),
        level: kernels::level(stream)?,
    };
    let sizes = x.shape().iter().enumerate();
    let shape: SmallVec<[i32; 6]> = sizes
        .filter_map(|(at, size)| match axes.contains(&(at as i32)) {
            true => keep.then_some(1),
            false => Some(*size),
        })
        .collect();
    let result = (&shape[..], Dtype::F32);
    Some(kernel::add(
        op.name(),
        totals,
        &[x],
        result,
        Placement::Apart,
        stream,
    ))
}

/// A product of batches of matrices, for a level of the processor.
struct Product(Level);

impl Kernel for Product {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        dot::products(
            self.0,
            view(&inputs[0]),
            view(&inputs[1]),
            typed_mut(output),
        );
    }
}

/// The product of two batches of matrices, where they are small and there is a kernel for it.
pub(crate) fn matmul(a: &Array, b: &Array, stream: &StreamHandle) -> Option<Result<Array>> {
    let f32s = Dtype::of(a) == Dtype::F32 && Dtype::of(b) == Dtype::F32;
    let rank = a.ndim();
    if !f32s || rank < 2 || b.ndim() != rank {
        return None;
    }
    let (rows, inner, columns) = (a.dim(-2), a.dim(-1), b.dim(-1));
    let products = i64::from(rows)
        .saturating_mul(inner.into())
        .saturating_mul(columns.into());
    let same_batch = a.shape()[..rank - 2] == b.shape()[..rank - 2];
    let vectors = rows == 1 && columns == 1;
    if !same_batch || inner != b.dim(-2) || !(vectors || products <= FEW_PRODUCTS) {
        return None;
    }
    let product = Product(kernels::level(stream)?);
    let shape = [&a.shape()[..rank - 1], &[columns]].concat();
    let result = (&shape[..], Dtype::F32);
    Some(kernel::add(
        "matmul",
        product,
        &[a, b],
        result,
        Placement::Apart,
        stream,
    ))
}
