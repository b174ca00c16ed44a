//! The patches that a block of outputs sees, as the right side of a product: a row for each channel and tap, a column
//! for each output.

use smallvec::SmallVec;

use super::phase::Phase;
use crate::gemm::{Element, Simd, LONGEST};

/// So many taps' places are remembered.
const SLOTS: usize = 256;
/// Where there is no entry.
const NOWHERE: isize = isize::MIN;

/// How the entries of one group lie: elements from one to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image<'a> {
    pub batch: isize,
    pub channel: isize,
    /// The spatial axes' sizes and strides.
    pub sizes: &'a [usize],
    pub strides: &'a [isize],
}

/// The order of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// All taps of a channel follow each other.
    ChannelFirst,
    /// All channels of a tap do.
    ChannelLast,
}

/// Outputs of a block that follow each other on the last axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// The block's first of these columns, and how many there are.
    pub column: usize,
    pub count: usize,
    pub batch: usize,
    /// The first one's place on the last axis.
    pub output: usize,
}

/// The outputs from `first` on, row-major over the batch and the phases, and their places on the axes before the last.
pub(super) fn segments(
    phases: &[Phase],
    first: usize,
    count: usize,
) -> (Vec<Segment>, Vec<SmallVec<[usize; 3]>>) {
    let (mut segments, mut places) = (Vec::new(), Vec::new());
    let last = phases.len() - 1;
    let mut column = 0;
    while column < count {
        let mut at = first + column;
        let mut place: SmallVec<[usize; 3]> = SmallVec::from_elem(0, phases.len());
        for (axis, phase) in phases.iter().enumerate().rev() {
            place[axis] = at % phase.outputs;
            at /= phase.outputs;
        }
        let output = place[last];
        let run = (phases[last].outputs - output).min(count - column);
        place.truncate(last);
        segments.push(Segment {
            column,
            count: run,
            batch: at,
            output,
        });
        places.push(place);
        column += run;
    }
    (segments, places)
}

/// What a vector of columns takes of one segment through one tap.
#[derive(Clone, Copy)]
struct Piece {
    segment: u32,
    first: u8,
    end: u8,
    /// Where the vector's first column would be, from the segment's row on.
    offset: isize,
}

/// The pieces of all vectors through one tap of the last axis.
#[derive(Default)]
struct Pieces {
    tap: Option<usize>,
    pieces: Vec<Piece>,
    /// Each vector's first piece.
    begins: Vec<u32>,
}

/// The rows that the segments see through one tap of the other axes.
#[derive(Default)]
struct Rows {
    tap: Option<usize>,
    offsets: Vec<isize>,
}

/// The entry that a column sees on the last axis, and the row that it is in.
#[derive(Clone, Copy)]
struct Entry {
    row: isize,
    at: isize,
}

pub(super) struct Patches<'a> {
    image: Image<'a>,
    phases: &'a [Phase],
    order: Order,
    channels: usize,
    columns: usize,
    segments: &'a [Segment],
    places: &'a [SmallVec<[usize; 3]>],
    pieces: Vec<Pieces>,
    rows: Vec<Rows>,
    /// Each column's entry through one tap, and what fills up the last vector.
    entries: Vec<Entry>,
}

impl<'a> Patches<'a> {
    pub(super) fn new(
        image: Image<'a>,
        phases: &'a [Phase],
        order: Order,
        channels: usize,
        (segments, places): (&'a [Segment], &'a [SmallVec<[usize; 3]>]),
    ) -> Self {
        let columns = segments.iter().map(|segment| segment.count).sum();
        Patches {
            image,
            phases,
            order,
            channels,
            columns,
            segments,
            places,
            pieces: Vec::new(),
            rows: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn last(&self) -> &'a Phase {
        &self.phases[self.phases.len() - 1]
    }

    /// Whether rows of outputs are shorter than a vector and rows of taps are not, as where a convolution gives the
    /// gradient of a kernel.
    fn has_long_taps(&self) -> bool {
        self.last().outputs < LONGEST && self.last().taps >= LONGEST
    }

    /// Copies the rows `from..from + depth` into panels of two vectors, each filled up with zeros.
    ///
    /// # Safety
    /// The image's entries must lie where its strides say from `x` on, `to` must have the room; the processor the
    /// instructions of `S`.
    #[inline(always)]
    pub(super) unsafe fn pack<S: Simd>(
        &mut self,
        x: *const S::Number,
        from: usize,
        depth: usize,
        to: *mut S::Number,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            match self.order {
                Order::ChannelFirst if self.has_long_taps() => {
                    self.pack_taps::<S>(x, from, depth, to)
                }
                Order::ChannelFirst => self.pack_rows::<S>(x, from, depth, to),
                Order::ChannelLast => self.pack_channels::<S>(x, from, depth, to),
            }
        }
    }

    /// Along the outputs of a row.
    ///
    /// # Safety
    /// As for `pack`.
    #[inline(always)]
    unsafe fn pack_rows<S: Simd>(
        &mut self,
        x: *const S::Number,
        from: usize,
        depth: usize,
        to: *mut S::Number,
    ) {
        let last = self.last();
        let outer: usize = self.taps() / last.taps;
        let step = last.by_output * self.image.strides[self.phases.len() - 1];
        let vectors = self.columns.div_ceil(S::LANES);
        self.pieces
            .resize_with(last.taps.min(SLOTS), Pieces::default);
        self.rows.resize_with(outer.min(SLOTS), Rows::default);
        for i in 0..depth {
            let row = from + i;
            let (channel, outer_tap, tap) = (
                row / (outer * last.taps),
                row / last.taps % outer,
                row % last.taps,
            );
            self.find_pieces::<S>(tap);
            self.find_rows(outer_tap);
            let rows = self.rows[outer_tap % SLOTS].offsets.as_slice();
            let Pieces { pieces, begins, .. } = &self.pieces[tap % SLOTS];
            let x = x.wrapping_offset(channel as isize * self.image.channel);
            let mut begin = 0;
            let ends = &begins[1..=vectors];
            for (vector, &end) in ends.iter().enumerate() {
                // SAFETY: the caller's promises. A piece has only columns that see an entry where its row has any; there
                // are as many rows as segments, and the pieces end where the last vector's do.
                unsafe {
                    let mut value = S::splat(S::Number::ZERO);
                    for piece in pieces.get_unchecked(begin..end as usize) {
                        let row = *rows.get_unchecked(piece.segment as usize);
                        if row == NOWHERE {
                            continue;
                        }
                        let x = x.wrapping_offset(row.wrapping_add(piece.offset));
                        let (first, end) = (piece.first as usize, piece.end as usize);
                        value = if step != 1 {
                            S::load_apart(value, x, step, first, end)
                        } else if end - first == S::LANES {
                            S::load(x)
                        } else {
                            S::load_lanes(value, x, first, end)
                        };
                    }
                    S::store(value, place::<S>(to, vector, vectors, depth, i));
                }
                begin = end as usize;
            }
        }
    }

    /// Along the taps of a row.
    ///
    /// # Safety
    /// As for `pack`.
    #[inline(always)]
    unsafe fn pack_taps<S: Simd>(
        &mut self,
        x: *const S::Number,
        from: usize,
        depth: usize,
        to: *mut S::Number,
    ) {
        let last = self.last();
        let axis = self.phases.len() - 1;
        let (size, stride) = (self.image.sizes[axis] as isize, self.image.strides[axis]);
        let outer: usize = self.taps() / last.taps;
        let vectors = self.columns.div_ceil(S::LANES);
        let step = last.by_tap * stride;
        self.rows.resize_with(1, Rows::default);
        let mut i = 0;
        while i < depth {
            let row = from + i;
            let (channel, tap) = (row / (outer * last.taps), row % last.taps);
            let run = (last.taps - tap).min(depth - i);
            self.find_entries(row / last.taps % outer * last.taps);
            let x = x.wrapping_offset(channel as isize * self.image.channel);
            for done in (0..run).step_by(S::LANES) {
                let count = S::LANES.min(run - done);
                let beyond = (tap + done) as isize * last.by_tap;
                for (vector, columns) in self
                    .entries
                    .chunks_exact(S::LANES)
                    .take(vectors)
                    .enumerate()
                {
                    // SAFETY: the caller's promises; taps that see no entry are left out.
                    unsafe {
                        let load = |column: usize| {
                            let Entry { row, at } = columns[column];
                            let at = at + beyond;
                            let x = x.wrapping_offset(row.wrapping_add(at * stride));
                            let zeros = S::splat(S::Number::ZERO);
                            let is_inside =
                                at >= 0 && at + (count as isize - 1) * last.by_tap < size;
                            let (first, end) = if is_inside {
                                (0, count)
                            } else {
                                let low = div_ceil(-at, last.by_tap).clamp(0, count as isize);
                                let high =
                                    div_ceil(size - at, last.by_tap).clamp(low, count as isize);
                                (low as usize, high as usize)
                            };
                            if row == NOWHERE || first == end {
                                zeros
                            } else if step != 1 {
                                S::load_apart(zeros, x, step, first, end)
                            } else if end - first == S::LANES {
                                S::load(x)
                            } else {
                                S::load_lanes(zeros, x, first, end)
                            }
                        };
                        let to = |row| place::<S>(to, vector, vectors, depth, i + done + row);
                        turned::<S>(load, count, to);
                    }
                }
            }
            i += run;
        }
    }

    /// Along the channels, which follow each other in memory.
    ///
    /// # Safety
    /// As for `pack`.
    #[inline(always)]
    unsafe fn pack_channels<S: Simd>(
        &mut self,
        x: *const S::Number,
        from: usize,
        depth: usize,
        to: *mut S::Number,
    ) {
        let axis = self.phases.len() - 1;
        let (size, stride) = (self.image.sizes[axis] as isize, self.image.strides[axis]);
        let vectors = self.columns.div_ceil(S::LANES);
        self.rows.resize_with(1, Rows::default);
        let mut i = 0;
        while i < depth {
            let (tap, channel) = ((from + i) / self.channels, (from + i) % self.channels);
            let run = (self.channels - channel).min(depth - i);
            self.find_entries(tap);
            for done in (0..run).step_by(S::LANES) {
                let count = S::LANES.min(run - done);
                let x = x.wrapping_add(channel + done);
                for (vector, columns) in self
                    .entries
                    .chunks_exact(S::LANES)
                    .take(vectors)
                    .enumerate()
                {
                    // SAFETY: the caller's promises.
                    unsafe {
                        let load = |column: usize| {
                            let Entry { row, at } = columns[column];
                            let x = x.wrapping_offset(row.wrapping_add(at * stride));
                            if row == NOWHERE || at < 0 || at >= size {
                                S::splat(S::Number::ZERO)
                            } else if count == S::LANES {
                                S::load(x)
                            } else {
                                S::load_first(x, count)
                            }
                        };
                        let to = |row| place::<S>(to, vector, vectors, depth, i + done + row);
                        turned::<S>(load, count, to);
                    }
                }
            }
            i += run;
        }
    }

    fn taps(&self) -> usize {
        self.phases.iter().map(|phase| phase.taps).product()
    }

    fn find_pieces<S: Simd>(&mut self, tap: usize) {
        let last = self.last();
        let size = self.image.sizes[self.phases.len() - 1] as isize;
        let stride = self.image.strides[self.phases.len() - 1];
        let slot = &mut self.pieces[tap % SLOTS];
        if slot.tap == Some(tap) {
            return;
        }
        slot.tap = Some(tap);
        slot.pieces.clear();
        slot.begins.clear();
        let at = last.at + tap as isize * last.by_tap;
        // The outputs from `low` to below `high` see entries.
        let low = div_ceil(-at, last.by_output).max(0) as usize;
        let high = div_ceil(size - at, last.by_output).max(0) as usize;
        for (i, segment) in self.segments.iter().enumerate() {
            let first = low.max(segment.output);
            let end = high.min(segment.output + segment.count);
            if first >= end {
                continue;
            }
            let column = |output: usize| segment.column + output - segment.output;
            let (first, end) = (column(first), column(end));
            for vector in first / S::LANES..=(end - 1) / S::LANES {
                while slot.begins.len() <= vector {
                    slot.begins.push(slot.pieces.len() as u32);
                }
                let lanes = vector * S::LANES;
                let output = segment.output as isize + lanes as isize - segment.column as isize;
                slot.pieces.push(Piece {
                    segment: i as u32,
                    first: first.saturating_sub(lanes) as u8,
                    end: (end - lanes).min(S::LANES) as u8,
                    offset: (at + output * last.by_output) * stride,
                });
            }
        }
        let vectors = self.columns.div_ceil(S::LANES);
        slot.begins.resize(vectors + 1, slot.pieces.len() as u32);
    }

    fn find_rows(&mut self, tap: usize) {
        let count = self.rows.len();
        let slot = &mut self.rows[tap % count];
        if slot.tap == Some(tap) {
            return;
        }
        slot.tap = Some(tap);
        slot.offsets.clear();
        for (segment, places) in self.segments.iter().zip(self.places) {
            let mut offset = segment.batch as isize * self.image.batch;
            let mut left = tap;
            for axis in (0..places.len()).rev() {
                let phase = &self.phases[axis];
                let at = phase.at
                    + places[axis] as isize * phase.by_output
                    + (left % phase.taps) as isize * phase.by_tap;
                left /= phase.taps;
                if at < 0 || at >= self.image.sizes[axis] as isize {
                    offset = NOWHERE;
                    break;
                }
                offset += at * self.image.strides[axis];
            }
            slot.offsets.push(offset);
        }
    }

    fn find_entries(&mut self, tap: usize) {
        let last = self.last();
        self.find_rows(tap / last.taps);
        let nowhere = Entry {
            row: NOWHERE,
            at: 0,
        };
        self.entries.clear();
        self.entries
            .resize(self.columns.next_multiple_of(LONGEST), nowhere);
        let at = last.at + (tap % last.taps) as isize * last.by_tap;
        for (segment, &row) in self.segments.iter().zip(&self.rows[0].offsets) {
            let columns = &mut self.entries[segment.column..segment.column + segment.count];
            for (i, column) in columns.iter_mut().enumerate() {
                let at = at + (segment.output + i) as isize * last.by_output;
                *column = Entry { row, at };
            }
        }
    }
}

/// Where a row of a vector of columns is, in panels of two vectors.
#[inline(always)]
fn place<S: Simd>(
    to: *mut S::Number,
    vector: usize,
    vectors: usize,
    depth: usize,
    row: usize,
) -> *mut S::Number {
    let panel = vector - vector % 2;
    let width = (vectors - panel).min(2);
    to.wrapping_add((panel * depth + row * width + vector % 2) * S::LANES)
}

/// Copies what `load` gives for each column as `count` rows.
///
/// # Safety
/// `to` gives the rows' places; the processor must have the instructions of `S`.
#[inline(always)]
unsafe fn turned<S: Simd>(
    load: impl Fn(usize) -> S::Vector,
    count: usize,
    to: impl Fn(usize) -> *mut S::Number,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut square = [S::splat(S::Number::ZERO); LONGEST];
        for (column, vector) in square[..S::LANES].iter_mut().enumerate() {
            *vector = load(column);
        }
        S::turn(&mut square);
        for (row, vector) in square[..count].iter().enumerate() {
            S::store(*vector, to(row));
        }
    }
}

/// The least whole number that is not below `a / b`, for a positive `b`.
fn div_ceil(a: isize, b: isize) -> isize {
    -(-a).div_euclid(b)
}
