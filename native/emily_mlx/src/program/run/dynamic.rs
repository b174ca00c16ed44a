//! Slices at starts that are arrays: starts that several share, as the caches of a model's layers do, are brought within
//! their limits once.

use super::{Run, Within};
use crate::ops::apply::{checked, Value};
use crate::ops::index::Dynamic;
use crate::ops::op::Op;
use crate::program::step::Operand;
use crate::runtime::error::Result;

impl Run<'_> {
    pub(super) fn dynamic(&mut self, op: Op, operands: &[Operand]) -> Result<Value> {
        let at = if op == Op::SliceDynamic { 1 } else { 2 };
        let place = match operands.get(at) {
            Some(Operand::Place(place)) => Some(*place),
            _ => None,
        };
        let args = self.args(op, operands)?;
        let slice = Dynamic::read(op, &args)?;
        let limits = slice.limits();
        let known = |(starts, of, _): &&Within| Some(*starts) == place && *of == limits;
        let within = self
            .within
            .iter()
            .find(known)
            .map(|(.., within)| within.clone());
        let (starts, new) = match within {
            Some(starts) => (starts, None),
            None => {
                let starts = slice.within(&limits, self.stream)?;
                (starts.clone(), place.map(|place| (place, limits, starts)))
            }
        };
        let value = checked(op, &args, slice.at(&starts, self.stream)?.into())?;
        drop(args);
        self.within.extend(new);
        Ok(value)
    }
}
