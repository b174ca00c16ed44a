/// What can go wrong in a call: the caller's arguments, or MLX itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument that was refused before MLX was called.
    #[error("{0}")]
    Argument(String),
    /// MLX refused, or failed while it evaluated.
    #[error("{0}")]
    Mlx(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Returns an [`Error::Argument`] from the function it stands in.
macro_rules! refuse {
    ($($format:tt)*) => {
        return Err($crate::runtime::error::Error::Argument(format!($($format)*)))
    };
}
pub(crate) use refuse;
