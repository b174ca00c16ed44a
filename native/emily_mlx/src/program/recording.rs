//! A recorded turn of a loop, or recorded steps, on either device.

use mlx_rs::Array;

use crate::runtime::error::Result;
use crate::runtime::replay::{recording, tasks, Room};
use crate::runtime::stream::StreamHandle;

pub(super) enum Recording {
    OnCpu(tasks::Recording),
    OnGpu(recording::Recording),
}

/// Whether turns can be recorded on a stream.
pub(super) fn is_there(stream: &StreamHandle) -> bool {
    match stream.is_cpu() {
        true => tasks::is_there(),
        false => recording::is_there(),
    }
}

/// Where the elements of a scheduled array are.
pub(super) fn room(array: &Array, stream: &StreamHandle) -> Option<Room> {
    match stream.is_cpu() {
        true => tasks::room(array),
        false => recording::room(array),
    }
}

/// Whether somebody else than the caller holds a scheduled array or its memory.
pub(super) fn is_held(array: &Array, stream: &StreamHandle) -> bool {
    match stream.is_cpu() {
        true => tasks::is_held(array),
        false => recording::is_held(array),
    }
}

impl Recording {
    /// Schedules arrays and records it, where that can be, and takes no more than so many bytes. Of what they read MLX may
    /// write over arrays of these numbers.
    pub(super) fn of(
        arrays: &[Array],
        consumed: &[usize],
        stream: &StreamHandle,
        most: usize,
    ) -> Result<Option<Recording>> {
        Ok(match stream.is_cpu() {
            true => tasks::Recording::of(arrays, consumed, stream, most)?.map(Recording::OnCpu),
            false => {
                recording::Recording::of(arrays, consumed, stream, most)?.map(Recording::OnGpu)
            }
        })
    }

    /// The bytes that a turn takes for what it computes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Recording::OnCpu(tasks) => tasks.bytes(),
            Recording::OnGpu(recording) => recording.bytes(),
        }
    }

    pub(super) fn copy(&mut self, to: &Room, from: &Room) {
        match self {
            Recording::OnCpu(tasks) => tasks.copy(to, from),
            Recording::OnGpu(recording) => recording.copy(to, from),
        }
    }

    /// Nothing more is recorded; waits for the turn, and answers whether another one follows, which it may leave in a room, as
    /// what the host is told.
    pub(super) fn finish(&mut self, goes_on: Option<Room>, told: &[Room]) -> Result<bool> {
        match self {
            Recording::OnCpu(tasks) => tasks.finish(goes_on, told),
            Recording::OnGpu(recording) => recording.finish(goes_on, told),
        }
    }

    /// What the last turn has left in one of the rooms that the host is told of.
    pub(super) fn told(&self, at: usize) -> &[u8] {
        match self {
            Recording::OnCpu(tasks) => tasks.told(at),
            Recording::OnGpu(recording) => recording.told(at),
        }
    }

    /// Copies what is in rooms to others of their sizes, each `(to, from)`, before the next turn, and behind what the stream
    /// was given.
    pub(super) fn begin(&self, copies: &[(Room, Room)]) -> Result<()> {
        match self {
            Recording::OnCpu(tasks) => tasks.begin(copies),
            Recording::OnGpu(recording) => recording.begin(copies),
        }
    }

    /// Has what was recorded run once more, behind what the stream was given.
    pub(super) fn launch(&self) -> Result<()> {
        match self {
            Recording::OnCpu(tasks) => tasks.launch(),
            Recording::OnGpu(recording) => recording.launch(),
        }
    }

    /// Runs it, and answers whether another turn follows.
    pub(super) fn run(&self) -> Result<bool> {
        match self {
            Recording::OnCpu(tasks) => tasks.run(),
            Recording::OnGpu(recording) => recording.run(),
        }
    }
}
