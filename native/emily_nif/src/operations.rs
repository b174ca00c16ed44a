//! The runner of expressions, and one NIF a fused kernel.

use emily_mlx::{Op, Value};
use rustler::{NifResult, NifTaggedEnum, ResourceArc, Term};

use crate::error::{raise, refuse};
use crate::expression::Builder;
use crate::resources::{items, stream, ArrayRef, ArrayResource};

/// What `run` gives: arrays, or arrays that must be computed since that may fail.
#[derive(NifTaggedEnum)]
enum Built {
    Arrays(Vec<ArrayRef>),
    Evaluate(Vec<ArrayRef>),
}

/// Builds the graphs of expressions; gives their arrays, uncomputed.
#[rustler::nif]
fn run<'a>(expressions: Term<'a>, on: Term<'a>) -> NifResult<Built> {
    let Some(expressions) = items(expressions) else {
        return Err(refuse(format!(
            "run: expected a list of expressions, got {expressions:?}"
        )));
    };
    let mut builder = Builder::new(stream(on)?);
    let mut arrays = Vec::new();
    let mut must_evaluate = false;
    for expression in expressions {
        let values = match builder.value(expression).map_err(raise)? {
            Value::One(array) => vec![array],
            Value::Many(arrays) => arrays,
        };
        for array in values {
            let shared = builder.share(array);
            must_evaluate |= shared.must_evaluate();
            arrays.push(ResourceArc::new(ArrayResource(shared)));
        }
    }
    Ok(if must_evaluate {
        Built::Evaluate(arrays)
    } else {
        Built::Arrays(arrays)
    })
}

fn fused<'a>(op: Op, arguments: &[Term<'a>], on: Term<'a>) -> NifResult<ArrayRef> {
    let mut builder = Builder::new(stream(on)?);
    match builder.operation(op, arguments).map_err(raise)? {
        Value::One(array) => {
            let shared = builder.share(array);
            if shared.must_evaluate() {
                return Err(refuse(format!(
                    "{}: takes linear algebra computed, or inside an expression of run/2",
                    op.name()
                )));
            }
            Ok(ResourceArc::new(ArrayResource(shared)))
        }
        Value::Many(_) => Err(refuse(format!("{} gave several arrays", op.name()))),
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
