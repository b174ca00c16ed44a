//! What MLX hands to the thread of a CPU's stream: functions that know the memory that they read and write. This library
//! sees them first, and has copies of them, or has them instead of the thread.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::null_mut;

use emily_kernels::dispatch::Level;
use once_cell::sync::Lazy;

use crate::runtime::device::version;
use crate::runtime::error::Result;
use crate::runtime::ffi;
use crate::runtime::library::next;

/// The version of MLX whose queue this is.
const MLX: &str = "0.32.4";

type Pointer = *mut c_void;

/// `mlx::core::Stream`
#[repr(C)]
#[derive(Clone, Copy)]
struct Stream {
    index: c_int,
    device: [c_int; 2],
}

/// `mlx::core::scheduler::Scheduler::enqueue(Stream, std::function<void()>)`. It takes the function by its address, as what
/// is copied by code of its own is passed, and the caller ends it.
macro_rules! enqueue {
    () => {
        "_ZN3mlx4core9scheduler9Scheduler7enqueueENS0_6StreamESt8functionIFvvEE"
    };
}

type Enqueue = unsafe extern "C-unwind" fn(*mut c_void, Stream, *mut c_void);

extern "C" {
    fn emily_task_name(task: *const c_void) -> *const c_char;
    fn emily_copy_task(copy: *mut Pointer, task: *const c_void) -> c_int;
    fn emily_run_task(task: *const c_void, stays: bool) -> c_int;
    fn emily_drop_task(task: Pointer);
}

/// What a thread has of the functions that it hands over.
struct Taken {
    tasks: Result<Vec<Task>>,
    /// Whether MLX's thread has them too.
    queued: bool,
}

thread_local! {
    static TAKEN: Cell<*mut Taken> = const { Cell::new(null_mut()) };
}

/// MLX's own function of this name.
static ENQUEUE: Lazy<Enqueue> = Lazy::new(|| {
    let name = CStr::from_bytes_with_nul(concat!(enqueue!(), "\0").as_bytes());
    let own = name
        .ok()
        .and_then(next)
        .expect("MLX, which calls it, has it");
    // SAFETY: it is a method of these arguments, which gives nothing.
    unsafe { std::mem::transmute::<Pointer, Enqueue>(own) }
});

/// The library that loads MLX comes before MLX where the dynamic linker looks for a function, so that MLX calls this one.
#[export_name = enqueue!()]
extern "C-unwind" fn enqueue(scheduler: *mut c_void, stream: Stream, task: *mut c_void) {
    let taken = TAKEN.get();
    // SAFETY: MLX's arguments go on to MLX's own function; what that throws passes here, where nothing is to be dropped.
    // What is taken is live while it is the thread's, whose `take` waits for this call.
    unsafe {
        if !taken.is_null() {
            (*taken).take(task);
        }
        if taken.is_null() || (*taken).queued {
            ENQUEUE(scheduler, stream, task);
        }
    }
}

impl Taken {
    /// # Safety
    /// The function is one of MLX's, and live.
    unsafe fn take(&mut self, task: *const c_void) {
        if let Ok(tasks) = &mut self.tasks {
            // SAFETY: so says the caller.
            match unsafe { Task::copy_of(task) } {
                Ok(task) => tasks.push(task),
                Err(error) => self.tasks = Err(error),
            }
        }
    }
}

/// Does what has MLX queue functions on this thread; gives copies of them, in their order.
pub(crate) fn copied<T>(work: impl FnOnce() -> T) -> (T, Result<Vec<Task>>) {
    take(true, work)
}

/// Does what has MLX queue functions on this thread, and gives them; MLX's thread has none of them.
pub(crate) fn taken<T>(work: impl FnOnce() -> T) -> (T, Result<Vec<Task>>) {
    take(false, work)
}

fn take<T>(queued: bool, work: impl FnOnce() -> T) -> (T, Result<Vec<Task>>) {
    let mut taken = Taken {
        tasks: Ok(Vec::new()),
        queued,
    };
    let done = with(&mut taken, work);
    (done, taken.tasks)
}

/// Does what waits for MLX's threads, as for memory, amid what is taken: what tells the end of the wait goes to them.
pub(crate) fn untaken<T>(work: impl FnOnce() -> T) -> T {
    with(null_mut(), work)
}

fn with<T>(taken: *mut Taken, work: impl FnOnce() -> T) -> T {
    /// What the thread took before, also where the work panics.
    struct Before(*mut Taken);
    impl Drop for Before {
        fn drop(&mut self) {
            TAKEN.set(self.0);
        }
    }
    let _before = Before(TAKEN.replace(taken));
    work()
}

/// Whether a function of this type does nothing but count what is queued. What an encoder makes of an operation is bound.
pub(crate) fn counts(name: &str) -> bool {
    !name.starts_with("St5_Bind") && name.contains("14CommandEncoder8dispatch")
}

/// A function of MLX's.
pub(crate) struct Task(Pointer);

impl Task {
    /// # Safety
    /// The function is one of MLX's, and live.
    unsafe fn copy_of(task: *const c_void) -> Result<Task> {
        let mut copy = null_mut();
        // SAFETY: so says the caller; the copy goes to a live place.
        ffi::status(|| unsafe { emily_copy_task(&mut copy, task) })?;
        Ok(Task(copy))
    }

    /// The name of its type, as GCC writes it.
    pub(crate) fn name(&self) -> String {
        // SAFETY: the function is live; names are texts of the program's.
        let name = unsafe { CStr::from_ptr(emily_task_name(self.0)) };
        name.to_string_lossy().into_owned()
    }

    /// Whether it does nothing but count what is queued.
    pub(crate) fn counts(&self) -> bool {
        counts(&self.name())
    }

    /// Calls it, or where it would not stay the same a copy.
    ///
    /// # Safety
    /// The memory that it reads and writes is there, and nobody else writes what it reads, or has what it writes.
    pub(crate) unsafe fn run(&self, stays: bool) -> Result<()> {
        // SAFETY: so says the caller. A failure becomes an error.
        ffi::status(|| unsafe { emily_run_task(self.0, stays) })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: the function is owned and dropped once.
        unsafe { emily_drop_task(self.0) };
    }
}

/// Whether the version of MLX is known, and `EMILY_KERNELS` does not say `off`.
static IS_THERE: Lazy<bool> = Lazy::new(|| {
    let wanted = matches!(Level::chosen(), Ok(Some(_)));
    wanted && version().is_ok_and(|version| version == MLX)
});

pub(crate) fn is_there() -> bool {
    *IS_THERE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::device::Device;
    use crate::runtime::stream::StreamHandle;

    #[test]
    fn a_wait_amid_what_is_taken_ends() {
        let stream = StreamHandle::new(Device::Cpu).expect("every build of MLX has the CPU");
        let (waited, tasks) = taken(|| stream.synchronize());
        waited.expect("nothing has failed");
        assert_eq!(tasks.expect("there is memory").len(), 0);
    }
}
