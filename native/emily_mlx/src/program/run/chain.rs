//! A chain's run: types and shapes are known only now, so that here is found what becomes one kernel.

use emily_kernels::dispatch::Level;
use smallvec::SmallVec;

use super::{Run, Slot};
use crate::ops::apply::Value;
use crate::ops::chain::{self, Known, Part, Reduction, Source, Typed};
use crate::ops::dot;
use crate::ops::op::Op;
use crate::program::step::{Operands, Operation, Place, Register};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel;

/// The operations of a chain on their way into the graph.
struct Pending<'a> {
    operations: &'a [Operation],
    /// What is known of each that is not in the graph yet.
    known: Vec<Option<Known>>,
    /// The operations that read each.
    readers: Vec<SmallVec<[usize; 2]>>,
    level: Level,
}

impl<'a> Pending<'a> {
    fn new(operations: &'a [Operation], level: Level) -> Self {
        let mut pending = Pending {
            operations,
            known: operations.iter().map(|_| None).collect(),
            readers: operations.iter().map(|_| SmallVec::new()).collect(),
            level,
        };
        for (at, operation) in operations.iter().enumerate() {
            operation.each_read(&mut |place| {
                if let Some(earlier) = pending.number(place.register) {
                    pending.readers[earlier].push(at);
                }
            });
        }
        pending
    }

    /// The number of the operation that writes a register.
    fn number(&self, register: Register) -> Option<usize> {
        self.operations.iter().position(|one| one.to == register)
    }

    /// The operations that become one kernel with `last`: those that nothing else reads, of its shape.
    fn with(&self, last: usize, shape: &[i32]) -> SmallVec<[usize; 8]> {
        let mut taken: SmallVec<[usize; 8]> = SmallVec::from_slice(&[last]);
        for at in (0..last).rev() {
            let fits = self.known[at]
                .as_ref()
                .is_some_and(|known| known.shape[..] == *shape);
            let readers = &self.readers[at];
            if fits && !readers.is_empty() && readers.iter().all(|one| taken.contains(one)) {
                taken.push(at);
            }
        }
        taken.reverse();
        taken
    }

    /// What is in the graph is not on its way there.
    fn forget(&mut self, taken: &[usize]) {
        for &one in taken {
            self.known[one] = None;
        }
    }
}

impl Run<'_> {
    pub(super) fn chain(&mut self, operations: &[Operation]) -> Result<()> {
        let Some(level) = kernel::level(self.stream) else {
            return operations.iter().try_for_each(|one| self.operation(one));
        };
        if let [product @ Operation { op: Op::Matmul, .. }, transpose] = operations {
            let value = dot::transposed(&self.args(product.op, &product.operands)?, self.stream)?;
            self.registers[transpose.to] = Slot::Value(Value::One(value));
            return Ok(());
        }
        let mut pending = Pending::new(operations, level);
        let last = operations.len() - 1;
        for at in 0..=last {
            pending.known[at] = self.known(&pending, at)?;
            if at == last && self.reduce(&mut pending)? {
                break;
            }
            if pending.known[at].is_none() || at == last {
                self.emit(&mut pending, at)?;
            }
        }
        // Nobody reads them any more.
        self.clear(operations[..last].iter().map(|one| one.to));
        Ok(())
    }

    fn known(&self, pending: &Pending, at: usize) -> Result<Option<Known>> {
        let operation = &pending.operations[at];
        let Some(operands) = Operands::of(operation) else {
            return Ok(None);
        };
        let mut arrays: SmallVec<[Typed; 3]> = SmallVec::new();
        for place in operands.arrays {
            let earlier = pending
                .number(place.register)
                .and_then(|one| pending.known[one].as_ref());
            arrays.push(match (earlier, place.element) {
                (Some(known), None) => (known.dtype, &known.shape),
                (Some(_), Some(_)) => return Ok(None),
                (None, _) => {
                    let array = self.array(place)?;
                    (Dtype::of(array), array.shape())
                }
            });
        }
        Ok(chain::known(operation.op, &arrays, &operands.literals))
    }

    /// Whether the last operation reduces what those before it give; then it is in the graph with them.
    fn reduce(&mut self, pending: &mut Pending) -> Result<bool> {
        let last = &pending.operations[pending.operations.len() - 1];
        let Some(Operands { arrays, literals }) = Operands::of(last) else {
            return Ok(false);
        };
        let [Place {
            register,
            element: None,
        }] = arrays[..]
        else {
            return Ok(false);
        };
        let Some(reduced) = pending.number(register) else {
            return Ok(false);
        };
        let reduction = pending.known[reduced]
            .as_ref()
            .and_then(|known| Reduction::of(last.op, known, &literals));
        let Some(reduction) = reduction else {
            return Ok(false);
        };
        let value = self.emit_reduced(pending, reduced, &reduction)?;
        self.registers[last.to] = Slot::Value(value);
        Ok(true)
    }

    /// Puts an operation into the graph, with those that it reads and that are not there yet.
    fn emit(&mut self, pending: &mut Pending, at: usize) -> Result<()> {
        let taken = match &pending.known[at] {
            Some(known) => pending.with(at, &known.shape),
            None => SmallVec::from_slice(&[at]),
        };
        self.emit_others(pending, &taken)?;
        let operation = &pending.operations[at];
        if taken.len() > 1 {
            let value = self.kernel(pending, &taken, None)?;
            self.registers[operation.to] = Slot::Value(value);
        } else {
            self.operation(operation)?;
        }
        pending.forget(&taken);
        Ok(())
    }

    /// Puts a reduction into the graph, with the operations that give what it reduces.
    fn emit_reduced(
        &mut self,
        pending: &mut Pending,
        reduced: usize,
        reduction: &Reduction,
    ) -> Result<Value> {
        let taken = match &pending.known[reduced] {
            Some(known) => pending.with(reduced, &known.shape),
            None => SmallVec::new(),
        };
        self.emit_others(pending, &taken)?;
        let value = self.kernel(pending, &taken, Some(reduction))?;
        pending.forget(&taken);
        Ok(value)
    }

    /// Puts what these operations read and are not into the graph.
    fn emit_others(&mut self, pending: &mut Pending, taken: &[usize]) -> Result<()> {
        for &one in taken {
            let mut apart: SmallVec<[usize; 4]> = SmallVec::new();
            pending.operations[one]
                .each_read(&mut |place| apart.extend(pending.number(place.register)));
            for earlier in apart {
                if pending.known[earlier].is_some() && !taken.contains(&earlier) {
                    self.emit(pending, earlier)?;
                }
            }
        }
        Ok(())
    }

    /// One kernel of operations, each of which is known, and of a reduction behind them.
    fn kernel(
        &self,
        pending: &Pending,
        taken: &[usize],
        reduction: Option<&Reduction>,
    ) -> Result<Value> {
        let mut arrays = SmallVec::<[_; 8]>::new();
        let mut places = SmallVec::<[_; 8]>::new();
        let mut parts = Vec::with_capacity(taken.len());
        for &one in taken {
            let operation = &pending.operations[one];
            let (Some(read), Some(known)) = (Operands::of(operation), &pending.known[one]) else {
                continue;
            };
            let mut operands = SmallVec::new();
            for place in read.arrays {
                let earlier = pending.number(place.register);
                if let Some(part) = taken.iter().position(|other| Some(*other) == earlier) {
                    operands.push(Source::Part(part));
                    continue;
                }
                let again = places.iter().position(|other| *other == place);
                operands.push(Source::Array(match again {
                    Some(at) => at,
                    None => {
                        arrays.push(self.array(place)?);
                        places.push(place);
                        places.len() - 1
                    }
                }));
            }
            parts.push(Part {
                op: operation.op,
                known,
                operands,
            });
        }
        chain::add(&parts, reduction, &arrays, pending.level, self.stream).map(Value::One)
    }
}
