//! Recorded turns of loops that are kept for the next run of the same loop, which begins with the first of them instead of
//! the third, and records nothing.
//!
//! A turn reads its state from certain memory and leaves the next one there. What a run begins with is copied to that
//! memory, but for what is there already, as weights are. What a run gives are copies, so that nobody else ever has the
//! memory: they are made on the stream that later copies wait on.

use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use mlx_rs::Array;
use parking_lot::Mutex;

use super::recording::{room, Recording};
use crate::runtime::contiguous::copy;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::inspect::Node;
use crate::runtime::replay::Room;
use crate::runtime::stream::StreamHandle;

/// How many recordings are kept, of all programs.
const MOST: usize = 4;

/// Up to so many bytes of its own a recording has that is kept, by device.
const LARGEST_ON_CPU: usize = 16 << 20;
const LARGEST_ON_GPU: usize = 1 << 30;

/// An array that each turn reads.
pub(super) struct Part {
    pub array: Array,
    /// Whether nobody else has its memory, which may be written to.
    pub is_own: bool,
}

/// A call of each turn that has no results: which one, and the arrays that it hands to the host, in memory of their own.
pub(super) struct Told {
    pub index: usize,
    pub arrays: Vec<Array>,
}

/// A recording with what it reads.
pub(super) struct Kept {
    recording: Recording,
    told: Vec<Told>,
    stream: StreamHandle,
    /// MLX keeps some of what its kernels use by thread.
    thread: ThreadId,
    state: Vec<(Part, Room)>,
    /// What is read of the steps around the loop.
    around: Vec<(Part, Room)>,
    /// Where a turn leaves whether another one follows.
    _goes_on: Array,
}

// SAFETY: it has pointers to memory that its arrays and its recording hold, graphs and functions of MLX's, none of which
// belongs to a thread; it is with one thread at a time. `take` has the thread that recorded it alone run it again.
unsafe impl Send for Kept {}

impl Kept {
    /// A finished recording, where it can be kept.
    pub(super) fn of(
        (recording, told): (Recording, Vec<Told>),
        stream: &StreamHandle,
        (state, around): (Vec<Part>, Vec<Part>),
        goes_on: Array,
    ) -> Option<Kept> {
        let own = |part: &&Part| part.is_own;
        let own: usize = state
            .iter()
            .filter(own)
            .map(|part| part.array.nbytes())
            .sum();
        let largest = match stream.is_cpu() {
            true => LARGEST_ON_CPU,
            false => LARGEST_ON_GPU,
        };
        if own.saturating_add(recording.bytes()) > largest {
            return None;
        }
        let placed = |parts: Vec<Part>| -> Option<Vec<(Part, Room)>> {
            let placed = |part: Part| room(&part.array, stream).map(|room| (part, room));
            parts.into_iter().map(placed).collect()
        };
        Some(Kept {
            recording,
            told,
            stream: stream.clone(),
            thread: thread::current().id(),
            state: placed(state)?,
            around: placed(around)?,
            _goes_on: goes_on,
        })
    }

    /// Has the next turn begin with a computed state; answers whether it fits.
    pub(super) fn begin(&self, state: &[Array], around: &[Array]) -> Result<bool> {
        let parts = self.state.iter().chain(&self.around);
        let arrays = state.iter().chain(around);
        if arrays.clone().count() != parts.clone().count() {
            return Ok(false);
        }
        let mut copies = Vec::new();
        for ((part, its_room), array) in parts.zip(arrays) {
            match part.wants(its_room, array, &self.stream) {
                Some(Wanted::Nothing) => (),
                Some(Wanted::Copy(from)) => copies.push((*its_room, from)),
                None => return Ok(false),
            }
        }
        self.recording.begin(&copies).map(|()| true)
    }

    pub(super) fn recording(&self) -> (&Recording, &[Told]) {
        (&self.recording, &self.told)
    }

    /// The state that the last turn has left.
    pub(super) fn state(&self) -> Result<Vec<Array>> {
        let given = |(part, _): &(Part, Room)| match part.is_own {
            true => copy(&part.array, &self.stream),
            false => Ok(part.array.clone()),
        };
        self.state.iter().map(given).collect()
    }
}

enum Wanted {
    Nothing,
    Copy(Room),
}

impl Part {
    /// What has the part's room hold an array; none where nothing does.
    fn wants(&self, its_room: &Room, array: &Array, stream: &StreamHandle) -> Option<Wanted> {
        // MLX may have moved it.
        if room(&self.array, stream).as_ref() != Some(its_room) {
            return None;
        }
        if Node::of(array).id() == Node::of(&self.array).id() {
            return Some(Wanted::Nothing);
        }
        let alike =
            Dtype::of(array) == Dtype::of(&self.array) && array.shape() == self.array.shape();
        let from = room(array, stream).filter(|_| alike)?;
        let in_rows = from.is_in_a_row() && its_room.is_in_a_row();
        match in_rows {
            true if from == *its_room => Some(Wanted::Nothing),
            true if self.is_own => Some(Wanted::Copy(from)),
            _ => None,
        }
    }
}

/// Where a loop's recording is between runs.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Stand>);

#[derive(Default)]
struct Stand(Mutex<Option<Kept>>);

/// Those with a recording, the last one put last.
static FULL: Mutex<Vec<Weak<Stand>>> = Mutex::new(Vec::new());

impl Shelf {
    /// The recording, for the thread that has recorded it, on the same stream; any other is dropped.
    pub(super) fn take(&self, stream: &StreamHandle) -> Option<Kept> {
        let kept = self.0 .0.lock().take()?;
        (kept.stream.is(stream) && kept.thread == thread::current().id()).then_some(kept)
    }

    pub(super) fn is(&self, other: &Shelf) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Keeps a recording whose results are on their way to being computed.
    pub(super) fn put(&self, kept: Kept) {
        let before = self.0 .0.lock().replace(kept);
        drop(before);
        let mut full = FULL.lock();
        full.retain(|other| {
            !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.0)) && other.strong_count() > 0
        });
        full.push(Arc::downgrade(&self.0));
        let many = full.len().saturating_sub(MOST);
        let oldest: Vec<_> = full.drain(..many).collect();
        drop(full);
        forget(oldest);
    }
}

/// Drops the recordings that are kept.
pub fn forget_recordings() {
    let full = std::mem::take(&mut *FULL.lock());
    forget(full);
}

fn forget(full: Vec<Weak<Stand>>) {
    for stand in full.iter().filter_map(Weak::upgrade) {
        let kept = stand.0.lock().take();
        drop(kept);
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // The BEAM's schedulers run this, and a recording waits for its device when it ends. Without a thread it ends here.
        if let Some(kept) = self.0.get_mut().take() {
            let ending = thread::Builder::new().name("emily end".to_owned());
            let _ = ending.spawn(move || drop(kept));
        }
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let full = self.0 .0.lock().is_some();
        f.debug_struct("Shelf").field("full", &full).finish()
    }
}
