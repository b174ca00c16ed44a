use emily_mlx::Error;
use rustler::NifException;

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

pub fn refuse(message: impl Into<String>) -> rustler::Error {
    raise(Error::Argument(message.into()))
}
