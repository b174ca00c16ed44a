//! The worker and those who hand work to it, in every order that they may take: `bin/sanitize loom`.
//!
//! In MLX's place stands a device with a thread of its own, which computes in the order in which it was asked, keeps a failure for
//! whoever waits for the stream, and fails all else until then. Arrays change under the graph's lock alone, and so does what
//! counts those that are computed together, until they are: loom tells of all else.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::mpsc::{channel, Receiver};
use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread;

use super::{Engine, Short, ShortOrNot, Worker, QUEUE_BOUND};
use crate::runtime::error::{Error, Result};
use crate::runtime::job::{answer, Job, QueueFull};

/// A place of which loom tells where two threads have it at once.
struct Place<T>(UnsafeCell<T>);

// SAFETY: loom looks at each access, and ends the model where two meet.
unsafe impl<T: Send> Sync for Place<T> {}

impl<T: Copy> Place<T> {
    fn new(value: T) -> Self {
        Place(UnsafeCell::new(value))
    }

    fn put(&self, value: T) {
        // SAFETY: as above.
        self.0.with_mut(|place| unsafe { *place = value });
    }

    fn get(&self) -> T {
        // SAFETY: as above.
        self.0.with(|place| unsafe { *place })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// So short that whoever asks computes it.
    Here,
    Short,
    Long,
    Fails,
}

struct Node {
    kind: Kind,
    begun: Place<bool>,
    value: Place<Option<usize>>,
    is_computed: AtomicBool,
    /// Counts those that are computed together.
    together: Option<Arc<Place<usize>>>,
}

#[derive(Clone)]
struct Array(Arc<Node>);

impl Array {
    fn new(kind: Kind) -> Self {
        Array::one_of(kind, None)
    }

    fn two_together(kinds: [Kind; 2]) -> [Self; 2] {
        let together = Arc::new(Place::new(0));
        kinds.map(|kind| Array::one_of(kind, Some(together.clone())))
    }

    fn one_of(kind: Kind, together: Option<Arc<Place<usize>>>) -> Self {
        Array(Arc::new(Node {
            kind,
            begun: Place::new(false),
            value: Place::new(None),
            is_computed: AtomicBool::new(false),
            together,
        }))
    }

    fn is_computed(&self) -> bool {
        self.0.is_computed.load(Ordering::Acquire)
    }

    fn compute(&self) {
        assert_eq!(self.0.value.get(), None, "it is computed once");
        self.0.value.put(Some(1));
        self.0.is_computed.store(true, Ordering::Release);
    }

    fn count(&self) {
        if let Some(together) = self.0.together.as_ref().filter(|_| !self.is_computed()) {
            together.put(together.get() + 1);
        }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        self.count();
    }
}

struct Device {
    graph: Mutex<()>,
    tasks: Mutex<Tasks>,
    changed: Condvar,
}

#[derive(Default)]
struct Tasks {
    waiting: VecDeque<Task>,
    has_failed: bool,
    is_over: bool,
}

enum Task {
    Compute(Array),
    Answer(Short<Array>),
}

impl Device {
    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("nobody panics with the lock")
    }

    fn ask(&self, asked: impl Iterator<Item = Task>) {
        Device::lock(&self.tasks).waiting.extend(asked);
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut tasks = Device::lock(&self.tasks);
        loop {
            match tasks.waiting.pop_front() {
                Some(Task::Compute(array)) => {
                    let is_held = Arc::strong_count(&array.0) > 1;
                    assert!(is_held, "it is freed once it is computed");
                    tasks.has_failed |= array.0.kind == Kind::Fails;
                    if tasks.has_failed {
                        array.0.is_computed.store(true, Ordering::Release);
                    } else {
                        array.compute();
                    }
                    self.changed.notify_all();
                }
                Some(Task::Answer((arrays, done))) => {
                    drop(tasks);
                    answer(done, Ok(arrays));
                    tasks = Device::lock(&self.tasks);
                }
                None if tasks.is_over => return,
                None => {
                    tasks = self
                        .changed
                        .wait(tasks)
                        .expect("nobody panics with the lock")
                }
            }
        }
    }

    fn wait_for(&self, array: &Array) -> MutexGuard<'_, Tasks> {
        let mut tasks = Device::lock(&self.tasks);
        while !array.is_computed() {
            tasks = self
                .changed
                .wait(tasks)
                .expect("nobody panics with the lock");
        }
        tasks
    }
}

/// What hands work to the device, whose thread ends with the last who has it.
struct Model(Arc<Device>);

impl Drop for Model {
    fn drop(&mut self) {
        Device::lock(&self.0.tasks).is_over = true;
        self.0.changed.notify_all();
    }
}

impl Engine for Model {
    type Array = Array;
    type Marker = Array;
    type Graph<'a> = MutexGuard<'a, ()>;

    fn adopt_thread(&self) {}

    fn graph(&self) -> Self::Graph<'_> {
        Device::lock(&self.0.graph)
    }

    fn try_graph(&self) -> Option<Self::Graph<'_>> {
        self.0.graph.try_lock().ok()
    }

    fn compute_short(&self, arrays: &[Array], _graph: &Self::Graph<'_>) -> bool {
        arrays.iter().all(|array| {
            if array.0.begun.get() {
                return array.is_computed();
            }
            let is_short = array.0.kind == Kind::Here;
            if is_short {
                array.0.begun.put(true);
                array.compute();
            }
            is_short
        })
    }

    fn schedule_short(&self, short: Short<Array>, graph: &Self::Graph<'_>) -> ShortOrNot<Self> {
        let is_short = |array: &Array| matches!(array.0.kind, Kind::Here | Kind::Short);
        if !short.0.iter().all(is_short) || self.begin(&short.0, None, graph).is_err() {
            return Err(short);
        }
        self.0.ask([Task::Answer(short)].into_iter());
        Ok(())
    }

    fn is_awaited(&self, array: &Array, _graph: &Self::Graph<'_>) -> bool {
        array.0.begun.get() && !array.is_computed()
    }

    fn marker(&self) -> Result<Array> {
        Ok(Array::new(Kind::Long))
    }

    fn begin(
        &self,
        arrays: &[Array],
        marker: Option<&Array>,
        _graph: &Self::Graph<'_>,
    ) -> Result<()> {
        arrays.iter().for_each(Array::count);
        let begun = arrays
            .iter()
            .chain(marker)
            .filter(|array| !array.0.begun.get());
        self.0.ask(begun.map(|array| {
            array.0.begun.put(true);
            Task::Compute(array.clone())
        }));
        Ok(())
    }

    fn settle(&self, graph: &Self::Graph<'_>) -> Result<()> {
        let last = Array::new(Kind::Long);
        self.begin(&[], Some(&last), graph)?;
        let mut tasks = self.0.wait_for(&last);
        match std::mem::take(&mut tasks.has_failed) {
            true => Err(Error::Mlx("it fails".to_owned())),
            false => Ok(()),
        }
    }

    fn wait(&self, marker: &Array) -> Result<()> {
        drop(self.0.wait_for(marker));
        Ok(())
    }
}

/// Runs a model in all orders with at most `switches` between threads that could go on. It ends where a thread does not.
fn model(switches: usize, callers: impl Fn(Arc<Worker<Model>>) + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(move || {
        let device = Arc::new(Device {
            graph: Mutex::new(()),
            tasks: Mutex::new(Tasks::default()),
            changed: Condvar::new(),
        });
        let own = device.clone();
        thread::spawn(move || own.run());
        let worker = Worker::start(Arc::new(Model(device))).expect("a thread");
        callers(Arc::new(worker));
    });
}

type Answer = Result<Vec<Array>>;

/// A job, and where it is answered. What is dropped without an answer is waited for in vain, of which loom tells.
fn job(array: &Array, may_fail: bool) -> (Job<Array>, Receiver<Answer>) {
    let (told, answer) = channel();
    let job = Job::Evaluate {
        arrays: vec![array.clone()],
        may_fail,
        fetched: None,
        wanted: Box::new(|| true),
        done: Box::new(move |result| drop(told.send(result))),
    };
    (job, answer)
}

fn push(worker: &Worker<Model>, array: &Array, may_fail: bool) -> Receiver<Answer> {
    let (job, answer) = job(array, may_fail);
    assert!(worker.push(job).is_ok(), "there is room");
    answer
}

fn is_right(answer: Answer) -> bool {
    answer.is_ok_and(|arrays| arrays.iter().all(|array| array.0.value.get() == Some(1)))
}

/// As a process has an array computed.
fn evaluate(worker: &Worker<Model>, array: &Array) {
    if worker.compute_here(std::slice::from_ref(array)) {
        assert_eq!(array.0.value.get(), Some(1));
    } else {
        assert!(is_right(push(worker, array, false).recv().unwrap()));
    }
}

fn two_callers_of(kind: Kind) {
    model(3, move |worker| {
        let array = Array::new(kind);
        let (other, same) = (worker.clone(), array.clone());
        let caller = thread::spawn(move || evaluate(&other, &same));
        evaluate(&worker, &array);
        caller.join().unwrap();
    });
}

#[test]
fn what_two_compute_themselves_is_computed_once() {
    two_callers_of(Kind::Here);
}

#[test]
fn what_two_schedule_is_computed_once() {
    two_callers_of(Kind::Short);
}

#[test]
fn what_two_ask_the_worker_for_is_computed_once() {
    two_callers_of(Kind::Long);
}

#[test]
fn jobs_that_wait_are_answered_when_the_last_handle_is_gone() {
    model(3, |worker| {
        let arrays = [Array::new(Kind::Long), Array::new(Kind::Long)];
        let answers = arrays.each_ref().map(|array| push(&worker, array, false));
        drop(worker);
        for answer in answers {
            assert!(is_right(answer.recv().unwrap()));
        }
    });
}

#[test]
fn nothing_begins_behind_an_end() {
    model(3, |worker| {
        let before = push(&worker, &Array::new(Kind::Long), false);
        let other = worker.clone();
        let ends = thread::spawn(move || {
            other.close();
            let late = Array::new(Kind::Here);
            assert!(!other.compute_here(std::slice::from_ref(&late)));
            assert!(push(&other, &late, false).recv().unwrap().is_err());
            assert!(!late.0.begun.get());
        });
        let before = before.recv().unwrap();
        assert!(before.is_err() || is_right(before));
        ends.join().unwrap();
    });
}

#[test]
fn a_failure_is_of_the_one_who_asked() {
    model(3, |worker| {
        let other = worker.clone();
        let caller = thread::spawn(move || evaluate(&other, &Array::new(Kind::Short)));
        let fails = push(&worker, &Array::new(Kind::Fails), true);
        assert!(fails.recv().unwrap().is_err());
        caller.join().unwrap();
    });
}

#[test]
fn what_runs_before_a_failure_is_right() {
    model(3, |worker| {
        let before = push(&worker, &Array::new(Kind::Long), false);
        let fails = push(&worker, &Array::new(Kind::Fails), true);
        assert!(is_right(before.recv().unwrap()));
        assert!(fails.recv().unwrap().is_err());
        evaluate(&worker, &Array::new(Kind::Long));
    });
}

#[test]
fn a_dead_callers_job_is_begun_or_freed_under_the_lock() {
    model(3, |worker| {
        let [dropped, other] = Array::two_together([Kind::Long, Kind::Short]);
        let is_alive = Arc::new(AtomicBool::new(true));
        let dies = is_alive.clone();
        let job = Job::Evaluate {
            arrays: vec![dropped],
            may_fail: false,
            fetched: None,
            wanted: Box::new(move || is_alive.load(Ordering::Relaxed)),
            done: Box::new(drop),
        };
        assert!(worker.push(job).is_ok());
        dies.store(false, Ordering::Relaxed);
        evaluate(&worker, &other);
    });
}

#[test]
fn an_array_is_freed_beside_the_one_it_is_computed_with() {
    model(3, |worker| {
        let [freed, other] = Array::two_together([Kind::Long, Kind::Short]);
        assert!(worker.push(Job::Free(freed)).is_ok());
        evaluate(&worker, &other);
    });
}

#[test]
fn what_is_on_its_way_is_freed_once_it_is_computed() {
    model(3, |worker| {
        let array = Array::new(Kind::Long);
        let scheduled = Job::Schedule {
            arrays: vec![array.clone()],
            done: Box::new(drop),
        };
        assert!(worker.push(scheduled).is_ok());
        assert!(worker.push(Job::Free(array)).is_ok());
    });
}

#[test]
fn the_worker_outlives_panics() {
    model(3, |worker| {
        let [panics, unheard] = [(); 2].map(|()| Array::new(Kind::Long));
        let (mut first, answer) = job(&panics, false);
        let (mut second, _) = job(&unheard, false);
        if let Job::Evaluate { wanted, .. } = &mut first {
            *wanted = Box::new(|| panic!("the question fails"));
        }
        if let Job::Evaluate { done, .. } = &mut second {
            *done = Box::new(|_| panic!("the answer fails"));
        }
        assert!(worker.push(first).is_ok());
        assert!(worker.push(second).is_ok());
        assert!(answer.recv().unwrap().is_err());
        evaluate(&worker, &Array::new(Kind::Long));
    });
}

#[test]
fn what_finds_no_room_comes_back_and_all_else_is_answered() {
    model(3, |worker| {
        let mut answers = Vec::new();
        let mut came_back = false;
        for _ in 0..QUEUE_BOUND + 1 {
            let array = Array::new(Kind::Long);
            let (job, answer) = job(&array, false);
            match worker.push(job) {
                Ok(()) => answers.push(answer),
                Err(QueueFull(job)) => {
                    drop(job);
                    assert!(!array.0.begun.get());
                    came_back = true;
                }
            }
        }
        assert!(came_back || answers.len() == QUEUE_BOUND + 1);
        for answer in answers {
            assert!(is_right(answer.recv().unwrap()));
        }
    });
}
