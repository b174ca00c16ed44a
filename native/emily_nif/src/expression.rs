//! Expressions: nested tuples that name operations, turned into MLX's lazy graph.

use emily_mlx::{apply, Arg, Args, Error, Number, Op, Result, SharedArray, StreamHandle, Value};
use mlx_rs::Array;
use rustler::{types::tuple::get_tuple, Binary, Term, TermType};
use smallvec::SmallVec;

use crate::names::{self, Head};
use crate::resources::{items, ArrayResource};

/// How deep expressions may nest: decoding recurses on the scheduler's small stack.
const MOST_NESTED: u32 = 200;

/// How many tuples a call may hold. Terms share their parts where a graph would repeat them, so a
/// small term can stand for more tuples than any memory holds; `:let` shares in the graph too.
const MOST_TUPLES: u32 = 1 << 18;

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::Argument(message))
}

/// Builds graphs on one stream and counts what they add.
pub struct Builder<'a> {
    stream: &'a StreamHandle,
    variables: Vec<(i64, Value)>,
    nested: u32,
    tuples: u32,
    operations: u32,
    deepest_input: u32,
    linalg: bool,
}

impl<'a> Builder<'a> {
    pub fn new(stream: &'a StreamHandle) -> Self {
        Builder {
            stream,
            variables: Vec::new(),
            nested: 0,
            tuples: 0,
            operations: 0,
            deepest_input: 0,
            linalg: false,
        }
    }

    /// An array of the graph built so far, as a resource to give to Elixir.
    pub fn share(&self, array: Array) -> SharedArray {
        let depth = self.deepest_input.saturating_add(self.operations);
        SharedArray::lazy(array, self.stream, depth, self.linalg)
    }

    /// The value of an expression.
    pub fn value(&mut self, term: Term<'a>) -> Result<Value> {
        match self.argument(term)? {
            Argument::Value(value) => Ok(value),
            Argument::Plain(Arg::Borrowed(array)) => Ok(array.clone().into()),
            Argument::Plain(_) => refuse(format!("expected an expression, got {term:?}")),
        }
    }

    fn array(&mut self, term: Term<'a>) -> Result<Array> {
        match self.value(term)? {
            Value::One(array) => Ok(array),
            Value::Many(_) => refuse("an operation of several results needs :elem".to_owned()),
        }
    }

    /// Applies an operation to arguments given as terms.
    pub fn operation(&mut self, op: Op, terms: &[Term<'a>]) -> Result<Value> {
        let mut items = SmallVec::with_capacity(terms.len());
        for term in terms {
            items.push(match self.argument(*term)? {
                Argument::Plain(item) => item,
                Argument::Value(Value::One(array)) => Arg::Owned(array),
                Argument::Value(Value::Many(_)) => {
                    return refuse(format!(
                        "{}: an operation of several results needs :elem",
                        op.name()
                    ))
                }
            });
        }
        let value = apply(op, &Args::new(op.name(), items), self.stream)?;
        self.operations = self.operations.saturating_add(1);
        self.linalg |= op.is_linalg();
        Ok(value)
    }

    fn argument(&mut self, term: Term<'a>) -> Result<Argument<'a>> {
        let plain = |item| Ok(Argument::Plain(item));
        match term.get_type() {
            TermType::Ref => match term.try_get_resource::<ArrayResource>() {
                Some(ArrayResource(shared)) => {
                    self.deepest_input = self.deepest_input.max(shared.depth());
                    self.linalg |= shared.has_linalg();
                    plain(Arg::Borrowed(shared.array()))
                }
                None => refuse(format!("expected an array, got {term:?}")),
            },
            TermType::Tuple => self.nest(|builder| builder.tuple(term)),
            TermType::Atom => match names::argument(term) {
                Some(item) => plain(item),
                None => refuse(format!("{term:?} means nothing in an expression")),
            },
            TermType::Integer => plain(Arg::Number(Number::Int(integer(term)?))),
            TermType::Float => match term.decode() {
                Ok(float) => plain(Arg::Number(Number::Float(float))),
                Err(_) => refuse(format!("{term:?} is no number")),
            },
            TermType::List => self.nest(|builder| builder.list(term)),
            _ => match Binary::from_term(term).map(|text| String::from_utf8(text.to_vec())) {
                Ok(Ok(text)) => plain(Arg::Text(text)),
                _ => refuse(format!("{term:?} means nothing in an expression")),
            },
        }
    }

    fn nest(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<Argument<'a>>,
    ) -> Result<Argument<'a>> {
        if self.nested >= MOST_NESTED {
            return refuse(format!("an expression nests more than {MOST_NESTED} deep"));
        }
        self.nested += 1;
        let argument = inner(self);
        self.nested -= 1;
        argument
    }

    fn tuple(&mut self, term: Term<'a>) -> Result<Argument<'a>> {
        if self.tuples >= MOST_TUPLES {
            return refuse(format!(
                "a call holds more than {MOST_TUPLES} tuples; :let names what is repeated"
            ));
        }
        self.tuples += 1;
        let elements = get_tuple(term).unwrap_or_default();
        match elements.split_first() {
            Some((head, rest)) => match (names::head(*head), rest) {
                (Some(Head::Op(op)), rest) => self.operation(op, rest).map(Argument::Value),
                (Some(Head::Let), [id, value, body]) => self.bind(*id, *value, *body),
                (Some(Head::Var), [id]) => self.variable(*id),
                (Some(Head::Elem), [index, value]) => self.element(*index, *value),
                (Some(Head::Tuple), [values]) => self.several(*values),
                (Some(Head::Complex), [re, im]) => complex(*re, *im),
                _ => refuse(format!(
                    "{head:?} with {} arguments is no operation",
                    rest.len()
                )),
            },
            None => refuse("an empty tuple is no expression".to_owned()),
        }
    }

    fn bind(&mut self, id: Term<'a>, value: Term<'a>, body: Term<'a>) -> Result<Argument<'a>> {
        let id = small_integer(id)?;
        let value = self.value(value)?;
        self.variables.push((id, value));
        let body = self.value(body);
        self.variables.pop();
        body.map(Argument::Value)
    }

    fn variable(&mut self, id: Term<'a>) -> Result<Argument<'a>> {
        let id = small_integer(id)?;
        let found = self.variables.iter().rev().find(|(bound, _)| *bound == id);
        match found {
            Some((_, Value::One(array))) => Ok(Argument::Value(array.clone().into())),
            Some((_, Value::Many(arrays))) => Ok(Argument::Value(arrays.clone().into())),
            None => refuse(format!("variable {id} is not bound here")),
        }
    }

    /// Several results of expressions that may share names.
    fn several(&mut self, values: Term<'a>) -> Result<Argument<'a>> {
        let Some(list) = items(values) else {
            return refuse(format!(
                ":tuple takes a list of expressions, got {values:?}"
            ));
        };
        let arrays: Result<Vec<Array>> = list.map(|value| self.array(value)).collect();
        Ok(Argument::Value(arrays?.into()))
    }

    fn element(&mut self, index: Term<'a>, value: Term<'a>) -> Result<Argument<'a>> {
        let index = small_integer(index)?;
        let Value::Many(arrays) = self.value(value)? else {
            return refuse(":elem takes an operation of several results".to_owned());
        };
        let count = arrays.len();
        let position = usize::try_from(index).unwrap_or(count);
        match arrays.into_iter().nth(position) {
            Some(array) => Ok(Argument::Value(array.into())),
            None => refuse(format!("there is no element {index} of {count}")),
        }
    }

    /// Integers, or arrays and expressions.
    fn list(&mut self, term: Term<'a>) -> Result<Argument<'a>> {
        let Some(list) = items(term) else {
            return refuse(format!("{term:?} is no list"));
        };
        let mut ints = SmallVec::new();
        let mut arrays = Vec::new();
        for item in list {
            match item.get_type() {
                TermType::Integer => ints.push(small_integer(item)?),
                _ => arrays.push(self.array(item)?),
            }
        }
        match (ints.is_empty(), arrays.is_empty()) {
            (_, true) => Ok(Argument::Plain(Arg::Ints(ints))),
            (true, false) => Ok(Argument::Plain(Arg::Arrays(arrays))),
            (false, false) => refuse(format!("{term:?} mixes integers and arrays")),
        }
    }
}

enum Argument<'a> {
    Plain(Arg<'a>),
    Value(Value),
}

fn complex<'a>(re: Term, im: Term) -> Result<Argument<'a>> {
    let part = |term: Term| match names::argument(term) {
        Some(Arg::Number(Number::Float(float))) => Ok(float),
        _ => term
            .decode::<f64>()
            .or_else(|_| term.decode::<i64>().map(|int| int as f64))
            .map_err(|_| Error::Argument(format!("{term:?} is no real number"))),
    };
    let number = Number::Complex(part(re)?, part(im)?);
    Ok(Argument::Plain(Arg::Number(number)))
}

fn small_integer(term: Term) -> Result<i64> {
    match term.decode::<i64>() {
        Ok(integer) => Ok(integer),
        Err(_) => refuse(format!("expected an integer of 64 bits, got {term:?}")),
    }
}

fn integer(term: Term) -> Result<i128> {
    let signed = term.decode::<i64>().map(i128::from);
    match signed.or_else(|_| term.decode::<u64>().map(i128::from)) {
        Ok(integer) => Ok(integer),
        Err(_) => refuse(format!("{term:?} does not fit 64 bits")),
    }
}
