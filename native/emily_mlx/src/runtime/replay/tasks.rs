//! Steps that are run again on a CPU without MLX: MLX queues one, and the functions that it handed to the stream's thread,
//! kept by a recording, are called by whoever wants them again, with the same buffers.

use mlx_rs::Array;

use super::place::Room;
use crate::runtime::error::{Error, Result};
use crate::runtime::ffi::Arrays;
use crate::runtime::graph::{async_eval, graph};
use crate::runtime::inspect::{bytes_on, memory, read_by};
use crate::runtime::stream::StreamHandle;
pub(crate) use crate::runtime::tasks::is_there;
use crate::runtime::tasks::{copied, counts, Task};

/// What a recording may hold, in which no buffer is taken twice: where a turn takes more, MLX's part of its time is
/// small.
const MOST: usize = 64 << 20;

/// What MLX 0.32.4 hands over, by the type of what is called, as GCC writes it.
#[derive(Debug, PartialEq)]
enum Kind {
    /// A kernel of Emily's, which is the same after it was run, or an operation of MLX's, which need not be.
    Operation {
        stays: bool,
    },
    /// Nothing to run: it keeps the buffers of an operation until that has run.
    Buffers,
    /// It counts what is queued.
    Count,
    Unknown,
}

fn kind(name: &str) -> Kind {
    // What an encoder makes of an operation is bound.
    match name.strip_prefix("St5_Bind") {
        Some(bound) if bound.contains("cpu4evalERNS") => Kind::Buffers,
        Some(bound) => Kind::Operation {
            stays: bound.contains("N12_GLOBAL__N_14Node"),
        },
        None if counts(name) => Kind::Count,
        None => Kind::Unknown,
    }
}

/// Bytes that are copied.
struct Copy {
    to: *mut u8,
    from: *const u8,
    bytes: usize,
}

/// The room of an array that was scheduled on a CPU.
pub(crate) fn room(array: &Array) -> Option<Room> {
    memory(array).map(|memory| Room::of(&memory, array.nbytes()))
}

/// Whether somebody else than the caller holds an array or its memory.
pub(crate) fn is_held(array: &Array) -> bool {
    memory(array).is_some_and(|memory| !memory.donatable)
}

/// A recording. It keeps the buffers of what it runs.
pub(crate) struct Recording {
    /// Each with whether it is the same after it was run.
    operations: Vec<(Task, bool)>,
    buffers: Vec<Task>,
    copies: Vec<Copy>,
    /// Where a turn leaves whether another one follows.
    goes_on: Option<Room>,
    /// Where it leaves what the host is told.
    told: Vec<Room>,
    failure: Option<Error>,
    bytes: usize,
    stream: StreamHandle,
    /// What it reads in each turn, which MLX must not write over.
    _read: Vec<Array>,
}

impl Recording {
    /// Schedules arrays and records it; nothing where a part of it is not on the stream, or it takes much memory: it is
    /// scheduled then all the same. MLX may write over arrays of the numbers `own`, and over no others that are there.
    pub(crate) fn of(
        arrays: &[Array],
        own: &[usize],
        stream: &StreamHandle,
        most: usize,
    ) -> Result<Option<Recording>> {
        let vector = Arrays::new(arrays)?;
        let number = stream.number()?;
        let graph = graph();
        let Some(bytes) = bytes_on(arrays, number).filter(|bytes| *bytes <= most.min(MOST)) else {
            return async_eval(&vector, &graph).map(|()| None);
        };
        let mut recording = Recording {
            operations: Vec::new(),
            buffers: Vec::new(),
            copies: Vec::new(),
            goes_on: None,
            told: Vec::new(),
            failure: None,
            bytes,
            stream: stream.clone(),
            _read: read_by(arrays, own)?,
        };
        // MLX queues on this thread.
        let (scheduled, tasks) = copied(|| async_eval(&vector, &graph));
        scheduled?;
        // What is queued goes on whatever happens here.
        let kept =
            tasks.and_then(|tasks| tasks.into_iter().try_for_each(|task| recording.keep(task)));
        recording.failure = kept.err();
        Ok(Some(recording))
    }

    /// Keeps what MLX has queued.
    fn keep(&mut self, task: Task) -> Result<()> {
        let name = task.name();
        match kind(&name) {
            Kind::Operation { stays } => self.operations.push((task, stays)),
            Kind::Buffers => self.buffers.push(task),
            Kind::Count => (),
            Kind::Unknown => return Err(Error::Mlx(format!("[replay] MLX has queued {name}"))),
        }
        Ok(())
    }

    /// The bytes that a turn takes for what it computes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has each turn end with a copy of what is in one room to another of its size.
    pub(crate) fn copy(&mut self, to: &Room, from: &Room) {
        assert!(to.bytes == from.bytes && to.is_in_a_row() && from.is_in_a_row());
        let (to, from, bytes) = (to.data, from.data.cast_const(), to.bytes);
        self.copies.push(Copy { to, from, bytes });
    }

    /// Nothing more is recorded; waits for the turn that MLX runs, makes the copies behind it, and answers whether another
    /// turn follows, which a turn may leave as a boolean in a room. In others, which nothing is copied to, it leaves what the
    /// host is told.
    pub(crate) fn finish(&mut self, goes_on: Option<Room>, told: &[Room]) -> Result<bool> {
        self.through()?;
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.goes_on = goes_on;
        self.told = told.to_vec();
        Ok(self.end())
    }

    /// What the last turn has left in one of the rooms that the host is told of.
    pub(crate) fn told(&self, at: usize) -> &[u8] {
        let room = self.told[at];
        assert!(room.is_in_a_row());
        // SAFETY: the caller holds the array as long as the recording, and the next turn, which writes there, is the caller's.
        unsafe { std::slice::from_raw_parts(room.data, room.bytes) }
    }

    /// Copies what is in rooms to others of their sizes, each `(to, from)`, when the stream is through with what it was given.
    pub(crate) fn begin(&self, copies: &[(Room, Room)]) -> Result<()> {
        self.through()?;
        for (to, from) in copies {
            assert!(to.bytes == from.bytes && to.is_in_a_row() && from.is_in_a_row());
            // SAFETY: of either room the caller holds the array, and nobody else has the memory that is written to.
            unsafe { std::ptr::copy_nonoverlapping(from.data, to.data, to.bytes) }
        }
        Ok(())
    }

    /// Waits for what the stream was given. With the lock of the graph held, since a failure that MLX keeps for a stream is
    /// given to whoever waits for it first, and it is whose who has the lock.
    fn through(&self) -> Result<()> {
        let _graph = graph();
        self.stream.synchronize()
    }

    /// Runs what was recorded, on this thread, and answers whether another turn follows. Its inputs and outputs are where
    /// they were.
    pub(crate) fn run(&self) -> Result<bool> {
        self.launch().map(|()| self.end())
    }

    /// Runs what was recorded, without the copies.
    pub(crate) fn launch(&self) -> Result<()> {
        // SAFETY: whatever it reads and writes is held by the recording and by its caller, and nobody else writes there.
        let run = |(task, stays): &(Task, bool)| unsafe { task.run(*stays) };
        self.operations.iter().try_for_each(run)
    }

    /// Makes the copies, and reads whether another turn follows.
    fn end(&self) -> bool {
        for &Copy { to, from, bytes } in &self.copies {
            // SAFETY: of either room the caller holds the array as long as the recording, and they are no part of each
            // other: `links` in `program/run/replay.rs` takes no others.
            unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) }
        }
        // SAFETY: the caller holds the array, of one byte, as long as the recording.
        self.goes_on.is_some_and(|room| unsafe { *room.data != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_left_out() {
        let stays = |stays| Kind::Operation { stays };
        assert_eq!(
            kind("St5_BindIFZN12_GLOBAL__N_14Node8eval_cpuERKE"),
            stays(true)
        );
        assert_eq!(kind("St5_BindIFZN3mlx4core3fftERKE"), stays(false));
        assert_eq!(
            kind("St5_BindIFZN3mlx4core3cpu4evalERNS1_5arrayE"),
            Kind::Buffers
        );
        assert_eq!(
            kind("ZN3mlx4core3cpu14CommandEncoder8dispatchIRKE"),
            Kind::Count
        );
        assert_eq!(kind("ZN3mlx4core3newERKSt6vectorEUlvE_"), Kind::Unknown);
    }
}
