//! The worker of a stream: its answers, its failures and its bounded queue.

use std::sync::mpsc::{channel, Sender};

use emily_mlx::{Device, Error, Job, QueueFull, SharedArray, StreamHandle};
use mlx_rs::Array;

use crate::support::*;

fn new_stream() -> StreamHandle {
    StreamHandle::new(Device::Cpu).expect("the CPU takes any number of streams")
}

fn push(stream: &StreamHandle, job: Job) {
    assert!(stream.worker().push(job).is_ok(), "the queue is full");
}

/// A job for the worker, as those are that may fail; others may be short.
fn evaluation(arrays: Vec<Array>, answer: Sender<emily_mlx::Result<Vec<Array>>>) -> Job {
    Job::Evaluate {
        arrays,
        may_fail: true,
        fetched: None,
        wanted: Box::new(|| true),
        done: Box::new(move |result| drop(answer.send(result))),
    }
}

#[test]
fn a_job_gives_its_arrays_back_in_order() {
    let arrays = vec![
        vector(&[1.0]),
        build("exp", vec![own(vector(&[0.0]))]).unwrap(),
    ];
    let computed = evaluate_on(cpu(), arrays).unwrap();
    let values: Vec<_> = computed.into_iter().flat_map(numbers).collect();
    assert_eq!(values, [1.0, 1.0]);
}

#[test]
fn a_failure_is_its_own_jobs() {
    let stream = new_stream();
    let (answer, answered) = channel();
    let count = 400;
    for i in 0..count {
        // Every third job is a singular matrix, and more work behind it.
        let fails = i % 3 == 0;
        let x = shaped(&[if fails { 0.0 } else { i as f32 }; 4], &[2, 2]);
        let array = match fails {
            true => build_on(&stream, "inv", vec![own(x)]).unwrap().remove(0),
            false => x,
        };
        let array = (0..20).fold(array, |array, _| {
            let double = vec![own(array.clone()), own(array)];
            build_on(&stream, "maximum", double).unwrap().remove(0)
        });
        let answer = answer.clone();
        let job = Job::Evaluate {
            arrays: vec![array],
            may_fail: fails,
            fetched: None,
            wanted: Box::new(|| true),
            done: Box::new(move |result| answer.send((i, result)).unwrap_or_default()),
        };
        push(&stream, job);
    }
    for (i, result) in answered.iter().take(count) {
        match result {
            Err(Error::Mlx(message)) if i % 3 == 0 => assert!(message.contains("Inverse")),
            Ok(arrays) if i % 3 != 0 => assert_eq!(numbers(arrays[0].clone()), [i as f64; 4]),
            other => panic!("job {i} gave {other:?}"),
        }
    }
}

#[test]
fn a_scheduled_array_is_computed_by_whoever_reads_it() {
    let x = build("exp", vec![own(vector(&[0.0]))]).unwrap();
    let (answer, answered) = channel();
    let job = Job::Schedule {
        arrays: vec![x.clone()],
        done: Box::new(move |result| drop(answer.send(result))),
    };
    push(cpu(), job);
    assert!(matches!(answered.recv(), Ok(Ok(arrays)) if arrays.is_empty()));
    assert_eq!(numbers(x), [1.0]);
}

#[test]
fn what_nobody_wants_is_not_computed() {
    let stream = new_stream();
    let (answer, answered) = channel();
    let job = Job::Evaluate {
        arrays: vec![vector(&[1.0])],
        may_fail: true,
        fetched: None,
        wanted: Box::new(|| false),
        done: Box::new(move |_| answer.send(()).unwrap_or_default()),
    };
    push(&stream, job);
    // The answer's channel is dropped with the job.
    assert!(answered.recv().is_err());
    assert_eq!(numbers_on(&stream, vector(&[2.0])), [2.0]);
}

#[test]
fn a_panic_in_a_job_is_an_error_for_its_caller() {
    let stream = new_stream();
    let (answer, answered) = channel();
    let job = Job::Evaluate {
        arrays: vec![vector(&[1.0])],
        may_fail: true,
        fetched: None,
        wanted: Box::new(|| panic!("a panic that the test wants")),
        done: Box::new(move |result| drop(answer.send(result))),
    };
    push(&stream, job);
    let answer = answered.recv().expect("a panicked job is answered");
    assert!(matches!(answer, Err(Error::Mlx(message)) if message.contains("panic")));
    assert_eq!(numbers_on(&stream, vector(&[2.0])), [2.0]);
}

#[test]
fn a_panic_in_an_answer_leaves_the_worker_alive() {
    let stream = new_stream();
    for _ in 0..3 {
        let job = Job::Evaluate {
            arrays: vec![vector(&[1.0])],
            may_fail: false,
            fetched: None,
            wanted: Box::new(|| true),
            done: Box::new(|_| panic!("a panic that the test wants")),
        };
        push(&stream, job);
        let job = Job::Schedule {
            arrays: vec![vector(&[1.0])],
            done: Box::new(|_| panic!("a panic that the test wants")),
        };
        push(&stream, job);
    }
    assert_eq!(numbers_on(&stream, vector(&[2.0])), [2.0]);
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let stream = new_stream();
    // The worker stands in this job's answer until the test lets it go.
    let (let_go, held) = channel::<()>();
    let (reached, is_held) = channel();
    let job = Job::Evaluate {
        arrays: vec![vector(&[1.0])],
        may_fail: true,
        fetched: None,
        wanted: Box::new(|| true),
        done: Box::new(move |_| {
            reached.send(()).unwrap();
            held.recv().unwrap();
        }),
    };
    push(&stream, job);
    is_held.recv().unwrap();

    let (answer, answered) = channel();
    let mut queued = 0;
    let refused = loop {
        let job = evaluation(vec![vector(&[queued as f32])], answer.clone());
        match stream.worker().push(job) {
            Ok(()) => queued += 1,
            Err(QueueFull(job)) => break job,
        }
        assert!(queued < 1_000_000, "the queue has no bound");
    };
    assert!(queued >= 100, "the queue takes only {queued} jobs");
    let_go.send(()).unwrap();
    for expected in 0..queued {
        let arrays = answered.recv().unwrap().unwrap();
        if expected % 500 == 0 {
            assert_eq!(numbers(arrays[0].clone()), [f64::from(expected)]);
        }
    }
    // The job that came back is whole.
    push(&stream, refused);
    let arrays = answered.recv().unwrap().unwrap();
    assert_eq!(numbers(arrays[0].clone()), [f64::from(queued)]);
}

/// Short work needs no worker; what is long waits for it.
#[cfg(own_kernels)]
#[test]
fn short_work_passes_the_worker_by() {
    let stream = new_stream();
    let (let_go, held) = channel::<()>();
    let (reached, is_held) = channel();
    push(
        &stream,
        Job::Evaluate {
            arrays: vec![vector(&[1.0])],
            may_fail: true,
            fetched: None,
            wanted: Box::new(|| true),
            done: Box::new(move |_| {
                reached.send(()).unwrap();
                held.recv().unwrap();
            }),
        },
    );
    is_held.recv().unwrap();

    let sum = |count: usize| {
        (1..count).fold(vector(&[1.0]), |sum, _| {
            let args = vec![own(sum), own(vector(&[1.0]))];
            build_on(&stream, "add", args).unwrap().remove(0)
        })
    };
    let (answer, answered) = channel();
    let ask = |count: usize| {
        let answer = answer.clone();
        push(
            &stream,
            Job::Evaluate {
                arrays: vec![sum(count)],
                may_fail: false,
                fetched: None,
                wanted: Box::new(|| true),
                done: Box::new(move |result| drop(answer.send((count, result)))),
            },
        );
    };
    ask(100);
    // It does not while other tests schedule.
    let answer = (0..1000).find_map(|_| {
        ask(3);
        answered
            .recv_timeout(std::time::Duration::from_millis(20))
            .ok()
    });
    let (count, arrays) = answer.expect("no short work has passed the worker by");
    assert_eq!((count, numbers(arrays.unwrap().remove(0))), (3, vec![3.0]));
    let_go.send(()).unwrap();
    let long = answered.iter().find(|(count, _)| *count == 100);
    let (_, arrays) = long.expect("the worker goes on");
    assert_eq!(numbers(arrays.unwrap().remove(0)), [100.0]);
}

/// What has its input's memory needs no thread; what is copied does.
#[cfg(own_kernels)]
#[test]
fn other_axes_over_computed_elements_are_there_at_once() {
    let row = |x: Array| build("reshape", vec![own(x), list(&[4])]).unwrap();
    let is_here = |x: &Array| cpu().worker().compute_here(std::slice::from_ref(x));
    let matrix = shaped(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let same = row(matrix.clone());
    // It is not while other tests schedule.
    let pause = || std::thread::sleep(std::time::Duration::from_millis(1));
    assert!((0..1000).any(|_| is_here(&same) || {
        pause();
        false
    }));
    assert_eq!(numbers(same), [1.0, 2.0, 3.0, 4.0]);

    let turned = build("transpose", vec![own(matrix), list(&[1, 0])]).unwrap();
    let turned = row(evaluate_on(cpu(), vec![turned]).unwrap().remove(0));
    assert!(!is_here(&turned));
    assert_eq!(numbers(turned), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn work_outlives_the_handles_of_its_stream() {
    let stream = new_stream();
    let (answer, answered) = channel();
    for i in 0..20 {
        push(
            &stream,
            evaluation(vec![vector(&[i as f32])], answer.clone()),
        );
    }
    drop(stream);
    drop(answer);
    assert_eq!(answered.iter().filter(Result::is_ok).count(), 20);
}

#[test]
fn bytes_need_a_computed_array_in_row_major_order() {
    let lazy = build("exp", vec![own(vector(&[0.0]))]).unwrap();
    let lazy = SharedArray::lazy(lazy, cpu(), 1, false);
    assert!(matches!(lazy.bytes(), Err(Error::Argument(_))));

    let transposed = build("transpose", vec![own(counted(&[2, 2])), list(&[1, 0])]).unwrap();
    let computed = evaluate_on(cpu(), vec![transposed]).unwrap().remove(0);
    let computed = SharedArray::computed(computed, cpu());
    assert!(computed.bytes().unwrap().is_none());
    assert_eq!(numbers(computed.readable().unwrap()), [0.0, 2.0, 1.0, 3.0]);
}

#[test]
fn long_graphs_are_scheduled() {
    let shared = |depth| SharedArray::lazy(vector(&[1.0]), cpu(), depth, false);
    let (short, long) = (shared(1), shared(100_000));
    SharedArray::schedule_long(std::iter::once(&short));
    assert_eq!(short.depth(), 1);
    SharedArray::schedule_long([&short, &long].into_iter());
    assert_eq!((short.depth(), long.depth()), (0, 0));
}

#[test]
fn a_computed_array_has_no_linear_algebra_before_it() {
    let failing = SharedArray::lazy(vector(&[1.0]), cpu(), 1, true);
    assert!(failing.has_linalg());
    failing.set_evaluated();
    assert!(!failing.has_linalg() && failing.is_evaluated());
}

#[test]
fn a_closed_stream_answers_with_errors() {
    let stream = new_stream();
    assert!(!stream.is_closed());
    stream.close();
    assert!(stream.is_closed());
    for may_fail in [true, false] {
        let (answer, answered) = channel();
        let array = build_on(&stream, "exp", vec![own(vector(&[0.0]))])
            .unwrap()
            .remove(0);
        assert!(!stream.worker().compute_here(std::slice::from_ref(&array)));
        let job = Job::Evaluate {
            arrays: vec![array.clone()],
            may_fail,
            fetched: None,
            wanted: Box::new(|| true),
            done: Box::new(move |result| drop(answer.send(result))),
        };
        push(&stream, job);
        match answered.recv().unwrap() {
            Err(Error::Mlx(message)) => assert_eq!(message, "the stream is closed"),
            other => panic!("{other:?}"),
        }
        // Others compute what it has not.
        assert_eq!(
            numbers(evaluate_on(cpu(), vec![array]).unwrap().remove(0)),
            [1.0]
        );
    }
}
