//! Devices, streams, memory and threads.

use emily_mlx::program::forget_recordings;
use emily_mlx::{memory, Info, StreamHandle};
use rustler::{Atom, Encoder, Env, NifMap, NifResult, NifUnitEnum, ResourceArc, Term};

use crate::error::raise;
use crate::resources::{device, device_term, StreamResource};

/// The devices of this build and this machine: the CPU, then the GPUs.
#[rustler::nif]
fn devices(env: Env) -> Vec<Term> {
    let devices = emily_mlx::devices().into_iter();
    devices.map(|device| device_term(env, device)).collect()
}

#[rustler::nif]
fn device_info<'a>(env: Env<'a>, name: Term<'a>) -> NifResult<Vec<(String, Term<'a>)>> {
    let facts = device(name)?.info().map_err(raise)?;
    let fact = |(key, info)| match info {
        Info::Text(text) => (key, text.encode(env)),
        Info::Size(size) => (key, size.encode(env)),
    };
    Ok(facts.into_iter().map(fact).collect())
}

#[rustler::nif]
fn mlx_version() -> NifResult<String> {
    emily_mlx::version().map_err(raise)
}

/// A new stream waits for what is being scheduled.
#[rustler::nif(schedule = "DirtyIo")]
fn stream_new(name: Term) -> NifResult<ResourceArc<StreamResource>> {
    let stream = StreamHandle::new(device(name)?).map_err(raise)?;
    Ok(ResourceArc::new(StreamResource(stream)))
}

#[rustler::nif]
fn stream_close(stream: ResourceArc<StreamResource>) -> Atom {
    stream.0.close();
    rustler::types::atom::ok()
}

#[derive(NifMap)]
struct Memory {
    active: usize,
    cache: usize,
    peak: usize,
    limit: usize,
}

#[rustler::nif]
fn memory() -> NifResult<Memory> {
    let figures = memory::figures().map_err(raise)?;
    Ok(Memory {
        active: figures.active,
        cache: figures.cache,
        peak: figures.peak,
        limit: figures.limit,
    })
}

#[rustler::nif]
fn set_memory_limit(bytes: usize) -> NifResult<usize> {
    memory::set_limit(bytes).map_err(raise)
}

// This and the next wait for the work of every stream of the CPU.
#[rustler::nif(schedule = "DirtyIo")]
fn set_cache_limit(bytes: usize) -> NifResult<usize> {
    memory::set_cache_limit(bytes).map_err(raise)
}

#[rustler::nif(schedule = "DirtyIo")]
fn clear_cache() -> NifResult<Atom> {
    forget_recordings();
    memory::clear_cache().map_err(raise)?;
    Ok(rustler::types::atom::ok())
}

#[rustler::nif]
fn reset_peak_memory() -> NifResult<Atom> {
    memory::reset_peak().map_err(raise)?;
    Ok(rustler::types::atom::ok())
}

#[derive(NifUnitEnum)]
enum Collection {
    Young,
    Full,
}

impl From<Collection> for memory::Collection {
    fn from(collection: Collection) -> Self {
        match collection {
            Collection::Young => memory::Collection::Young,
            Collection::Full => memory::Collection::Full,
        }
    }
}

#[rustler::nif]
fn has_grown(since: Collection, allowed: usize) -> NifResult<bool> {
    memory::has_grown(since.into(), allowed).map_err(raise)
}

#[rustler::nif]
fn settle(after: Collection) -> NifResult<Atom> {
    memory::settle(after.into()).map_err(raise)?;
    Ok(rustler::types::atom::ok())
}

#[rustler::nif]
fn kernels() -> Option<&'static str> {
    emily_mlx::kernels()
}

#[rustler::nif]
fn replayed_turns() -> u64 {
    emily_mlx::replayed_turns()
}

#[rustler::nif]
fn replayed_runs() -> u64 {
    emily_mlx::replayed_runs()
}

#[rustler::nif]
fn threads() -> usize {
    emily_mlx::threads()
}

/// Zero stands for all.
#[rustler::nif]
fn set_threads(count: usize) -> usize {
    let before = emily_mlx::threads();
    emily_mlx::set_threads(count);
    before
}
