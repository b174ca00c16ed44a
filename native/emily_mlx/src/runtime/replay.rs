//! Steps that are run again on an NVIDIA GPU without MLX: MLX queues one, and what it handed to the device, kept by a
//! recording, is queued as often as is wanted, with the same buffers. `cpp/replay.cpp` knows CUDA.

/// Where the elements of a scheduled array are. As in `cpp/replay.cpp`.
#[cfg_attr(not(all(own_kernels, target_os = "linux")), allow(dead_code))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(super) data: *mut u8,
    /// What tells the memory of two arrays apart.
    pub(super) buffer: *const u8,
    pub(super) bytes: usize,
    pub(super) row_contiguous: bool,
}

impl Room {
    pub(crate) fn shares(&self, other: &Room) -> bool {
        self.buffer == other.buffer
    }

    /// Whether elements lie one after the other, so that they can be copied as bytes.
    pub(crate) fn is_in_a_row(&self) -> bool {
        self.row_contiguous
    }
}

#[cfg(all(own_kernels, target_os = "linux"))]
mod own {
    use std::ffi::{c_int, c_void};

    use emily_kernels::dispatch::Level;
    use mlx_rs::Array;
    use once_cell::sync::Lazy;

    use super::Room;
    use crate::runtime::device::version;
    use crate::runtime::error::Result;
    use crate::runtime::ffi::{self, Arrays};
    use crate::runtime::graph::{async_eval, graph};
    use crate::runtime::inspect::bytes_on;
    use crate::runtime::memory::figures;
    use crate::runtime::stream::StreamHandle;

    /// The version of MLX whose encoder `cpp/replay.cpp` looks into.
    const MLX: &str = "0.32.4";

    /// The part of MLX's memory that a recording may hold: no buffer in it is taken twice.
    const PART: usize = 4;

    extern "C" {
        fn emily_records() -> bool;
        fn emily_recording() -> *mut c_void;
        fn emily_record(to: *mut c_void);
        fn emily_recording_copy(recording: *mut c_void, to: *mut u8, from: *const u8, bytes: usize);
        fn emily_recording_finish(recording: *mut c_void) -> c_int;
        fn emily_recording_run(recording: *mut c_void) -> c_int;
        fn emily_recording_wait(recording: *mut c_void) -> c_int;
        fn emily_recording_drop(recording: *mut c_void);
        fn emily_room_of(array: *const c_void, room: *mut Room) -> bool;
    }

    extern "C-unwind" {
        fn emily_commit(encoder: *mut c_void);
    }

    /// `mlx::core::cu::CommandEncoder::commit_impl()`. The library that loads MLX comes before MLX where the dynamic
    /// linker looks for a function, so that MLX calls this one.
    #[export_name = "_ZN3mlx4core2cu14CommandEncoder11commit_implEv"]
    pub extern "C-unwind" fn commit(encoder: *mut c_void) {
        // SAFETY: MLX calls it with its encoder, which goes on to MLX's own function; what that throws passes here,
        // where nothing is to be dropped.
        unsafe { emily_commit(encoder) }
    }

    /// Whether there is a driver for it, the version of MLX is known, and `EMILY_KERNELS` does not say `off`.
    static IS_THERE: Lazy<bool> = Lazy::new(|| {
        let wanted = matches!(Level::chosen(), Ok(Some(_)));
        // SAFETY: it looks for functions.
        wanted && version().is_ok_and(|version| version == MLX) && unsafe { emily_records() }
    });

    pub(crate) fn is_there() -> bool {
        *IS_THERE
    }

    /// The room of an array that was scheduled on an NVIDIA GPU.
    pub(crate) fn room(array: &Array) -> Option<Room> {
        let mut room = Room {
            data: std::ptr::null_mut(),
            buffer: std::ptr::null(),
            bytes: 0,
            row_contiguous: false,
        };
        // SAFETY: the array is live, and its room is written to a place that is.
        unsafe { emily_room_of(array.as_ptr().ctx, &mut room) }.then_some(room)
    }

    /// A recording. It keeps the buffers of what it runs.
    pub(crate) struct Recording(*mut c_void);

    impl Recording {
        /// Schedules arrays and records it; nothing where a part of it is not on the stream, or it takes much memory: it is
        /// scheduled then all the same.
        pub(crate) fn of(arrays: &[Array], stream: &StreamHandle) -> Result<Option<Recording>> {
            let vector = Arrays::new(arrays)?;
            let number = stream.number()?;
            let graph = graph();
            let most = figures()?.limit / PART;
            if bytes_on(arrays, number).is_none_or(|bytes| bytes > most) {
                return async_eval(&vector, &graph).map(|()| None);
            }
            // SAFETY: what is recorded is owned by the value, which lives longer than the recording. The
            // encoder commits on this thread.
            unsafe {
                let recording = Recording(emily_recording());
                emily_record(recording.0);
                let scheduled = async_eval(&vector, &graph);
                emily_record(std::ptr::null_mut());
                scheduled.map(|()| Some(recording))
            }
        }

        /// Has each turn end with a copy of what is in one room to another of its size.
        pub(crate) fn copy(&mut self, to: &Room, from: &Room) {
            assert!(to.bytes == from.bytes && to.row_contiguous && from.row_contiguous);
            // SAFETY: the recording is live. Of either room the caller holds the array as long as the recording.
            unsafe { emily_recording_copy(self.0, to.data, from.data, to.bytes) }
        }

        /// Nothing more is recorded, and what was becomes one launch; then come the copies of the turn that MLX runs. Waits
        /// for them.
        pub(crate) fn finish(&mut self) -> Result<()> {
            let _graph = graph();
            // SAFETY: the recording is live; a failure becomes an error.
            ffi::status(|| unsafe { emily_recording_finish(self.0) })?;
            self.wait()
        }

        /// Runs what was recorded, and waits for it. Its inputs and outputs are where they were. Nobody schedules work
        /// meanwhile: MLX (0.32.4) captures some of it on the same stream, which a launch or a wait in between would break,
        /// and ends the process then.
        pub(crate) fn run(&self) -> Result<()> {
            let _graph = graph();
            // SAFETY: as above; whatever it reads and writes is held by the recording and by its caller.
            ffi::status(|| unsafe { emily_recording_run(self.0) })?;
            self.wait()
        }

        /// Waits for what was queued, with the lock of the graph held.
        fn wait(&self) -> Result<()> {
            // SAFETY: the recording is live.
            ffi::status(|| unsafe { emily_recording_wait(self.0) })
        }
    }

    impl Drop for Recording {
        fn drop(&mut self) {
            let _graph = graph();
            // The device may still be at it.
            let _ = self.wait();
            // SAFETY: the recording is owned and dropped once.
            unsafe { emily_recording_drop(self.0) };
        }
    }
}

#[cfg(all(own_kernels, target_os = "linux"))]
pub(crate) use own::{is_there, room, Recording};

#[cfg(not(all(own_kernels, target_os = "linux")))]
pub(crate) use none::{is_there, room, Recording};

#[cfg(not(all(own_kernels, target_os = "linux")))]
mod none {
    use mlx_rs::Array;

    use super::Room;
    use crate::runtime::error::Result;
    use crate::runtime::stream::StreamHandle;

    pub(crate) fn is_there() -> bool {
        false
    }

    pub(crate) fn room(_array: &Array) -> Option<Room> {
        None
    }

    /// There is none.
    pub(crate) enum Recording {}

    impl Recording {
        pub(crate) fn of(_arrays: &[Array], _stream: &StreamHandle) -> Result<Option<Recording>> {
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
