//! What MLX's encoder hands to the device, kept: copies of its graphs, one after the other in a graph of the recording's,
//! and every buffer that they use.

use std::cell::Cell;
use std::ptr::null_mut;

use mlx_rs::Array;
use once_cell::sync::Lazy;

pub(crate) use super::encoder::is_there;
use super::encoder::{Encoder, Held};
use super::graph::{copy_all, graph_of_copies, Copy, Graph, Launchable};
use super::host::Said;
use super::place::Room;
use crate::runtime::driver::{driver, wait, Driver, Pointer};
use crate::runtime::error::{Error, Result};
use crate::runtime::ffi::Arrays;
use crate::runtime::graph::{async_eval, graph};
use crate::runtime::inspect::{bytes_on, device_memory};
use crate::runtime::library::next;
use crate::runtime::memory::figures;
use crate::runtime::stream::StreamHandle;

/// The part of MLX's memory that a recording may hold: no buffer in it is taken twice.
const PART: usize = 4;

/// `mlx::core::cu::CommandEncoder::commit_impl()`
macro_rules! commit {
    () => {
        "_ZN3mlx4core2cu14CommandEncoder11commit_implEv"
    };
}

thread_local! {
    /// Whose work the thread records.
    static RECORDED: Cell<*mut Recording> = const { Cell::new(null_mut()) };
}

/// MLX's own function of this name.
static COMMIT: Lazy<unsafe extern "C-unwind" fn(*mut Encoder)> = Lazy::new(|| {
    let name = const {
        match std::ffi::CStr::from_bytes_with_nul(concat!(commit!(), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("one NUL"),
        }
    };
    let own = next(name).expect("MLX, which calls it, has it");
    // SAFETY: it is a method without arguments, which gives nothing.
    unsafe { std::mem::transmute::<Pointer, unsafe extern "C-unwind" fn(*mut Encoder)>(own) }
});

/// The library that loads MLX comes before MLX where the dynamic linker looks for a function, so that MLX calls this one.
#[export_name = commit!()]
extern "C-unwind" fn commit(encoder: *mut Encoder) {
    let recording = RECORDED.get();
    // SAFETY: MLX calls it with its encoder, which goes on to MLX's own function; what that throws passes here, where
    // nothing is to be dropped. The recording is live while it is the thread's, whose `of` waits for this call.
    unsafe {
        if !recording.is_null() {
            (*recording).take(&*encoder);
        }
        COMMIT(encoder);
    }
}

/// The room of an array that was scheduled on an NVIDIA GPU.
pub(crate) fn room(array: &Array) -> Option<Room> {
    device_memory(array).map(|memory| Room::of(&memory, array.nbytes()))
}

/// Whether somebody else than the caller holds an array or its memory.
pub(crate) fn is_held(array: &Array) -> bool {
    device_memory(array).is_some_and(|memory| !memory.donatable)
}

/// A recording. It keeps the buffers of what it runs.
pub(crate) struct Recording {
    driver: &'static Driver,
    /// MLX's, which lives as long as the process.
    stream: Pointer,
    graph: Option<Graph>,
    launchable: Option<Launchable>,
    copies: Vec<Copy>,
    said: Option<Said>,
    held: Vec<Held>,
    failure: Option<Error>,
    bytes: usize,
}

impl Recording {
    fn new(driver: &'static Driver, bytes: usize) -> Recording {
        Recording {
            driver,
            stream: null_mut(),
            graph: None,
            launchable: None,
            copies: Vec::new(),
            said: None,
            held: Vec::new(),
            failure: None,
            bytes,
        }
    }

    /// Schedules arrays and records it; nothing where a part of it is not on the stream, or it takes much memory: it is
    /// scheduled then all the same.
    pub(crate) fn of(
        arrays: &[Array],
        _own: &[usize],
        stream: &StreamHandle,
        most: usize,
    ) -> Result<Option<Recording>> {
        let vector = Arrays::new(arrays)?;
        let number = stream.number()?;
        let graph = graph();
        let most = most.min(figures()?.limit / PART);
        let bytes = bytes_on(arrays, number).filter(|bytes| *bytes <= most);
        let (Some(driver), Some(bytes)) = (driver(), bytes) else {
            return async_eval(&vector, &graph).map(|()| None);
        };
        let mut recording = Recording::new(driver, bytes);
        // The encoder commits on this thread.
        RECORDED.set(&mut recording);
        let scheduled = async_eval(&vector, &graph);
        RECORDED.set(null_mut());
        scheduled.map(|()| Some(recording))
    }

    /// Keeps what the encoder is about to hand to the device. MLX goes on whatever happens here.
    fn take(&mut self, encoder: &Encoder) {
        if self.failure.is_none() {
            self.failure = self.keep(encoder).err();
        }
    }

    fn keep(&mut self, encoder: &Encoder) -> Result<()> {
        self.held.push(encoder.hold());
        if !self.stream.is_null() && self.stream != encoder.stream {
            return Err(failed("there are two streams"));
        }
        self.stream = encoder.stream;
        if encoder.nodes == 0 {
            return Ok(());
        }
        let (before, behind) = encoder.edges();
        // SAFETY: the graph and the nodes are the encoder's, which is about to launch it.
        let piece = unsafe { Graph::copy_of(self.driver, encoder.graph, before, behind) }?;
        self.append(&piece)
    }

    fn append(&mut self, piece: &Graph) -> Result<()> {
        match &mut self.graph {
            Some(graph) => graph.append(piece),
            none => none.insert(Graph::new(self.driver)?).append(piece),
        }
    }

    /// The bytes that a turn takes for what it computes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has each turn end with a copy of what is in one room to another of its size.
    pub(crate) fn copy(&mut self, to: &Room, from: &Room) {
        self.copies.push(Copy::of(to, from));
    }

    /// Nothing more is recorded, and what was becomes one launch; then come the copies of the turn that MLX runs. Waits
    /// for them, and answers whether another turn follows, which a turn may leave as a boolean in a room. In others, which
    /// nothing is copied to, it leaves what the host is told.
    pub(crate) fn finish(&mut self, goes_on: Option<Room>, told: &[Room]) -> Result<bool> {
        let _graph = graph();
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.graph.is_none() {
            return Err(failed("nothing was recorded"));
        }
        let rooms = || goes_on.iter().chain(told);
        let is_read = |to: *mut u8| rooms().any(|room| room.data == to);
        if self.copies.iter().any(|copy| is_read(copy.to)) {
            return Err(failed("a turn writes over what it says"));
        }
        if rooms().next().is_some() {
            self.said = Some(Said::new(self.driver, rooms())?);
        }
        let said = self.said.iter().flat_map(|said| &said.copies);
        let copies: Vec<Copy> = self.copies.iter().chain(said).copied().collect();
        // SAFETY: of either room of a copy the caller holds the array as long as the recording, whose own the host's memory is.
        unsafe {
            if !copies.is_empty() {
                let graph = graph_of_copies(self.driver, &copies)?;
                self.append(&graph)?;
            }
            self.launchable = self.graph.as_ref().map(Graph::launchable).transpose()?;
            // What MLX has run so far is the turn without its copies.
            copy_all(self.driver, &copies, self.stream)?;
        }
        self.end()
    }

    /// What the last turn has left in one of the rooms that the host is told of.
    pub(crate) fn told(&self, at: usize) -> &[u8] {
        let said = self.said.as_ref().expect("it is finished");
        said.read(1 + at)
    }

    /// Copies what is in rooms to others of their sizes, each `(to, from)`, behind all that the stream was given.
    pub(crate) fn begin(&self, copies: &[(Room, Room)]) -> Result<()> {
        let _graph = graph();
        let copies = copies.iter().map(|(to, from)| Copy::of(to, from));
        let copies: Vec<Copy> = copies.collect();
        // SAFETY: of either room of a copy the caller holds the array until the turn behind it has ended, which waits.
        unsafe { copy_all(self.driver, &copies, self.stream) }
    }

    /// Runs what was recorded, waits for it, and answers whether another turn follows. Its inputs and outputs are where they
    /// were. Nobody schedules work meanwhile: MLX (0.32.4) captures some of it on the same stream, which a launch or a wait in between would break,
    /// and ends the process then.
    pub(crate) fn run(&self) -> Result<bool> {
        let _graph = graph();
        self.queue()?;
        self.end()
    }

    /// Queues what was recorded.
    pub(crate) fn launch(&self) -> Result<()> {
        let _graph = graph();
        self.queue()
    }

    /// Queues it, with the lock of the graph held.
    fn queue(&self) -> Result<()> {
        let Some(launchable) = &self.launchable else {
            return Err(failed("it is not finished"));
        };
        // SAFETY: whatever it reads and writes is held by the recording and by its caller.
        unsafe { launchable.launch(self.stream) }
    }

    /// Waits for what was queued, and reads whether another turn follows.
    fn end(&self) -> Result<bool> {
        self.wait()?;
        let said = self.said.as_ref();
        Ok(said.is_some_and(|said| said.read(0)[0] != 0))
    }

    /// Waits for what was queued, with the lock of the graph held.
    fn wait(&self) -> Result<()> {
        // SAFETY: the stream is MLX's, or null, which is CUDA's own.
        unsafe { wait(self.driver, self.stream) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _graph = graph();
        // The device may still be at it.
        let _ = self.wait();
        // Before what they use.
        self.launchable = None;
        self.graph = None;
    }
}

impl Copy {
    fn of(to: &Room, from: &Room) -> Copy {
        assert!(to.bytes == from.bytes && to.row_contiguous && from.row_contiguous);
        Copy {
            to: to.data,
            from: from.data,
            bytes: to.bytes,
        }
    }
}

fn failed(what: &str) -> Error {
    Error::Mlx(format!("[replay] {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::encoder::encoder;
    use super::super::fake::{pointer, said, BROKEN, FAKE};
    use super::*;

    fn room(at: usize) -> Room {
        room_of(at, 64)
    }

    fn room_of(at: usize, bytes: usize) -> Room {
        let data = pointer(at).cast();
        Room {
            data,
            buffer: data,
            bytes,
            row_contiguous: true,
        }
    }

    /// Two commits on stream 7, of graph 1 with edges and of graph 2.
    fn recorded() -> Recording {
        let mut recording = Recording::new(&FAKE, 0);
        let edges = [(11, 12), (12, 13), (10, 12)].map(|(a, b)| [pointer(a), pointer(b)]);
        let (first, _ends) = encoder(pointer(7), pointer(1), 2, &edges);
        let (second, _ends) = encoder(pointer(7), pointer(2), 1, &[]);
        recording.take(&first);
        recording.take(&second);
        recording
    }

    #[test]
    fn commits_become_one_launch_with_copies_at_its_end() {
        let mut recording = recorded();
        recording.copy(&room(20), &room(21));
        assert_eq!(
            said(),
            [
                "clone 1 makes 101",
                "node 11 in 101 makes 112",
                "node 12 in 101 makes 113",
                "node 10 in 101 makes 111",
                "node 12 in 101 makes 113",
                "node 13 in 101 makes 114",
                "node 12 in 101 makes 113",
                // Of a kernel to one of Emily's own; to one of MLX's; of what is no kernel.
                "in 101 [113, 114, 113] behind [112, 113, 111], early [true, false, false]",
                "graph makes 1000",
                "in 1000 101 behind 0 makes 2101",
                "destroy 101",
                "clone 2 makes 102",
                "in 1000 102 behind 2101 makes 2102",
                "destroy 102",
            ]
        );
        let told = [room_of(32, 8), room_of(33, 8)];
        let finished = recording.finish(Some(room_of(22, 1)), &told);
        assert!(finished.expect("it was recorded"));
        assert_eq!([0, 1].map(|at| recording.told(at)), [[32; 8], [33; 8]]);
        let mut said_first = said();
        // The first takes it, and the others after it.
        said_first.retain(|what| what != "host's memory");
        assert_eq!(
            said_first,
            [
                "stream makes 8",
                "capture 8",
                "copy 64 from 21 to 20 on 8",
                "read 22 on 8",
                "read 32 on 8",
                "read 33 on 8",
                "capture of 8 makes 500",
                "edges of 500",
                "in 500 62 not behind 61",
                "destroy 8",
                "in 1000 500 behind 2102 makes 2500",
                "destroy 500",
                "launchable of 1000 makes 5000",
                "copy 64 from 21 to 20 on 7",
                "read 22 on 7",
                "read 32 on 7",
                "read 33 on 7",
                "wait for 7",
            ]
        );
        assert!(recording.run().expect("it is finished"));
        assert_eq!(said(), ["launch 5000 on 7", "wait for 7"]);
        let copied = recording.begin(&[(room(20), room(30)), (room(23), room(33))]);
        copied.expect("the driver copies");
        assert_eq!(
            said(),
            ["copy 64 from 30 to 20 on 7", "copy 64 from 33 to 23 on 7"]
        );
        drop(recording);
        assert_eq!(said(), ["wait for 7", "destroy 5000", "destroy 1000"]);
    }

    #[test]
    fn steps_are_launched_without_a_word_to_the_host() {
        let mut recording = recorded();
        said();
        let goes_on = recording.finish(None, &[]);
        assert!(!goes_on.expect("it was recorded"));
        assert_eq!(said(), ["launchable of 1000 makes 5000", "wait for 7"]);
        recording.launch().expect("it is finished");
        assert_eq!(said(), ["launch 5000 on 7"]);
        drop(recording);
        assert_eq!(said(), ["wait for 7", "destroy 5000", "destroy 1000"]);
    }

    #[test]
    fn what_a_turn_writes_over_is_not_what_it_says() {
        let mut recording = recorded();
        recording.copy(&room(20), &room(21));
        let refused = recording.finish(Some(room_of(20, 1)), &[]);
        let error = refused.expect_err("it is copied to").to_string();
        assert_eq!(error, "[replay] a turn writes over what it says");
        said();
    }

    #[test]
    fn what_fails_is_told_at_the_end_and_everything_is_destroyed() {
        let refused = |broken, message: &str| {
            BROKEN.set(broken);
            let mut recording = recorded();
            recording.copy(&room(20), &room(21));
            let error = recording
                .finish(Some(room_of(22, 1)), &[])
                .expect_err("the driver refused")
                .to_string();
            assert_eq!(error, message);
            assert!(recording.run().is_err());
            drop(recording);
            BROKEN.set("nothing");
            let said = said();
            let destroyed = |made: &str| said.contains(&format!("destroy {made}"));
            for made in said.iter().filter(|what| !what.starts_with(broken)) {
                match made.rsplit_once(" makes ") {
                    Some((what, number))
                        if !what.contains(" behind ") && !what.starts_with("node") =>
                    {
                        assert!(destroyed(number), "{broken}: {number} of {said:?}")
                    }
                    _ => (),
                }
            }
        };
        refused("clone 2", "[cuda] cuGraphClone gave CUDA's error 719");
        refused(
            "node 12",
            "[cuda] cuGraphNodeFindInClone gave CUDA's error 719",
        );
        refused(
            "in 101",
            "[cuda] cuGraphAddDependencies gave CUDA's error 719",
        );
        refused("graph", "[cuda] cuGraphCreate gave CUDA's error 719");
        refused(
            "in 1000 102",
            "[cuda] cuGraphAddChildGraphNode gave CUDA's error 719",
        );
        refused(
            "capture 8",
            "[cuda] cuStreamBeginCapture gave CUDA's error 719",
        );
        refused("copy", "[cuda] cuMemcpyAsync gave CUDA's error 719");
        refused("edges of", "[cuda] cuGraphGetEdges gave CUDA's error 719");
        refused(
            "in 500",
            "[cuda] cuGraphRemoveDependencies gave CUDA's error 719",
        );
        refused(
            "launchable",
            "[cuda] cuGraphInstantiate gave CUDA's error 719",
        );
        refused("wait", "[cuda] cuStreamSynchronize gave CUDA's error 719");
    }

    #[test]
    fn one_stream_and_something_on_it() {
        let mut recording = Recording::new(&FAKE, 0);
        let (nothing, _ends) = encoder(pointer(7), pointer(1), 0, &[]);
        recording.take(&nothing);
        let error = recording
            .finish(Some(room_of(22, 1)), &[])
            .expect_err("nothing is there")
            .to_string();
        assert_eq!(error, "[replay] nothing was recorded");

        let mut recording = recorded();
        let (other, _ends) = encoder(pointer(9), pointer(3), 1, &[]);
        recording.take(&other);
        let error = recording
            .finish(Some(room_of(22, 1)), &[])
            .expect_err("another stream")
            .to_string();
        assert_eq!(error, "[replay] there are two streams");
    }
}
