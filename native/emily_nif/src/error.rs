use emily_mlx::Error;
use rustler::{NifException, Term};

#[derive(NifException)]
#[module = "ArgumentError"]
struct ArgumentError {
    message: String,
}

#[derive(NifException)]
#[module = "Emily.Error"]
struct MlxError {
    message: String,
}

/// What a NIF raises for an error.
pub fn raise(error: Error) -> rustler::Error {
    match error {
        Error::Argument(message) => rustler::Error::RaiseTerm(Box::new(ArgumentError { message })),
        Error::Mlx(message) => rustler::Error::RaiseTerm(Box::new(MlxError { message })),
    }
}

/// How much of a term messages show.
const MOST_SHOWN: usize = 200;

/// The beginning of a term, for a message: parts that it shares would be written again and again.
pub fn shown(term: Term) -> String {
    let text = format!("{term:?}");
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

pub fn refuse(message: impl Into<String>) -> rustler::Error {
    raise(Error::Argument(message.into()))
}
