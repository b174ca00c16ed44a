//! Arrays from binaries, and what is known of an array without computing it.

use emily_mlx::{from_bytes, SharedArray};
use rustler::{Atom, Binary, NifResult, ResourceArc, Term};

use crate::error::{raise, refuse};
use crate::names;
use crate::resources::{array, stream, ArrayRef, ArrayResource};

fn new_array<'a>(
    binary: Binary<'a>,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    let Some(dtype) = names::dtype(dtype) else {
        return Err(refuse(format!("from_binary: {dtype:?} is no type")));
    };
    let stream = stream(on)?;
    let array = from_bytes(&binary, &shape, dtype).map_err(raise)?;
    let shared = SharedArray::computed(array, stream);
    Ok(ResourceArc::new(ArrayResource(shared)))
}

#[rustler::nif]
fn from_binary<'a>(
    binary: Binary<'a>,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    new_array(binary, shape, dtype, on)
}

/// For binaries whose copy would hold a scheduler too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn from_large_binary<'a>(
    binary: Binary<'a>,
    shape: Vec<i64>,
    dtype: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    new_array(binary, shape, dtype, on)
}

#[rustler::nif]
fn shape(term: Term) -> NifResult<Vec<i32>> {
    Ok(array(term)?.array().shape().to_vec())
}

#[rustler::nif]
fn dtype<'a>(term: Term<'a>) -> NifResult<Atom> {
    Atom::from_str(term.get_env(), array(term)?.dtype().name())
}

#[rustler::nif]
fn nbytes(term: Term) -> NifResult<usize> {
    Ok(array(term)?.array().nbytes())
}
