//! Programs of a few steps, built and run without the BEAM.

use std::sync::Mutex;

use emily_mlx::program::{Builder, Function, Host, Input, NoHost, Operand, Place, Places, Program};
use emily_mlx::{Dtype, Error, Literal, Number, Op, Result};
use mlx_rs::Array;

use crate::support::*;

pub fn places(places: &[Place]) -> Places {
    Places::from_slice(places)
}

fn number(value: f64) -> Operand {
    Operand::Literal(Literal::Number(Number::Float(value)))
}

fn literal(dtype: Dtype) -> Operand {
    Operand::Literal(Literal::Dtype(dtype))
}

pub fn full(builder: &mut Builder, value: f64) -> Place {
    let shape = Operand::Literal(Literal::Ints(Vec::new()));
    let operands = vec![shape, number(value), literal(Dtype::F32)];
    builder.operation(Op::Full, operands).expect("literals")
}

pub fn pair(builder: &mut Builder, op: Op, x: Place, y: Place) -> Place {
    let operands = vec![Operand::Place(x), Operand::Place(y)];
    builder.operation(op, operands).expect("both are set")
}

/// What a program gives for vectors, with a host that doubles each operand.
struct Doubling(Mutex<Vec<usize>>);

impl Host for Doubling {
    fn call(&self, index: usize, operands: Vec<Array>, results: usize) -> Result<Vec<Array>> {
        self.0.lock().expect("nobody panics").push(index);
        let double = |x: &Array| build("add", vec![own(x.clone()), own(x.clone())]);
        operands.iter().take(results).map(double).collect()
    }

    fn tell(&self, index: usize, _operands: Vec<Array>) -> Result<()> {
        self.0.lock().expect("nobody panics").push(index);
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        true
    }
}

/// Reads what it is told, with whether it is computed.
#[derive(Default)]
struct Reading(Mutex<Vec<(bool, f64)>>);

impl Reading {
    fn read(&self, index: usize, operands: Vec<Array>, is_computed: bool) {
        assert_eq!((index, operands.len()), (3, 1));
        let told = operands.into_iter().map(|x| (is_computed, numbers(x)[0]));
        self.0.lock().expect("nobody panics").extend(told);
    }
}

impl Host for Reading {
    fn call(&self, index: usize, operands: Vec<Array>, results: usize) -> Result<Vec<Array>> {
        assert_eq!(results, 0);
        self.read(index, operands, false);
        Ok(Vec::new())
    }

    fn tell(&self, index: usize, operands: Vec<Array>) -> Result<()> {
        self.read(index, operands, true);
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        true
    }
}

fn run(program: &Program, inputs: &[&[f32]]) -> Result<Vec<Vec<f64>>> {
    run_with(program, inputs, &NoHost)
}

fn run_with(program: &Program, inputs: &[&[f32]], host: &dyn Host) -> Result<Vec<Vec<f64>>> {
    let arrays = inputs.iter().map(|values| Input::Lent(vector(values)));
    let arrays = arrays.collect();
    let results = program.run_waiting(arrays, cpu(), host)?;
    Ok(results.into_iter().map(numbers).collect())
}

fn refused<T>(result: Result<T>, message: &str) {
    match result {
        Err(Error::Argument(text)) => assert!(text.contains(message), "{text}"),
        Err(other) => panic!("{other} for {message}"),
        Ok(_) => panic!("not refused: {message}"),
    }
}

#[test]
fn steps_one_after_the_other() {
    let mut builder = Builder::new();
    let (x, y) = (builder.input(), builder.input());
    let sum = pair(&mut builder, Op::Add, x, y);
    let product = pair(&mut builder, Op::Multiply, sum, x);
    let program = builder
        .finish(places(&[sum, product]))
        .expect("both are set");
    assert_eq!((program.inputs(), program.operations()), (2, 2));
    assert!(!program.waits() && !program.looks() && !program.has_linalg());
    let results = run(&program, &[&[1.0, 2.0], &[10.0, 20.0]]).expect("they fit");
    assert_eq!(results, [[11.0, 22.0], [11.0, 44.0]]);
}

#[test]
fn one_of_several_results() {
    let factor = |element: usize| {
        let mut builder = Builder::new();
        let x = builder.input();
        let shape = Operand::Literal(Literal::Ints(vec![2, 2]));
        let matrix = builder.operation(Op::Reshape, vec![Operand::Place(x), shape]);
        let matrix = Operand::Place(matrix.expect("it is set"));
        let qr = builder.operation(Op::Qr, vec![matrix]).expect("it is set");
        let factor = qr.element(element).expect("it is no element yet");
        assert_eq!(factor.element(0), None);
        let size = builder.operation(Op::Abs, vec![Operand::Place(factor)]);
        let size = size.expect("how many there are is known when it runs");
        let program = builder.finish(places(&[size])).expect("it is set");
        assert!(program.has_linalg());
        run(&program, &[&[3.0, 0.0, 0.0, 4.0]])
    };
    assert_eq!(factor(0).expect("it is there"), [[1.0, 0.0, 0.0, 1.0]]);
    assert_eq!(factor(1).expect("it is there"), [[3.0, 0.0, 0.0, 4.0]]);
    refused(factor(2), "no element 2 of 2");
}

#[test]
fn a_product_is_transposed() {
    // [[1, 2, 3], [4, 5, 6]] by [[7, 8], [9, 10], [11, 12]], and a vector by two matrices.
    let matrices = (&[2, 3][..], &[3, 2][..], [58.0, 139.0, 64.0, 154.0]);
    let vectors = (&[2][..], &[3, 2, 1][..], [23.0, 29.0, 35.0, 0.0]);
    for (chain, (left, right, wanted)) in [
        (false, matrices),
        (true, matrices),
        (false, vectors),
        (true, vectors),
    ] {
        let mut builder = Builder::new();
        let (x, y) = (builder.input(), builder.input());
        let product = pair(&mut builder, Op::Matmul, x, y);
        let axes = Operand::Literal(Literal::Ints(vec![1, 0]));
        let turned = builder.operation(Op::Transpose, vec![Operand::Place(product), axes]);
        let turned = turned.expect("it is set");
        let double = pair(&mut builder, Op::Add, turned, turned);
        let mut program = builder.finish(places(&[double])).expect("it is set");
        if chain {
            program.chain();
        }
        let array = |shape: &[i32], first: usize| {
            let count = shape.iter().product::<i32>() as usize;
            let values: Vec<f32> = (first..first + count).map(|i| i as f32).collect();
            Array::from_slice(&values, shape)
        };
        let (x, y) = (array(left, 1), array(right, 7));
        let results = program.run_waiting(vec![Input::Lent(x), Input::Lent(y)], cpu(), &NoHost);
        let got = numbers(results.expect("they fit").remove(0));
        let wanted: Vec<f64> = wanted.iter().map(|x| 2.0 * x).collect();
        assert_eq!(got, wanted[..got.len()], "{left:?} by {right:?}");
    }
}

/// `x` plus one where the predicate is true, else `x` less one, twice.
fn chosen(builder: &mut Builder, x: Place) -> (Function, Function) {
    let one = full(builder, 1.0);
    builder.begin(0);
    let more = pair(builder, Op::Add, x, one);
    let yes = builder.end(places(&[more])).expect("it is set");
    builder.begin(0);
    let less = pair(builder, Op::Subtract, x, one);
    let less = pair(builder, Op::Subtract, less, one);
    let no = builder.end(places(&[less])).expect("it is set");
    (yes, no)
}

#[test]
fn a_condition_runs_one_branch() {
    for chain in [false, true] {
        let mut builder = Builder::new();
        let (x, limit) = (builder.input(), builder.input());
        let predicate = pair(&mut builder, Op::Less, x, limit);
        let (yes, no) = chosen(&mut builder, x);
        let result = builder.cond(predicate, yes, no).expect("one result each");
        let result = result.element(0).expect("one of one");
        let mut program = builder.finish(places(&[result])).expect("it is set");
        if chain {
            program.chain();
        }
        assert!(program.waits());
        assert_eq!(run(&program, &[&[5.0], &[9.0]]).expect("they fit"), [[6.0]]);
        assert_eq!(run(&program, &[&[5.0], &[1.0]]).expect("they fit"), [[3.0]]);
        refused(
            run(&program, &[&[5.0, 6.0], &[1.0, 2.0]]),
            "a condition must be one boolean",
        );
    }
}

/// Doubles its input until it is at least `limit`, with `body` in the place of the doubling where there is one.
fn doubling(limit: f64, body: impl FnOnce(&mut Builder, Place) -> Place) -> Result<Box<Program>> {
    let mut builder = Builder::new();
    let x = builder.input();
    let limit = full(&mut builder, limit);
    let state = builder.begin(1);
    let goes_on = pair(&mut builder, Op::Less, state[0], limit);
    let condition = builder.end(places(&[goes_on]))?;
    let state = builder.begin(1);
    let next = body(&mut builder, state[0]);
    let body = builder.end(places(&[next]))?;
    let last = builder.repeat(places(&[x]), condition, body)?;
    builder.finish(places(&[last]))
}

fn doubled(builder: &mut Builder, x: Place) -> Place {
    pair(builder, Op::Add, x, x)
}

#[test]
fn a_loop_ends_with_the_first_state_that_fails() {
    let program = doubling(1000.0, doubled).expect("one array");
    for from in [1.0, 999.0, 1000.0, 2000.0, 1e-30] {
        let mut wanted = f64::from(from);
        while wanted < 1000.0 {
            wanted *= 2.0;
        }
        assert_eq!(run(&program, &[&[from]]).expect("it ends"), [[wanted]]);
    }
}

#[test]
fn a_loop_calls_its_host_once_an_iteration() {
    let program = doubling(30.0, |builder, x| {
        let given = builder.call(7, places(&[x]), 1).expect("it is set");
        given.element(0).expect("one of one")
    });
    let host = Doubling(Mutex::new(Vec::new()));
    let results = run_with(&program.expect("one array"), &[&[1.0]], &host).expect("it ends");
    assert_eq!(results, [[32.0]]);
    assert_eq!(*host.0.lock().expect("nobody panics"), [7; 5]);
}

#[test]
fn a_loop_tells_its_host_each_turn_once_and_in_order() {
    // What it tells is an array of the state as the turn finds it, which the turn writes over at its end.
    let program = doubling(1e6, |builder, x| {
        builder.call(3, places(&[x]), 0).expect("it is set");
        doubled(builder, x)
    });
    let program = program.expect("one array");
    // The second run begins with what the first has recorded.
    for _ in 0..2 {
        let host = Reading::default();
        let results = run_with(&program, &[&[1.0]], &host).expect("it ends");
        assert_eq!(results, [[f64::from(1 << 20)]]);
        let told = host.0.into_inner().expect("nobody panics");
        let numbers: Vec<f64> = told.iter().map(|(_, number)| *number).collect();
        let wanted: Vec<f64> = (0..20).map(|turn| f64::from(1 << turn)).collect();
        assert_eq!(numbers, wanted);
        #[cfg(target_os = "linux")]
        if std::env::var("EMILY_KERNELS").as_deref() != Ok("off") {
            let recorded = told.iter().filter(|(is_computed, _)| *is_computed).count();
            assert!(recorded >= 17, "{told:?}");
        }
    }
}

#[test]
fn a_state_keeps_its_type_and_shape() {
    let narrow = |builder: &mut Builder, x: Place| {
        let operands = vec![Operand::Place(doubled(builder, x)), literal(Dtype::F16)];
        builder.operation(Op::Astype, operands).expect("it is set")
    };
    let longer = |builder: &mut Builder, x: Place| {
        let axis = Operand::Literal(Literal::Number(Number::Int(0)));
        let operands = vec![Operand::Places(vec![x, x]), axis];
        builder
            .operation(Op::Concatenate, operands)
            .expect("it is set")
    };
    let program = doubling(9.0, narrow).expect("one array");
    refused(
        run(&program, &[&[1.0]]),
        "f16 of shape [1] for the state's array 0, f32",
    );
    // A condition that fails at once has no next state.
    assert_eq!(run(&program, &[&[10.0]]).expect("it ends"), [[10.0]]);
    let program = doubling(9.0, longer).expect("one array");
    refused(
        run(&program, &[&[1.0]]),
        "f32 of shape [2] for the state's array 0",
    );
}

#[test]
fn what_is_set_in_a_block_is_not_known_outside() {
    let mut builder = Builder::new();
    let x = builder.input();
    let parameters = builder.begin(1);
    let inside = pair(&mut builder, Op::Add, x, parameters[0]);
    let captured = builder.input();
    builder.end(places(&[inside])).expect("it is set");
    let read = |builder: &mut Builder, place: Place| {
        builder.operation(Op::Abs, vec![Operand::Place(place)])
    };
    refused(read(&mut builder, inside), "register 2 is not set here");
    refused(
        read(&mut builder, parameters[0]),
        "register 1 is not set here",
    );
    // Inputs are known everywhere.
    read(&mut builder, captured).expect("it is an input");
    refused(builder.cond(inside, empty(), empty()), "not set here");
    refused(builder.call(0, places(&[inside]), 0), "not set here");
    let both = Operand::Places(vec![x, inside]);
    let axis = Operand::Literal(Literal::Number(Number::Int(0)));
    refused(
        builder.operation(Op::Stack, vec![both, axis]),
        "not set here",
    );
    refused(
        builder.finish(places(&[x, inside])).map(|_| ()),
        "not set here",
    );
}

fn empty() -> Function {
    block(0, 0)
}

/// A block of so many parameters that gives one of them so many times.
fn block(parameters: usize, results: usize) -> Function {
    let mut builder = Builder::new();
    let first = builder.input();
    let parameters = builder.begin(parameters);
    let result = parameters.first().copied().unwrap_or(first);
    let results = vec![result; results];
    builder.end(places(&results)).expect("they are set")
}

#[test]
fn a_register_that_nobody_has_made_is_refused() {
    let mut other = Builder::new();
    let places_of_other: Vec<Place> = (0..9).map(|_| other.input()).collect();
    let mut builder = Builder::new();
    builder.input();
    let operand = Operand::Place(places_of_other[8]);
    refused(
        builder.operation(Op::Abs, vec![operand]),
        "register 8 is not set here",
    );
}

#[test]
fn branches_and_loops_fit_together() {
    let mut builder = Builder::new();
    let x = builder.input();
    refused(builder.cond(x, block(0, 1), block(0, 2)), "as many results");
    refused(
        builder.cond(x, block(1, 1), block(0, 1)),
        "without parameters",
    );
    let mut repeat = |initial: &[Place], condition: Function, body: Function| {
        refused(
            builder.repeat(places(initial), condition, body),
            "initial values, a condition of",
        );
    };
    repeat(&[x, x], block(1, 1), block(1, 1));
    repeat(&[x], block(1, 1), block(2, 1));
    repeat(&[x], block(1, 1), block(1, 2));
    repeat(&[x], block(1, 2), block(1, 1));
    repeat(&[x], block(2, 1), block(1, 1));
}

#[test]
fn blocks_are_ended() {
    let mut builder = Builder::new();
    let x = builder.input();
    refused(
        builder.end(places(&[x])).map(|_| ()),
        "no block has been begun",
    );
    builder.begin(0);
    refused(
        builder.finish(places(&[x])).map(|_| ()),
        "1 blocks have not been ended",
    );
}

#[test]
fn a_run_has_as_many_inputs_and_the_results_that_were_declared() {
    let build = || {
        let mut builder = Builder::new();
        let (x, y) = (builder.input(), builder.input());
        let sum = pair(&mut builder, Op::Add, x, y);
        builder.finish(places(&[sum])).expect("it is set")
    };
    let mut program = build();
    refused(run(&program, &[&[1.0]]), "takes 2 arrays, got 1");
    refused(
        run(&program, &[&[1.0], &[1.0], &[1.0]]),
        "takes 2 arrays, got 3",
    );
    program.declare(vec![(Dtype::F32, vec![1]), (Dtype::F32, vec![1])]);
    refused(run(&program, &[&[1.0], &[2.0]]), "gives 1 results, not 2");
    program.declare(vec![(Dtype::F64, vec![1])]);
    refused(run(&program, &[&[1.0], &[2.0]]), "declared as f64");
    program.declare(vec![(Dtype::F32, vec![2])]);
    refused(
        run(&program, &[&[1.0], &[2.0]]),
        "shape [1], declared as f32 of shape [2]",
    );
    program.declare(vec![(Dtype::F32, vec![1])]);
    assert_eq!(
        run(&program, &[&[1.0], &[2.0]]).expect("as declared"),
        [[3.0]]
    );
}

#[test]
fn a_call_has_a_host() {
    let mut builder = Builder::new();
    let x = builder.input();
    builder.call(3, places(&[x]), 0).expect("it is set");
    let program = builder.finish(places(&[x])).expect("it is set");
    refused(run(&program, &[&[1.0]]), "no host for call 3");
}

#[test]
fn constants_are_computed_once() {
    let mut builder = Builder::new();
    builder.keep_constants();
    let x = builder.input();
    builder.begin(0);
    let inside = full(&mut builder, 2.0);
    let function = builder.end(places(&[inside])).expect("it is set");
    drop(function);
    let (again, other) = (full(&mut builder, 2.0), full(&mut builder, 3.0));
    assert_eq!(again, inside);
    assert_ne!(again, other);
    let product = pair(&mut builder, Op::Multiply, x, again);
    let program = builder.finish(places(&[product])).expect("it is set");
    assert_eq!(program.operations(), 1);
    assert_eq!(run(&program, &[&[4.0]]).expect("they fit"), [[8.0]]);
}

/// What a program gives that is given its first input, and what it gives without.
fn given_and_lent(build: impl Fn(&mut Builder, Place) -> Vec<Place>, x: &[f32]) {
    let run = |gives: bool| {
        let mut builder = Builder::new();
        builder.keep_constants();
        let input = builder.input();
        // Not the input itself, whose memory the first step takes.
        let one = full(&mut builder, 1.0);
        let read = pair(&mut builder, Op::Multiply, input, one);
        let results = build(&mut builder, read);
        let mut program = builder.finish(places(&results)).expect("all are set");
        program.chain();
        let array = vector(x);
        let input = if gives { Input::Given } else { Input::Lent };
        // A plan is found in the first run, and there in the second.
        for _ in 0..2 {
            let again = vec![input(vector(x))];
            program.run_waiting(again, cpu(), &NoHost).expect("it fits");
        }
        let results = program.run_waiting(vec![input(array)], cpu(), &NoHost);
        let results = results.expect("it fits").into_iter().map(numbers);
        results
            .map(|numbers| numbers.into_iter().map(f64::to_bits).collect())
            .collect::<Vec<Vec<u64>>>()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn maxima_with_zero_keep_where_they_come_from() {
    let special = [
        1.5,
        -2.5,
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    for first in [true, false] {
        given_and_lent(
            |builder, x| {
                let (zero, one) = (full(builder, 0.0), full(builder, 1.0));
                let (left, right) = if first { (x, zero) } else { (zero, x) };
                let maximum = pair(builder, Op::Maximum, left, right);
                let is_greatest = pair(builder, Op::Equal, x, maximum);
                let is_zero = pair(builder, Op::Equal, zero, maximum);
                let is_above = pair(builder, Op::Greater, x, zero);
                let is_not_below = pair(builder, Op::LessEqual, zero, x);
                // The sign of a zero.
                let reciprocal = pair(builder, Op::Divide, one, maximum);
                let dot = pair(builder, Op::Matmul, maximum, maximum);
                let all = [is_greatest, is_zero, is_above, is_not_below];
                let mut all: Vec<Place> = all
                    .into_iter()
                    .map(|truth| {
                        let operands = vec![Operand::Place(truth), literal(Dtype::F32)];
                        builder.operation(Op::Astype, operands).expect("it is set")
                    })
                    .collect();
                all.extend([reciprocal, dot]);
                all
            },
            &special,
        );
    }
}

#[test]
fn what_is_asked_of_a_large_array_may_be_a_step_of_its_own() {
    let numbers: Vec<f32> = (0..20_000).map(|i| (i % 7) as f32 - 3.0).collect();
    given_and_lent(
        |builder, x| {
            let (zero, two) = (full(builder, 0.0), full(builder, 2.0));
            let axes = Operand::Literal(Literal::Ints(vec![0]));
            let keep = Operand::Literal(Literal::Bool(true));
            let operands = vec![Operand::Place(x), axes, keep];
            let total = builder.operation(Op::Sum, operands).expect("it is set");
            let is_above = pair(builder, Op::Greater, x, zero);
            let is_two = pair(builder, Op::Equal, x, two);
            let both = pair(builder, Op::LogicalOr, is_above, is_two);
            let operands = [both, total, zero].map(Operand::Place).to_vec();
            let chosen = builder.operation(Op::Where, operands).expect("it is set");
            vec![pair(builder, Op::Add, chosen, total)]
        },
        &numbers,
    );
}
