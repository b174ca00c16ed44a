//! Linear algebra, which MLX has on the CPU only: it runs on the CPU's stream whatever the device.

use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::create::number_like;
use crate::ops::elementwise::{pairwise, select};
use crate::ops::op::Op;
use crate::ops::{reduce, shape};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx, Stream};
use crate::runtime::stream::StreamHandle;
use crate::runtime::truth;

/// LAPACK knows f32 and f64 only.
fn matrix<'a>(args: &'a Args) -> Result<&'a Array> {
    let x = args.array()?;
    if x.ndim() < 2 {
        refuse!("{}: needs matrices, got shape {:?}", args.op, x.shape())
    }
    let dtype = Dtype::of(x);
    if !matches!(dtype, Dtype::F32 | Dtype::F64) {
        refuse!("{}: needs type f32 or f64, got {}", args.op, dtype.name())
    }
    workspace_fits(args, x, i128::from(x.dim(-1)) * i128::from(x.dim(-2)))?;
    Ok(x)
}

/// LAPACK counts its workspace in 32 bits; `size` is what it documents.
fn workspace_fits(args: &Args, x: &Array, size: i128) -> Result<()> {
    if size > i128::from(i32::MAX) {
        refuse!(
            "{}: matrices of shape {:?} are too large: LAPACK needs {size} numbers beside them, and counts to {}",
            args.op,
            x.shape(),
            i32::MAX
        )
    }
    Ok(())
}

fn square<'a>(args: &'a Args) -> Result<&'a Array> {
    let x = matrix(args)?;
    if x.dim(-1) != x.dim(-2) {
        refuse!(
            "{}: needs square matrices, got shape {:?}",
            args.op,
            x.shape()
        )
    }
    Ok(x)
}

pub(crate) fn cholesky(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, upper) = (square(args)?, args.bool()?);
    let s = stream.cpu()?.raw();
    mlx!(mlx_linalg_cholesky, x.as_ptr(), upper, s)
}

pub(crate) fn inv(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, stream) = (square(args)?, stream.cpu()?);
    let (size, dtype) = (x.dim(-1), Dtype::of(x).raw());
    let identity = mlx!(mlx_eye, size, size, 0, dtype, stream.raw())?;
    let identity = mlx!(
        mlx_broadcast_to,
        identity.as_ptr(),
        x.shape().as_ptr(),
        x.ndim(),
        stream.raw()
    )?;
    solved(x, &identity, stream)
}

/// Written out up to three rows, as MLX does; the product of the pivots beyond, since MLX's way through the
/// logarithm underflows. Every row that was swapped changes the sign.
pub(crate) fn det(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, stream) = (square(args)?, stream.cpu()?);
    let (size, s) = (x.dim(-1), stream.raw());
    if size <= 3 {
        return mlx!(mlx_linalg_det, x.as_ptr(), s);
    }
    let Lu {
        factors, pivots, ..
    } = Lu::of(x, stream)?;
    let u32s = Dtype::U32.raw();
    let each = mlx!(mlx_arange, 0.0, f64::from(size), 1.0, u32s, s)?;
    let in_place = call(mlx_sys::mlx_equal, &pivots, &each, s)?;
    let signs = select(&in_place, &number(1.0, x)?, &number(-1.0, x)?, stream)?;
    let diagonal = diagonal(&factors, s)?;
    let signed = pairwise(
        Op::Multiply,
        mlx_sys::mlx_multiply,
        &diagonal,
        &signs,
        stream,
    )?;
    let last = [signed.ndim() as i32 - 1];
    let product = mlx_sys::mlx_prod_axes;
    reduce::totalled(Op::Prod, product, &signed, &last, false, stream)
}

/// The right-hand side of a system: a vector or matrices of as many rows as `a`.
fn right_side<'a>(args: &'a Args, a: &Array) -> Result<&'a Array> {
    let b = args.array()?;
    let rows = if b.ndim() == 1 {
        b.dim(0)
    } else if b.ndim() > 1 {
        b.dim(-2)
    } else {
        0
    };
    if rows != a.dim(-1) || Dtype::of(b) != Dtype::of(a) {
        refuse!(
            "{}: shapes {:?} ({}) and {:?} ({}) are no system",
            args.op,
            a.shape(),
            Dtype::of(a).name(),
            b.shape(),
            Dtype::of(b).name()
        )
    }
    Ok(b)
}

pub(crate) fn solve(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let a = square(args)?;
    solved(a, right_side(args, a)?, stream.cpu()?)
}

/// The two triangles of `a`, one after the other, as MLX does.
fn solved(a: &Array, b: &Array, stream: &StreamHandle) -> Result<Array> {
    let (lu, s) = (Lu::of(a, stream)?, stream.raw());
    let mut order = mlx!(mlx_argsort_axis, lu.rows.as_ptr(), -1, s)?;
    let mut axis = -1;
    if b.ndim() > 1 {
        order = mlx!(mlx_expand_dims, order.as_ptr(), -1, s)?;
        axis = -2;
    }
    let b = mlx!(mlx_take_along_axis, b.as_ptr(), order.as_ptr(), axis, s)?;
    let half = solved_by_inverse(&lu.lower(s)?, &b, false, s)?;
    let upper = Sound::triangles(&lu.upper(s)?, stream)?;
    upper.mark(&solved_by_inverse(&upper.x, &half, true, s)?)
}

pub(crate) fn solve_triangular(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let a = square(args)?;
    let b = right_side(args, a)?;
    let (upper, stream) = (args.bool()?, stream.cpu()?);
    let a = Sound::triangles(a, stream)?;
    a.mark(&solved_by_inverse(&a.x, b, upper, stream.raw())?)
}

/// By the inverse of a triangle; the other one is not looked at.
fn solved_by_inverse(a: &Array, b: &Array, upper: bool, s: Stream) -> Result<Array> {
    let (a, b) = (a.as_ptr(), b.as_ptr());
    mlx!(mlx_linalg_solve_triangular, a, b, upper, s)
}

pub(crate) fn qr(args: &Args, stream: &StreamHandle) -> Result<Vec<Array>> {
    let x = matrix(args)?;
    let s = stream.cpu()?.raw();
    // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
    let arrays = ffi::two_arrays(|q, r| unsafe { mlx_sys::mlx_linalg_qr(q, r, x.as_ptr(), s) })?;
    Ok(arrays.into())
}

pub(crate) fn eigh(args: &Args, stream: &StreamHandle) -> Result<Vec<Array>> {
    let (x, upper) = (square(args)?, args.bool()?);
    let size = i128::from(x.dim(-1));
    workspace_fits(args, x, 1 + 6 * size + 2 * size * size)?;
    let (stream, triangle) = (stream.cpu()?, if upper { c"U" } else { c"L" });
    let finite = Sound::finite(x, stream)?;
    let (x, s) = (finite.x.as_ptr(), stream.raw());
    // SAFETY: as in `qr`; the triangle's name is a constant.
    let arrays = ffi::two_arrays(|values, vectors| unsafe {
        mlx_sys::mlx_linalg_eigh(values, vectors, x, triangle.as_ptr(), s)
    })?;
    finite.mark_all(arrays.into())
}

pub(crate) fn lu_factor(args: &Args, stream: &StreamHandle) -> Result<Vec<Array>> {
    let lu = Lu::of(matrix(args)?, stream.cpu()?)?;
    Ok(vec![lu.factors, lu.pivots])
}

pub(crate) fn lu(args: &Args, stream: &StreamHandle) -> Result<Vec<Array>> {
    let (x, stream) = (matrix(args)?, stream.cpu()?);
    let (lu, s) = (Lu::of(x, stream)?, stream.raw());
    let (lower, upper) = (lu.lower(s)?, lu.upper(s)?);
    Ok(vec![lu.rows, lower, upper])
}

pub(crate) fn svd(args: &Args, stream: &StreamHandle) -> Result<Vec<Array>> {
    let (x, vectors) = (matrix(args)?, args.bool()?);
    let (rows, columns) = (i128::from(x.dim(-2)), i128::from(x.dim(-1)));
    let least = rows.min(columns);
    workspace_fits(args, x, 4 * least * least + 6 * least + rows.max(columns))?;
    let stream = stream.cpu()?;
    let finite = Sound::finite(x, stream)?;
    let (x, s) = (finite.x.as_ptr(), stream.raw());
    let arrays = ffi::arrays(|result| {
        // SAFETY: as in `qr`.
        unsafe { mlx_sys::mlx_linalg_svd(result, x, vectors, s) }
    })?;
    finite.mark_all(arrays)
}

/// Matrices that LAPACK can compute with, all of a batch: it fails for all where it fails for one.
struct Sound<'a> {
    /// The matrices, with something harmless in the place of those with a flaw.
    x: Array,
    /// Zero for each matrix, NaN for those with a flaw, with two axes of one entry.
    flaw: Array,
    stream: &'a StreamHandle,
}

impl<'a> Sound<'a> {
    /// For a NaN or an infinity LAPACK's iterations fail, or never end.
    fn finite(x: &Array, stream: &'a StreamHandle) -> Result<Self> {
        let rank = x.ndim() as i32;
        // Of numbers zeros, of others NaN.
        let zeros = pairwise(Op::Subtract, mlx_sys::mlx_subtract, x, x, stream)?;
        let (sum, axes) = (mlx_sys::mlx_sum_axes, [rank - 2, rank - 1]);
        let flaw = reduce::totalled(Op::Sum, sum, &zeros, &axes, true, stream)?;
        let has_flaw = mlx!(mlx_isnan, flaw.as_ptr(), stream.raw())?;
        let x = select(&has_flaw, &number(0.0, x)?, x, stream)?;
        Ok(Sound { x, flaw, stream })
    }

    /// A triangle with a NaN on its diagonal is taken for singular.
    fn triangles(x: &Array, stream: &'a StreamHandle) -> Result<Self> {
        let (s, last) = (stream.raw(), [x.ndim() as i32 - 2]);
        let pivots = diagonal(x, s)?;
        let is_nan = mlx!(mlx_isnan, pivots.as_ptr(), s)?;
        let has_flaw = reduce::reduced(mlx_sys::mlx_any_axes, &is_nan, &last, true, s)?;
        let has_flaw = mlx!(mlx_expand_dims, has_flaw.as_ptr(), -1, s)?;
        let flaw = select(&has_flaw, &number(f64::NAN, x)?, &number(0.0, x)?, stream)?;
        // A triangle of ones is not singular.
        let x = select(&has_flaw, &number(1.0, x)?, x, stream)?;
        Ok(Sound { x, flaw, stream })
    }

    /// A result of the matrices, all of it NaN for those with a flaw. The others stay, down to the sign of a zero.
    fn mark(&self, result: &Array) -> Result<Array> {
        let minus = |flaw| {
            pairwise(
                Op::Subtract,
                mlx_sys::mlx_subtract,
                result,
                flaw,
                self.stream,
            )
        };
        if result.ndim() >= self.flaw.ndim() {
            return minus(&self.flaw);
        }
        let s = self.stream.raw();
        minus(&mlx!(mlx_squeeze_axis, self.flaw.as_ptr(), -1, s)?)
    }

    fn mark_all(&self, results: Vec<Array>) -> Result<Vec<Array>> {
        results.iter().map(|result| self.mark(result)).collect()
    }
}

/// A number of the type of `x`.
fn number(number: f64, x: &Array) -> Result<Array> {
    number_like("linalg", number, x)
}

/// The diagonals of square matrices: every so many elements. MLX's own gathers them by indices.
fn diagonal(x: &Array, s: Stream) -> Result<Array> {
    let (batch, size) = (&x.shape()[..x.ndim() - 2], x.dim(-1));
    let Some(elements) = size.checked_mul(size) else {
        return mlx!(mlx_diagonal, x.as_ptr(), 0, -2, -1, s);
    };
    let shape = [batch, &[elements]].concat();
    let rows = ffi::reshape(x, &shape, s)?;
    let (starts, mut strides) = (vec![0; shape.len()], vec![1; shape.len()]);
    strides[shape.len() - 1] = size + 1;
    shape::strided(&rows, &starts, &shape, &strides, s)
}

/// A matrix's LU factors.
struct Lu {
    /// Both in one matrix.
    factors: Array,
    /// The row that each was swapped with.
    pivots: Array,
    /// The row of the product that is each row of the matrix.
    rows: Array,
}

impl Lu {
    fn of(x: &Array, stream: &StreamHandle) -> Result<Self> {
        let [factors, pivots, rows] = truth::lu(x, stream.raw())?;
        Ok(Lu {
            factors,
            pivots,
            rows,
        })
    }

    /// How many pivots there are.
    fn count(&self) -> i32 {
        self.pivots.dim(-1)
    }

    fn lower(&self, s: Stream) -> Result<Array> {
        let (x, rank) = (&self.factors, self.factors.ndim() as i32);
        let below = mlx!(mlx_tril, x.as_ptr(), -1, s)?;
        let below = shape::cut(&below, rank - 1, &(0..self.count()), s)?;
        let dtype = Dtype::of(x).raw();
        let ones = mlx!(mlx_eye, x.dim(-2), self.count(), 0, dtype, s)?;
        call(mlx_sys::mlx_add, &below, &ones, s)
    }

    fn upper(&self, s: Stream) -> Result<Array> {
        let (x, rank) = (&self.factors, self.factors.ndim() as i32);
        let above = mlx!(mlx_triu, x.as_ptr(), 0, s)?;
        shape::cut(&above, rank - 2, &(0..self.count()), s)
    }
}
