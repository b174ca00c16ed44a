//! The arguments of one operation, read in order by the operation itself.

use std::borrow::Cow;
use std::cell::Cell;

use half::{bf16, f16};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::checks::{self, Ints};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};

/// A number as Elixir has it.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i128),
    Float(f64),
    Complex(f64, f64),
}

impl Number {
    /// The number's bytes in a type. Integers wrap and floats round, as a cast does; a float that
    /// an integer type cannot hold saturates, and NaN becomes zero.
    pub(crate) fn to_bytes(self, op: &str, dtype: Dtype) -> Result<[u8; 8]> {
        let mut bytes = [0; 8];
        let mut put = |source: &[u8]| bytes[..source.len()].copy_from_slice(source);
        // The narrower floats come by f32, as in a cast.
        let (real, single) = match self {
            Number::Int(int) => (int as f64, int as f32),
            Number::Float(float) => (float, float as f32),
            Number::Complex(..) if dtype == Dtype::C64 => (0.0, 0.0),
            Number::Complex(..) => refuse!("{op}: a complex number needs the type c64"),
        };
        match (dtype, self) {
            (Dtype::F16, _) => put(&f16::from_f32(single).to_le_bytes()),
            (Dtype::Bf16, _) => put(&bf16::from_f32(single).to_le_bytes()),
            (Dtype::F32, _) => put(&single.to_le_bytes()),
            (Dtype::F64, _) => put(&real.to_le_bytes()),
            (Dtype::C64, Number::Complex(re, im)) => {
                put(&[(re as f32).to_le_bytes(), (im as f32).to_le_bytes()].concat())
            }
            (Dtype::C64, _) => put(&single.to_le_bytes()),
            (Dtype::Bool, _) => put(&[u8::from(real != 0.0)]),
            (_, Number::Int(int)) => put(&int.to_le_bytes()[..dtype.size()]),
            (_, _) => {
                let (low, high) = dtype.integer_range().unwrap_or((0, 1));
                put(&(real as i128).clamp(low, high).to_le_bytes()[..dtype.size()])
            }
        }
        Ok(bytes)
    }
}

/// What an argument is when it is no array.
#[derive(Clone, Debug)]
pub enum Literal {
    Number(Number),
    Ints(Vec<i64>),
    Bool(bool),
    Dtype(Dtype),
    /// Attention's `causal` mask.
    Causal,
    Text(String),
    Nil,
}

impl Literal {
    fn kind(&self) -> &'static str {
        match self {
            Literal::Number(_) => "a number",
            Literal::Ints(_) => "a list of integers",
            Literal::Bool(_) => "a boolean",
            Literal::Dtype(_) => "a type",
            Literal::Causal => ":causal",
            Literal::Text(_) => "a string",
            Literal::Nil => "nil",
        }
    }
}

/// One argument of an operation.
#[derive(Debug)]
pub enum Arg<'a> {
    /// An array that somebody else holds.
    Borrowed(&'a Array),
    /// An array computed for this operation.
    Owned(Array),
    Arrays(Vec<Array>),
    Literal(Cow<'a, Literal>),
}

impl From<Literal> for Arg<'_> {
    fn from(literal: Literal) -> Self {
        Arg::Literal(Cow::Owned(literal))
    }
}

impl Arg<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Arg::Borrowed(_) | Arg::Owned(_) => "an array",
            Arg::Arrays(_) => "a list of arrays",
            Arg::Literal(literal) => literal.kind(),
        }
    }

    fn literal(&self) -> Option<&Literal> {
        match self {
            Arg::Literal(literal) => Some(literal),
            _ => None,
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

    /// The same arguments with other arrays for those that are one each.
    pub(crate) fn with_arrays(&self, other: impl Fn(&Array) -> Result<Array>) -> Result<Args<'_>> {
        let arg = |item: &'_ Arg<'a>| {
            Ok(match item {
                Arg::Borrowed(array) => Arg::Owned(other(array)?),
                Arg::Owned(array) => Arg::Owned(other(array)?),
                Arg::Arrays(arrays) => Arg::Arrays(arrays.clone()),
                Arg::Literal(literal) => Arg::Literal(literal.clone()),
            })
        };
        let items: Result<_> = self.items.iter().map(arg).collect();
        Ok(Args::new(self.op, items?))
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
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Nil) => Ok(None),
            _ => match item.as_array() {
                Some(array) => Ok(Some(array)),
                None => self.wrong("an array or nil", item),
            },
        }
    }

    /// Attention's mask: none, causal or an array.
    pub(crate) fn mask(&self) -> Result<Mask<'_>> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Nil) => Ok(Mask::None),
            Some(Literal::Causal) => Ok(Mask::Causal),
            _ => match item.as_array() {
                Some(array) => Ok(Mask::Array(array)),
                None => self.wrong("an array, :causal or nil", item),
            },
        }
    }

    pub(crate) fn arrays(&self) -> Result<&[Array]> {
        let item = self.take()?;
        match (item, item.literal()) {
            (Arg::Arrays(arrays), _) => Ok(arrays),
            (_, Some(Literal::Ints(ints))) if ints.is_empty() => Ok(&[]),
            _ => self.wrong("a list of arrays", item),
        }
    }

    pub(crate) fn number(&self) -> Result<Number> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Number(number)) => Ok(*number),
            _ => self.wrong("a number", item),
        }
    }

    pub(crate) fn float(&self) -> Result<f64> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Number(Number::Int(int))) => Ok(*int as f64),
            Some(Literal::Number(Number::Float(float))) => Ok(*float),
            _ => self.wrong("a real number", item),
        }
    }

    pub(crate) fn optional_float(&self) -> Result<Option<f64>> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Nil) => Ok(None),
            Some(Literal::Number(Number::Int(int))) => Ok(Some(*int as f64)),
            Some(Literal::Number(Number::Float(float))) => Ok(Some(*float)),
            _ => self.wrong("a real number or nil", item),
        }
    }

    pub(crate) fn int(&self) -> Result<i32> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Number(Number::Int(int))) => match i32::try_from(*int) {
                Ok(int) => Ok(int),
                Err(_) => refuse!("{}: {int} does not fit 32 bits", self.op),
            },
            _ => self.wrong("an integer", item),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Bool(bool)) => Ok(*bool),
            _ => self.wrong("a boolean", item),
        }
    }

    pub(crate) fn dtype(&self) -> Result<Dtype> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Dtype(dtype)) => Ok(*dtype),
            _ => self.wrong("a type", item),
        }
    }

    /// A type of real floats.
    pub(crate) fn float_dtype(&self) -> Result<Dtype> {
        let dtype = self.dtype()?;
        if !dtype.is_real_float() {
            refuse!(
                "{}: the type must be one of floats, got {}",
                self.op,
                dtype.name()
            )
        }
        Ok(dtype)
    }

    pub(crate) fn text(&self) -> Result<&str> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Text(text)) => Ok(text),
            _ => self.wrong("a string", item),
        }
    }

    /// Integers of which there is at most one for each axis.
    pub(crate) fn wide_ints(&self) -> Result<&[i64]> {
        let item = self.take()?;
        match item.literal() {
            Some(Literal::Ints(ints)) => {
                checks::rank(self.op, ints.len())?;
                Ok(ints)
            }
            _ => self.wrong("a list of integers", item),
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
        checks::shape(self.op, &shape)?;
        Ok(shape)
    }

    /// One axis of `array`, as a non-negative number.
    pub(crate) fn axis(&self, array: &Array) -> Result<i32> {
        let axis = self.int()?;
        checks::axis(self.op, axis, array.ndim())
    }

    /// Distinct axes of an array of `rank` axes, as non-negative numbers.
    pub(crate) fn axes(&self, rank: usize) -> Result<Ints> {
        let axes = self.ints()?;
        checks::axes(self.op, &axes, rank)
    }
}

pub(crate) enum Mask<'a> {
    None,
    Causal,
    Array(&'a Array),
}
