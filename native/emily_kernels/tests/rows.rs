//! Programs over rows against one number after the other, and the totals of rows that lie in memory.

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::elementwise;
use emily_kernels::input::Input;
use emily_kernels::pool;
use emily_kernels::reduce::{reduce, Reduction};
use emily_kernels::rows::{fits, Form, Kind, Rows, Step};
use emily_kernels::view::{Axis, View, Walk};

#[path = "suite/support.rs"]
#[allow(dead_code, reason = "the suite uses the rest")]
mod support;

use support::{bytes, bytes_mut, rounds, Random, Sample};

/// Numbers whose sums round, and a few that are none.
fn number(random: &mut Random) -> f32 {
    match random.below(2000) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2..20 => -0.0,
        20..40 => 0.0,
        _ => (random.below(1 << 24) as f32 - 8e6) / 3e6,
    }
}

/// An input as it lies in memory: an element for each of rows and columns, or for each of rows.
struct Stored {
    form: Form,
    memory: Vec<f32>,
    axes: [Axis; 2],
}

impl Stored {
    fn new(random: &mut Random, form: Form, rows: usize, columns: usize) -> Self {
        let size = if form == Form::Row { columns } else { 1 };
        // Row-major, along the columns, with gaps, or the same in each row, all along a row, or everywhere.
        let strides = match random.below(6) {
            0 | 1 => [size, 1],
            2 => [1, rows],
            3 => [2 * size, 2],
            4 if form == Form::Row => [[0, 1], [1, 0]][random.below(2)],
            _ => [0, 0],
        };
        let axis = |size, stride| Axis {
            size,
            stride: stride as isize,
        };
        Stored {
            form,
            memory: (0..2 * rows * size).map(|_| number(random)).collect(),
            axes: [axis(rows, strides[0]), axis(size, strides[1])],
        }
    }

    fn view(&self) -> View<'_> {
        let axes = match self.form {
            Form::Row => self.axes.iter().copied().collect(),
            Form::One => self.axes.iter().copied().take(1).collect(),
        };
        View::new(bytes(&self.memory), 0, 4, axes)
    }

    fn row(&self) -> Vec<f32> {
        let mut row = vec![0.0; self.view().size()];
        Walk::new(&self.view()).copy(bytes_mut(&mut row));
        row
    }
}

/// Steps of random operations, the last of which gives rows or one for a row, and what they give.
struct Program {
    steps: Vec<Step>,
    /// What each input and step gives.
    values: Vec<(Form, Vec<f32>)>,
}

impl Program {
    fn new(random: &mut Random, level: Level, columns: usize, inputs: &[Stored]) -> Self {
        let mut program = Program {
            steps: Vec::new(),
            values: inputs.iter().map(|one| (one.form, one.row())).collect(),
        };
        // What is one for a row comes to the rows by a step.
        for (at, input) in inputs.iter().enumerate() {
            if input.form == Form::One {
                let kind = Kind::Map {
                    map: &elementwise::copy,
                    option: 0.0,
                };
                program.push(kind, Form::One, &[at], input.row());
            }
        }
        for _ in 0..1 + random.below(12) {
            let operand = program.pick(random, inputs);
            if program.values[operand].0 == Form::Row && random.below(3) == 0 {
                program.total(random, level, columns, operand);
            } else {
                let other = program.pick(random, inputs);
                program.map(random, columns, [operand, other]);
            }
        }
        program
    }

    fn total(&mut self, random: &mut Random, level: Level, columns: usize, operand: usize) {
        let reduction = [
            Reduction::Sum,
            Reduction::Product,
            Reduction::Greatest,
            Reduction::Least,
        ][random.below(4)];
        let x = &self.values[operand].1;
        let rows = x.len() / columns;
        let mut totals = vec![f32::NAN; rows];
        let view = View::in_rows(bytes(x), 4, &[rows, columns]);
        reduce(level, reduction, &view, &[1], &mut totals);
        self.push(Kind::Total(reduction), Form::One, &[operand], totals);
    }

    /// A number that any step may read.
    fn pick(&self, random: &mut Random, inputs: &[Stored]) -> usize {
        let picked = random.below(self.values.len());
        match inputs.get(picked) {
            Some(input) if input.form == Form::One => 0,
            _ => picked,
        }
    }

    fn map(&mut self, random: &mut Random, columns: usize, [operand, other]: [usize; 2]) {
        let form = match (self.values[operand].0, self.values[other].0) {
            (Form::One, Form::One) => Form::One,
            _ => Form::Row,
        };
        let along = |operand: usize| -> Vec<f32> {
            let (own, values) = &self.values[operand];
            let times = if *own == form { 1 } else { columns };
            let each = |x: &f32| std::iter::repeat_n(*x, times);
            values.iter().flat_map(each).collect()
        };
        let greater = |x: f32, y: f32| if x.is_nan() || x > y { x } else { y };
        let (map, f): (&'static dyn Map, fn(f32, f32) -> f32) = match random.below(4) {
            0 => (&elementwise::add::<f32>, |x, y| x + y),
            1 => (&elementwise::subtract::<f32>, |x, y| x - y),
            2 => (&elementwise::multiply::<f32>, |x, y| x * y),
            _ => (&elementwise::maximum::<f32>, greater),
        };
        let pairs = along(operand).into_iter().zip(along(other));
        let values = pairs.map(|(x, y)| f(x, y)).collect();
        self.push(
            Kind::Map { map, option: 0.0 },
            form,
            &[operand, other],
            values,
        );
    }

    fn push(&mut self, kind: Kind, form: Form, operands: &[usize], values: Vec<f32>) {
        self.steps.push(Step {
            kind,
            form,
            operands: operands.iter().copied().collect(),
            width: 4,
        });
        self.values.push((form, values));
    }
}

/// Also where an input lies in the output's place, and on several threads.
#[test]
fn programs_over_rows_mean_what_their_steps_do() {
    let mut random = Random::new(77);
    let columns = [
        2, 3, 7, 16, 17, 64, 100, 513, 1023, 1024, 1025, 1056, 3000, 32_768,
    ];
    for round in 0..rounds(280) {
        let columns = columns[round % columns.len()];
        let most = if cfg!(miri) { 100 } else { 100_000 };
        let rows = 1 + random.below((most / columns).clamp(1, 700));
        let mut inputs = vec![Stored::new(&mut random, Form::Row, rows, columns)];
        for _ in 0..random.below(4) {
            let form = [Form::Row, Form::One][random.below(2)];
            inputs.push(Stored::new(&mut random, form, rows, columns));
        }
        let forms: Vec<Form> = inputs.iter().map(|input| input.form).collect();
        for level in Level::available() {
            let program = Program::new(&mut random, level, columns, &inputs);
            let (form, wanted) = &program.values[program.values.len() - 1];
            let program = Rows::new(columns, &forms, program.steps.clone());
            for (threads, taken) in [(1, false), (2, false), (3, true)] {
                let taken = taken && *form == Form::Row;
                let mut output = if taken {
                    inputs[0].row()
                } else {
                    vec![f32::NAN; wanted.len()]
                };
                let mut given: Vec<Input> = inputs
                    .iter()
                    .map(|input| Input::Array(input.view()))
                    .collect();
                if taken {
                    given[0] = Input::InOutput;
                }
                pool::set_threads(threads);
                program.run(level, &given, bytes_mut(&mut output));
                let mut pairs = output.iter().zip(wanted);
                assert!(
                    pairs.all(|(got, wanted)| got.is(*wanted)),
                    "round {round}, {rows} rows of {columns}, {threads} threads, {}",
                    level.name()
                );
            }
        }
    }
}

#[test]
fn rows_are_neither_single_elements_nor_too_long_for_a_cache() {
    let long = if cfg!(miri) { 600 } else { 10_000 };
    assert!(!fits(1) && fits(2) && fits(long) && !fits(1 << 20));
}

#[test]
#[should_panic(expected = "reads what it can")]
fn what_is_one_for_a_row_does_not_read_rows() {
    let step = Step {
        kind: Kind::Map {
            map: &elementwise::negative::<f32>,
            option: 0.0,
        },
        form: Form::One,
        operands: [0].into_iter().collect(),
        width: 4,
    };
    Rows::new(8, &[Form::Row], vec![step]);
}
