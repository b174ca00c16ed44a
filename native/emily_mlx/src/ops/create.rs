//! New arrays.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use mlx_rs::Array;

use crate::ops::args::{Args, Number};
use crate::ops::checks;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Error, Result};
use crate::runtime::ffi::{self, call, mlx};
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// An array from its bytes in row-major order, copied once.
pub fn from_bytes(bytes: &[u8], shape: &[i64], dtype: Dtype) -> Result<Array> {
    let op = "from_binary";
    let shape = narrow(op, shape)?;
    let expected = checks::shape(op, &shape)?.checked_mul(dtype.size());
    if expected != Some(bytes.len()) {
        refuse!(
            "{op}: shape {shape:?} of type {} takes {} bytes, got {}",
            dtype.name(),
            expected.map_or("too many".to_owned(), |bytes| bytes.to_string()),
            bytes.len()
        )
    }
    new_data(bytes, &shape, dtype)
}

fn narrow(op: &str, shape: &[i64]) -> Result<Vec<i32>> {
    let narrow = |size: &i64| {
        i32::try_from(*size)
            .map_err(|_| Error::Argument(format!("{op}: size {size} does not fit 32 bits")))
    };
    shape.iter().map(narrow).collect()
}

/// An array from its bytes in row-major order, which lie in a file from `offset` on.
///
/// The file is read, not mapped: who touches a mapped page behind the end of a file that was cut
/// in the meantime gets SIGBUS, here the file is found too short.
pub fn from_file(path: &Path, offset: u64, shape: &[i64], dtype: Dtype) -> Result<Array> {
    let (op, name) = ("from_file", path.display());
    let (shape, bytes) = sized(op, shape, dtype)?;
    let failed = |problem: std::io::Error| Error::Argument(format!("{op}: {name}: {problem}"));
    // Opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        refuse!("{op}: {name}: not a regular file")
    }
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length.saturating_sub(offset) < bytes as u64 {
        refuse!("{op}: {name}: {bytes} bytes at {offset} reach beyond its {length} bytes")
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    filled(op, &shape, dtype, |data| match read(&file, data) {
        Err(problem) if problem.kind() == ErrorKind::UnexpectedEof => {
            refuse!("{op}: {name}: less than {bytes} bytes at {offset} are there")
        }
        done => done.map_err(failed),
    })
}

/// Reads as many bytes as there is room for.
pub(crate) fn read(from: &impl AsFd, mut to: &mut [MaybeUninit<u8>]) -> io::Result<()> {
    while !to.is_empty() {
        let fd = from.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open, and the kernel writes within the slice.
        let count = unsafe { libc::read(fd, to.as_mut_ptr().cast(), to.len()) };
        match usize::try_from(count) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => to = &mut to[count..],
            Err(_) => match io::Error::last_os_error() {
                problem if problem.kind() == ErrorKind::Interrupted => (),
                problem => return Err(problem),
            },
        }
    }
    Ok(())
}

/// A new array of a shape that `sized` has given, whose bytes `fill` writes, all of them.
#[cfg(own_kernels)]
pub(crate) fn filled(
    op: &str,
    shape: &[i32],
    dtype: Dtype,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<()>,
) -> Result<Array> {
    use std::ffi::{c_int, c_void};

    extern "C" {
        fn emily_new_array(
            result: *mut *mut c_void,
            data: *mut *mut c_void,
            shape: *const c_int,
            rank: usize,
            dtype: mlx_sys::mlx_dtype,
            width: usize,
            bytes: usize,
        ) -> c_int;
    }
    let bytes = checks::shape(op, shape)? * dtype.size();
    let mut data = std::ptr::null_mut();
    let array = ffi::array(|result| {
        // SAFETY: the shape is live and has so many bytes, and what MLX refuses comes back as a status.
        unsafe {
            emily_new_array(
                &mut (*result).ctx,
                &mut data,
                shape.as_ptr(),
                shape.len(),
                dtype.raw(),
                dtype.size(),
                bytes,
            )
        }
    })?;
    // SAFETY: the array is new, so that nobody else has its memory, which is as large as its shape and its type
    // say and lives as long as it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(data.cast(), bytes) };
    fill(bytes)?;
    Ok(array)
}

/// Without MLX's headers the bytes are copied.
#[cfg(not(own_kernels))]
pub(crate) fn filled(
    op: &str,
    shape: &[i32],
    dtype: Dtype,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<()>,
) -> Result<Array> {
    let bytes = checks::shape(op, shape)? * dtype.size();
    let mut data = Vec::new();
    if data.try_reserve_exact(bytes).is_err() {
        refuse!("{op}: no memory for {bytes} bytes")
    }
    fill(&mut data.spare_capacity_mut()[..bytes])?;
    // SAFETY: so many are reserved, and `fill` has written all of them.
    unsafe { data.set_len(bytes) };
    new_data(&data, shape, dtype)
}

/// A shape as MLX has it, and how many bytes it takes; refuses what no memory could hold.
pub(crate) fn sized(op: &str, shape: &[i64], dtype: Dtype) -> Result<(Vec<i32>, usize)> {
    let (shape, limit) = (narrow(op, shape)?, room::limit());
    match checks::shape(op, &shape)?.checked_mul(dtype.size()) {
        Some(bytes) if bytes <= limit => Ok((shape, bytes)),
        _ => refuse!("{op}: shape {shape:?} takes more than the {limit} bytes of memory"),
    }
}

pub(crate) fn new_data(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Array> {
    let rank = shape.len() as i32;
    ffi::array(|result| {
        // SAFETY: the caller made sure that `bytes` holds as many elements as `shape` says, and
        // MLX copies them; it reads them bytewise, so alignment does not matter.
        unsafe {
            *result = mlx_sys::mlx_array_new();
            mlx_sys::mlx_array_set_data(
                result,
                bytes.as_ptr().cast(),
                shape.as_ptr(),
                rank,
                dtype.raw(),
            )
        }
    })
}

/// One number as an array of rank 0.
pub(crate) fn scalar(op: &str, number: Number, dtype: Dtype) -> Result<Array> {
    let bytes = number.to_bytes(op, dtype)?;
    new_data(&bytes[..dtype.size()], &[], dtype)
}

/// One real number of the type of `x`.
pub(crate) fn number_like(op: &str, number: f64, x: &Array) -> Result<Array> {
    scalar(op, Number::Float(number), Dtype::of(x))
}

/// A vector of integers of an integer type.
pub(crate) fn vector(op: &str, values: &[i64], dtype: Dtype) -> Result<Array> {
    let mut bytes = Vec::with_capacity(values.len() * 8);
    for value in values {
        let one = Number::Int(i128::from(*value)).to_bytes(op, dtype)?;
        bytes.extend_from_slice(&one[..dtype.size()]);
    }
    new_data(&bytes, &[values.len() as i32], dtype)
}

/// `{:full, shape, number, dtype}`
pub(crate) fn full(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (shape, number, dtype) = (args.shape()?, args.number()?, args.dtype()?);
    let value = scalar(args.op, number, dtype)?;
    if shape.is_empty() {
        return Ok(value);
    }
    mlx!(
        mlx_full,
        shape.as_ptr(),
        shape.len(),
        value.as_ptr(),
        dtype.raw(),
        s
    )
}

/// `{:arange, start, stop, step, dtype}`
pub(crate) fn arange(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (start, stop, step) = (args.float()?, args.float()?, args.float()?);
    let dtype = args.dtype()?;
    let count = ((stop - start) / step).ceil();
    if !count.is_finite() || count > f64::from(i32::MAX) {
        refuse!("arange: from {start} to {stop} by {step} is no finite range")
    }
    mlx!(mlx_arange, start, stop, step, dtype.raw(), s)
}

/// `{:eye, rows, columns, diagonal, dtype}`
pub(crate) fn eye(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let (rows, columns, diagonal) = (args.int()?, args.int()?, args.int()?);
    let dtype = args.dtype()?;
    checks::shape(args.op, &[rows, columns])?;
    if stream.is_cpu() {
        return mlx!(mlx_eye, rows, columns, diagonal, dtype.raw(), s);
    }
    // MLX (0.32.4) scatters ones, which it lacks for numbers of eight bytes on CUDA.
    let count = |from: i32, to: i64| {
        mlx!(
            mlx_arange,
            f64::from(from),
            to as f64,
            1.0,
            Dtype::S64.raw(),
            s
        )
    };
    let column = count(0, columns.into())?;
    let one = count(diagonal, i64::from(diagonal) + i64::from(rows))?;
    let one = mlx!(mlx_expand_dims, one.as_ptr(), -1, s)?;
    let is_one = call(mlx_sys::mlx_equal, &one, &column, s)?;
    mlx!(mlx_astype, is_one.as_ptr(), dtype.raw(), s)
}
