//! Arrays from binaries, files and addresses, and what is known of an array without computing it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use emily_mlx::{Dtype, Result, SharedArray};
use mlx_rs::Array;
use rustler::{Atom, Binary, NifResult, ResourceArc, Term};

use crate::error::{raise, refuse, shown};
use crate::names;
use crate::resources::{array, stream, ArrayRef, ArrayResource};

/// An array that `create` makes of a type, on the host.
fn created<'a>(
    op: &str,
    dtype: Term<'a>,
    on: Term<'a>,
    create: impl FnOnce(Dtype) -> Result<Array>,
) -> NifResult<ArrayRef> {
    let dtype = named(op, dtype)?;
    let stream = stream(on)?;
    let array = create(dtype).map_err(raise)?;
    let shared = SharedArray::computed(array, stream);
    Ok(ResourceArc::new(ArrayResource(shared)))
}

fn named(op: &str, dtype: Term) -> NifResult<Dtype> {
    names::dtype(dtype).ok_or_else(|| refuse(format!("{op}: {} is no type", shown(dtype))))
}

#[rustler::nif]
fn from_binary<'a>(
    binary: Binary<'a>,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    created("from_binary", dtype, on, |dtype| {
        emily_mlx::from_bytes(&binary, &shape, dtype)
    })
}

/// For binaries whose copy would hold a scheduler too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn from_large_binary<'a>(
    binary: Binary<'a>,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    created("from_binary", dtype, on, |dtype| {
        emily_mlx::from_bytes(&binary, &shape, dtype)
    })
}

#[rustler::nif(schedule = "DirtyIo")]
fn from_file<'a>(
    path: Binary<'a>,
    offset: u64,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    let path = Path::new(OsStr::from_bytes(&path));
    created("from_file", dtype, on, |dtype| {
        emily_mlx::from_file(path, offset, &shape, dtype)
    })
}

#[rustler::nif(schedule = "DirtyIo")]
fn from_address<'a>(
    address: u64,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    created("from_address", dtype, on, |dtype| {
        emily_mlx::from_address(address, &shape, dtype)
    })
}

#[rustler::nif]
fn shape(term: Term) -> NifResult<Vec<i32>> {
    Ok(array(term)?.array().map_err(raise)?.shape().to_vec())
}

#[rustler::nif]
fn dtype<'a>(term: Term<'a>) -> NifResult<Atom> {
    Atom::from_str(term.get_env(), array(term)?.dtype().map_err(raise)?.name())
}

#[rustler::nif]
fn nbytes(term: Term) -> NifResult<usize> {
    Ok(array(term)?.array().map_err(raise)?.nbytes())
}
