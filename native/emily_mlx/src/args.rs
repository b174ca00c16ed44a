//! The arguments of one operation, read in order by the operation itself.

use std::cell::Cell;

use mlx_rs::Array;
use smallvec::SmallVec;

use crate::create::Number;
use crate::dtype::Dtype;
use crate::error::{refuse, Result};

/// One argument of an operation.
#[derive(Debug)]
pub enum Arg<'a> {
    /// An array that somebody else holds.
    Borrowed(&'a Array),
    /// An array computed for this operation.
    Owned(Array),
    Arrays(Vec<Array>),
    Number(Number),
    Ints(SmallVec<[i64; 8]>),
    Bool(bool),
    Dtype(Dtype),
    /// Attention's `causal` mask.
    Causal,
    Text(String),
    Nil,
}

impl Arg<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Arg::Borrowed(_) | Arg::Owned(_) => "an array",
            Arg::Arrays(_) => "a list of arrays",
            Arg::Number(_) => "a number",
            Arg::Ints(_) => "a list of integers",
            Arg::Bool(_) => "a boolean",
            Arg::Dtype(_) => "a type",
            Arg::Causal => ":causal",
            Arg::Text(_) => "a string",
            Arg::Nil => "nil",
        }
    }

    fn as_array(&self) -> Option<&Array> {
        match self {
            Arg::Borrowed(array) => Some(array),
            Arg::Owned(array) => Some(array),
            _ => None,
        }
    }
}

pub type Ints = SmallVec<[i32; 8]>;

/// The arguments of the operation called `op`.
#[derive(Debug)]
pub struct Args<'a> {
    pub(crate) op: &'static str,
    items: SmallVec<[Arg<'a>; 8]>,
    next: Cell<usize>,
}

impl<'a> Args<'a> {
    pub fn new(op: &'static str, items: SmallVec<[Arg<'a>; 8]>) -> Self {
        let next = Cell::new(0);
        Args { op, items, next }
    }

    fn take(&self) -> Result<&Arg<'a>> {
        let index = self.next.replace(self.next.get() + 1);
        match self.items.get(index) {
            Some(item) => Ok(item),
            None => refuse!(
                "{}: argument {} is missing, got {} arguments",
                self.op,
                index + 1,
                self.items.len()
            ),
        }
    }

    fn wrong<T>(&self, wanted: &str, got: &Arg) -> Result<T> {
        let position = self.next.get();
        refuse!(
            "{}: argument {position} must be {wanted}, got {}",
            self.op,
            got.kind()
        )
    }

    /// Refuses what the operation did not read.
    pub(crate) fn finish(&self) -> Result<()> {
        let (read, given) = (self.next.get(), self.items.len());
        if read < given {
            refuse!("{}: takes {read} arguments, got {given}", self.op)
        }
        Ok(())
    }

    pub(crate) fn array(&self) -> Result<&Array> {
        let item = self.take()?;
        match item.as_array() {
            Some(array) => Ok(array),
            None => self.wrong("an array", item),
        }
    }

    pub(crate) fn optional_array(&self) -> Result<Option<&Array>> {
        match self.take()? {
            Arg::Nil => Ok(None),
            item => match item.as_array() {
                Some(array) => Ok(Some(array)),
                None => self.wrong("an array or nil", item),
            },
        }
    }

    /// Attention's mask: none, causal or an array.
    pub(crate) fn mask(&self) -> Result<Mask<'_>> {
        match self.take()? {
            Arg::Nil => Ok(Mask::None),
            Arg::Causal => Ok(Mask::Causal),
            item => match item.as_array() {
                Some(array) => Ok(Mask::Array(array)),
                None => self.wrong("an array, :causal or nil", item),
            },
        }
    }

    pub(crate) fn arrays(&self) -> Result<&[Array]> {
        match self.take()? {
            Arg::Arrays(arrays) => Ok(arrays),
            Arg::Ints(ints) if ints.is_empty() => Ok(&[]),
            item => self.wrong("a list of arrays", item),
        }
    }

    pub(crate) fn number(&self) -> Result<Number> {
        match self.take()? {
            Arg::Number(number) => Ok(*number),
            item => self.wrong("a number", item),
        }
    }

    pub(crate) fn float(&self) -> Result<f64> {
        match self.take()? {
            Arg::Number(Number::Int(int)) => Ok(*int as f64),
            Arg::Number(Number::Float(float)) => Ok(*float),
            item => self.wrong("a real number", item),
        }
    }

    pub(crate) fn optional_float(&self) -> Result<Option<f64>> {
        match self.take()? {
            Arg::Nil => Ok(None),
            Arg::Number(Number::Int(int)) => Ok(Some(*int as f64)),
            Arg::Number(Number::Float(float)) => Ok(Some(*float)),
            item => self.wrong("a real number or nil", item),
        }
    }

    pub(crate) fn int(&self) -> Result<i32> {
        match self.take()? {
            Arg::Number(Number::Int(int)) => match i32::try_from(*int) {
                Ok(int) => Ok(int),
                Err(_) => refuse!("{}: {int} does not fit 32 bits", self.op),
            },
            item => self.wrong("an integer", item),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool> {
        match self.take()? {
            Arg::Bool(bool) => Ok(*bool),
            item => self.wrong("a boolean", item),
        }
    }

    pub(crate) fn dtype(&self) -> Result<Dtype> {
        match self.take()? {
            Arg::Dtype(dtype) => Ok(*dtype),
            item => self.wrong("a type", item),
        }
    }

    pub(crate) fn text(&self) -> Result<&str> {
        match self.take()? {
            Arg::Text(text) => Ok(text),
            item => self.wrong("a string", item),
        }
    }

    pub(crate) fn wide_ints(&self) -> Result<&[i64]> {
        match self.take()? {
            Arg::Ints(ints) => Ok(ints),
            item => self.wrong("a list of integers", item),
        }
    }

    pub(crate) fn ints(&self) -> Result<Ints> {
        let narrow = |int: &i64| match i32::try_from(*int) {
            Ok(int) => Ok(int),
            Err(_) => refuse!("{}: {int} does not fit 32 bits", self.op),
        };
        self.wide_ints()?.iter().map(narrow).collect()
    }

    /// A shape: sizes of zero or more, whose product fits.
    pub(crate) fn shape(&self) -> Result<Ints> {
        let shape = self.ints()?;
        crate::checks::shape(self.op, &shape)?;
        Ok(shape)
    }

    /// One axis of `array`, as a non-negative number.
    pub(crate) fn axis(&self, array: &Array) -> Result<i32> {
        let axis = self.int()?;
        crate::checks::axis(self.op, axis, array.ndim())
    }

    /// Distinct axes of an array of `rank` axes, as non-negative numbers.
    pub(crate) fn axes(&self, rank: usize) -> Result<Ints> {
        let axes = self.ints()?;
        crate::checks::axes(self.op, &axes, rank)
    }
}

pub(crate) enum Mask<'a> {
    None,
    Causal,
    Array(&'a Array),
}
