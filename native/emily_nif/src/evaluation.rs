//! Computing arrays. Each call queues a job and returns; its answer is the message `{tag, answer}`.

use emily_mlx::{Error, Fetched, Job, QueueFull, SharedArray};
use mlx_rs::Array;
use rustler::{
    Binary, Encoder, Env, LocalPid, NewBinary, NifResult, OwnedEnv, Reference, ResourceArc, Term,
};

use crate::error::raise;
use crate::names;
use crate::resources::{array_ref, array_refs, ArrayRef, ArrayResource};

/// Binaries up to this size are copied; larger ones refer to the array's memory.
const COPY_UP_TO: usize = 4096;

rustler::atoms! { ok, error, argument, mlx, queued, full, ready, computed, other }

/// Who waits for a job, and under which tag.
pub struct Caller {
    pub pid: LocalPid,
    tag: OwnedEnv,
    saved: rustler::env::SavedTerm,
}

impl Caller {
    pub fn new(env: Env, tag: Reference) -> Self {
        let own = OwnedEnv::new();
        let saved = own.save(tag);
        Caller {
            pid: env.pid(),
            tag: own,
            saved,
        }
    }

    /// Sends one of several messages.
    pub fn tell(&self, message: impl for<'b> FnOnce(Env<'b>) -> Term<'b>) {
        self.tag.run(|own| {
            let tag = self.saved.clone().load(own);
            // A caller that has died needs no message.
            let _ =
                OwnedEnv::new().send_and_clear(&self.pid, |env| (tag.in_env(env), message(env)));
        });
    }

    pub fn answer(mut self, answer: impl for<'b> FnOnce(Env<'b>) -> Term<'b>) {
        let (pid, saved) = (self.pid, self.saved);
        // A caller that has died needs no answer.
        let _ = self
            .tag
            .send_and_clear(&pid, |env| (saved.load(env), answer(env)));
    }
}

pub fn error_term(env: Env, failure: Error) -> Term {
    let kind = match failure {
        Error::Argument(_) => argument(),
        Error::Mlx(_) => mlx(),
    };
    (error(), kind, failure.to_string()).encode(env)
}

fn ok_or_error<T>(env: Env, result: emily_mlx::Result<T>) -> Term {
    match result {
        Ok(_) => ok().encode(env),
        Err(failure) => error_term(env, failure),
    }
}

pub fn is_alive(pid: LocalPid) -> bool {
    OwnedEnv::new().run(|env| pid.is_alive(env))
}

/// Queues a job on the stream of an array.
fn push(array: &SharedArray, job: Job) -> rustler::Atom {
    match array.stream().worker().push(job) {
        Ok(()) => queued(),
        Err(QueueFull(_)) => full(),
    }
}

pub fn graphs(refs: &[ArrayRef]) -> emily_mlx::Result<Vec<Array>> {
    let graph = |array: &ArrayRef| Ok(array.0.array()?.clone());
    refs.iter().map(graph).collect()
}

fn mark_evaluated(refs: &[ArrayRef]) {
    refs.iter().for_each(|array| array.0.set_evaluated());
}

/// The arrays of a list that are not computed yet.
fn uncomputed(arrays: Term) -> NifResult<Vec<ArrayRef>> {
    let mut refs = array_refs(arrays)?;
    refs.retain(|array| !array.0.is_evaluated());
    Ok(refs)
}

/// Computes arrays of a stream here, if that takes no longer than to wake another thread; answers whether they are
/// computed.
fn compute_here(refs: &[ArrayRef]) -> bool {
    let Some(first) = refs
        .first()
        .filter(|_| !refs.iter().any(|array| array.0.has_linalg()))
    else {
        return false;
    };
    let Ok(graphs) = graphs(refs) else {
        return false;
    };
    let computed = first.0.stream().worker().compute_here(&graphs);
    if computed {
        mark_evaluated(refs);
    }
    computed
}

fn queue_evaluation(env: Env, refs: Vec<ArrayRef>, tag: Reference) -> NifResult<rustler::Atom> {
    let Some(first) = refs.first().cloned() else {
        return Ok(ready());
    };
    if compute_here(&refs) {
        return Ok(ready());
    }
    let arrays = graphs(&refs).map_err(raise)?;
    let caller = Caller::new(env, tag);
    let pid = caller.pid;
    let job = Job::Evaluate {
        arrays,
        may_fail: refs.iter().any(|array| array.0.has_linalg()),
        fetched: None,
        wanted: Box::new(move || is_alive(pid)),
        done: Box::new(move |result| {
            if result.is_ok() {
                mark_evaluated(&refs);
            }
            caller.answer(|env| ok_or_error(env, result))
        }),
    };
    Ok(push(&first.0, job))
}

/// Computes arrays: `:ready` where they are, else `:queued`, and the message `{tag, :ok}` follows.
#[rustler::nif]
fn evaluate<'a>(env: Env<'a>, arrays: Term<'a>, tag: Reference<'a>) -> NifResult<rustler::Atom> {
    queue_evaluation(env, uncomputed(arrays)?, tag)
}

/// Starts computing arrays; the message `{tag, :ok}` says that they are scheduled, or computed where
/// linear algebra among them may fail.
#[rustler::nif]
fn schedule<'a>(env: Env<'a>, arrays: Term<'a>, tag: Reference<'a>) -> NifResult<rustler::Atom> {
    let refs = uncomputed(arrays)?;
    let Some(first) = refs.first() else {
        return Ok(ready());
    };
    if refs.iter().any(|array| array.0.has_linalg()) {
        return queue_evaluation(env, refs, tag);
    }
    let caller = Caller::new(env, tag);
    let job = Job::Schedule {
        arrays: graphs(&refs).map_err(raise)?,
        done: Box::new(move |result| caller.answer(|env| ok_or_error(env, result))),
    };
    let answer = push(&first.0, job);
    if answer == queued() {
        refs.iter().for_each(|array| array.0.set_scheduled());
    }
    Ok(answer)
}

/// The bytes of an array that is computed and can be read in row-major order; `{:computed, bytes}` where that took no
/// longer than to wake another thread; else `:queued`, and the message `{tag, {:ok, binary}}` follows. `:other` where the array has another type than the one given, if one is.
#[rustler::nif]
fn to_binary<'a>(
    env: Env<'a>,
    array: Term<'a>,
    dtype: Term<'a>,
    tag: Reference<'a>,
) -> NifResult<Term<'a>> {
    let array = array_ref(array)?;
    let own = array.0.dtype().map_err(raise)?;
    if names::dtype(dtype).is_some_and(|dtype| dtype != own) {
        return Ok(other().to_term(env));
    }
    let was_evaluated = array.0.is_evaluated();
    if was_evaluated || compute_here(std::slice::from_ref(&array)) {
        if let Some(binary) = binary(env, &array).map_err(raise)? {
            return Ok(match was_evaluated {
                true => binary.to_term(env),
                false => (computed(), binary).encode(env),
            });
        }
    }
    if array.0.is_fetched().map_err(raise)? {
        let readable = array.0.array().map_err(raise)?.clone();
        let fetched = Fetched::default();
        let own = fetched.clone();
        return queue_readable(
            env,
            array,
            readable,
            Some(own),
            tag,
            move |env, same, source| {
                let mut binary = NewBinary::new(env, same.nbytes());
                source.0.read_fetched(&fetched, binary.as_mut_slice())?;
                Ok(binary.into())
            },
        );
    }
    let readable = array.0.readable().map_err(raise)?;
    queue_readable(env, array, readable, None, tag, |env, copy, source| {
        let shared = SharedArray::computed(copy, source.0.stream());
        let resource = ResourceArc::new(ArrayResource(shared));
        Ok(binary(env, &resource)?.ok_or_else(missing)?.to_term(env))
    })
}

/// The address of the bytes of an array that is computed and can be read in row-major order, else `:queued`, and
/// the message `{tag, {:ok, address}}` follows. It stays as long as the array.
#[rustler::nif]
fn address<'a>(env: Env<'a>, array: Term<'a>, tag: Reference<'a>) -> NifResult<Term<'a>> {
    let array = array_ref(array)?;
    if array.0.is_evaluated() {
        if let Some(bytes) = array.0.bytes().map_err(raise)? {
            return Ok((bytes.as_ptr() as u64).encode(env));
        }
    }
    let readable = array.0.readable().map_err(raise)?;
    queue_readable(env, array, readable, None, tag, |env, copy, source| {
        // Where its own bytes can be read, the copy would only be its own memory again.
        if source.0.bytes()?.is_none() {
            source.0.pin(copy);
        }
        let bytes = source.0.bytes()?.ok_or_else(missing)?;
        Ok((bytes.as_ptr() as u64).encode(env))
    })
}

fn missing() -> Error {
    Error::Mlx("the evaluation gave no array".to_owned())
}

/// Queues the computation of an array and of its elements in row-major order, `readable`, whose bytes may be fetched, and of which `answer` makes what
/// the caller gets.
fn queue_readable<'a>(
    env: Env<'a>,
    array: ArrayRef,
    readable: Array,
    fetched: Option<Fetched>,
    tag: Reference<'a>,
    answer: impl for<'b> FnOnce(Env<'b>, Array, &ArrayRef) -> emily_mlx::Result<Term<'b>>
        + Send
        + 'static,
) -> NifResult<Term<'a>> {
    let caller = Caller::new(env, tag);
    let pid = caller.pid;
    let source = array.clone();
    let job = Job::Evaluate {
        // Both are computed: the array itself, so that the next reading finds it, and its copy.
        arrays: vec![array.0.array().map_err(raise)?.clone(), readable],
        may_fail: array.0.has_linalg(),
        fetched,
        wanted: Box::new(move || is_alive(pid)),
        done: Box::new(move |result| {
            let copy = result.and_then(|arrays| {
                mark_evaluated(std::slice::from_ref(&source));
                arrays.into_iter().next_back().ok_or_else(missing)
            });
            caller.answer(
                |env| match copy.and_then(|copy| answer(env, copy, &source)) {
                    Ok(term) => (ok(), term).encode(env),
                    Err(failure) => error_term(env, failure),
                },
            )
        }),
    };
    Ok(push(&array.0, job).to_term(env))
}

/// The bytes of a computed array: a small copy, or a binary that keeps the array alive.
fn binary<'a>(env: Env<'a>, array: &ArrayRef) -> emily_mlx::Result<Option<Binary<'a>>> {
    let Some(bytes) = array.0.bytes()? else {
        return Ok(None);
    };
    if bytes.len() <= COPY_UP_TO {
        let mut copy = NewBinary::new(env, bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        return Ok(Some(copy.into()));
    }
    // They stay where they are, though the array may be given away.
    let bytes = |array: &'a ArrayResource| array.0.pinned_bytes().unwrap_or_default();
    Ok(Some(array.make_binary(env, bytes)))
}
