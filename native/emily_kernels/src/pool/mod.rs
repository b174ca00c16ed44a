//! Threads that help whoever has work in independent parts. The caller computes too, and no part waits for a thread
//! that is late: parts are taken one by one, by whoever is free.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use once_cell::sync::Lazy;

pub use looking::patiently;
use looking::{core, NO_CORE, PATIENCE};
use sync::{AtomicUsize, Condvar, Mutex, Ordering};

mod looking;
#[cfg(all(test, loom))]
mod models;
mod sync;

/// So many elements are worth another thread, and stay in a near cache. Fewer under Miri, which takes seconds for as many.
pub(crate) const PART: usize = if cfg!(miri) { 1 << 11 } else { 1 << 15 };

static POOL: Lazy<Pool> = Lazy::new(Pool::new);

/// How many threads compute at once for one caller, itself among them: what was set, or as many as this process may
/// use by its affinity and its container's quota.
pub fn threads() -> usize {
    POOL.threads()
}

/// After so many times in a row more of the same is expected.
const OFTEN: usize = 8;

/// Whether a thread looks for work now, which then begins at once.
fn is_awake() -> bool {
    POOL.looking.load(Ordering::Relaxed) > 0
}

thread_local! {
    /// When the caller's last work of [`each_in_a_row`] ended, and how many before it followed each other at once.
    static BEFORE: Cell<(Option<Instant>, usize)> = const { Cell::new((None, 0)) };
}

/// Whether work that is worth a thread that looks, and hardly the waking of one, is worth it now: one looks, or the caller
/// has had such work so often in a row, each within the time that a thread looks after the last, that the next will find it
/// looking.
pub(crate) fn is_awake_or_to_be() -> bool {
    let (ended, often) = BEFORE.get();
    let follows = ended.is_some_and(|ended| ended.elapsed() < PATIENCE);
    let often = if follows { often + 1 } else { 0 };
    BEFORE.set((ended, often));
    is_awake() || often >= OFTEN
}

/// [`each`] for work of which [`is_awake_or_to_be`] has been asked, on however many threads.
pub(crate) fn each_in_a_row(count: usize, part: impl Fn(usize) + Sync) {
    each(count, part);
    let (_, often) = BEFORE.get();
    BEFORE.set((Some(Instant::now()), often));
}

/// Sets how many threads compute at once. Zero stands for the default.
pub fn set_threads(count: usize) {
    POOL.wanted.store(count, Ordering::Relaxed);
}

/// Calls `part` with each number below `count` once, on any of the threads, and returns when all calls have.
///
/// A panic in one of them is the caller's, once the others have returned; parts not yet begun are left out then.
pub fn each(count: usize, part: impl Fn(usize) + Sync) {
    POOL.each(count, &part);
}

/// Calls `part` with the number and the elements of each part of `output`: of `size` elements, the last of those that
/// are left. The parts are computed as those of [`each`].
pub fn each_part<T: Send>(output: &mut [T], size: usize, part: impl Fn(usize, &mut [T]) + Sync) {
    let (elements, size) = (output.len(), size.max(1));
    if elements <= size {
        return part(0, output);
    }
    let shared = Shared::of(output);
    each(elements.div_ceil(size), |i| {
        let start = i * size;
        let count = size.min(elements - start);
        // SAFETY: each element lies in one part, which is computed once.
        part(i, unsafe { shared.part(start, count) });
    });
}

/// A slice that several threads write to, each to places of its own.
pub(crate) struct Shared<'a, T> {
    first: *mut T,
    count: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: whoever calls has the places that it names for itself, and elements may go from thread to thread.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn of(slice: &'a mut [T]) -> Self {
        Shared {
            first: slice.as_mut_ptr(),
            count: slice.len(),
            slice: PhantomData,
        }
    }

    /// # Safety
    /// Nobody else has one of these elements.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, count: usize) -> &mut [T] {
        assert!(start <= self.count && count <= self.count - start);
        // SAFETY: the elements are the slice's, which is borrowed as long as this is there, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), count) }
    }

    /// # Safety
    /// Nobody else has the element.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, place: usize, element: T)
    where
        T: Copy,
    {
        assert!(place < self.count);
        // SAFETY: as above.
        unsafe { self.first.add(place).write(element) }
    }
}

struct Pool {
    wanted: AtomicUsize,
    /// Counts the jobs given, for those who look for one without the lock.
    given: AtomicUsize,
    /// How many helpers look for one.
    looking: AtomicUsize,
    /// The core of who gave the last.
    giver: AtomicUsize,
    state: Mutex<State>,
    given_one: Condvar,
}

struct State {
    jobs: Vec<Arc<Job>>,
    /// How many helpers there are, and how many of them sleep.
    helpers: usize,
    asleep: usize,
}

struct Job {
    part: *const (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
    /// How many helpers are at it. Changes under the pool's lock.
    helpers: AtomicUsize,
    left: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `part` may be called from any thread, and is while its caller waits in `Pool::each` only.
unsafe impl Send for Job {}
// SAFETY: as above; all else is made for several threads.
unsafe impl Sync for Job {}

impl Job {
    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.count
    }

    /// Computes parts until there are no more.
    fn work(&self) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.count {
                return;
            }
            // SAFETY: the caller of `Pool::each` waits for all who work.
            let part = unsafe { &*self.part };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| part(i))) {
                self.next.store(self.count, Ordering::Relaxed);
                self.panic.lock().get_or_insert(panic);
            }
        }
    }
}

impl Pool {
    fn new() -> Self {
        Pool {
            wanted: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
            looking: AtomicUsize::new(0),
            giver: AtomicUsize::new(NO_CORE),
            state: Mutex::new(State {
                jobs: Vec::new(),
                helpers: 0,
                asleep: 0,
            }),
            given_one: Condvar::new(),
        }
    }

    fn threads(&self) -> usize {
        match self.wanted.load(Ordering::Relaxed) {
            0 => *ALL,
            count => count,
        }
    }

    fn each(&'static self, count: usize, part: &(dyn Fn(usize) + Sync)) {
        let helpers = self.threads().min(count).saturating_sub(1);
        if helpers == 0 {
            return (0..count).for_each(part);
        }
        // SAFETY: only the lifetime changes; whoever calls it is done when this function returns.
        let part = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) + Sync),
                *const (dyn Fn(usize) + Sync + 'static),
            >(part)
        };
        let job = Arc::new(Job {
            part,
            count,
            next: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            left: Condvar::new(),
            panic: Mutex::new(None),
        });
        self.give(&job, helpers);
        job.work();
        self.take_back(&job);
        let panic = job.panic.lock().take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn give(&'static self, job: &Arc<Job>, helpers: usize) {
        let mut state = self.state.lock();
        state.jobs.push(job.clone());
        self.giver.store(core(), Ordering::Relaxed);
        self.given.fetch_add(1, Ordering::Release);
        while state.helpers < helpers && self.start() {
            state.helpers += 1;
        }
        let awake = state.asleep.min(helpers);
        drop(state);
        for _ in 0..awake {
            self.given_one.notify_one();
        }
    }

    /// A system that gives no thread leaves the caller alone with its work. So does a model, which has helpers of its own.
    fn start(&'static self) -> bool {
        if cfg!(loom) {
            return false;
        }
        let helper = thread::Builder::new().name("emily-pool".to_owned());
        helper.spawn(|| self.help()).is_ok()
    }

    /// Waits for those who are still at it, once nobody can join any more.
    fn take_back(&self, job: &Arc<Job>) {
        self.state
            .lock()
            .jobs
            .retain(|other| !Arc::ptr_eq(job, other));
        let is_left = || job.helpers.load(Ordering::Acquire) == 0;
        if !patiently(is_left, || false) {
            let mut state = self.state.lock();
            while !is_left() {
                job.left.wait(&mut state);
            }
        }
    }

    fn help(&self) {
        loop {
            let given = self.serve();
            self.rest(given);
        }
    }

    /// Helps until there is nothing to help with; gives how many jobs had been given before it looked the last time.
    fn serve(&self) -> usize {
        let given = self.given.load(Ordering::Acquire);
        while let Some(job) = self.join() {
            job.work();
            let _state = self.state.lock();
            if job.helpers.fetch_sub(1, Ordering::Release) == 1 {
                job.left.notify_one();
            }
        }
        given
    }

    /// Waits until more jobs than `given` have been given.
    fn rest(&self, given: usize) {
        let more = || self.given.load(Ordering::Acquire) != given;
        // Who looks for work on its giver's core keeps that from being done; who is woken gets a free one.
        let in_the_way = || {
            let core = core();
            core != NO_CORE && core == self.giver.load(Ordering::Relaxed)
        };
        self.looking.fetch_add(1, Ordering::Relaxed);
        let found = patiently(more, in_the_way);
        self.looking.fetch_sub(1, Ordering::Relaxed);
        if !found {
            let mut state = self.state.lock();
            state.asleep += 1;
            while !more() {
                self.given_one.wait(&mut state);
            }
            state.asleep -= 1;
        }
    }

    fn join(&self) -> Option<Arc<Job>> {
        let state = self.state.lock();
        let most = self.threads() - 1;
        let open = |job: &&Arc<Job>| !job.is_over() && job.helpers.load(Ordering::Relaxed) < most;
        let job = state.jobs.iter().find(open)?.clone();
        job.helpers.fetch_add(1, Ordering::Relaxed);
        Some(job)
    }
}

static ALL: Lazy<usize> =
    Lazy::new(|| thread::available_parallelism().map_or(1, |count| count.get()));
