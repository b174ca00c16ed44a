//! What a loop's state is in each turn, and how a loop ends that nobody wants any more.

use mlx_rs::Array;
use smallvec::SmallVec;

use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Error, Result};

pub(super) fn unwanted() -> Error {
    Error::Argument("nobody waits for the loop".to_owned())
}

/// What an array of a loop's state is, in each iteration.
pub(super) struct Kind {
    dtype: Dtype,
    shape: SmallVec<[i32; 4]>,
}

pub(super) type Kinds = SmallVec<[Kind; 4]>;

impl Kind {
    pub(super) fn of(array: &Array) -> Self {
        Kind {
            dtype: Dtype::of(array),
            shape: SmallVec::from_slice(array.shape()),
        }
    }

    pub(super) fn check(&self, at: usize, next: &Array) -> Result<()> {
        if Dtype::of(next) != self.dtype || next.shape() != &self.shape[..] {
            refuse!(
                "while: the body gives {} of shape {:?} for the state's array {at}, {} of shape {:?}",
                Dtype::of(next).name(),
                next.shape(),
                self.dtype.name(),
                self.shape
            )
        }
        Ok(())
    }
}
