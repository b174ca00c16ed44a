//! Programs over rows, as one kernel: parts of a chain and totals along its last axes, of which later parts know what is
//! one for a row. Each means there, bit for bit, what it means alone.

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::rows::{self, Form, Kind, Rows, Step};
use mlx_rs::Array;
use smallvec::SmallVec;

use crate::ops::chain::{Known, Means, Reduction, Source};
use crate::ops::op::Op;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::kernel::{self, view, Kernel, Placement};
use crate::runtime::room;
use crate::runtime::stream::StreamHandle;

/// A shape whose last axes are the rows'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    shape: SmallVec<[i32; 4]>,
    /// How many axes come before these.
    outer: usize,
}

impl Space {
    /// The rows that are reduced, if these are.
    pub(crate) fn of(reduction: &Reduction) -> Option<Self> {
        let outer = reduction.from.len() - reduction.axes.len();
        let inner = |axis: &i32| *axis as usize >= outer;
        let space = Space {
            shape: reduction.from.clone(),
            outer,
        };
        (reduction.axes.iter().all(inner) && rows::fits(space.columns())).then_some(space)
    }

    /// How many elements a row has.
    fn columns(&self) -> usize {
        let sizes = self.shape[self.outer..].iter();
        sizes.map(|size| *size as usize).product()
    }

    /// How many elements arrays of a shape have for a row, if theirs is such a shape.
    fn form(&self, shape: &[i32]) -> Option<Form> {
        if *shape == self.shape[..] {
            return Some(Form::Row);
        }
        let is_one = self.is_kept(shape) || *shape == self.shape[..self.outer];
        is_one.then_some(Form::One)
    }

    /// Whether it is the shape of one element for a row that lies along the rows when it is broadcast.
    fn is_kept(&self, shape: &[i32]) -> bool {
        let (before, ones) = shape.split_at(self.outer.min(shape.len()));
        shape.len() == self.shape.len()
            && *before == self.shape[..self.outer]
            && ones.iter().all(|size| *size == 1)
    }

    /// What an operation is in a program over these rows, if it can be a part of one.
    pub(crate) fn form_of(&self, known: &Known) -> Option<Form> {
        let form = self.form(&known.shape)?;
        let fits = match (&known.means, form) {
            (Means::Total(reduction), Form::One) => Space::of(reduction).as_ref() == Some(self),
            (Means::Map { .. }, _) => true,
            (Means::Reshaped, Form::One) | (Means::Broadcast, Form::Row) => true,
            _ => false,
        };
        fits.then_some(form)
    }

    /// Whether an operation may read the result of another in such a program.
    pub(crate) fn reads(&self, reader: &Known, read: &Known) -> bool {
        match (
            &reader.means,
            self.form(&reader.shape),
            self.form(&read.shape),
        ) {
            (Means::Total(_), _, Some(Form::Row)) => !matches!(read.means, Means::Broadcast),
            (Means::Map { .. }, Some(Form::Row), Some(Form::Row)) => true,
            (Means::Map { .. } | Means::Broadcast, Some(Form::Row), Some(Form::One)) => {
                self.is_kept(&read.shape)
            }
            (Means::Map { .. }, Some(Form::One), Some(Form::One)) => read.shape == reader.shape,
            (Means::Reshaped, Some(Form::One), Some(Form::One)) => true,
            _ => false,
        }
    }
}

/// A part of a program: an operation, and where its operands come from.
pub(crate) struct Part<'a> {
    pub(crate) op: Op,
    pub(crate) known: &'a Known,
    pub(crate) operands: SmallVec<[Source; 3]>,
}

type Sizes = SmallVec<[usize; 4]>;

struct OverRows {
    rows: Rows,
    /// What each input is broadcast to.
    sizes: Vec<Sizes>,
    level: Level,
}

impl Kernel for OverRows {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let inputs: SmallVec<[Input; 4]> = inputs
            .iter()
            .zip(&self.sizes)
            .map(|(input, sizes)| match input {
                Input::InOutput => Input::InOutput,
                Input::Array(_) => Input::Array(view(input).broadcast(sizes)),
            })
            .collect();
        self.rows.run(self.level, &inputs, output);
    }

    fn steps(&self) -> usize {
        self.rows.steps()
    }
}

/// Adds a program over the rows of a space to the graph, whose last part gives its result.
pub(crate) fn add(
    space: &Space,
    parts: &[Part],
    arrays: &[&Array],
    level: Level,
    stream: &StreamHandle,
) -> Result<Array> {
    let last = &parts[parts.len() - 1];
    let gives_rows = space.form(&last.known.shape) == Some(Form::Row);
    let mut read = read(space, parts);
    let may_be_written_over = |read: &Read| {
        let array = arrays[read.array];
        *array.shape() == space.shape[..] && Dtype::of(array).size() == last.known.dtype.size()
    };
    let placement = match read.iter().position(may_be_written_over) {
        Some(at) if gives_rows => {
            read.swap(0, at);
            Placement::InFirst
        }
        _ => Placement::Apart,
    };
    let forms: Vec<Form> = read.iter().map(|read| read.form).collect();
    let kernel = OverRows {
        rows: Rows::new(space.columns(), &forms, steps(space, parts, &read)),
        sizes: read.iter().map(|read| read.sizes.clone()).collect(),
        level,
    };
    let inputs: SmallVec<[&Array; 4]> = read.iter().map(|read| arrays[read.array]).collect();
    let result = (&last.known.shape[..], last.known.dtype);
    let array = kernel::add("rows", kernel, &inputs, result, placement, stream)?;
    room::fits(last.op.name(), &array)?;
    Ok(array)
}

/// An array as parts read it.
#[derive(PartialEq, Eq)]
struct Read {
    array: usize,
    form: Form,
    sizes: Sizes,
}

impl Read {
    /// An array that an operation of known meaning reads.
    fn by(space: &Space, known: &Known, array: usize) -> Self {
        let form = match known.means {
            Means::Total(_) => Form::Row,
            _ => space.form(&known.shape).unwrap_or(Form::Row),
        };
        let shape = match form {
            Form::Row => &space.shape,
            Form::One => &known.shape,
        };
        Read {
            array,
            form,
            sizes: shape.iter().map(|size| *size as usize).collect(),
        }
    }
}

/// The program's inputs.
fn read(space: &Space, parts: &[Part]) -> Vec<Read> {
    let mut all = Vec::new();
    for part in parts {
        for source in &part.operands {
            if let Source::Array(array) = source {
                let read = Read::by(space, part.known, *array);
                if !all.contains(&read) {
                    all.push(read);
                }
            }
        }
    }
    all
}

/// The program's steps. What is one for a row is read along the row without a step that broadcasts it.
fn steps(space: &Space, parts: &[Part], read: &[Read]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // The number of what each part gives.
    let mut numbers: Vec<usize> = Vec::with_capacity(parts.len());
    for part in parts {
        let number = |source: &Source| match source {
            Source::Part(part) => numbers[*part],
            Source::Array(array) => {
                let wanted = Read::by(space, part.known, *array);
                // All that is read is there.
                read.iter().position(|read| *read == wanted).unwrap_or(0)
            }
        };
        let operands: SmallVec<[usize; 3]> = part.operands.iter().map(number).collect();
        let kind = match &part.known.means {
            Means::Map { map, option } => Kind::Map {
                map: *map,
                option: *option,
            },
            Means::Total(reduction) => Kind::Total(reduction.total),
            Means::Reshaped | Means::Broadcast => {
                numbers.push(operands[0]);
                continue;
            }
        };
        steps.push(Step {
            kind,
            form: space.form(&part.known.shape).unwrap_or(Form::Row),
            operands,
            width: part.known.dtype.size(),
        });
        numbers.push(read.len() + steps.len() - 1);
    }
    steps
}
