//! Compiled programs. One without conditions and loops is built where it is called; one with them
//! waits for what they depend on, so it runs on a thread of its own and answers by message, as does
//! one with calls, or that looks at data, or that is worth a GPU's recording.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use emily_mlx::fusion::Fusion;
use emily_mlx::program::{Host, Input, Program};
use emily_mlx::{Dtype, Error, Held, Result, SharedArray, StreamHandle};
use mlx_rs::Array;
use rustler::{Encoder, Env, NifResult, Reference, Resource, ResourceArc, Term};
use smallvec::SmallVec;

use crate::error::{raise, refuse, shown};
use crate::evaluation::{error_term, graphs, Caller};
use crate::expression::{Decoded, Decoder, DEEP_STACK};
use crate::host::Process;
use crate::names;
use crate::resources::{array, array_ref, array_refs, items, stream, ArrayRef, ArrayResource};
use crate::room::{crowded, Running};
use crate::threads;

rustler::atoms! { ok, queued, arrays, evaluate, long }

/// A compiled function with the arrays that it closes over.
pub struct ProgramResource {
    program: Arc<Program>,
    /// For a program that MLX is to fuse on a GPU.
    fusion: Option<Fusion>,
    parameters: usize,
    captured: Vec<ArrayRef>,
    /// Whether it runs on a thread of its own.
    waits: bool,
    /// Whether it nests so deep that what recurses into it wants `DEEP_STACK`.
    deep: bool,
}

/// How many branches within branches a scheduler's stack takes without a thought.
const SHALLOW: u32 = 32;

impl Drop for ProgramResource {
    fn drop(&mut self) {
        if self.deep {
            // Where no thread can be had the program is dropped here, as a shallow one.
            let program = std::mem::take(&mut self.program);
            let _ = thread::Builder::new()
                .stack_size(DEEP_STACK)
                .spawn(move || drop(program));
        }
    }
}

#[rustler::resource_impl]
impl Resource for ProgramResource {}

type ProgramRef = ResourceArc<ProgramResource>;

/// The arrays that a program gives; mostly one.
type Arrays = SmallVec<[ArrayRef; 1]>;

/// Arrays, or arrays that must be computed since that may fail.
pub enum Built {
    Arrays(Arrays),
    Evaluate(Arrays),
    /// Nothing yet: it takes too long for a scheduler.
    Long,
}

impl Encoder for Built {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Built::Arrays(list) => (arrays(), listed(env, list)).encode(env),
            Built::Evaluate(list) => (evaluate(), listed(env, list)).encode(env),
            Built::Long => long().to_term(env),
        }
    }
}

/// A list of arrays. Rustler's of a slice takes memory for it, a part of an eager operation's time that is seen.
fn listed<'a>(env: Env<'a>, arrays: &[ArrayRef]) -> Term<'a> {
    let empty = Term::list_new_empty(env);
    let before = |list: Term<'a>, array: &ArrayRef| list.list_prepend(array.encode(env));
    arrays.iter().rev().fold(empty, before)
}

/// Builds the graph of a program without conditions and loops.
pub fn build<'a>(
    program: &Program,
    inputs: impl Iterator<Item = &'a SharedArray> + Clone,
    stream: &StreamHandle,
) -> Result<Built> {
    // Nobody gives them away before the graph is built.
    let mut held: SmallVec<[Held; 4]> = SmallVec::new();
    for input in inputs.clone() {
        held.push(input.array()?);
    }
    let results = program.run(held.iter().map(|array| &**array), stream)?;
    let depth = inputs.clone().map(SharedArray::depth).max().unwrap_or(0);
    let depth = depth.saturating_add(program.operations());
    let linalg = program.has_linalg() || inputs.clone().any(SharedArray::has_linalg);
    let share = |array| SharedArray::lazy(array, stream, depth, linalg);
    let arrays = wrap(results.into_iter().map(share));
    if !linalg {
        SharedArray::schedule_long(arrays.iter().map(|array| &array.0));
    }
    Ok(if linalg {
        Built::Evaluate(arrays)
    } else {
        Built::Arrays(arrays)
    })
}

fn wrap(arrays: impl Iterator<Item = SharedArray>) -> Arrays {
    let wrap = |array| ResourceArc::new(ArrayResource(array));
    arrays.map(wrap).collect()
}

/// Decodes a function with a stack that is large enough for what nests in it; with `chains`, runs of elementwise
/// operations become chains. The term is read where it is: a copy would hold what it shares as often as it names it.
fn decode(function: Term, chains: bool) -> Result<Decoded> {
    let decode = || {
        let mut decoded = Decoder::function(function)?;
        if chains {
            decoded.program.chain();
        }
        Ok(decoded)
    };
    let decode = || stacker::grow(DEEP_STACK, decode);
    let failed =
        || Error::Mlx("compile: decoding panicked, or had no room for its stack".to_owned());
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(failed()))
}

fn has_gpu() -> bool {
    emily_mlx::devices().iter().any(|device| device.is_gpu())
}

/// What the results of a program are to be: `{type, shape}` each.
fn declared(results: Term) -> NifResult<Vec<(Dtype, Vec<i32>)>> {
    let wrong = || {
        refuse(format!(
            "compile: {} are no types and shapes",
            shown(results)
        ))
    };
    let result = |result: Term| {
        let (dtype, shape): (Term, Term) = result.decode().ok()?;
        let sizes = items(shape)?.map(|size| size.decode().ok());
        Some((names::dtype(dtype)?, sizes.collect::<Option<_>>()?))
    };
    let list = items(results).ok_or_else(wrong)?;
    list.map(result).collect::<Option<_>>().ok_or_else(wrong)
}

/// A program of a function `{parameters, steps, results}`, with the number of its operations and
/// whether it waits. `results`, where they are not nil, are what it has to give.
#[rustler::nif(schedule = "DirtyCpu")]
fn compile<'a>(
    env: Env<'a>,
    function: Term<'a>,
    fuse: Option<bool>,
    results: Term<'a>,
) -> NifResult<Term<'a>> {
    let Decoded {
        mut program,
        captured,
        blocks,
    } = decode(function, fuse != Some(false)).map_err(raise)?;
    if !results.is_atom() {
        program.declare(declared(results)?);
    }
    let captured = captured.iter().map(|(term, _)| array_ref(*term));
    let captured: Vec<ArrayRef> = captured.collect::<NifResult<_>>()?;
    // What MLX cannot compile keeps its steps.
    let fuses = fuse == Some(true) && has_gpu() && !program.waits() && !program.has_linalg();
    let records = program.is_long() && has_gpu();
    let waits = program.waits() || program.looks() || fuses || records;
    let operations = program.operations();
    let resource = ResourceArc::new(ProgramResource {
        parameters: program.inputs() - captured.len(),
        program: program.into(),
        fusion: fuses.then(Fusion::default),
        captured,
        waits,
        deep: blocks > SHALLOW,
    });
    Ok((resource, operations, waits).encode(env))
}

fn check_count(program: &ProgramResource, given: usize) -> NifResult<()> {
    if given == program.parameters {
        return Ok(());
    }
    Err(refuse(format!(
        "run_program: the program takes {} arrays, got {given}",
        program.parameters
    )))
}

fn build_program<'a>(
    program: &ProgramResource,
    inputs: Term<'a>,
    on: Term<'a>,
) -> NifResult<Built> {
    if program.waits {
        return Err(refuse("run_program: the program waits".to_owned()));
    }
    let Some(list) = items(inputs) else {
        return Err(refuse(format!(
            "run_program: expected a list of arrays, got {}",
            shown(inputs)
        )));
    };
    let mut arrays: SmallVec<[&SharedArray; 16]> = SmallVec::new();
    for input in list {
        arrays.push(array(input)?);
    }
    check_count(program, arrays.len())?;
    arrays.extend(program.captured.iter().map(|array| &array.0));
    build(&program.program, arrays.iter().copied(), stream(on)?).map_err(raise)
}

/// Builds the graph of a short program.
#[rustler::nif]
fn run_program<'a>(program: ProgramRef, inputs: Term<'a>, on: Term<'a>) -> NifResult<Built> {
    build_program(&program, inputs, on)
}

/// Builds the graph of a program that would keep a scheduler too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_long_program<'a>(program: ProgramRef, inputs: Term<'a>, on: Term<'a>) -> NifResult<Built> {
    build_program(&program, inputs, on)
}

/// Runs a program with conditions, loops or calls. The message `{tag, {:ok, arrays}}` follows, and before
/// it one `{tag, {:call, run, index, arrays}}` for each call, which wants `answer_call`. `nested` is what the
/// answer to a call runs. The inputs of the numbers in `given` are the program's from here on.
#[rustler::nif]
fn run_waiting_program<'a>(
    env: Env<'a>,
    program: ProgramRef,
    inputs: Term<'a>,
    on: Term<'a>,
    tag: Reference<'a>,
    (given, nested): (Vec<usize>, bool),
) -> NifResult<rustler::Atom> {
    let mut inputs = array_refs(inputs)?;
    check_count(&program, inputs.len())?;
    if given.iter().any(|at| *at >= inputs.len()) {
        return Err(refuse(format!(
            "run_program: of {} arrays, {given:?} cannot be donated",
            inputs.len()
        )));
    }
    let stream = stream(on)?.clone();
    if let (Some(fusion), true) = (&program.fusion, stream.is_gpu()) {
        let caller = Caller::new(env, tag);
        run_fused(&program, fusion, &inputs, &stream, caller).map_err(raise)?;
        given.iter().for_each(|at| inputs[*at].0.give_away());
        return Ok(queued());
    }
    inputs.extend(program.captured.iter().cloned());
    let running = match Running::begin(nested) {
        Ok(running) => running,
        Err(what) => return Ok(what),
    };
    let inputs = taken(inputs, &given).map_err(raise)?;
    let caller = Caller::new(env, tag);
    let started = threads::spawn(program.deep, move || {
        let run = || run_waiting(&program, inputs, &stream, &Process::new(&caller, &stream));
        let panicked = |_| Err(Error::Mlx("the program panicked".to_owned()));
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked);
        drop(running);
        let answer = move || {
            caller.answer(|env| match result {
                Ok(arrays) => (ok(), listed(env, &arrays)).encode(env),
                Err(failure) => error_term(env, failure),
            })
        };
        Box::new(answer) as threads::Answer
    });
    // Where the system has no thread the closure is dropped, and what it counted with it.
    Ok(if started.is_ok() { queued() } else { crowded() })
}

/// Has nobody use these arrays any more but what was built on them.
#[rustler::nif]
fn give_away(arrays: Term) -> NifResult<rustler::Atom> {
    let arrays = array_refs(arrays)?;
    arrays.iter().for_each(|array| array.0.give_away());
    Ok(ok())
}

fn run_fused(
    program: &ProgramRef,
    fusion: &Fusion,
    inputs: &[ArrayRef],
    stream: &StreamHandle,
    caller: Caller,
) -> Result<()> {
    let (inputs, captured) = (graphs(inputs)?, graphs(&program.captured)?);
    let (on, kept) = (stream.clone(), program.clone());
    let done = move |result: Result<Vec<Array>>| {
        let shared = |array| SharedArray::lazy(array, &on, 0, false);
        caller.answer(|env| match result {
            Ok(arrays) => (ok(), listed(env, &wrap(arrays.into_iter().map(shared)))).encode(env),
            Err(failure) => error_term(env, failure),
        });
        drop(kept);
    };
    fusion.run(&program.program, inputs, captured, stream, done)
}

/// Takes the arrays of these numbers away from whoever has them; one that is passed twice is given twice.
fn taken(inputs: Vec<ArrayRef>, given: &[usize]) -> Result<Vec<Input>> {
    let arrays = graphs(&inputs)?;
    for at in given {
        inputs[*at].0.give_away();
    }
    let taken = |(at, array)| match given.contains(&at) {
        true => Input::Given(array),
        false => Input::Lent(array),
    };
    Ok(arrays.into_iter().enumerate().map(taken).collect())
}

fn run_waiting(
    program: &ProgramResource,
    inputs: Vec<Input>,
    stream: &StreamHandle,
    host: &dyn Host,
) -> Result<Arrays> {
    let results = program.program.run_waiting(inputs, stream, host)?;
    let shared = |array| SharedArray::lazy(array, stream, 0, false);
    Ok(wrap(results.into_iter().map(shared)))
}
