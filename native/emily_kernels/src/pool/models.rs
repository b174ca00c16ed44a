//! The pool in every order that its threads may take: `RUSTFLAGS="--cfg loom" cargo test -p emily_kernels --lib --release`.

use std::panic::{catch_unwind, AssertUnwindSafe};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;

use super::sync::{AtomicUsize, Ordering};
use super::Pool;

/// A place that threads may write to, of which loom tells where two have it at once.
struct Place(UnsafeCell<usize>);

// SAFETY: loom looks at each access, and ends the model where two meet.
unsafe impl Sync for Place {}

impl Place {
    fn new() -> Self {
        Place(UnsafeCell::new(0))
    }

    fn put(&self, value: usize) {
        // SAFETY: as above.
        self.0.with_mut(|place| unsafe { *place = value });
    }

    fn get(&self) -> usize {
        // SAFETY: as above.
        self.0.with(|place| unsafe { *place })
    }
}

/// Runs a model with `helpers` threads that help until the last of `jobs` jobs was given, in all orders with at most
/// `switches` between threads that could go on.
fn model(
    switches: usize,
    helpers: usize,
    jobs: usize,
    callers: impl Fn(&'static Pool) + Send + Sync + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(move || {
        let pool: &'static Pool = Box::leak(Box::new(Pool::new()));
        pool.wanted.store(helpers + 1, Ordering::Relaxed);
        let helpers: Vec<_> = (0..helpers)
            .map(|_| {
                thread::spawn(move || loop {
                    let given = pool.serve();
                    if given == jobs {
                        return;
                    }
                    pool.rest(given);
                })
            })
            .collect();
        callers(pool);
        for helper in helpers {
            helper.join().unwrap();
        }
        // SAFETY: it was made above, and nobody has it any more.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(pool).cast_mut()) });
    });
}

/// Gives a job of `count` parts, each of which writes to a place of its own, and reads all of them once it returns.
fn job(pool: &'static Pool, count: usize) {
    let places: Vec<_> = (0..count).map(|_| Place::new()).collect();
    let calls = AtomicUsize::new(0);
    pool.each(count, &|i| {
        places[i].put(i + 1);
        calls.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(calls.load(Ordering::Relaxed), count);
    for (i, place) in places.iter().enumerate() {
        assert_eq!(place.get(), i + 1);
    }
}

#[test]
fn a_helper_has_left_before_the_caller_goes_on() {
    model(3, 1, 1, |pool| job(pool, 2));
}

#[test]
fn two_helpers_leave_one_job() {
    model(2, 2, 1, |pool| job(pool, 3));
}

#[test]
fn a_sleeping_helper_is_woken_for_the_next_job() {
    model(3, 1, 2, |pool| {
        job(pool, 2);
        job(pool, 2);
    });
}

#[test]
fn two_callers_share_a_helper() {
    model(2, 1, 2, |pool| {
        let other = thread::spawn(move || job(pool, 2));
        job(pool, 2);
        other.join().unwrap();
    });
}

#[test]
fn a_panic_waits_for_the_helper() {
    model(3, 1, 1, |pool| {
        let place = Place::new();
        let work = || {
            pool.each(2, &|i| {
                assert_ne!(i, 0, "the part fails");
                place.put(1);
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        assert!(place.get() <= 1);
    });
}
