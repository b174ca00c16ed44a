//! Products of matrices.

pub(crate) mod few;

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::view::typed_mut;
use emily_kernels::{dot, gemm};
use half::{bf16, f16};
use mlx_rs::Array;

use crate::ops::args::Args;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::{call, mlx};
use crate::runtime::kernel::{self, level, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

/// `{:matmul, x, y}`
pub(crate) fn matmul(args: &Args, stream: &StreamHandle) -> Result<Array> {
    product(args.array()?, args.array()?, stream)
}

pub(crate) fn product(x: &Array, y: &Array, stream: &StreamHandle) -> Result<Array> {
    match level(stream).and_then(|level| Product::of(x, y, level)) {
        Some(product) => product.add(x, y, stream),
        None => match few::Product::of(x, y, stream) {
            Some(product) => product.add(stream),
            None => call(mlx_sys::mlx_matmul, x, y, stream.raw()),
        },
    }
}

/// `{:transpose, {:matmul, x, y}, [1, 0]}`, in whose order the product is computed: whatever reads it walks over it in
/// a row, as weights do from which their gradient is taken. Products of complex numbers are BLAS's, whose last digits
/// depend on the order.
pub(crate) fn transposed(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, y, s) = (args.array()?, args.array()?, stream.raw());
    let turned = |x: &Array| mlx!(mlx_transpose_axes, x.as_ptr(), [1, 0].as_ptr(), 2, s);
    match (x.ndim(), y.ndim()) {
        (2, 2) if Dtype::of(x) != Dtype::C64 => product(&turned(y)?, &turned(x)?, stream),
        _ => turned(&product(x, y, stream)?),
    }
}

/// Up to so many products of numbers are taken in f64 in the time of those in f32.
const FEW_PRODUCTS: i64 = 8 * 8 * 8;

/// A product of batches of matrices, for a level of the processor.
struct Product {
    of: Of,
    /// The sizes of the axes before the last two.
    batch: Vec<i32>,
    level: Level,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    /// Matrices of few products, or vectors, of f32, taken in f64.
    Small,
    F32,
    F64,
    F16,
    Bf16,
}

impl Kernel for Product {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (level, a, b) = (self.level, view(&inputs[0]), view(&inputs[1]));
        match self.of {
            Of::Small => dot::products(level, a, b, typed_mut(output)),
            Of::F32 => gemm::products::<f32>(level, a, b, typed_mut(output)),
            Of::F64 => gemm::products::<f64>(level, a, b, typed_mut(output)),
            Of::F16 => gemm::products::<f16>(level, a, b, typed_mut(output)),
            Of::Bf16 => gemm::products::<bf16>(level, a, b, typed_mut(output)),
        }
    }
}

impl Product {
    /// The kernel for matrices of one type whose axes fit, batches broadcast. MLX refuses what does not fit.
    fn of(a: &Array, b: &Array, level: Level) -> Option<Self> {
        let ([batch @ .., rows, inner], [other @ .., terms, columns]) = (a.shape(), b.shape())
        else {
            return None;
        };
        let products = i64::from(*rows)
            .saturating_mul((*inner).into())
            .saturating_mul((*columns).into());
        let of = match Dtype::of(a) {
            Dtype::F32 if products <= FEW_PRODUCTS || (*rows == 1 && *columns == 1) => Of::Small,
            Dtype::F32 => Of::F32,
            Dtype::F64 => Of::F64,
            Dtype::F16 => Of::F16,
            Dtype::Bf16 => Of::Bf16,
            _ => return None,
        };
        let fits = inner == terms && Dtype::of(a) == Dtype::of(b);
        let batch = broadcast(batch, other).filter(|_| fits)?;
        Some(Product { of, batch, level })
    }

    fn add(self, a: &Array, b: &Array, stream: &StreamHandle) -> Result<Array> {
        let (a, b) = (self.broadcast(a, stream)?, self.broadcast(b, stream)?);
        let shape = [&self.batch[..], &[a.dim(-2), b.dim(-1)]].concat();
        let result = (&shape[..], Dtype::of(&a));
        let inputs = [&a, &b];
        kernel::add("matmul", self, &inputs, result, Placement::Apart, stream)
    }

    /// Matrices for all of the batch.
    fn broadcast(&self, x: &Array, stream: &StreamHandle) -> Result<Array> {
        let shape = [&self.batch[..], &[x.dim(-2), x.dim(-1)]].concat();
        if x.shape() == shape {
            return Ok(x.clone());
        }
        let (data, rank) = (shape.as_ptr(), shape.len());
        mlx!(mlx_broadcast_to, x.as_ptr(), data, rank, stream.raw())
    }
}

/// The sizes that both are broadcast to, if there are any.
fn broadcast(a: &[i32], b: &[i32]) -> Option<Vec<i32>> {
    let rank = a.len().max(b.len());
    let padded = |sizes: &[i32]| [&vec![1; rank - sizes.len()][..], sizes].concat();
    let sizes = padded(a).into_iter().zip(padded(b));
    let common = sizes.map(|sizes| match sizes {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    });
    common.collect()
}
