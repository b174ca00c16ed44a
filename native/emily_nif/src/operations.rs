//! The runner of expressions, and one NIF a fused kernel.

use emily_mlx::{Op, StreamHandle};
use rustler::{NifResult, Term};

use crate::error::{raise, refuse};
use crate::expression::{Decoded, Decoder};
use crate::programs::{self, Built};
use crate::resources::{stream, ArrayRef};

/// Operations that are built on the scheduler: about a millisecond.
const MOST_AT_ONCE: u32 = 500;

/// Builds the graphs of expressions; gives their arrays, uncomputed, or says that it takes long.
#[rustler::nif]
fn run<'a>(expressions: Term<'a>, on: Term<'a>) -> NifResult<Built> {
    match Decoder::short_expressions(expressions).map_err(raise)? {
        Some(decoded) if decoded.program.operations() <= MOST_AT_ONCE => {
            build(&decoded, stream(on)?)
        }
        _ => Ok(Built::Long),
    }
}

/// `run` of what takes long.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_long<'a>(expressions: Term<'a>, on: Term<'a>) -> NifResult<Built> {
    let decoded = Decoder::expressions(expressions).map_err(raise)?;
    build(&decoded, stream(on)?)
}

fn build(decoded: &Decoded, stream: &StreamHandle) -> NifResult<Built> {
    if decoded.program.waits() {
        return Err(refuse(
            "run: conditions and loops are for compile/1".to_owned(),
        ));
    }
    let inputs = decoded.captured.iter().map(|(_, array)| *array);
    programs::build(&decoded.program, inputs, stream).map_err(raise)
}

fn fused<'a>(op: Op, arguments: &[Term<'a>], on: Term<'a>) -> NifResult<ArrayRef> {
    let decoded = Decoder::of_operation(op, arguments).map_err(raise)?;
    match build(&decoded, stream(on)?)? {
        Built::Arrays(mut arrays) if arrays.len() == 1 => Ok(arrays.remove(0)),
        Built::Arrays(_) => Err(refuse(format!("{} gave several arrays", op.name()))),
        Built::Evaluate(_) | Built::Long => Err(refuse(format!(
            "{}: takes linear algebra computed, or inside an expression of run/2",
            op.name()
        ))),
    }
}

#[rustler::nif]
fn rms_norm<'a>(x: Term<'a>, weight: Term<'a>, eps: Term<'a>, on: Term<'a>) -> NifResult<ArrayRef> {
    fused(Op::RmsNorm, &[x, weight, eps], on)
}

#[rustler::nif]
fn layer_norm<'a>(
    x: Term<'a>,
    weight: Term<'a>,
    bias: Term<'a>,
    eps: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    fused(Op::LayerNorm, &[x, weight, bias, eps], on)
}

#[rustler::nif]
fn rope<'a>(
    x: Term<'a>,
    dims: Term<'a>,
    traditional: Term<'a>,
    base: Term<'a>,
    scale: Term<'a>,
    offset: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    let no_freqs = rustler::types::atom::nil().to_term(x.get_env());
    fused(
        Op::Rope,
        &[x, dims, traditional, base, scale, offset, no_freqs],
        on,
    )
}

#[rustler::nif]
fn rope_with_freqs<'a>(
    x: Term<'a>,
    dims: Term<'a>,
    traditional: Term<'a>,
    scale: Term<'a>,
    offset: Term<'a>,
    freqs: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    let no_base = rustler::types::atom::nil().to_term(x.get_env());
    fused(
        Op::Rope,
        &[x, dims, traditional, no_base, scale, offset, freqs],
        on,
    )
}

#[rustler::nif]
fn attention<'a>(
    q: Term<'a>,
    k: Term<'a>,
    v: Term<'a>,
    scale: Term<'a>,
    mask: Term<'a>,
    sinks: Term<'a>,
    on: Term<'a>,
) -> NifResult<ArrayRef> {
    fused(Op::Attention, &[q, k, v, scale, mask, sinks], on)
}

#[rustler::nif]
fn einsum<'a>(subscripts: Term<'a>, operands: Term<'a>, on: Term<'a>) -> NifResult<ArrayRef> {
    fused(Op::Einsum, &[subscripts, operands], on)
}
