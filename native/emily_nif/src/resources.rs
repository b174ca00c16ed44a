//! What Elixir holds by reference.

use emily_mlx::{Device, SharedArray, StreamHandle};
use rustler::{Atom, Decoder, Encoder, Env, ListIterator, NifResult, Resource, ResourceArc, Term};

use crate::error::{raise, refuse, shown};

rustler::atoms! { cpu, gpu }

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
    // A resource's type is looked up: a name needs none.
    let resource = match term.is_atom() {
        true => None,
        false => term.try_get_resource::<StreamResource>(),
    };
    match resource {
        Some(StreamResource(stream)) if stream.is_closed() => Err(refuse("the stream is closed")),
        Some(StreamResource(stream)) => Ok(stream),
        None => StreamHandle::default_on(device(term)?).map_err(raise),
    }
}

pub fn device(term: Term) -> NifResult<Device> {
    let (kind, index) = match term.decode::<(Atom, u32)>() {
        Ok((kind, index)) => (Some(kind), index.try_into().ok()),
        Err(_) => (term.decode::<Atom>().ok(), Some(0)),
    };
    match (kind, index) {
        (Some(kind), Some(0)) if kind == cpu() => Ok(Device::Cpu),
        (Some(kind), Some(index)) if kind == gpu() => Ok(Device::Gpu(index)),
        _ => Err(refuse(format!(
            "expected :cpu, :gpu, {{:gpu, index}} or a stream, got {}",
            shown(term)
        ))),
    }
}

/// A device as Elixir names it: the first GPU without its index.
pub fn device_term(env: Env, device: Device) -> Term {
    match device {
        Device::Cpu => cpu().encode(env),
        Device::Gpu(0) => gpu().encode(env),
        Device::Gpu(index) => (gpu(), index).encode(env),
    }
}
