//! Linear algebra, which MLX has on the CPU only: it runs on the CPU's stream whatever the device.

use mlx_rs::Array;

use crate::args::Args;
use crate::dtype::Dtype;
use crate::error::{refuse, Result};
use crate::ffi::{self, mlx};
use crate::op::Value;
use crate::stream::StreamHandle;

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
    let x = square(args)?;
    let s = stream.cpu()?.raw();
    mlx!(mlx_linalg_inv, x.as_ptr(), s)
}

pub(crate) fn det(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = square(args)?;
    let s = stream.cpu()?.raw();
    mlx!(mlx_linalg_det, x.as_ptr(), s)
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
    let b = right_side(args, a)?;
    let s = stream.cpu()?.raw();
    mlx!(mlx_linalg_solve, a.as_ptr(), b.as_ptr(), s)
}

pub(crate) fn solve_triangular(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let a = square(args)?;
    let b = right_side(args, a)?;
    let upper = args.bool()?;
    let s = stream.cpu()?.raw();
    mlx!(
        mlx_linalg_solve_triangular,
        a.as_ptr(),
        b.as_ptr(),
        upper,
        s
    )
}

pub(crate) fn qr(args: &Args, stream: &StreamHandle) -> Result<Value> {
    let x = matrix(args)?;
    let s = stream.cpu()?.raw();
    // SAFETY: the handles are live and mlx-c answers what it refuses with a status.
    let arrays = ffi::two_arrays(|q, r| unsafe { mlx_sys::mlx_linalg_qr(q, r, x.as_ptr(), s) })?;
    Ok(arrays.into())
}

pub(crate) fn eigh(args: &Args, stream: &StreamHandle) -> Result<Value> {
    let (x, upper) = (square(args)?, args.bool()?);
    let size = i128::from(x.dim(-1));
    workspace_fits(args, x, 1 + 6 * size + 2 * size * size)?;
    let (s, triangle) = (stream.cpu()?.raw(), if upper { c"U" } else { c"L" });
    // SAFETY: as in `qr`; the triangle's name is a constant.
    let arrays = ffi::two_arrays(|values, vectors| unsafe {
        mlx_sys::mlx_linalg_eigh(values, vectors, x.as_ptr(), triangle.as_ptr(), s)
    })?;
    Ok(arrays.into())
}

pub(crate) fn lu_factor(args: &Args, stream: &StreamHandle) -> Result<Value> {
    let x = matrix(args)?;
    let s = stream.cpu()?.raw();
    // SAFETY: as in `qr`.
    let arrays = ffi::two_arrays(|lu, pivots| unsafe {
        mlx_sys::mlx_linalg_lu_factor(lu, pivots, x.as_ptr(), s)
    })?;
    Ok(arrays.into())
}

pub(crate) fn lu(args: &Args, stream: &StreamHandle) -> Result<Value> {
    let x = matrix(args)?;
    let s = stream.cpu()?.raw();
    // SAFETY: as in `qr`.
    let arrays = ffi::arrays(|result| unsafe { mlx_sys::mlx_linalg_lu(result, x.as_ptr(), s) })?;
    Ok(arrays.into())
}

pub(crate) fn svd(args: &Args, stream: &StreamHandle) -> Result<Value> {
    let (x, vectors) = (matrix(args)?, args.bool()?);
    let (rows, columns) = (i128::from(x.dim(-2)), i128::from(x.dim(-1)));
    let least = rows.min(columns);
    workspace_fits(args, x, 4 * least * least + 6 * least + rows.max(columns))?;
    let s = stream.cpu()?.raw();
    let arrays = ffi::arrays(|result| {
        // SAFETY: as in `qr`.
        unsafe { mlx_sys::mlx_linalg_svd(result, x.as_ptr(), vectors, s) }
    })?;
    Ok(arrays.into())
}
