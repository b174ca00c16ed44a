//! How MLX computes what a stream's worker and its callers have it compute.

use mlx_rs::Array;
use parking_lot::MutexGuard;

use crate::runtime::device::Device;
use crate::runtime::error::Result;
use crate::runtime::ffi::{self, mlx, Arrays};
use crate::runtime::graph::{async_eval, graph, try_graph};
use crate::runtime::job;
use crate::runtime::queue::{adopt_thread, Queue};
use crate::runtime::short;
use crate::runtime::worker::{Engine, Short, ShortOrNot};

/// What a stream's worker is asked to do.
pub type Job = job::Job<Array>;

impl Engine for Queue {
    type Array = Array;
    type Marker = Array;
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

    /// It has no elements, so that it takes no device any work.
    fn marker(&self) -> Result<Array> {
        let scalar = Array::from_bool(false);
        mlx!(
            mlx_broadcast_to,
            scalar.as_ptr(),
            [0].as_ptr(),
            1,
            self.stream().as_ptr()
        )
    }

    fn begin(
        &self,
        arrays: &[Array],
        marker: Option<&Array>,
        graph: &Self::Graph<'_>,
    ) -> Result<()> {
        // The marker is the first, since MLX ends its evaluation on the stream of the first array.
        async_eval(&Arrays::new(marker.into_iter().chain(arrays))?, graph)
    }

    /// Waiting for an array would miss a failure that came before the wait. The CPU's default stream takes part: it computes
    /// linear algebra for a GPU and pieces of graphs of other streams, and streams that wait for one
    /// another hand a failure on.
    fn settle(&self, _graph: &Self::Graph<'_>) -> Result<()> {
        let own = self.synchronize();
        own.and(Queue::default_on(Device::Cpu)?.synchronize())
    }

    fn wait(&self, marker: &Array) -> Result<()> {
        wait(marker)
    }
}

/// Waits until the arrays of a marker are computed.
pub(crate) fn wait(marker: &Array) -> Result<()> {
    // SAFETY: the handle is live, and the marker is this thread's alone.
    ffi::status(|| unsafe { mlx_sys::_mlx_array_wait(marker.as_ptr()) })
}
