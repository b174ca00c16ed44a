//! A build without the kernels in C++: none is ever found.

use emily_kernels::chain::Map;
use mlx_rs::Array;

use crate::dtype::Dtype;
use crate::error::Result;
use crate::op::Op;
use crate::stream::StreamHandle;

pub(crate) enum Rows {}
pub(crate) enum Fold {}
pub(crate) enum Indexed {}

pub(super) fn map(_op: Op) -> Option<&'static dyn Map> {
    None
}

pub(super) fn fold(_op: Op, _dtype: Dtype, _last: bool) -> Option<Fold> {
    None
}

pub(super) fn rows(_op: Op) -> Option<Rows> {
    None
}

pub(super) fn indexed(_op: Op, _dtype: Dtype, _index: Dtype) -> Option<Indexed> {
    None
}

impl Indexed {
    pub(crate) fn apply(
        self,
        _arrays: &[&Array],
        _axis: usize,
        _shape: &[i32],
        _stream: &StreamHandle,
    ) -> Result<Array> {
        match self {}
    }

    pub(crate) fn along(self, _x: &Array, _at: &Array, _stream: &StreamHandle) -> Result<Array> {
        match self {}
    }
}

impl Fold {
    pub(crate) fn apply(
        self,
        _x: &Array,
        _kept: usize,
        _keep_axes: bool,
        _dtype: Dtype,
        _stream: &StreamHandle,
    ) -> Result<Array> {
        match self {}
    }
}

impl Rows {
    pub(crate) fn apply(
        self,
        _arrays: &[Option<&Array>],
        _option: f64,
        _stream: &StreamHandle,
    ) -> Result<Array> {
        match self {}
    }
}
