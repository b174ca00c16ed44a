//! The pool: every part once, whoever computes it, and panics where they belong.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Barrier;
use std::thread;

use emily_kernels::pool;
use parking_lot::Mutex;

/// How often what depends on the threads' luck is tried; Miri tries it in another order each time.
const TIMES: usize = if cfg!(miri) { 3 } else { 200 };

static ALONE: Mutex<()> = Mutex::new(());

fn with_threads(count: usize, f: impl FnOnce()) {
    let _alone = ALONE.lock();
    pool::set_threads(count);
    f();
    pool::set_threads(0);
}

fn counts(count: usize) -> Vec<usize> {
    let calls: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    pool::each(count, |i| {
        calls[i].fetch_add(1, Ordering::Relaxed);
    });
    calls.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_part_once() {
    for threads in [1, 2, 4] {
        with_threads(threads, || {
            for count in [0, 1, 2, 3, 100] {
                for _ in 0..TIMES {
                    assert_eq!(counts(count), vec![1; count]);
                }
            }
        });
    }
}

/// Parts that wait for each other are on several threads.
#[test]
fn helpers_help() {
    with_threads(3, || {
        let all = Barrier::new(3);
        pool::each(3, |_| {
            all.wait();
        });
    });
}

#[test]
fn no_more_threads_than_were_set() {
    with_threads(4, || drop(counts(100)));
    with_threads(2, || {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        pool::each(5 * TIMES, |_| {
            let count = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(count, Ordering::SeqCst);
            thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
        });
        assert!(most.into_inner() <= 2);
    });
}

#[test]
fn many_callers() {
    with_threads(3, || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope
                    .spawn(|| (0..TIMES).for_each(|i| assert_eq!(counts(i % 20), vec![1; i % 20])));
            }
        });
    });
}

#[test]
fn parts_have_parts() {
    with_threads(3, || {
        let calls = AtomicUsize::new(0);
        pool::each(10, |_| {
            pool::each(10, |_| {
                pool::each(10, |_| {
                    calls.fetch_add(1, Ordering::Relaxed);
                })
            })
        });
        assert_eq!(calls.into_inner(), 1000);
    });
}

#[test]
fn a_panic_is_the_caller_s_and_the_pool_goes_on() {
    for threads in [1, 3] {
        with_threads(threads, || {
            for _ in 0..TIMES.div_ceil(10) {
                let panic =
                    catch_unwind(|| pool::each(50, |i| assert_ne!(i, 20, "the part fails")));
                let message = panic.unwrap_err();
                assert!(message
                    .downcast_ref::<String>()
                    .unwrap()
                    .contains("the part fails"));
                assert_eq!(counts(50), [1; 50]);
            }
        });
    }
}

#[test]
fn the_default_is_what_the_process_may_use() {
    with_threads(0, || {
        let all = thread::available_parallelism().unwrap().get();
        assert_eq!(pool::threads(), all);
    });
}
