//! How MLX computes what a stream's worker and its callers have it compute.

use mlx_rs::Array;
use once_cell::sync::OnceCell;
use parking_lot::MutexGuard;

use crate::runtime::cuda_stream::Place;
use crate::runtime::device::Device;
use crate::runtime::error::Result;
use crate::runtime::fetch::Fetched;
use crate::runtime::ffi::{self, mlx, Arrays};
use crate::runtime::graph::{async_eval, graph, try_graph};
use crate::runtime::inspect::is_awaited;
use crate::runtime::job;
use crate::runtime::queue::{adopt_thread, Queue};
use crate::runtime::short;
use crate::runtime::worker::{Engine, Short, ShortOrNot};

/// What a stream's worker is asked to do.
pub type Job = job::Job<Array>;

impl Engine for Queue {
    type Array = Array;
    type Marker = Marker;
    type Graph<'a> = MutexGuard<'static, ()>;

    fn adopt_thread(&self) {
        adopt_thread(self.device());
    }

    fn graph(&self) -> Self::Graph<'_> {
        graph()
    }

    fn try_graph(&self) -> Option<Self::Graph<'_>> {
        try_graph()
    }

    fn compute_short(&self, arrays: &[Array], graph: &Self::Graph<'_>) -> bool {
        short::compute(arrays, self, graph)
    }

    fn schedule_short(
        &self,
        (arrays, done): Short<Array>,
        graph: &Self::Graph<'_>,
    ) -> ShortOrNot<Self> {
        short::schedule(arrays, done, self, graph)
    }

    fn is_awaited(&self, array: &Array, _graph: &Self::Graph<'_>) -> bool {
        is_awaited(array)
    }

    /// It has no elements, so that it takes no device any work.
    fn marker(&self) -> Result<Marker> {
        let scalar = Array::from_bool(false);
        let array = mlx!(
            mlx_broadcast_to,
            scalar.as_ptr(),
            [0].as_ptr(),
            1,
            self.stream().as_ptr()
        )?;
        let place = OnceCell::new();
        Ok(Marker { array, place })
    }

    fn begin(
        &self,
        arrays: &[Array],
        marker: Option<&Marker>,
        graph: &Self::Graph<'_>,
    ) -> Result<()> {
        // The marker is the first, since MLX ends its evaluation on the stream of the first array.
        let marker = marker.map(|marker| &marker.array);
        async_eval(&Arrays::new(marker.into_iter().chain(arrays))?, graph)
    }

    fn mark(&self, marker: &Marker, fetched: Option<(&Array, &Fetched)>, _graph: &Self::Graph<'_>) {
        let Some(stream) = self.cuda() else {
            return;
        };
        if let Some((array, fetched)) = fetched {
            fetched.begin(array, stream);
        }
        match stream.place() {
            Some(place) => drop(marker.place.set(place)),
            // Nobody would know when the copy has ended.
            None => stream.finish(),
        }
    }

    fn is_patient(&self) -> bool {
        self.device().is_gpu()
    }

    /// Waiting for an array would miss a failure that came before the wait. The CPU's default stream takes part: it computes
    /// linear algebra for a GPU and pieces of graphs of other streams, and streams that wait for one
    /// another hand a failure on.
    fn settle(&self, _graph: &Self::Graph<'_>) -> Result<()> {
        let own = self.synchronize();
        own.and(Queue::default_on(Device::Cpu)?.synchronize())
    }

    fn wait(&self, marker: &Marker) -> Result<()> {
        marker.wait()
    }
}

/// What is waited for: an array of one job alone, and where its end is in the work of an NVIDIA GPU.
pub struct Marker {
    array: Array,
    place: OnceCell<Place>,
}

impl Marker {
    /// Its array behind others, whose memory is kept until then.
    pub(crate) fn behind(&self, others: &[Array]) -> Result<Array> {
        ffi::behind(&self.array, others)
    }

    /// Waits until what was begun with it is computed, and copied. MLX (0.32.4) sleeps until a GPU has computed, and to be woken
    /// takes longer than most of what is waited for: the end is looked for first.
    pub(crate) fn wait(&self) -> Result<()> {
        let place = self.place.get();
        let waited = match place.is_some_and(Place::is_soon_over) {
            true => Ok(()),
            // SAFETY: the handle is live, and the array is this thread's alone.
            false => ffi::status(|| unsafe { mlx_sys::_mlx_array_wait(self.array.as_ptr()) }),
        };
        // The copy is behind what MLX knows of, and goes on where that has failed.
        waited.and(place.map_or(Ok(()), Place::wait))
    }
}
