//! Convolutions of `f32` and `f64` with any number of spatial axes.
//!
//! A convolution is a product of matrices: the kernel has a row for each output channel, and the patches have a column
//! for each output. Blocks of patches are copied straight into the panels that the product reads, so that the patches are
//! nowhere as a whole. An element's terms are added up as in [`gemm`](crate::gemm), in an order that depends on the
//! convolution alone, neither on the blocks nor on the number of threads.

mod block;
mod direct;
mod patches;
mod phase;

use smallvec::SmallVec;

use self::block::Block;
use self::direct::{Strand, GROUPS};
use self::patches::{Image, Order};
use self::phase::{phases, Phase};
use crate::dispatch::Level;
use crate::gemm::{self, Scratch};
use crate::pool;
use crate::view::{Axis, View};

pub use self::phase::Window;

/// A type of number that is convolved: `f32` or `f64`.
pub trait Number: gemm::Stored<Number = Self> + gemm::Element {}

impl Number for f32 {}
impl Number for f64 {}

thread_local! {
    static SCRATCH: Scratch = const { Scratch::new() };
}

/// How many products are worth a part of their own, as for products of matrices; under Miri, which takes seconds for
/// as many hundred, fewer.
const PART: usize = if cfg!(miri) { 1 << 9 } else { 1 << 22 };
/// So many parts for each thread: a thread that is late costs at most one.
const PARTS_EACH: usize = 4;
/// A block of patches and its outputs take so many numbers, which the second cache holds.
const NUMBERS: usize = 1 << 18;
/// No block has more columns.
const COLUMNS: usize = 1024;
/// Blocks are multiples of so many columns and rows: of all processors' panels.
const WIDTH: usize = 32;
const HEIGHT: usize = 12;

/// Where the outputs go: the memory and its axes {groups, batch, outputs, spatial...}, a permutation of row-major ones.
pub struct Output<'a, T> {
    pub data: &'a mut [T],
    pub axes: &'a [Axis],
}

/// Convolves `x`, of axes {groups, batch, channels, spatial...}, with the kernel `w`, of axes {groups, outputs,
/// channels, taps...}, each group by itself.
pub fn convolve<T: Number>(level: Level, x: &View, w: &View, windows: &[Window], out: Output<T>) {
    let spatial = windows.len();
    let sizes =
        |axes: &[Axis]| -> SmallVec<[usize; 6]> { axes.iter().map(|axis| axis.size).collect() };
    let (x_sizes, w_sizes, sizes) = (sizes(x.axes()), sizes(w.axes()), sizes(out.axes));
    assert!(
        spatial > 0
            && [&x_sizes, &w_sizes, &sizes]
                .iter()
                .all(|sizes| sizes.len() == spatial + 3),
        "the axes are not those of a convolution"
    );
    assert!(
        x_sizes[0] == w_sizes[0]
            && x_sizes[2] == w_sizes[2]
            && sizes[..3] == [x_sizes[0], x_sizes[1], w_sizes[1]],
        "the sizes do not fit each other"
    );
    assert!(
        is_whole(out.axes, out.data.len()),
        "the output has another size"
    );
    if out.data.is_empty() {
        return;
    }
    let axes: Vec<Vec<Phase>> = windows
        .iter()
        .enumerate()
        .map(|(a, window)| phases(window, sizes[a + 3], w_sizes[a + 3]))
        .collect();
    let strides =
        |axes: &[Axis]| -> SmallVec<[isize; 6]> { axes.iter().map(|axis| axis.stride).collect() };
    let (x_elements, w_elements) = (x.elements::<T>(), w.elements::<T>());
    let (x_strides, w_strides, strides) = (strides(x.axes()), strides(w.axes()), strides(out.axes));
    let channels_lie_together = x_strides[2] == 1 && x_sizes[2] >= gemm::LONGEST;
    let conv = Conv {
        x: x_elements.first(),
        x_strides: &x_strides,
        entries: &x_sizes[3..],
        w: w_elements.first(),
        w_strides: &w_strides,
        out: out.data.as_mut_ptr(),
        out_strides: &strides,
        batch: x_sizes[1],
        channels: x_sizes[2],
        outputs: w_sizes[1],
        order: if channels_lie_together {
            Order::ChannelLast
        } else {
            Order::ChannelFirst
        },
    };
    let parts = Parts::of(&conv, sizes[0], &axes, pool::threads());
    pool::each(parts.count(&axes), |i| {
        // SAFETY: the views hold all that their axes reach, the output is ours and its elements are apart, and so are
        // the parts of it.
        unsafe { parts.compute(&conv, &axes, i, level) }
    });
}

/// Whether axes are a permutation of those of so many elements in row-major order.
fn is_whole(axes: &[Axis], count: usize) -> bool {
    if axes.iter().map(|axis| axis.size).product::<usize>() != count {
        return false;
    }
    let mut axes: SmallVec<[Axis; 6]> =
        axes.iter().copied().filter(|axis| axis.size != 1).collect();
    axes.sort_by_key(|axis| axis.stride);
    let mut step = 1;
    count == 0
        || axes.iter().all(|axis| {
            let fits = axis.stride == step;
            step *= axis.size as isize;
            fits
        })
}

/// What all parts share. Strides are those of {groups, batch, channels, spatial...} or of what stands for these.
struct Conv<'a, T> {
    x: *const T,
    x_strides: &'a [isize],
    entries: &'a [usize],
    w: *const T,
    w_strides: &'a [isize],
    out: *mut T,
    out_strides: &'a [isize],
    batch: usize,
    channels: usize,
    outputs: usize,
    order: Order,
}

// SAFETY: places and strides; whoever reads or writes there promises that it may.
unsafe impl<T: Sync + Send> Sync for Conv<'_, T> {}

impl<T> Conv<'_, T> {
    fn image(&self) -> Image<'_> {
        Image {
            batch: self.x_strides[1],
            channel: self.x_strides[2],
            sizes: self.entries,
            strides: &self.x_strides[3..],
        }
    }
}

/// A convolution cut into parts: for each group and each choice of the axes' phases, blocks of columns and rows.
struct Parts {
    groups: usize,
    /// So many groups are computed together: one, or as many as follow each other in memory.
    together: usize,
    blocks: usize,
    columns: usize,
    panels: usize,
    rows: usize,
}

impl Parts {
    fn of<T>(conv: &Conv<T>, groups: usize, axes: &[Vec<Phase>], threads: usize) -> Self {
        let most = |of: fn(&Phase) -> usize| -> usize {
            let each = axes
                .iter()
                .map(|phases| phases.iter().map(of).max().unwrap_or(0));
            each.product()
        };
        let positions = conv.batch * most(|phase| phase.outputs);
        let terms = conv.channels * most(|phase| phase.taps);
        let are_together = conv.outputs == 1
            && conv.x_strides[0] == 1
            && conv.out_strides[0] == 1
            && groups >= gemm::LONGEST / 2;
        let together = if are_together { GROUPS.min(groups) } else { 1 };
        let kinds = groups.div_ceil(together) * axes.iter().map(Vec::len).product::<usize>();
        let cost = positions
            .saturating_mul(terms)
            .saturating_mul(conv.outputs + 2 * gemm::LONGEST)
            .saturating_mul(kinds * together);
        let wanted = if threads == 1 {
            1
        } else {
            (cost / PART).clamp(1, threads * PARTS_EACH)
        };
        let fits = (NUMBERS / (terms.min(gemm::DEPTH) + conv.outputs)).min(COLUMNS);
        let fair = positions.div_ceil(wanted.div_ceil(kinds));
        let width = if are_together { 1 } else { WIDTH };
        let columns = fits.min(fair.next_multiple_of(width)) / width * width;
        let columns = columns.max(width);
        let blocks = positions.div_ceil(columns);
        // Where there are few columns, rows are cut.
        let heights = wanted.div_ceil(kinds * blocks);
        let rows = conv.outputs.div_ceil(heights).next_multiple_of(HEIGHT);
        Parts {
            groups,
            together,
            blocks,
            columns,
            panels: conv.outputs.div_ceil(rows),
            rows,
        }
    }

    fn count(&self, axes: &[Vec<Phase>]) -> usize {
        let kinds: usize = axes.iter().map(Vec::len).product();
        kinds * self.groups.div_ceil(self.together) * self.blocks * self.panels
    }

    /// # Safety
    /// The convolution's places must be there, and nobody else may use the outputs of the part.
    unsafe fn compute<T: Number>(
        &self,
        conv: &Conv<T>,
        axes: &[Vec<Phase>],
        i: usize,
        level: Level,
    ) {
        let (panel, i) = (i % self.panels, i / self.panels);
        let (block, i) = (i % self.blocks, i / self.blocks);
        let groups = self.groups.div_ceil(self.together);
        let (group, mut i) = (i % groups * self.together, i / groups);
        let mut phases: SmallVec<[Phase; 3]> = SmallVec::new();
        for axis in axes.iter().rev() {
            phases.insert(0, axis[i % axis.len()]);
            i /= axis.len();
        }
        let positions = conv.batch * phases.iter().map(|phase| phase.outputs).product::<usize>();
        let first = block * self.columns;
        if first >= positions {
            return;
        }
        let columns = self.columns.min(positions - first);
        if self.together > 1 {
            let strand = Strand {
                conv,
                phases: &phases,
                group,
                groups: self.together.min(self.groups - group),
                first,
                columns,
            };
            // SAFETY: the caller's promises.
            return unsafe { strand.compute(level) };
        }
        let row = panel * self.rows;
        let block = Block {
            conv,
            group,
            phases: &phases,
            first,
            columns,
            row,
            rows: self.rows.min(conv.outputs - row),
        };
        // SAFETY: the caller's promises.
        unsafe { block.compute(level) }
    }
}
