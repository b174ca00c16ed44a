//! A part of a convolution: some outputs of some channels.

use smallvec::SmallVec;

use super::patches::{segments, Order, Patches, Segment};
use super::phase::Phase;
use super::{Conv, Number, SCRATCH};
use crate::dispatch::Level;
use crate::gemm::{
    pack, with_scratch, Element, Load, Matrix, Output, Simd, Strip, Vectors, DEPTH, LONGEST,
};
use crate::view::{merged, Axes, Axis};

pub(super) struct Block<'a, T> {
    pub conv: &'a Conv<'a, T>,
    pub group: usize,
    pub phases: &'a [Phase],
    /// The outputs, row-major over the batch and the phases, from `first` on.
    pub first: usize,
    pub columns: usize,
    /// The output channels from `row` on.
    pub row: usize,
    pub rows: usize,
}

impl<T: Number> Block<'_, T> {
    fn terms(&self) -> usize {
        let taps: usize = self.phases.iter().map(|phase| phase.taps).product();
        self.conv.channels * taps
    }

    /// How many numbers of memory a block needs: for a panel of the kernel, for the patches and for the sums.
    fn memory(&self) -> [usize; 3] {
        let width = self.columns.next_multiple_of(LONGEST);
        let depth = DEPTH.min(self.terms());
        [depth * LONGEST, depth * width, self.rows * width]
    }

    /// Computes the outputs.
    ///
    /// # Safety
    /// The convolution's places must be there, and nobody else may use the outputs.
    pub(super) unsafe fn compute(&self, level: Level) {
        with_scratch(
            &SCRATCH,
            self.memory().into_iter().sum(),
            |memory: *mut T| {
                // SAFETY: the caller's promises.
                unsafe {
                    T::on(
                        level,
                        InMemory {
                            block: self,
                            memory,
                        },
                    )
                }
            },
        );
    }
}

/// A block and the memory that it needs.
struct InMemory<'a, T> {
    block: &'a Block<'a, T>,
    memory: *mut T,
}

impl<T: Number> Vectors<T> for InMemory<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Load<T>>(self) {
        let Block { conv, phases, .. } = *self.block;
        let terms = self.block.terms();
        let width = self.block.columns.next_multiple_of(S::LANES);
        let (segments, places) = segments(phases, self.block.first, self.block.columns);
        let [left, right, _] = self.block.memory();
        // SAFETY: the caller's promises; the memory is cut into what holds the panels and the sums.
        unsafe {
            let (packed_a, packed_b) = (self.memory, self.memory.add(left));
            let sums = packed_b.add(right);
            if terms == 0 {
                std::slice::from_raw_parts_mut(sums, self.block.rows * width).fill(T::ZERO);
            } else {
                let x = conv
                    .x
                    .wrapping_offset(self.block.group as isize * conv.x_strides[0]);
                let along = (segments.as_slice(), places.as_slice());
                let mut patches =
                    Patches::new(conv.image(), phases, conv.order, conv.channels, along);
                let kernel = self.block.kernel();
                for term in (0..terms).step_by(DEPTH) {
                    let depth = DEPTH.min(terms - term);
                    patches.pack::<S>(x, term, depth, packed_b);
                    let terms = (term, depth);
                    self.block
                        .multiply::<S>(&kernel, terms, packed_a, packed_b, (sums, width));
                }
            }
            self.block.write::<S>(&segments, &places, sums, width);
        }
    }
}

/// The kernel of a block: its first element, and the axes of its terms.
struct Kernel<T> {
    data: *const T,
    row: isize,
    terms: Axes,
}

impl<T: Number> Block<'_, T> {
    fn kernel(&self) -> Kernel<T> {
        let Conv {
            w,
            w_strides,
            channels,
            ..
        } = *self.conv;
        let mut data = w
            .wrapping_offset(self.group as isize * w_strides[0])
            .wrapping_offset(self.row as isize * w_strides[1]);
        let channels = Axis {
            size: channels,
            stride: w_strides[2],
        };
        let mut terms = Axes::new();
        for (phase, stride) in self.phases.iter().zip(&w_strides[3..]) {
            data = data.wrapping_offset(phase.first_tap as isize * stride);
            terms.push(Axis {
                size: phase.taps,
                stride: phase.tap_step as isize * stride,
            });
        }
        match self.conv.order {
            Order::ChannelFirst => terms.insert(0, channels),
            Order::ChannelLast => terms.push(channels),
        }
        Kernel {
            data,
            row: w_strides[1],
            terms: merged(&terms),
        }
    }

    /// Adds the products of some terms to the sums.
    ///
    /// # Safety
    /// The kernel must have the terms, `packed_b` the patches' rows of them, `packed_a` room for a panel and `sums` a row
    /// of the width for each of ours; the processor the instructions of `S`.
    #[inline(always)]
    unsafe fn multiply<S: Load<T>>(
        &self,
        kernel: &Kernel<T>,
        (term, depth): (usize, usize),
        packed_a: *mut T,
        packed_b: *mut T,
        (sums, width): (*mut T, usize),
    ) {
        let panel = S::ROWS.next_multiple_of(S::LANES);
        let panels = self.rows.div_ceil(S::ROWS);
        for i in 0..panels {
            let row = i * self.rows / panels;
            let rows = (i + 1) * self.rows / panels - row;
            // SAFETY: the caller's promises.
            unsafe {
                kernel.pack::<S>(row, rows, (term, depth), packed_a, panel);
                let strip = Strip {
                    rows,
                    depth,
                    columns: self.columns,
                    alpha: S::Number::ONE,
                    a: Matrix {
                        data: packed_a.cast_const(),
                        row: 1,
                        column: panel as isize,
                    },
                    // The right side is packed already.
                    b: Matrix {
                        data: packed_b.cast_const(),
                        row: 0,
                        column: 0,
                    },
                    beta: if term == 0 {
                        S::Number::ZERO
                    } else {
                        S::Number::ONE
                    },
                    c: Output {
                        data: sums.add(row * width),
                        row: width as isize,
                        column: 1,
                    },
                };
                strip.multiply::<S>(packed_b, false, false);
            }
        }
    }

    /// Copies the sums to where the outputs are.
    ///
    /// # Safety
    /// `sums` must have a row of the width for each of ours, and nobody else may use the outputs.
    #[inline(always)]
    unsafe fn write<S: Load<T>>(
        &self,
        segments: &[Segment],
        places: &[SmallVec<[usize; 3]>],
        sums: *const T,
        width: usize,
    ) {
        let strides = self.conv.out_strides;
        let last = self.phases.len() - 1;
        let step = self.phases[last].output_step as isize * strides[3 + last];
        for (segment, place) in segments.iter().zip(places) {
            let at = |axis: usize, place: usize| {
                let phase = &self.phases[axis];
                (phase.first_output + place * phase.output_step) as isize * strides[3 + axis]
            };
            let mut offset = self.group as isize * strides[0]
                + segment.batch as isize * strides[1]
                + self.row as isize * strides[2]
                + at(last, segment.output);
            for (axis, &place) in place.iter().enumerate() {
                offset += at(axis, place);
            }
            // SAFETY: the caller's promises.
            unsafe {
                let from = sums.add(segment.column);
                let to = self.conv.out.offset(offset);
                if strides[2] == 1 && self.rows >= S::LANES {
                    turned::<S>(from, width, (self.rows, segment.count), to, step);
                } else {
                    for row in 0..self.rows {
                        let (from, to) =
                            (from.add(row * width), to.offset(row as isize * strides[2]));
                        copy::<S>(from, to, segment.count, step);
                    }
                }
            }
        }
    }
}

/// Copies numbers to places `step` apart.
///
/// # Safety
/// They must be there, and the processor must have the instructions of `S`.
#[inline(always)]
unsafe fn copy<S: Simd>(from: *const S::Number, to: *mut S::Number, count: usize, step: isize) {
    // SAFETY: the caller's promises.
    unsafe {
        if step == 1 {
            let vectors = count - count % S::LANES;
            for i in (0..vectors).step_by(S::LANES) {
                S::store(S::load(from.add(i)), to.add(i));
            }
            let rest = S::load_first(from.add(vectors), count - vectors);
            S::store_first(rest, to.add(vectors), count - vectors);
        } else {
            for i in 0..count {
                *to.offset(i as isize * step) = *from.add(i);
            }
        }
    }
}

/// Copies rows `width` apart as columns, which are `step` apart.
///
/// # Safety
/// They must be there, and the processor must have the instructions of `S`.
#[inline(always)]
unsafe fn turned<S: Simd>(
    from: *const S::Number,
    width: usize,
    (rows, columns): (usize, usize),
    to: *mut S::Number,
    step: isize,
) {
    for column in (0..columns).step_by(S::LANES) {
        let columns = S::LANES.min(columns - column);
        for row in (0..rows).step_by(S::LANES) {
            let rows = S::LANES.min(rows - row);
            // SAFETY: the caller's promises.
            unsafe {
                let mut square = [S::splat(S::Number::ZERO); LONGEST];
                for (i, vector) in square[..rows].iter_mut().enumerate() {
                    let from = from.add((row + i) * width + column);
                    *vector = if columns == S::LANES {
                        S::load(from)
                    } else {
                        S::load_first(from, columns)
                    };
                }
                S::turn(&mut square);
                for (i, vector) in square[..columns].iter().enumerate() {
                    let to = to.offset((column + i) as isize * step).add(row);
                    if rows == S::LANES {
                        S::store(*vector, to);
                    } else {
                        S::store_first(*vector, to, rows);
                    }
                }
            }
        }
    }
}

impl<T: Number> Kernel<T> {
    /// Copies some terms of some rows, those of a term after each other.
    ///
    /// # Safety
    /// The kernel must have the rows and terms, and `to` room for `width` numbers a term; the processor the
    /// instructions of `S`.
    #[inline(always)]
    unsafe fn pack<S: Load<T>>(
        &self,
        row: usize,
        rows: usize,
        (term, depth): (usize, usize),
        to: *mut T,
        width: usize,
    ) {
        let last = self.terms[self.terms.len() - 1];
        let mut done = 0;
        while done < depth {
            let at = term + done;
            let run = (last.size - at % last.size).min(depth - done);
            let mut offset = row as isize * self.row;
            let mut left = at;
            for axis in self.terms.iter().rev() {
                offset += (left % axis.size) as isize * axis.stride;
                left /= axis.size;
            }
            let from = Matrix {
                data: self.data.wrapping_offset(offset),
                row: last.stride,
                column: self.row,
            };
            // SAFETY: the caller's promises.
            unsafe { pack::<S, T>(to.add(done * width), from, run, rows, width) };
            done += run;
        }
    }
}
