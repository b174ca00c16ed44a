//! Convolutions whose groups have one output each and follow each other in memory, as those by depth have with the
//! channels last: a product of vectors of groups for each output and term.

use smallvec::SmallVec;

use super::phase::Phase;
use super::{Conv, Number, SCRATCH};
use crate::dispatch::Level;
use crate::gemm::{with_scratch, Load, Simd, Vectors, DEPTH};

/// So many groups are computed together.
pub(super) const GROUPS: usize = 64;
/// So many vectors of them are added up in registers.
const VECTORS: usize = 4;

/// A part of a convolution: some outputs of some groups.
pub(super) struct Strand<'a, T> {
    pub conv: &'a Conv<'a, T>,
    pub phases: &'a [Phase],
    /// At most `GROUPS`, from `group` on.
    pub group: usize,
    pub groups: usize,
    /// The outputs, row-major over the batch and the phases, from `first` on.
    pub first: usize,
    pub columns: usize,
}

impl<T: Number> Strand<'_, T> {
    /// Computes the outputs.
    ///
    /// # Safety
    /// The convolution's places must be there, and nobody else may use the outputs.
    pub(super) unsafe fn compute(&self, level: Level) {
        with_scratch(&SCRATCH, DEPTH * GROUPS, |kernel: *mut T| {
            // SAFETY: the caller's promises.
            unsafe {
                T::on(
                    level,
                    InMemory {
                        strand: self,
                        kernel,
                    },
                )
            }
        });
    }
}

/// A strand and memory for what it reads of the kernel.
struct InMemory<'a, T> {
    strand: &'a Strand<'a, T>,
    kernel: *mut T,
}

impl<T: Number> Vectors<T> for InMemory<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Load<T>>(self) {
        let Strand { group, groups, .. } = *self.strand;
        let mut done = 0;
        while done < groups {
            let left = groups - done;
            // SAFETY: the caller's promises.
            unsafe {
                if left >= VECTORS * S::LANES {
                    self.strand
                        .add_up::<S, VECTORS>(group + done, S::LANES, self.kernel);
                    done += VECTORS * S::LANES;
                } else {
                    let count = left.min(S::LANES);
                    self.strand.add_up::<S, 1>(group + done, count, self.kernel);
                    done += count;
                }
            }
        }
    }
}

/// A term: the kernel's and the image's distance from their first, and its tap on each axis.
struct Term {
    w: isize,
    x: isize,
    taps: SmallVec<[isize; 3]>,
}

impl<T: Number> Strand<'_, T> {
    /// Computes the outputs of some vectors of groups, of which the last has `count` numbers.
    ///
    /// # Safety
    /// As for `compute`; `kernel` must have room for the terms' vectors, and the processor the instructions of `S`.
    #[inline(always)]
    unsafe fn add_up<S: Load<T>, const V: usize>(
        &self,
        group: usize,
        count: usize,
        kernel: *mut T,
    ) {
        let Conv {
            x,
            x_strides,
            w,
            w_strides,
            out,
            out_strides,
            ..
        } = *self.conv;
        let (x, out) = (x.wrapping_add(group), out.wrapping_add(group));
        let w = w.wrapping_offset(group as isize * w_strides[0]);
        let taps: usize = self.phases.iter().map(|phase| phase.taps).product();
        let terms = self.conv.channels * taps;
        for from in (0..terms.max(1)).step_by(DEPTH) {
            let terms: Vec<Term> = (from..terms.min(from + DEPTH))
                .map(|term| self.term(term))
                .collect();
            for (i, term) in terms.iter().enumerate() {
                for v in 0..V {
                    let lanes = v * S::LANES;
                    let w = w.wrapping_offset(term.w + lanes as isize * w_strides[0]);
                    // SAFETY: the caller's promises.
                    unsafe {
                        let zeros = S::splat(T::ZERO);
                        let value = S::load_apart(zeros, w, w_strides[0], 0, count);
                        S::store(value, kernel.add((i * V + v) * S::LANES));
                    }
                }
            }
            for column in self.first..self.first + self.columns {
                let (mut offset, mut to) = (0, 0);
                let mut at = column;
                let mut entries: SmallVec<[isize; 3]> = SmallVec::from_elem(0, self.phases.len());
                let mut is_inside = true;
                for (axis, phase) in self.phases.iter().enumerate().rev() {
                    let output = at % phase.outputs;
                    at /= phase.outputs;
                    let entry = phase.at + output as isize * phase.by_output;
                    let last = entry + (phase.taps as isize - 1) * phase.by_tap;
                    is_inside &= entry >= 0 && last < self.conv.entries[axis] as isize;
                    entries[axis] = entry;
                    offset += entry * x_strides[3 + axis];
                    to += (phase.first_output + output * phase.output_step) as isize
                        * out_strides[3 + axis];
                }
                let x = x.wrapping_offset(offset + at as isize * x_strides[1]);
                let out = out.wrapping_offset(to + at as isize * out_strides[1]);
                // SAFETY: the caller's promises; where not all taps see an entry, only those that do are read.
                unsafe {
                    let mut sums = [S::splat(T::ZERO); V];
                    for (i, term) in terms.iter().enumerate() {
                        let is_there = is_inside || self.sees(term, &entries);
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let w = S::load(kernel.add((i * V + v) * S::LANES));
                            let value = if is_there {
                                load::<S>(
                                    x.wrapping_offset(term.x).wrapping_add(v * S::LANES),
                                    count,
                                )
                            } else {
                                S::splat(T::ZERO)
                            };
                            *sum = S::multiply_add(value, w, *sum);
                        }
                    }
                    for (v, sum) in sums.iter().enumerate() {
                        let out = out.wrapping_add(v * S::LANES);
                        let sum = if from == 0 {
                            *sum
                        } else {
                            S::multiply_add(S::splat(T::ONE), load::<S>(out, count), *sum)
                        };
                        if count == S::LANES {
                            S::store(sum, out);
                        } else {
                            S::store_first(sum, out, count);
                        }
                    }
                }
            }
        }
    }

    /// A term by its number: all taps of a channel follow each other.
    fn term(&self, number: usize) -> Term {
        let Conv {
            x_strides,
            w_strides,
            ..
        } = *self.conv;
        let mut left = number;
        let mut term = Term {
            w: 0,
            x: 0,
            taps: SmallVec::from_elem(0, self.phases.len()),
        };
        for (axis, phase) in self.phases.iter().enumerate().rev() {
            let tap = left % phase.taps;
            left /= phase.taps;
            term.taps[axis] = tap as isize;
            term.x += tap as isize * phase.by_tap * x_strides[3 + axis];
            term.w += (phase.first_tap + tap * phase.tap_step) as isize * w_strides[3 + axis];
        }
        term.x += left as isize * x_strides[2];
        term.w += left as isize * w_strides[2];
        term
    }

    /// Whether there is an entry where a term would be, by the entries of the first taps.
    fn sees(&self, term: &Term, entries: &[isize]) -> bool {
        let axes = self
            .phases
            .iter()
            .zip(&term.taps)
            .zip(entries.iter().zip(self.conv.entries));
        axes.into_iter().all(|((phase, tap), (entry, size))| {
            (0..*size as isize).contains(&(entry + tap * phase.by_tap))
        })
    }
}

/// A vector, or the first numbers of one.
///
/// # Safety
/// They must be there, and the processor must have the instructions of `S`.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const S::Number, count: usize) -> S::Vector {
    // SAFETY: the caller's promises.
    unsafe {
        if count == S::LANES {
            S::load(from)
        } else {
            S::load_first(from, count)
        }
    }
}
