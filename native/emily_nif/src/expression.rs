//! Expressions: nested tuples that name operations, decoded into the steps of a program.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use emily_mlx::program::{Builder, Function, Operand, Place, Places, Program};
use emily_mlx::{Error, Literal, Number, Op, Result, SharedArray};
use rustler::{types::tuple::get_tuple, Binary, ListIterator, Term, TermType};
use smallvec::{smallvec, SmallVec};

use crate::error::shown;
use crate::names::{self, Head};
use crate::resources::ArrayResource;

/// How deep expressions may nest: decoding recurses on the scheduler's small stack.
const MOST_NESTED: u32 = 200;

/// How deep the branches and bodies of a function may nest, which is decoded on `DEEP_STACK`.
const MOST_BLOCKS: u32 = 1000;

/// The stack for what recurses into the branches of a function. What is not touched takes no memory.
pub const DEEP_STACK: usize = 1 << 29;

/// What is decoded counts against one budget, in list elements, elements of tuples and bytes of text, since terms share
/// their parts where a graph repeats them: a small term can stand for more than any memory holds. `:let` shares in the
/// graph too.
pub const MOST: usize = 1 << 21;

/// The budget of a function.
const MOST_OF_FUNCTION: usize = 1 << 24;

/// What takes more leaves the scheduler to others.
const SHORT: usize = 1 << 15;

/// An expression takes its place in a program beside its arguments.
const EXPRESSION: usize = 8;

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::Argument(message))
}

type Captured<'a> = SmallVec<[(Term<'a>, &'a SharedArray); 4]>;

/// Turns terms into steps.
pub struct Decoder<'a> {
    builder: Builder,
    /// The arrays that the terms hold.
    captured: Captured<'a>,
    /// Of a function, which is decoded with the stack for it, the inputs that its arrays became, each once.
    inputs: Option<HashMap<*const SharedArray, Place>>,
    variables: BTreeMap<i64, Value>,
    nested: u32,
    blocks: u32,
    deepest: u32,
    budget: usize,
    left: usize,
    exhausted: bool,
}

/// What an expression gives.
#[derive(Clone)]
enum Value {
    /// The result of a step, or all of its results.
    Place(Place),
    /// The results of several expressions.
    Several(Rc<[Place]>),
}

enum Argument {
    Literal(Literal),
    Value(Value),
}

/// A program and the arrays that its terms held, which are its last inputs.
pub struct Decoded<'a> {
    pub program: Box<Program>,
    pub captured: Captured<'a>,
    /// How deep its branches nest.
    pub blocks: u32,
}

impl<'a> Decoder<'a> {
    fn new(budget: usize) -> Self {
        Decoder {
            builder: Builder::new(),
            captured: Captured::new(),
            inputs: None,
            variables: BTreeMap::new(),
            nested: 0,
            blocks: 0,
            deepest: 0,
            budget,
            left: budget,
            exhausted: false,
        }
    }

    /// A program of some expressions, without parameters.
    pub fn expressions(expressions: Term<'a>) -> Result<Decoded<'a>> {
        let mut decoder = Decoder::new(MOST);
        let results = decoder.results(expressions)?;
        decoder.finish(results)
    }

    /// The same where that is short, and else nothing.
    pub fn short_expressions(expressions: Term<'a>) -> Result<Option<Decoded<'a>>> {
        let mut decoder = Decoder::new(SHORT);
        match decoder.results(expressions) {
            Ok(results) => decoder.finish(results).map(Some),
            Err(_) if decoder.exhausted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A program of one operation, whose arguments are terms.
    pub fn of_operation(op: Op, terms: &[Term<'a>]) -> Result<Decoded<'a>> {
        let mut decoder = Decoder::new(SHORT);
        let result = decoder.operation(op, terms)?;
        decoder.finish(smallvec![result])
    }

    /// A program from a function: `{parameters, steps, results}`. Wants `DEEP_STACK`.
    pub fn function(function: Term<'a>) -> Result<Decoded<'a>> {
        let mut decoder = Decoder::new(MOST_OF_FUNCTION);
        decoder.inputs = Some(HashMap::new());
        decoder.builder.keep_constants();
        let results = decoder.deeper(|decoder| {
            let [parameters, steps, results] = parts(function)?;
            let ids = decoder.parameters(parameters)?;
            let inputs = ids.iter().map(|_| decoder.builder.input()).collect();
            decoder.body(ids, inputs, steps, results)
        })?;
        decoder.finish(results)
    }

    /// Takes what is decoded from the budget.
    fn spend(&mut self, units: usize) -> Result<()> {
        if units > self.left {
            self.exhausted = true;
            let most = self.budget;
            return refuse(format!(
                "a call holds more than {most} list elements, bytes of text and elements of expressions, each of which \
                 counts {EXPRESSION} more; :let names what is repeated"
            ));
        }
        self.left -= units;
        Ok(())
    }

    /// The items of a proper list, which count. Rustler's iterator panics at the end of an improper one.
    fn items(&mut self, term: Term<'a>) -> Result<Option<ListIterator<'a>>> {
        let (mut rest, mut count) = (term, 0);
        while let Ok((_, tail)) = rest.list_get_cell() {
            (rest, count) = (tail, count + 1);
            if count > self.left {
                break;
            }
        }
        self.spend(count)?;
        Ok(match rest.is_empty_list() {
            true => term.into_list_iterator().ok(),
            false => None,
        })
    }

    fn finish(self, results: Places) -> Result<Decoded<'a>> {
        Ok(Decoded {
            program: self.builder.finish(results)?,
            captured: self.captured,
            blocks: self.deepest,
        })
    }

    fn parameters(&mut self, ids: Term<'a>) -> Result<Vec<i64>> {
        match self.items(ids)? {
            Some(items) => items.map(small_integer).collect(),
            None => refuse(format!("expected a list of parameters, got {}", shown(ids))),
        }
    }

    /// `{parameters, [{id, expression}], results}`; the ids are known to what follows only.
    fn block(&mut self, function: Term<'a>) -> Result<Function> {
        // Calls that run at once are decoded on the stack of a scheduler.
        if self.inputs.is_none() {
            return refuse("run: conditions and loops are for compile/1".to_owned());
        }
        if self.blocks > MOST_BLOCKS {
            return refuse(format!(
                "conditions and loops nest more than {MOST_BLOCKS} deep"
            ));
        }
        self.deeper(|decoder| {
            let [parameters, steps, results] = parts(function)?;
            let ids = decoder.parameters(parameters)?;
            let places = decoder.builder.begin(ids.len());
            let results = decoder.body(ids, places, steps, results)?;
            decoder.builder.end(results)
        })
    }

    /// Decodes a block inside the one that is being decoded.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let nested = std::mem::take(&mut self.nested);
        self.blocks += 1;
        self.deepest = self.deepest.max(self.blocks);
        let block = inner(self);
        self.blocks -= 1;
        self.nested = nested;
        block
    }

    /// The steps of a block, with its parameters in `places`, and its results.
    fn body(
        &mut self,
        mut ids: Vec<i64>,
        places: Places,
        steps: Term<'a>,
        results: Term<'a>,
    ) -> Result<Places> {
        let parameters = places.into_iter().map(Value::Place);
        self.variables.extend(ids.iter().copied().zip(parameters));
        let Some(items) = self.items(steps)? else {
            return refuse(format!("expected a list of steps, got {}", shown(steps)));
        };
        for step in items {
            let (id, expression): (i64, Term) = match step.decode() {
                Ok(step) => step,
                Err(_) => return refuse(format!("{} is no {{id, expression}}", shown(step))),
            };
            let value = self.value(expression)?;
            self.variables.insert(id, value);
            ids.push(id);
        }
        let results = self.results(results)?;
        for id in ids {
            self.variables.remove(&id);
        }
        Ok(results)
    }

    fn results(&mut self, expressions: Term<'a>) -> Result<Places> {
        let Some(items) = self.items(expressions)? else {
            return refuse(format!(
                "expected a list of expressions, got {}",
                shown(expressions)
            ));
        };
        let mut results = Places::new();
        for expression in items {
            match self.value(expression)? {
                Value::Place(place) => results.push(place),
                Value::Several(places) => {
                    self.spend(places.len())?;
                    results.extend_from_slice(&places);
                }
            }
        }
        Ok(results)
    }

    fn value(&mut self, term: Term<'a>) -> Result<Value> {
        match self.argument(term)? {
            Argument::Value(value) => Ok(value),
            Argument::Literal(_) => refuse(format!("expected an expression, got {}", shown(term))),
        }
    }

    fn place(&mut self, term: Term<'a>) -> Result<Place> {
        match self.value(term)? {
            Value::Place(place) => Ok(place),
            Value::Several(_) => refuse("an operation of several results needs :elem".to_owned()),
        }
    }

    fn operation(&mut self, op: Op, terms: &[Term<'a>]) -> Result<Place> {
        let mut operands = Vec::with_capacity(terms.len());
        for term in terms {
            operands.push(match self.argument(*term)? {
                Argument::Literal(literal) => Operand::Literal(literal),
                Argument::Value(Value::Place(place)) => Operand::Place(place),
                Argument::Value(Value::Several(places)) => {
                    self.spend(places.len())?;
                    Operand::Places(places.to_vec())
                }
            });
        }
        self.builder.operation(op, operands)
    }

    fn argument(&mut self, term: Term<'a>) -> Result<Argument> {
        let literal = |literal| Ok(Argument::Literal(literal));
        match term.get_type() {
            TermType::Ref => self.capture(term),
            TermType::Tuple => self.nest(|decoder| decoder.tuple(term)),
            TermType::Atom => match names::argument(term) {
                Some(word) => literal(word),
                None => refuse(format!("{} means nothing in an expression", shown(term))),
            },
            TermType::Integer => literal(Literal::Number(Number::Int(integer(term)?))),
            TermType::Float => match term.decode() {
                Ok(float) => literal(Literal::Number(Number::Float(float))),
                Err(_) => refuse(format!("{} is no number", shown(term))),
            },
            TermType::List => self.nest(|decoder| decoder.list(term)),
            _ => self.text(term),
        }
    }

    fn text(&mut self, term: Term<'a>) -> Result<Argument> {
        if let Ok(binary) = Binary::from_term(term) {
            self.spend(binary.len())?;
            if let Ok(text) = String::from_utf8(binary.to_vec()) {
                return Ok(Argument::Literal(Literal::Text(text)));
            }
        }
        refuse(format!("{} means nothing in an expression", shown(term)))
    }

    fn capture(&mut self, term: Term<'a>) -> Result<Argument> {
        let Some(ArrayResource(shared)) = term.try_get_resource::<ArrayResource>() else {
            return refuse(format!("expected an array, got {}", shown(term)));
        };
        let known = self.inputs.as_ref();
        if let Some(place) = known.and_then(|inputs| inputs.get(&std::ptr::from_ref(shared))) {
            return Ok(Argument::Value(Value::Place(*place)));
        }
        self.captured.push((term, shared));
        let place = self.builder.input();
        if let Some(inputs) = &mut self.inputs {
            inputs.insert(shared, place);
        }
        Ok(Argument::Value(Value::Place(place)))
    }

    fn nest(&mut self, inner: impl FnOnce(&mut Self) -> Result<Argument>) -> Result<Argument> {
        if self.nested >= MOST_NESTED {
            return refuse(format!("an expression nests more than {MOST_NESTED} deep"));
        }
        self.nested += 1;
        let argument = inner(self);
        self.nested -= 1;
        argument
    }

    fn tuple(&mut self, term: Term<'a>) -> Result<Argument> {
        let elements = get_tuple(term).unwrap_or_default();
        self.spend(EXPRESSION + elements.len())?;
        let Some((head, rest)) = elements.split_first() else {
            return refuse("an empty tuple is no expression".to_owned());
        };
        let value = match (names::head(*head), rest) {
            (Some(Head::Op(op)), rest) => Value::Place(self.operation(op, rest)?),
            (Some(Head::Let), [id, value, body]) => self.named(*id, *value, *body)?,
            (Some(Head::Var), [id]) => self.variable(*id)?,
            (Some(Head::Elem), [index, value]) => self.element(*index, *value)?,
            (Some(Head::Tuple), [values]) => {
                Value::Several(self.results(*values)?.into_vec().into())
            }
            (Some(Head::Complex), [re, im]) => return complex(*re, *im),
            (Some(Head::Cond), [predicate, yes, no]) => self.cond(*predicate, *yes, *no)?,
            (Some(Head::While), [initial, condition, body]) => {
                self.repeat(*initial, *condition, *body)?
            }
            (Some(Head::Call), [index, operands, results]) => {
                self.call(*index, *operands, *results)?
            }
            _ => {
                return refuse(format!(
                    "{} with {} arguments is no operation",
                    shown(*head),
                    rest.len()
                ))
            }
        };
        Ok(Argument::Value(value))
    }

    fn named(&mut self, id: Term<'a>, value: Term<'a>, body: Term<'a>) -> Result<Value> {
        let id = small_integer(id)?;
        let value = self.value(value)?;
        let outer = self.variables.insert(id, value);
        let body = self.value(body);
        match outer {
            Some(outer) => self.variables.insert(id, outer),
            None => self.variables.remove(&id),
        };
        body
    }

    fn variable(&mut self, id: Term<'a>) -> Result<Value> {
        let id = small_integer(id)?;
        match self.variables.get(&id) {
            Some(value) => Ok(value.clone()),
            None => refuse(format!("variable {id} is not bound here")),
        }
    }

    fn element(&mut self, index: Term<'a>, value: Term<'a>) -> Result<Value> {
        let given = small_integer(index)?;
        let index = usize::try_from(given).ok();
        let element = match (self.value(value)?, index) {
            (Value::Place(place), Some(index)) => place.element(index),
            (Value::Several(places), Some(index)) => places.get(index).copied(),
            _ => None,
        };
        match element {
            Some(place) => Ok(Value::Place(place)),
            None => refuse(format!(
                "there is no element {given}: :elem takes an operation of several results"
            )),
        }
    }

    /// `{:cond, predicate, yes, no}`, the branches as functions without parameters.
    fn cond(&mut self, predicate: Term<'a>, yes: Term<'a>, no: Term<'a>) -> Result<Value> {
        let predicate = self.place(predicate)?;
        let yes = self.block(yes)?;
        let no = self.block(no)?;
        self.builder.cond(predicate, yes, no).map(Value::Place)
    }

    /// `{:while, initial, condition, body}`, the last two as functions of the state.
    fn repeat(&mut self, initial: Term<'a>, condition: Term<'a>, body: Term<'a>) -> Result<Value> {
        let initial = self.results(initial)?;
        let condition = self.block(condition)?;
        let body = self.block(body)?;
        let state = self.builder.repeat(initial, condition, body)?;
        Ok(Value::Place(state))
    }

    /// `{:call, index, operands, results}`, the last as a number.
    fn call(&mut self, index: Term<'a>, operands: Term<'a>, results: Term<'a>) -> Result<Value> {
        let operands = self.results(operands)?;
        let (Ok(index), Ok(results)) = (index.decode(), results.decode()) else {
            return refuse(":call takes an index and a number of results".to_owned());
        };
        let given = self.builder.call(index, operands, results)?;
        Ok(Value::Place(given))
    }

    /// Integers, or arrays and expressions.
    fn list(&mut self, term: Term<'a>) -> Result<Argument> {
        let Some(list) = self.items(term)? else {
            return refuse(format!("{} is no list", shown(term)));
        };
        let mut ints = Vec::new();
        let mut places = Vec::new();
        for item in list {
            match item.get_type() {
                TermType::Integer => ints.push(small_integer(item)?),
                _ => places.push(self.place(item)?),
            }
        }
        match (ints.is_empty(), places.is_empty()) {
            (_, true) => Ok(Argument::Literal(Literal::Ints(ints))),
            (true, false) => Ok(Argument::Value(Value::Several(places.into()))),
            (false, false) => refuse(format!("{} mixes integers and arrays", shown(term))),
        }
    }
}

/// `{parameters, steps, results}`
fn parts(function: Term) -> Result<[Term; 3]> {
    match get_tuple(function).map(<[Term; 3]>::try_from) {
        Ok(Ok(parts)) => Ok(parts),
        _ => {
            let what = shown(function);
            refuse(format!("{what} is no {{parameters, steps, results}}"))
        }
    }
}

fn complex(re: Term, im: Term) -> Result<Argument> {
    let part = |term: Term| match names::argument(term) {
        Some(Literal::Number(Number::Float(float))) => Ok(float),
        _ => term
            .decode::<f64>()
            .or_else(|_| term.decode::<i64>().map(|int| int as f64))
            .map_err(|_| Error::Argument(format!("{} is no real number", shown(term)))),
    };
    let number = Number::Complex(part(re)?, part(im)?);
    Ok(Argument::Literal(Literal::Number(number)))
}

fn small_integer(term: Term) -> Result<i64> {
    match term.decode::<i64>() {
        Ok(integer) => Ok(integer),
        Err(_) => refuse(format!(
            "expected an integer of 64 bits, got {}",
            shown(term)
        )),
    }
}

fn integer(term: Term) -> Result<i128> {
    let signed = term.decode::<i64>().map(i128::from);
    match signed.or_else(|_| term.decode::<u64>().map(i128::from)) {
        Ok(integer) => Ok(integer),
        Err(_) => refuse(format!("{} does not fit 64 bits", shown(term))),
    }
}
