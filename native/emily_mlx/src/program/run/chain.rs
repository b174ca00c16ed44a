//! A chain's run: types and shapes are known only now, so that here is found what becomes one kernel.

use emily_kernels::dispatch::Level;
use mlx_rs::Array;
use smallvec::SmallVec;

use super::{Run, Slot};
use crate::ops::apply::Value;
use crate::ops::chain::{self, Known, Means, Part, Source, Typed};
use crate::ops::dot;
use crate::ops::op::Op;
use crate::ops::rows::{self, Space};
use crate::program::step::{Operands, Operation, Register};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel;

/// The numbers of operations, in their order.
type Taken = SmallVec<[usize; 8]>;

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

    /// The operations that become one kernel with `last`: those that nothing else reads and that fit, as far as what
    /// reads them does.
    fn with(&self, last: usize, fits: impl Fn(&Known, &[usize]) -> bool) -> Taken {
        let mut taken = Taken::from_slice(&[last]);
        for at in (0..last).rev() {
            let readers = &self.readers[at];
            let is_read = !readers.is_empty() && readers.iter().all(|one| taken.contains(one));
            if is_read
                && self.known[at]
                    .as_ref()
                    .is_some_and(|known| fits(known, readers))
            {
                taken.push(at);
            }
        }
        taken.reverse();
        taken
    }

    /// Operations of one shape, of which the last gives the result.
    fn of_one_shape(&self, last: usize) -> Taken {
        match &self.known[last] {
            Some(Known { shape, .. }) => {
                self.with(last, |known, _| known.is_map() && known.shape == *shape)
            }
            None => Taken::from_slice(&[last]),
        }
    }

    /// Operations over rows, of which one knows a total of another.
    fn over_rows(&self, last: usize) -> Option<(Space, Taken)> {
        let result = self.known[last].as_ref()?;
        if !result.is_map() {
            return None;
        }
        let near = self.with(last, |_, _| true);
        let mut tried: SmallVec<[Space; 1]> = SmallVec::new();
        for one in near.iter().rev() {
            let total = self.known[*one].as_ref().and_then(Known::total);
            let Some(space) = total.and_then(Space::of).filter(|one| !tried.contains(one)) else {
                continue;
            };
            if space.form_of(result).is_some() {
                let taken = self.with_rows(last, &space);
                let is_total = |one: &usize| {
                    let known = self.known[*one].as_ref();
                    known.is_some_and(|known| known.total().is_some())
                };
                if taken.iter().any(is_total) {
                    return Some((space, taken));
                }
            }
            tried.push(space);
        }
        None
    }

    fn with_rows(&self, last: usize, space: &Space) -> Taken {
        let mut taken = self.with(last, |known, readers| {
            let reads = |reader: &usize| {
                let reader = self.known[*reader].as_ref();
                reader.is_some_and(|reader| space.reads(reader, known))
            };
            space.form_of(known).is_some() && readers.iter().all(reads)
        });
        // What only shapes what is there already is apart.
        let mut at = 0;
        while at < taken.len() {
            let one = taken[at];
            let shapes = self.known[one]
                .as_ref()
                .is_some_and(|known| matches!(known.means, Means::Reshaped | Means::Broadcast));
            if shapes && !self.reads(one).iter().any(|read| taken.contains(read)) {
                taken.remove(at);
            } else {
                at += 1;
            }
        }
        taken
    }

    /// The earlier operations that an operation reads.
    fn reads(&self, at: usize) -> SmallVec<[usize; 4]> {
        let mut read = SmallVec::new();
        self.operations[at].each_read(&mut |place| read.extend(self.number(place.register)));
        read
    }

    /// What is reduced by an operation, if it is not in the graph and nothing else reads it.
    fn reduced(&self, at: usize) -> Option<usize> {
        self.known[at].as_ref()?.total()?;
        let &[read] = &self.reads(at)[..] else {
            return None;
        };
        let is_pending = self.known[read].as_ref().is_some_and(Known::is_map);
        (is_pending && self.readers[read][..] == [at]).then_some(read)
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

    /// Puts an operation into the graph, with those that it reads and that are not there yet.
    fn emit(&mut self, pending: &mut Pending, at: usize) -> Result<()> {
        let over_rows = pending.over_rows(at);
        let reduced = pending.reduced(at);
        let taken = match (&over_rows, reduced) {
            (Some((_, taken)), _) => taken.clone(),
            (None, Some(reduced)) => {
                let mut taken = pending.of_one_shape(reduced);
                taken.push(at);
                taken
            }
            (None, None) => match &pending.known[at] {
                Some(known) if known.is_map() => pending.of_one_shape(at),
                _ => SmallVec::from_slice(&[at]),
            },
        };
        self.emit_others(pending, &taken)?;
        let operation = &pending.operations[at];
        match over_rows {
            Some((space, _)) => {
                let array = self.rows_kernel(pending, &taken, &space)?;
                self.registers[operation.to] = Slot::Value(Value::One(array));
            }
            None if taken.len() > 1 => {
                let array = self.kernel(pending, &taken)?;
                self.registers[operation.to] = Slot::Value(Value::One(array));
            }
            None => self.operation(operation)?,
        }
        pending.forget(&taken);
        Ok(())
    }

    /// Puts what these operations read and are not into the graph.
    fn emit_others(&mut self, pending: &mut Pending, taken: &[usize]) -> Result<()> {
        for &one in taken {
            for earlier in pending.reads(one) {
                if pending.known[earlier].is_some() && !taken.contains(&earlier) {
                    self.emit(pending, earlier)?;
                }
            }
        }
        Ok(())
    }

    /// Where the operands of operations come from, which become one kernel, and the arrays among these.
    fn sources(&self, pending: &Pending, taken: &[usize]) -> Result<(Vec<Sources>, Arrays<'_>)> {
        let (mut arrays, mut places) = (Arrays::new(), SmallVec::<[_; 8]>::new());
        let mut all = Vec::with_capacity(taken.len());
        for &one in taken {
            let mut sources = Sources::new();
            let read = Operands::of(&pending.operations[one]);
            for place in read.map_or_else(SmallVec::new, |read| read.arrays) {
                let earlier = pending.number(place.register);
                if let Some(part) = taken.iter().position(|other| Some(*other) == earlier) {
                    sources.push(Source::Part(part));
                    continue;
                }
                let again = places.iter().position(|other| *other == place);
                sources.push(Source::Array(match again {
                    Some(at) => at,
                    None => {
                        arrays.push(self.array(place)?);
                        places.push(place);
                        places.len() - 1
                    }
                }));
            }
            all.push(sources);
        }
        Ok((all, arrays))
    }

    /// One kernel of maps, and of a total behind them.
    fn kernel(&self, pending: &Pending, taken: &[usize]) -> Result<Array> {
        let (sources, arrays) = self.sources(pending, taken)?;
        let mut parts = Vec::with_capacity(taken.len());
        let mut reduction = None;
        for (&one, operands) in taken.iter().zip(sources) {
            let Some(known) = &pending.known[one] else {
                continue;
            };
            match &known.means {
                Means::Map { map, option } => parts.push(Part {
                    op: pending.operations[one].op,
                    map: *map,
                    option: *option,
                    dtype: known.dtype,
                    operands,
                }),
                Means::Total(total) => reduction = Some(total),
                Means::Reshaped | Means::Broadcast => (),
            }
        }
        chain::add(&parts, reduction, &arrays, pending.level, self.stream)
    }

    /// One kernel of operations over rows.
    fn rows_kernel(&self, pending: &Pending, taken: &[usize], space: &Space) -> Result<Array> {
        let (sources, arrays) = self.sources(pending, taken)?;
        let mut parts = Vec::with_capacity(taken.len());
        for (&one, operands) in taken.iter().zip(sources) {
            parts.extend(pending.known[one].as_ref().map(|known| rows::Part {
                op: pending.operations[one].op,
                known,
                operands,
            }));
        }
        rows::add(space, &parts, &arrays, pending.level, self.stream)
    }
}

type Sources = SmallVec<[Source; 3]>;
type Arrays<'a> = SmallVec<[&'a Array; 8]>;
