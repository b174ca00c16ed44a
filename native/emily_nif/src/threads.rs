//! The threads that programs run on. One that has ended a program waits for the next: MLX keeps the handles and plans of
//! cuDNN and cuBLAS by thread, and making them takes a GPU longer than many a program; and a recorded loop is run again by
//! the thread that has recorded it.

use std::io;
use std::sync::mpsc::{channel, SendError, Sender};
use std::sync::Mutex;
use std::thread;

use crate::expression::DEEP_STACK;

/// What a thread does, and what it says when the next task may come to it already.
type Task = Box<dyn FnOnce() -> Answer + Send>;
pub type Answer = Box<dyn FnOnce()>;

/// How many threads wait at most.
const MOST_IDLE: usize = 4;

/// Those that wait, the last to have ended a program last.
static IDLE: Mutex<Vec<Sender<Task>>> = Mutex::new(Vec::new());

/// Runs a task, which does not panic, on a thread beside all others; one with a `deep` stack on a thread of its own.
pub fn spawn(deep: bool, task: impl FnOnce() -> Answer + Send + 'static) -> io::Result<()> {
    let mut task: Task = Box::new(task);
    let thread = thread::Builder::new().name("emily program".to_owned());
    if deep {
        let thread = thread.stack_size(DEEP_STACK);
        return thread.spawn(|| task()()).map(drop);
    }
    while let Some(idle) = waiting() {
        match idle.send(task) {
            Ok(()) => return Ok(()),
            Err(SendError(unsent)) => task = unsent,
        }
    }
    thread.spawn(|| work(task)).map(drop)
}

fn waiting() -> Option<Sender<Task>> {
    IDLE.lock().ok()?.pop()
}

fn work(mut task: Task) {
    loop {
        let answer = task();
        let (sender, tasks) = channel();
        let waits = match IDLE.lock() {
            Ok(mut idle) if idle.len() < MOST_IDLE => {
                idle.push(sender);
                true
            }
            _ => false,
        };
        // Whoever asks next, since it knows the answer, finds the thread waiting.
        answer();
        if !waits {
            return;
        }
        match tasks.recv() {
            Ok(next) => task = next,
            Err(_) => return,
        }
    }
}
