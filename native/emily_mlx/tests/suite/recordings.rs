//! Steps of programs that are recorded in one run and run again in the next.

use std::sync::{Mutex, MutexGuard};

use emily_mlx::program::{forget_recordings, Builder, Input, NoHost, Place, Program};
use emily_mlx::{replayed_runs, Op};

use crate::programs::{full, pair, places};
use crate::support::*;

/// Held by tests that count what was run from recordings, which are few and of all programs.
static RECORDINGS: Mutex<()> = Mutex::new(());

/// Whether runs are recorded.
fn records() -> bool {
    cfg!(target_os = "linux") && emily_mlx::kernels().is_some()
}

/// With no other such test, and no recording.
fn alone() -> MutexGuard<'static, ()> {
    let alone = RECORDINGS
        .lock()
        .unwrap_or_else(|failed| failed.into_inner());
    forget_recordings();
    alone
}

/// A program of two inputs and so many additions.
fn sums(count: usize) -> Box<Program> {
    let mut builder = Builder::new();
    let (x, y) = (builder.input(), builder.input());
    let results = additions(&mut builder, x, y, count);
    builder.finish(places(&results)).expect("all are set")
}

/// So many additions of `y`, and one more result on the way.
fn additions(builder: &mut Builder, x: Place, y: Place, count: usize) -> [Place; 2] {
    let sums = (0..count).scan(x, |sum, _| {
        *sum = pair(builder, Op::Add, *sum, y);
        Some(*sum)
    });
    let sums: Vec<Place> = sums.collect();
    [sums[count - 1], sums[count / 2 - 1]]
}

#[test]
fn steps_are_recorded_in_the_second_run() {
    let _alone = alone();
    let program = sums(40);
    let mut given = Vec::new();
    for run in 0..6_u8 {
        let before = replayed_runs();
        let x = [f32::from(run), 2.0];
        let inputs = [&x[..], &[0.5, 0.25]].map(|values| Input::Lent(vector(values)));
        let results = program.run_waiting(inputs.into(), cpu(), &NoHost);
        given.push(results.expect("they fit"));
        assert_eq!(replayed_runs() - before, u64::from(run >= 2 && records()));
    }
    // Those of each run are its own.
    for (run, results) in given.into_iter().enumerate() {
        let run = run as f64;
        let results: Vec<_> = results.into_iter().map(numbers).collect();
        assert_eq!(results, [[run + 20.0, 12.0], [run + 10.0, 7.0]]);
    }
}

#[test]
fn a_recording_reads_what_is_large_where_it_lies_until_that_changes() {
    let _alone = alone();
    let program = sums(30);
    let large = |value: f32| vector(&vec![value; 4096]);
    let weights = [large(1.0), large(2.0)];
    // Of the weights of each run: recorded in the second, run again in the third; others, for which it is recorded with a copy.
    for (run, (which, replayed)) in [(0, 0), (0, 0), (0, 1), (1, 0), (0, 1), (1, 1)]
        .into_iter()
        .enumerate()
    {
        let before = replayed_runs();
        let inputs = vec![vector(&[run as f32]), weights[which].clone()];
        let inputs = inputs.into_iter().map(Input::Lent).collect();
        let results = program
            .run_waiting(inputs, cpu(), &NoHost)
            .expect("they fit");
        let expected = run as f64 + 30.0 * (which + 1) as f64;
        assert_eq!(numbers(results[0].clone()), vec![expected; 4096]);
        assert_eq!(
            replayed_runs() - before,
            u64::from(replayed == 1 && records())
        );
    }
}

#[test]
fn what_is_one_element_in_memory_is_written_out_for_a_recording() {
    let _alone = alone();
    let program = sums(30);
    for run in 0..4_u8 {
        let before = replayed_runs();
        let one = shaped(&[f32::from(run)], &[1, 1]);
        let x = build("broadcast_to", vec![own(one), list(&[2, 3])]).expect("it fits");
        let inputs = vec![Input::Lent(x), Input::Lent(vector(&[1.0, 2.0, 3.0]))];
        let results = program
            .run_waiting(inputs, cpu(), &NoHost)
            .expect("they fit");
        let sums = [30.0, 60.0, 90.0].map(|sum| f64::from(run) + sum);
        assert_eq!(numbers(results[0].clone()), [sums, sums].concat());
        assert_eq!(replayed_runs() - before, u64::from(run >= 2 && records()));
    }
}

#[test]
fn steps_before_and_behind_a_loop_are_recorded_with_it() {
    let _alone = alone();
    let mut builder = Builder::new();
    let (x, one) = (builder.input(), builder.input());
    let [first, _] = additions(&mut builder, x, one, 24);
    let state = builder.begin(1);
    let limit = full(&mut builder, 40.0);
    let below = pair(&mut builder, Op::Less, state[0], limit);
    let condition = builder.end(places(&[below])).expect("it is set");
    let state = builder.begin(1);
    let more = pair(&mut builder, Op::Add, state[0], one);
    let body = builder.end(places(&[more])).expect("it is set");
    let counted = builder.repeat(places(&[first]), condition, body);
    let counted = counted.map(|counted| counted.element(0).expect("one"));
    let [last, _] = additions(&mut builder, counted.expect("it fits"), first, 24);
    let program = builder.finish(places(&[last, first])).expect("all are set");
    for run in 0..6_u8 {
        let inputs = [f32::from(run), 1.0].map(|value| Input::Lent(vector(&[value])));
        let results = program.run_waiting(inputs.into(), cpu(), &NoHost);
        let results: Vec<_> = results
            .expect("they fit")
            .into_iter()
            .map(numbers)
            .collect();
        let first = f64::from(run) + 24.0;
        assert_eq!(results, [[40.0 + 24.0 * first], [first]]);
    }
}

#[test]
fn what_was_given_away_is_not_recorded() {
    let _alone = alone();
    let program = sums(30);
    let before = replayed_runs();
    for _ in 0..4 {
        let inputs = vec![Input::Given(vector(&[1.0])), Input::Lent(vector(&[2.0]))];
        let results = program
            .run_waiting(inputs, cpu(), &NoHost)
            .expect("they fit");
        assert_eq!(numbers(results[0].clone()), [61.0]);
    }
    assert_eq!(replayed_runs(), before);
}

#[test]
fn threads_that_drop_each_others_recordings_stop_recording() {
    let _alone = alone();
    let program = sums(30);
    let before = replayed_runs();
    let run = || {
        let inputs = [vector(&[1.0]), vector(&[2.0])].map(Input::Lent);
        let results = program.run_waiting(inputs.into(), cpu(), &NoHost);
        assert_eq!(numbers(results.expect("they fit")[0].clone()), [61.0]);
    };
    for _ in 0..6 {
        std::thread::scope(|scope| scope.spawn(run).join()).expect("it has its results");
    }
    // This thread's second run would find what its first had recorded.
    run();
    run();
    assert_eq!(replayed_runs(), before);
}
