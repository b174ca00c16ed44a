//! Chains against one number after the other.

use emily_kernels::chain::{Chain, Step};
use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::view::{extent, Axes, Axis, View, Walk};
use emily_kernels::{compare, elementwise};

use crate::support::{bytes, bytes_mut, rounds, samples, Random, Sample};

#[derive(Clone, Copy)]
enum Op {
    Add,
    Multiply,
    Subtract,
    Maximum,
    Negative,
    /// A comparison and a choice between the same two.
    Greatest,
}

const OPS: [Op; 6] = [
    Op::Add,
    Op::Multiply,
    Op::Subtract,
    Op::Maximum,
    Op::Negative,
    Op::Greatest,
];

fn step(map: &'static dyn emily_kernels::chain::Map, operands: &[usize], width: usize) -> Step {
    Step {
        map,
        option: 0.0,
        operands: operands.iter().copied().collect(),
        width,
    }
}

/// Steps of random operations, and what they give of the inputs' numbers.
fn random_steps(random: &mut Random, inputs: &[Vec<f32>]) -> (Vec<Step>, Vec<f32>) {
    let mut steps = Vec::new();
    // The value of each number that a step may take; comparisons are none.
    let mut values: Vec<(usize, Vec<f32>)> = inputs.iter().cloned().enumerate().collect();
    for _ in 0..1 + random.below(12) {
        let (a, x) = values[random.below(values.len())].clone();
        let (b, y) = values[random.below(values.len())].clone();
        let pair = |f: fn(f32, f32) -> f32| {
            x.iter()
                .zip(&y)
                .map(|(x, y)| f(*x, *y))
                .collect::<Vec<f32>>()
        };
        let next = |steps: &Vec<Step>| inputs.len() + steps.len();
        let result = match OPS[random.below(OPS.len())] {
            Op::Add => {
                steps.push(step(&elementwise::add::<f32>, &[a, b], 4));
                pair(|x, y| x + y)
            }
            Op::Multiply => {
                steps.push(step(&elementwise::multiply::<f32>, &[a, b], 4));
                pair(|x, y| x * y)
            }
            Op::Subtract => {
                steps.push(step(&elementwise::subtract::<f32>, &[a, b], 4));
                pair(|x, y| x - y)
            }
            Op::Maximum => {
                steps.push(step(&elementwise::maximum::<f32>, &[a, b], 4));
                pair(|x, y| if x.is_nan() || x > y { x } else { y })
            }
            Op::Negative => {
                steps.push(step(&elementwise::negative::<f32>, &[a], 4));
                pair(|x, _| -x)
            }
            Op::Greatest => {
                let compared = next(&steps);
                steps.push(step(&compare::greater::<f32>, &[a, b], 1));
                steps.push(step(&elementwise::select::<u32>, &[compared, a, b], 4));
                pair(|x, y| if x > y { x } else { y })
            }
        };
        values.push((next(&steps) - 1, result));
    }
    let (_, last) = values.pop().expect("there are steps");
    (steps, last)
}

/// An array in memory of any layout.
struct Stored {
    memory: Vec<f32>,
    first: usize,
    axes: Axes,
}

impl Stored {
    fn new(random: &mut Random, shape: &[usize]) -> Self {
        let mut axes: Axes = shape.iter().map(|&size| Axis { size, stride: 0 }).collect();
        match random.below(4) {
            // Row-major, transposed, reversed, or broadcast.
            0 => (0..axes.len())
                .rev()
                .fold(1, |step, at| set(&mut axes[at], step)),
            1 => (0..axes.len()).fold(1, |step, at| set(&mut axes[at], step)),
            2 => (0..axes.len()).rev().fold(1, |step, at| {
                let next = set(&mut axes[at], step);
                axes[at].stride *= -1;
                next
            }),
            _ => {
                let kept = random.below(axes.len() + 1);
                (kept..axes.len()).fold(2, |step, at| set(&mut axes[at], step))
            }
        };
        let (before, after) = extent(&axes, 4);
        Stored {
            memory: samples(random, (before + after) / 4),
            first: before,
            axes,
        }
    }

    fn view(&self) -> View<'_> {
        View::new(bytes(&self.memory), self.first, 4, self.axes.clone())
    }

    fn row(&self) -> Vec<f32> {
        let mut row = vec![0.0f32; self.view().size()];
        Walk::new(&self.view()).copy(bytes_mut(&mut row));
        row
    }
}

fn set(axis: &mut Axis, step: isize) -> isize {
    axis.stride = step;
    step * axis.size as isize
}

#[test]
fn chains_mean_what_their_steps_do() {
    let mut random = Random::new(6);
    for round in 0..rounds(150) {
        let shape: Vec<usize> = match round % 5 {
            0 => vec![1 + random.below(70)],
            1 if round % 2 == 0 => vec![65_536 + random.below(3000)],
            1 => vec![1023 + random.below(4)],
            2 if round % 2 == 0 => vec![1 + random.below(9), 9000, 1 + random.below(3)],
            2 => vec![2, 1 + random.below(1500)],
            3 => vec![
                1 + random.below(9),
                1 + random.below(9),
                1 + random.below(60),
            ],
            _ => Vec::new(),
        };
        let count = 1 + random.below(4);
        let stored: Vec<Stored> = (0..count)
            .map(|_| Stored::new(&mut random, &shape))
            .collect();
        let rows: Vec<Vec<f32>> = stored.iter().map(Stored::row).collect();
        let (steps, wanted) = random_steps(&mut random, &rows);
        let chain = Chain::new(count, steps);
        for level in Level::available() {
            // One of the inputs may lie where the output goes.
            for taken in 0..=count {
                let mut output = match rows.get(taken) {
                    Some(row) => row.clone(),
                    None => vec![f32::NAN; wanted.len()],
                };
                let inputs: Vec<Input> = stored
                    .iter()
                    .enumerate()
                    .map(|(at, one)| {
                        if at == taken {
                            Input::InOutput
                        } else {
                            Input::Array(one.view())
                        }
                    })
                    .collect();
                chain.run(level, &inputs, bytes_mut(&mut output));
                let same = output
                    .iter()
                    .zip(&wanted)
                    .all(|(got, wanted)| got.is(*wanted));
                assert!(
                    same,
                    "round {round}, {shape:?}, input {taken} taken, {}",
                    level.name()
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "comes before")]
fn a_step_takes_what_comes_before_it() {
    Chain::new(1, vec![step(&elementwise::negative::<f32>, &[1], 4)]);
}
