//! Many threads build on shared arrays and streams.

use std::sync::{Arc, Barrier};
use std::thread;

use emily_mlx::{Device, SharedArray, StreamHandle};

use crate::support::*;

fn on_threads(count: usize, work: impl Fn(usize) + Send + Sync) {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        for i in 0..count {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(i);
            });
        }
    });
}

#[test]
fn one_stream() {
    on_threads(8, |i| {
        for round in 0..50 {
            let x = vector(&[i as f32, round as f32]);
            let sum = build("sum", vec![own(x), list(&[0]), boolean(false)]);
            assert_eq!(numbers(sum.unwrap()), [(i + round) as f64]);
        }
    });
}

#[test]
fn a_stream_a_thread_over_one_uncomputed_array() {
    let shared = build("exp", vec![own(vector(&[0.0; 64]))]).unwrap();
    let shared = SharedArray::lazy(shared, cpu(), 1, false);
    on_threads(8, |i| {
        let stream = StreamHandle::new(Device::Cpu).expect("the CPU takes any number of streams");
        for _ in 0..20 {
            let more = own(vector(&[i as f32]));
            let sum = build_on(
                &stream,
                "add",
                vec![
                    own(shared.array().expect("nobody gives it away").clone()),
                    more,
                ],
            );
            let sum = sum.unwrap().remove(0);
            assert_eq!(numbers_on(&stream, sum), [1.0 + i as f64; 64]);
        }
    });
}

#[test]
fn what_one_stream_gives_another_goes_on_with() {
    let first = StreamHandle::new(Device::Cpu).unwrap();
    let second = StreamHandle::new(Device::Cpu).unwrap();
    let x = build_on(&first, "exp", vec![own(vector(&[0.0]))])
        .unwrap()
        .remove(0);
    let y = build_on(&second, "negative", vec![own(x.clone())])
        .unwrap()
        .remove(0);
    let z = build_on(&first, "add", vec![own(y), own(x)])
        .unwrap()
        .remove(0);
    assert_eq!(numbers_on(&second, z), [0.0]);
}

/// Both results of a decomposition are one node of MLX's graph, whose references MLX counts
/// without a lock.
#[test]
fn siblings_are_dropped_on_two_threads_uncomputed() {
    for _ in 0..200 {
        let qr = build_on(cpu(), "qr", vec![own(counted(&[2, 2]))]).unwrap();
        let siblings: Vec<_> = qr
            .into_iter()
            .map(|array| SharedArray::lazy(array, cpu(), 1, true))
            .collect();
        let start = Arc::new(Barrier::new(siblings.len()));
        let threads: Vec<_> = siblings
            .into_iter()
            .map(|sibling| {
                let start = start.clone();
                thread::spawn(move || {
                    start.wait();
                    drop(sibling);
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
    assert_eq!(numbers(vector(&[1.0])), [1.0]);
}

#[test]
fn one_sibling_is_computed_while_another_is_dropped() {
    on_threads(4, |_| {
        for _ in 0..50 {
            let mut qr = build_on(cpu(), "qr", vec![own(shaped(&[3.0, 4.0], &[2, 1]))]).unwrap();
            let r = qr.pop().unwrap();
            let q = SharedArray::lazy(qr.pop().unwrap(), cpu(), 1, true);
            let dropped = thread::spawn(move || drop(q));
            assert_near(&[numbers(r)[0].abs()], &[5.0]);
            dropped.join().unwrap();
        }
    });
}

/// MLX hands a failure on to every stream that waits for the one that failed.
#[test]
fn a_failure_on_one_stream_is_none_on_another() {
    on_threads(4, |i| {
        let stream = StreamHandle::new(Device::Cpu).expect("the CPU takes any number of streams");
        for _ in 0..100 {
            if i % 2 == 0 {
                let singular = vec![own(shaped(&[0.0; 4], &[2, 2]))];
                let inverse = build_on(&stream, "inv", singular).unwrap();
                let weight = vec![own(inverse[0].clone()), nil(), float(0.0)];
                let normed = build_on(&stream, "rms_norm", weight).unwrap();
                assert!(evaluate_failing(&stream, normed).is_err());
            } else {
                let x = vec![own(vector(&[3.0; 4])), nil(), float(0.0)];
                let normed = build_on(&stream, "rms_norm", x).unwrap().remove(0);
                assert_near(&numbers_on(&stream, normed), &[1.0; 4]);
            }
        }
    });
}
