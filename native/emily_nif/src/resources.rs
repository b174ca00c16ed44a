//! What Elixir holds by reference.

use emily_mlx::{Device, SharedArray, StreamHandle};
use rustler::{Decoder, ListIterator, NifResult, Resource, ResourceArc, Term};

use crate::error::{raise, refuse, shown};

/// An array.
pub struct ArrayResource(pub SharedArray);

#[rustler::resource_impl]
impl Resource for ArrayResource {}

/// A stream.
pub struct StreamResource(pub StreamHandle);

#[rustler::resource_impl]
impl Resource for StreamResource {}

pub type ArrayRef = ResourceArc<ArrayResource>;

/// An array of the caller, who holds it for the length of the call.
pub fn array<'a>(term: Term<'a>) -> NifResult<&'a SharedArray> {
    match term.try_get_resource::<ArrayResource>() {
        Some(resource) => Ok(&resource.0),
        None => Err(no_array(term)),
    }
}

/// An array to keep beyond the call.
pub fn array_ref(term: Term) -> NifResult<ArrayRef> {
    ArrayRef::decode(term).map_err(|_| no_array(term))
}

fn no_array(term: Term) -> rustler::Error {
    refuse(format!("expected an array, got {}", shown(term)))
}

/// The items of a proper list; rustler's iterator panics at the end of an improper one.
pub fn items(term: Term) -> Option<ListIterator> {
    term.list_length().ok()?;
    term.into_list_iterator().ok()
}

pub fn array_refs(term: Term) -> NifResult<Vec<ArrayRef>> {
    match items(term) {
        Some(list) => list.map(array_ref).collect(),
        None => Err(refuse(format!(
            "expected a list of arrays, got {}",
            shown(term)
        ))),
    }
}

/// A device by name, as its default stream, or a stream.
pub fn stream<'a>(term: Term<'a>) -> NifResult<&'a StreamHandle> {
    if let Some(resource) = term.try_get_resource::<StreamResource>() {
        if resource.0.is_closed() {
            return Err(refuse("the stream is closed"));
        }
        return Ok(&resource.0);
    }
    StreamHandle::default_on(device(term)?).map_err(raise)
}

pub fn device(term: Term) -> NifResult<Device> {
    let name = term.atom_to_string().unwrap_or_default();
    name.parse().map_err(|_| {
        refuse(format!(
            "expected :cpu, :gpu or a stream, got {}",
            shown(term)
        ))
    })
}
