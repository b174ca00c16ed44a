//! Recordings that are kept for the next run of the same loop, which begins with the first of its turns instead of
//! the third, or of the same steps, and record nothing then.
//!
//! A recording reads certain memory: what a run begins with is copied to it, but for what is there already, as weights are.
//! A turn leaves the next state where it reads it. What a run gives are copies, so that nobody else ever has the
//! memory: they are made on the stream that later copies wait on.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use mlx_rs::Array;
use parking_lot::Mutex;

use super::recording::{room, Recording};
use crate::runtime::contiguous::copy;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::inspect::Node;
use crate::runtime::memory::figures;
use crate::runtime::replay::Room;
use crate::runtime::stream::StreamHandle;

/// How many recordings are kept, of all programs.
const MOST: usize = 8;

/// Up to so many bytes of its own a recording has that is kept, by device; of a large card's, a part of its memory. All of a
/// device have at most so many times as much.
const LARGEST_ON_CPU: usize = 32 << 20;
const LARGEST_ON_GPU: usize = 1 << 30;
const PART_OF_GPU: usize = 8;
const LARGE_ONES: usize = 2;

/// So many recordings that no later run fits are made at most.
const MOST_IN_VAIN: usize = 3;

/// An array that a recording reads or gives.
#[derive(Clone)]
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

/// A recording with what it reads and gives.
pub(super) struct Kept {
    recording: Recording,
    told: Vec<Told>,
    stream: StreamHandle,
    /// MLX keeps some of what its kernels use by thread.
    thread: ThreadId,
    /// The bytes that it has of its own, and how many it may have.
    bytes: usize,
    largest: usize,
    reads: Vec<(Part, Room)>,
    gives: Vec<Part>,
    /// The keys of a cache that it attends to.
    pub keys: Option<Range<i32>>,
    /// Where a turn leaves whether another one follows.
    _goes_on: Option<Array>,
}

// SAFETY: it has pointers to memory that its arrays and its recording hold, graphs and functions of MLX's, none of which
// belongs to a thread; it is with one thread at a time. `take` has the thread that recorded it alone run it again.
unsafe impl Send for Kept {}

impl Kept {
    /// A finished recording, where it can be kept.
    pub(super) fn of(
        (recording, told): (Recording, Vec<Told>),
        stream: &StreamHandle,
        (reads, gives): (Vec<Part>, Vec<Part>),
        goes_on: Option<Array>,
    ) -> Result<Option<Kept>> {
        let own = reads.iter().filter(|part| part.is_own);
        let own: usize = own.map(|part| part.array.nbytes()).sum();
        let bytes = own.saturating_add(recording.bytes());
        let largest = largest(stream)?;
        if bytes > largest {
            return Ok(None);
        }
        let placed = |part: Part| room(&part.array, stream).map(|room| (part, room));
        let reads: Option<Vec<_>> = reads.into_iter().map(placed).collect();
        Ok(reads.map(|reads| Kept {
            recording,
            told,
            stream: stream.clone(),
            thread: thread::current().id(),
            bytes,
            largest,
            reads,
            gives,
            keys: None,
            _goes_on: goes_on,
        }))
    }

    /// Has the next run read computed arrays, where they fit; gives those that are to be kept until it has ended.
    pub(super) fn begin(&self, arrays: &[Array]) -> Result<Option<Vec<Array>>> {
        if arrays.len() != self.reads.len() {
            return Ok(None);
        }
        let arrays = self.in_rows(arrays)?;
        let (mut copies, mut copied) = (Vec::new(), Vec::new());
        for ((part, its_room), array) in self.reads.iter().zip(arrays) {
            match part.wants(its_room, &array, &self.stream) {
                Some(Wanted::Nothing) => (),
                Some(Wanted::Copy(from)) => {
                    copies.push((*its_room, from));
                    copied.push(array);
                }
                None => return Ok(None),
            }
        }
        self.recording.begin(&copies)?;
        if self.stream.is_cpu() {
            // They are copied by now.
            copied.clear();
        }
        Ok(Some(copied))
    }

    /// The arrays, of which those that are to be copied as bytes lie in rows.
    fn in_rows(&self, arrays: &[Array]) -> Result<Vec<Array>> {
        let mut copied = Vec::new();
        let mut in_row = |((part, _), array): (&(Part, Room), &Array)| {
            let room = room(array, &self.stream);
            if !part.is_own || room.is_none_or(|room| room.is_in_a_row()) {
                return Ok(array.clone());
            }
            copied.push(copy(array, &self.stream)?);
            Ok(copied[copied.len() - 1].clone())
        };
        let pairs = self.reads.iter().zip(arrays);
        let arrays = pairs.map(&mut in_row).collect::<Result<Vec<_>>>()?;
        self.stream.compute_unless(copied, false)?;
        Ok(arrays)
    }

    /// Of arrays that may not fit, which are others than those that are read where they lie.
    pub(super) fn others<'a>(&'a self, arrays: &'a [Array]) -> impl Iterator<Item = usize> + 'a {
        let is_other = |(_, ((part, _), array)): &(usize, (&(Part, Room), &Array))| {
            !part.is_own && Node::of(&part.array).id() != Node::of(array).id()
        };
        let pairs = self.reads.iter().zip(arrays).enumerate();
        pairs.filter(is_other).map(|(at, _)| at)
    }

    pub(super) fn recording(&self) -> (&Recording, &[Told]) {
        (&self.recording, &self.told)
    }

    /// What the last run has left.
    pub(super) fn given(&self) -> Result<Vec<Array>> {
        let given = |part: &Part| match part.is_own {
            true => copy(&part.array, &self.stream),
            false => Ok(part.array.clone()),
        };
        self.gives.iter().map(given).collect()
    }
}

/// How many bytes of its own a recording has at most that is kept.
pub(super) fn largest(stream: &StreamHandle) -> Result<usize> {
    Ok(match stream.is_cpu() {
        true => LARGEST_ON_CPU,
        false => LARGEST_ON_GPU.max(figures()?.limit / PART_OF_GPU),
    })
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

/// Where a recording is between runs.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Stand>);

#[derive(Default)]
struct Stand(Mutex<Option<Kept>>);

/// A stand that was given a recording.
struct Full {
    stand: Weak<Stand>,
    is_cpu: bool,
    bytes: usize,
}

/// Those with a recording, the last one put last.
static FULL: Mutex<Vec<Full>> = Mutex::new(Vec::new());

impl Shelf {
    /// The recording, for the thread that has recorded it, on the same stream; any other is dropped.
    pub(super) fn take(&self, stream: &StreamHandle) -> Option<Kept> {
        let kept = self.0 .0.lock().take()?;
        (kept.stream.is(stream) && kept.thread == thread::current().id()).then_some(kept)
    }

    /// Whether there is one, of whatever thread.
    pub(super) fn is_full(&self) -> bool {
        self.0 .0.lock().is_some()
    }

    pub(super) fn is(&self, other: &Shelf) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Keeps a recording whose results are on their way to being computed.
    pub(super) fn put(&self, kept: Kept) {
        let (is_cpu, largest) = (kept.stream.is_cpu(), kept.largest);
        let own = Full {
            stand: Arc::downgrade(&self.0),
            is_cpu,
            bytes: kept.bytes,
        };
        let before = self.0 .0.lock().replace(kept);
        drop(before);
        let mut full = FULL.lock();
        full.retain(|other| {
            !std::ptr::eq(other.stand.as_ptr(), Arc::as_ptr(&self.0))
                && other.stand.strong_count() > 0
        });
        full.push(own);
        let mut oldest = Vec::new();
        let is_alike = |other: &Full| other.is_cpu == is_cpu;
        let bytes = |full: &[Full]| -> usize {
            let alike = full.iter().filter(|other| is_alike(other));
            alike.map(|other| other.bytes).sum()
        };
        while full.len() > MOST {
            oldest.push(full.remove(0));
        }
        while bytes(&full) > LARGE_ONES * largest {
            let first = full.iter().position(is_alike);
            oldest.push(full.remove(first.expect("its bytes are counted")));
        }
        drop(full);
        forget(oldest);
    }
}

/// Drops the recordings that are kept.
pub fn forget_recordings() {
    let full = std::mem::take(&mut *FULL.lock());
    forget(full);
}

fn forget(full: Vec<Full>) {
    for stand in full.iter().filter_map(|full| full.stand.upgrade()) {
        let kept = stand.0.lock().take();
        drop(kept);
    }
}

/// What earlier runs have shown.
#[derive(Debug, Default)]
pub(super) struct Luck {
    /// Whether they ran once, so that kernels are compiled.
    has_run: bool,
    in_vain: usize,
    /// Numbers of what is read that is another array in each run.
    pub changes: HashSet<usize>,
}

impl Luck {
    /// Where what has these numbers is known to be another array in each run.
    pub fn of(changes: HashSet<usize>) -> Self {
        Luck {
            changes,
            ..Luck::default()
        }
    }

    /// Whether the next run is worth a recording. Asked once in each run that has none.
    pub fn records(&mut self) -> bool {
        std::mem::replace(&mut self.has_run, true) && self.in_vain < MOST_IN_VAIN
    }

    /// A recording did not fit, where these are others than it knew.
    pub fn missed(&mut self, others: impl Iterator<Item = usize>) {
        self.in_vain += 1;
        self.changes.extend(others);
    }

    pub fn never(&mut self) {
        self.in_vain = MOST_IN_VAIN;
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
        f.debug_struct("Shelf")
            .field("full", &self.is_full())
            .finish()
    }
}
