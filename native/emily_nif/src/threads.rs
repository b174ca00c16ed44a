//! The threads that programs run on. One that has ended a program waits for the next: MLX keeps the handles and plans of
//! cuDNN and cuBLAS by thread, and making them takes a GPU longer than many a program.

use std::io;
use std::sync::mpsc::{channel, SendError, Sender};
use std::sync::Mutex;
use std::thread;

use crate::expression::DEEP_STACK;

type Task = Box<dyn FnOnce() + Send>;

/// How many threads wait at most.
const MOST_IDLE: usize = 4;

/// Those that wait, the last to have ended a program last.
static IDLE: Mutex<Vec<Sender<Task>>> = Mutex::new(Vec::new());

/// Runs a task, which does not panic, on a thread beside all others; one with a `deep` stack on a thread of its own.
pub fn spawn(deep: bool, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut task: Task = Box::new(task);
    let thread = thread::Builder::new().name("emily program".to_owned());
    if deep {
        return thread.stack_size(DEEP_STACK).spawn(task).map(drop);
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
        task();
        let (sender, tasks) = channel();
        match IDLE.lock() {
            Ok(mut idle) if idle.len() < MOST_IDLE => idle.push(sender),
            _ => return,
        }
        match tasks.recv() {
            Ok(next) => task = next,
            Err(_) => return,
        }
    }
}
