//! Atoms by which operations and words cross. Looking one up costs a binary search over numbers.

use emily_mlx::{Dtype, Literal, Number, Op};
use once_cell::sync::OnceCell;
use rustler::{Atom, Env, Term};
use strum::IntoEnumIterator;

/// What a tuple's first atom means.
#[derive(Clone, Copy)]
pub enum Head {
    Op(Op),
    Let,
    Var,
    Elem,
    Tuple,
    Complex,
    Cond,
    While,
    Call,
}

/// What an atom means as an argument.
#[derive(Clone, Copy)]
enum Word {
    Bool(bool),
    Nil,
    Causal,
    Dtype(Dtype),
    Float(f64),
}

struct Table<T>(Vec<(Atom, T)>);

impl<T: Copy> Table<T> {
    fn new(env: Env, entries: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let mut rows: Vec<_> = entries
            .into_iter()
            .filter_map(|(name, value)| Some((Atom::from_str(env, name).ok()?, value)))
            .collect();
        rows.sort_by_key(|(atom, _)| atom.as_c_arg());
        Table(rows)
    }

    fn get(&self, term: Term) -> Option<T> {
        let key = term.as_c_arg();
        let found = self
            .0
            .binary_search_by_key(&key, |(atom, _)| atom.as_c_arg())
            .ok()?;
        Some(self.0[found].1)
    }
}

static HEADS: OnceCell<Table<Head>> = OnceCell::new();
static WORDS: OnceCell<Table<Word>> = OnceCell::new();

/// Fills the tables. Atoms are never freed, so their numbers stay true.
pub fn register(env: Env) {
    HEADS.get_or_init(|| {
        let special = [
            ("let", Head::Let),
            ("var", Head::Var),
            ("elem", Head::Elem),
            ("tuple", Head::Tuple),
            ("complex", Head::Complex),
            ("cond", Head::Cond),
            ("while", Head::While),
            ("call", Head::Call),
        ];
        let ops = Op::iter().map(|op| (op.name(), Head::Op(op)));
        Table::new(env, ops.chain(special))
    });
    WORDS.get_or_init(|| {
        let special = [
            ("true", Word::Bool(true)),
            ("false", Word::Bool(false)),
            ("nil", Word::Nil),
            ("causal", Word::Causal),
            ("nan", Word::Float(f64::NAN)),
            ("infinity", Word::Float(f64::INFINITY)),
            ("neg_infinity", Word::Float(f64::NEG_INFINITY)),
        ];
        let dtypes = Dtype::iter().map(|dtype| (dtype.name(), Word::Dtype(dtype)));
        Table::new(env, dtypes.chain(special))
    });
}

pub fn head(term: Term) -> Option<Head> {
    HEADS.get()?.get(term)
}

pub fn argument(term: Term) -> Option<Literal> {
    Some(match WORDS.get()?.get(term)? {
        Word::Bool(bool) => Literal::Bool(bool),
        Word::Nil => Literal::Nil,
        Word::Causal => Literal::Causal,
        Word::Dtype(dtype) => Literal::Dtype(dtype),
        Word::Float(float) => Literal::Number(Number::Float(float)),
    })
}

pub fn dtype(term: Term) -> Option<Dtype> {
    match WORDS.get()?.get(term)? {
        Word::Dtype(dtype) => Some(dtype),
        _ => None,
    }
}
