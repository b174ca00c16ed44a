//! Products of matrices.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::dot;
use emily_kernels::view::typed_mut;
use mlx_rs::Array;

use crate::ops::args::Args;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::call;
use crate::runtime::kernel::{self, level, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// `{:matmul, x, y}`
pub(crate) fn matmul(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, y) = (args.array()?, args.array()?);
    small(x, y, stream).unwrap_or_else(|| call(mlx_sys::mlx_matmul, x, y, stream.raw()))
}

/// Up to so many products of numbers a matrix product takes no longer here than in BLAS, in batches too. That of
/// two vectors never does.
const FEW_PRODUCTS: i64 = 8 * 8 * 8;

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

/// The product of two batches of matrices of f32, taken in f64, where they are small and there is a kernel for it.
fn small(a: &Array, b: &Array, stream: &StreamHandle) -> Option<Result<Array>> {
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
    let product = Product(level(stream)?);
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
