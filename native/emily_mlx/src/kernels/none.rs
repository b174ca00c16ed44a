//! A build without kernels of its own: no kernel is ever found.

use mlx_rs::Array;

use crate::dtype::Dtype;
use crate::error::Result;
use crate::op::Op;
use crate::stream::StreamHandle;

pub(crate) enum Map {}
pub(crate) enum Rows {}
pub(crate) enum Fold {}
pub(crate) enum Indexed {}

pub(super) fn map(_op: Op, _dtype: Dtype, _stream: &StreamHandle) -> Option<Map> {
    None
}

pub(super) fn cast(_from: Dtype, _to: Dtype, _stream: &StreamHandle) -> Option<Map> {
    None
}

pub(super) fn clamp(_dtype: Dtype, _stream: &StreamHandle) -> Option<Map> {
    None
}

pub(super) fn fold(_op: Op, _dtype: Dtype, _last: bool, _stream: &StreamHandle) -> Option<Fold> {
    None
}

pub(super) fn choice(_bytes: usize, _stream: &StreamHandle) -> Option<Map> {
    None
}

pub(super) fn rows(_op: Op, _stream: &StreamHandle) -> Option<Rows> {
    None
}

pub(super) fn indexed(
    _op: Op,
    _dtype: Dtype,
    _index: Dtype,
    _stream: &StreamHandle,
) -> Option<Indexed> {
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

impl Map {
    pub(crate) fn apply(self, _arrays: &[&Array], _stream: &StreamHandle) -> Result<Array> {
        match self {}
    }

    pub(crate) fn apply_with(
        self,
        _arrays: &[&Array],
        _dtype: Dtype,
        _option: f64,
        _stream: &StreamHandle,
    ) -> Result<Array> {
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
