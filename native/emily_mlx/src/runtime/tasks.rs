//! Steps that are run again on a CPU without MLX: MLX queues one, and the functions that it handed to the stream's thread,
//! kept by a recording, are called by whoever wants them again, with the same buffers. `cpp/tasks.cpp` knows MLX's queue.

#[cfg(all(own_kernels, target_os = "linux"))]
mod own {
    use std::ffi::{c_int, c_void};

    use mlx_rs::Array;

    use crate::runtime::error::Result;
    use crate::runtime::ffi::{self, Arrays};
    use crate::runtime::graph::{async_eval, graph};
    use crate::runtime::inspect::{bytes_on, memory, read_by, Node};
    use crate::runtime::replay::Room;
    use crate::runtime::stream::StreamHandle;

    /// What a recording may hold, in which no buffer is taken twice: where a turn takes more, MLX's part of its time is
    /// small.
    const MOST: usize = 64 << 20;

    /// As MLX has it.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Stream {
        index: c_int,
        device: [c_int; 2],
    }

    extern "C" {
        fn emily_tasks() -> *mut c_void;
        fn emily_keep_tasks(to: *mut c_void);
        fn emily_tasks_copy(tasks: *mut c_void, to: *mut u8, from: *const u8, bytes: usize);
        fn emily_tasks_finish(tasks: *mut c_void, stream: *const c_void) -> c_int;
        fn emily_tasks_run(tasks: *const c_void) -> c_int;
        fn emily_tasks_drop(tasks: *mut c_void);
    }

    extern "C-unwind" {
        fn emily_queue_task(scheduler: *mut c_void, stream: Stream, task: *mut c_void);
    }

    /// `mlx::core::scheduler::Scheduler::enqueue(Stream, std::function<void()>)`. The library that loads MLX comes before
    /// MLX where the dynamic linker looks for a function, so that MLX calls this one.
    #[export_name = "_ZN3mlx4core9scheduler9Scheduler7enqueueENS0_6StreamESt8functionIFvvEE"]
    pub extern "C-unwind" fn enqueue(scheduler: *mut c_void, stream: Stream, task: *mut c_void) {
        // SAFETY: MLX's arguments go on to MLX's own function; what that throws passes here, where nothing is to be dropped.
        unsafe { emily_queue_task(scheduler, stream, task) }
    }

    /// The room of an array that was scheduled on a CPU.
    pub(crate) fn room(array: &Array) -> Option<Room> {
        let memory = memory(array)?;
        let buffer = memory.data.wrapping_offset(-(memory.offset as isize));
        Some(Room {
            data: memory.data,
            buffer,
            bytes: array.nbytes(),
            row_contiguous: memory.row_contiguous,
        })
    }

    /// A recording. It keeps the buffers of what it runs.
    pub(crate) struct Tasks {
        tasks: *mut c_void,
        stream: StreamHandle,
        /// What it reads in each turn, which MLX must not write over.
        _read: Vec<Array>,
    }

    /// The number that MLX knows an array by.
    pub(crate) fn id(array: &Array) -> usize {
        Node::of(array).id()
    }

    impl Tasks {
        /// Schedules arrays and records it; nothing where a part of it is not on the stream, or it takes much memory: it is
        /// scheduled then all the same. MLX may write over arrays of the numbers `own`, and over no others that are there.
        pub(crate) fn of(
            arrays: &[Array],
            own: &[usize],
            stream: &StreamHandle,
        ) -> Result<Option<Tasks>> {
            let vector = Arrays::new(arrays)?;
            let number = stream.number()?;
            let graph = graph();
            if bytes_on(arrays, number).is_none_or(|bytes| bytes > MOST) {
                return async_eval(&vector, &graph).map(|()| None);
            }
            // SAFETY: what is recorded is owned by the value, which lives longer than the recording. MLX queues on this
            // thread.
            unsafe {
                let tasks = Tasks {
                    tasks: emily_tasks(),
                    stream: stream.clone(),
                    _read: read_by(arrays, own)?,
                };
                emily_keep_tasks(tasks.tasks);
                let scheduled = async_eval(&vector, &graph);
                emily_keep_tasks(std::ptr::null_mut());
                scheduled.map(|()| Some(tasks))
            }
        }

        /// Has each turn end with a copy of what is in one room to another of its size.
        pub(crate) fn copy(&mut self, to: &Room, from: &Room) {
            assert!(to.bytes == from.bytes && to.row_contiguous && from.row_contiguous);
            // SAFETY: the recording is live. Of either room the caller holds the array as long as the recording.
            unsafe { emily_tasks_copy(self.tasks, to.data, from.data, to.bytes) }
        }

        /// Nothing more is recorded; waits for the turn that MLX runs, and makes the copies behind it.
        pub(crate) fn finish(&mut self) -> Result<()> {
            let stream = self.stream.raw();
            // SAFETY: the recording and the stream are live; a failure becomes an error.
            ffi::status(|| unsafe { emily_tasks_finish(self.tasks, stream.ctx) })
        }

        /// Runs what was recorded, on this thread. Its inputs and outputs are where they were.
        pub(crate) fn run(&self) -> Result<()> {
            // SAFETY: as above; whatever it reads and writes is held by the recording and by its caller, and nobody else
            // writes there.
            ffi::status(|| unsafe { emily_tasks_run(self.tasks) })
        }
    }

    impl Drop for Tasks {
        fn drop(&mut self) {
            // SAFETY: the recording is owned and dropped once; what MLX still runs are copies of what it has.
            unsafe { emily_tasks_drop(self.tasks) };
        }
    }
}

#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) use own::{id, room, Tasks};

#[cfg(not(all(own_kernels, target_os = "linux")))]
pub(crate) use none::{id, room, Tasks};

#[cfg(not(all(own_kernels, target_os = "linux")))]
mod none {
    use mlx_rs::Array;

    use crate::runtime::error::Result;
    use crate::runtime::replay::Room;
    use crate::runtime::stream::StreamHandle;

    pub(crate) fn room(_array: &Array) -> Option<Room> {
        None
    }

    pub(crate) fn id(_array: &Array) -> usize {
        0
    }

    /// There are none.
    pub(crate) enum Tasks {}

    impl Tasks {
        pub(crate) fn of(
            _arrays: &[Array],
            _own: &[usize],
            _stream: &StreamHandle,
        ) -> Result<Option<Tasks>> {
            Ok(None)
        }

        pub(crate) fn copy(&mut self, _to: &Room, _from: &Room) {
            match *self {}
        }

        pub(crate) fn finish(&mut self) -> Result<()> {
            match *self {}
        }

        pub(crate) fn run(&self) -> Result<()> {
            match *self {}
        }
    }
}
