//! On CUDA a product of few rows takes into its kernel what is before and behind it: a norm of its rows, the gate that it is
//! a part of, a sum, a rotation. What it takes is in the graph too, where nobody reads it unless something else needs it.

use mlx_rs::Array;

use super::Run;
use crate::ops::apply::Value;
use crate::ops::args::Literal;
use crate::ops::dot::few::{Made, Norm, Product};
use crate::ops::op::Op;
use crate::ops::rope::Turn;
use crate::program::step::{Operands, Operation, Place, Register};
use crate::runtime::cuda::is_cuda;
use crate::runtime::error::Result;
use crate::runtime::ffi;

impl Run<'_> {
    /// The value of an operation on CUDA that becomes one kernel with what it reads, and what it is for those that read it.
    pub(super) fn few(&mut self, operation: &Operation) -> Result<Option<Value>> {
        if !is_cuda(self.stream) {
            return Ok(None);
        }
        let Some(operands) = Operands::of(operation) else {
            return Ok(None);
        };
        let made = self.made(operation, &operands)?;
        let fused = match (&made, &operands.arrays[..]) {
            (Some(Made::Product(product)), _) if operation.op == Op::Matmul => {
                Some(product.add(self.stream)?)
            }
            (None, [x, y]) => self.fused(operation.op, *x, *y)?,
            (None, [x, ..]) if operation.op == Op::Rope => self.turned(operation, *x)?,
            _ => None,
        };
        match made {
            Some(Made::Product(_)) if !self.is_read_once(operation.to) => (),
            Some(made) => {
                self.few.insert(operation.to, made);
            }
            None => (),
        }
        Ok(fused.map(Value::One))
    }

    fn is_read_once(&self, register: Register) -> bool {
        self.read_once.get(register).copied().unwrap_or(false)
    }

    fn made_of(&self, place: Place) -> Option<&Made> {
        self.few.get(&place.register)
    }

    /// What an operation makes that others may take into their kernels.
    fn made(&self, operation: &Operation, operands: &Operands) -> Result<Option<Made>> {
        let made = match (operation.op, &operands.arrays[..], &operands.literals[..]) {
            (Op::RmsNorm, [_, _], _) => {
                let args = self.args(operation.op, &operation.operands)?;
                let (x, weight, eps) = (args.array()?, args.array()?, args.float()?);
                let norm = Norm::of(x, weight, eps as f32, self.stream);
                norm.transpose()?.map(Made::Norm)
            }
            (Op::Matmul, [x, matrix], []) => {
                let (rows, matrix) = (self.array(*x)?, self.array(*matrix)?);
                let product = Product::of(rows, matrix, self.stream);
                product.map(|product| match self.made_of(*x) {
                    Some(Made::Norm(norm)) => Made::Product(product.behind(norm)),
                    _ => Made::Product(product),
                })
            }
            (Op::Reshape, [x], [Literal::Ints(shape)]) => {
                let last = self.array(*x)?.shape().last().map(|size| i64::from(*size));
                // The rows stay rows.
                let stays = shape.last().copied() == last;
                match self.made_of(*x) {
                    Some(Made::Norm(norm)) if stays => Some(Made::Norm(norm.clone())),
                    Some(Made::Product(product)) if stays || product.is_of_one_row() => {
                        Some(Made::Product(product.clone()))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        Ok(made)
    }

    /// A gate of two products, or the sum of one with something.
    fn fused(&self, op: Op, x: Place, y: Place) -> Result<Option<Array>> {
        let product = |place| match self.made_of(place) {
            Some(Made::Product(product)) => Some(product),
            _ => None,
        };
        let (first, second) = (product(x), product(y));
        let (like, fused) = match (op, first, second) {
            (Op::Swiglu | Op::Geglu | Op::GegluTanh, Some(gate), Some(up))
                if self.array(x)?.shape() == self.array(y)?.shape() =>
            {
                (x, gate.gate(op, up, self.stream))
            }
            (Op::Add, Some(product), _) => (x, self.sum(product, x, y)?),
            (Op::Add, _, Some(product)) => (y, self.sum(product, y, x)?),
            _ => return Ok(None),
        };
        let shape = self.array(like)?.shape();
        let shaped = |fused: Array| ffi::reshape(&fused, shape, self.stream.raw());
        fused.transpose()?.map(shaped).transpose()
    }

    /// The rotation of a product.
    fn turned(&self, operation: &Operation, x: Place) -> Result<Option<Array>> {
        let Some(Made::Product(product)) = self.made_of(x) else {
            return Ok(None);
        };
        let args = self.args(operation.op, &operation.operands)?;
        let (heads, turn) = Turn::read(&args)?;
        let turned = product.turned(heads, &turn, self.stream).transpose()?;
        let shaped = |turned: Array| ffi::reshape(&turned, heads.shape(), self.stream.raw());
        turned.map(shaped).transpose()
    }

    /// The sum of a product, which has the shape of a place, and of what has that shape too or is one row.
    fn sum(&self, product: &Product, at: Place, added: Place) -> Result<Option<Result<Array>>> {
        let (like, added) = (self.array(at)?, self.array(added)?);
        let columns = like.shape().last().copied().unwrap_or(0);
        let is_row = added.ndim() <= like.ndim() && added.size() as i32 == columns;
        let fits = added.shape() == like.shape() || is_row;
        Ok(fits.then(|| product.plus(added, self.stream)).flatten())
    }
}
