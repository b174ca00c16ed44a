//! Arrays as they lie in memory.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use smallvec::SmallVec;

use crate::pool::{self, PART};

mod sealed {
    pub trait Sealed {}
}

/// The numbers that arrays hold. Every pattern of their bits is a number, and they have no padding.
pub trait Element: sealed::Sealed + Copy + Default + PartialOrd + Send + Sync + 'static {}

macro_rules! elements {
    ($($type:ty),*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Element for $type {}
        )*
    };
}

elements!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, f16, bf16);

/// Bytes as elements. They must be aligned and whole.
#[inline(always)]
pub fn typed<T: Element>(bytes: &[u8]) -> &[T] {
    // SAFETY: every pattern of bits is an element.
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    assert!(
        before.is_empty() && after.is_empty(),
        "bytes are no whole elements"
    );
    elements
}

/// Elements as bytes.
pub(crate) fn bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements are bytes without gaps.
    unsafe { elements.align_to().1 }
}

/// Elements as bytes, to be written to.
pub fn bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    // SAFETY: elements are bytes without gaps, and every pattern of bits is an element.
    unsafe { elements.align_to_mut().1 }
}

/// As `typed`, to be written to.
#[inline(always)]
pub fn typed_mut<T: Element>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: every pattern of bits is an element, and every element is bytes.
    let (before, elements, after) = unsafe { bytes.align_to_mut::<T>() };
    assert!(
        before.is_empty() && after.is_empty(),
        "bytes are no whole elements"
    );
    elements
}

/// The size of an axis and the distance of its elements, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub size: usize,
    pub stride: isize,
}

pub type Axes = SmallVec<[Axis; 6]>;

/// An array of elements of some width, with any strides.
#[derive(Clone, Debug)]
pub struct View<'a> {
    memory: &'a [u8],
    /// Where the first element begins.
    first: usize,
    width: usize,
    axes: Axes,
}

impl<'a> View<'a> {
    /// An array whose first element begins `first` bytes into the memory. All its elements must lie there.
    pub fn new(memory: &'a [u8], first: usize, width: usize, axes: Axes) -> Self {
        let (before, after) = reach(&axes);
        let inside = |elements: usize| elements.checked_mul(width);
        let fits = inside(before).is_some_and(|before| before <= first)
            && inside(after + 1)
                .and_then(|after| after.checked_add(first))
                .is_some_and(|end| end <= memory.len());
        assert!(
            fits || axes.iter().any(|axis| axis.size == 0),
            "elements lie outside of the memory"
        );
        View {
            memory,
            first,
            width,
            axes,
        }
    }

    /// Elements in a row, of which each is `width` bytes wide.
    pub fn row(memory: &'a [u8], width: usize) -> Self {
        let size = memory.len() / width;
        View {
            memory,
            first: 0,
            width,
            axes: Axes::from_slice(&[Axis { size, stride: 1 }]),
        }
    }

    /// Elements in a row, as those of an array of a shape in row-major order.
    pub fn in_rows(memory: &'a [u8], width: usize, sizes: &[usize]) -> Self {
        let mut stride = 1;
        let axis = |&size: &usize| {
            let axis = Axis { size, stride };
            stride *= size as isize;
            axis
        };
        let mut axes: Axes = sizes.iter().rev().map(axis).collect();
        axes.reverse();
        View::new(memory, 0, width, axes)
    }

    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// What lies in the same memory by other axes, from the same first element on.
    pub fn with_axes(&self, axes: Axes) -> View<'a> {
        View::new(self.memory, self.first, self.width, axes)
    }

    /// A part of an axis.
    pub fn narrow(&self, axis: usize, part: Range<usize>) -> View<'a> {
        let mut axes = self.axes.clone();
        assert!(part.start <= part.end && part.end <= axes[axis].size);
        axes[axis].size = part.len();
        let step = part.start as isize * axes[axis].stride * self.width as isize;
        let first = self.first.wrapping_add_signed(step);
        View::new(self.memory, first, self.width, axes)
    }

    /// The same elements, those along some axes from the last on.
    pub fn flipped(&self, along: Range<usize>) -> View<'a> {
        let (mut first, mut axes) = (self.first, self.axes.clone());
        for axis in axes[along].iter_mut().filter(|axis| axis.size > 0) {
            let last = (axis.size - 1) as isize * axis.stride * self.width as isize;
            first = first.wrapping_add_signed(last);
            axis.stride = -axis.stride;
        }
        View::new(self.memory, first, self.width, axes)
    }

    /// How many elements there are.
    pub fn size(&self) -> usize {
        self.axes.iter().map(|axis| axis.size).product()
    }

    /// Whether one element stands for all.
    pub fn is_scalar(&self) -> bool {
        self.axes
            .iter()
            .all(|axis| axis.size == 1 || axis.stride == 0)
    }

    /// The bytes of elements that follow each other in row-major order and are aligned, if they do and are.
    pub fn as_row(&self) -> Option<&'a [u8]> {
        if !(self.memory.as_ptr() as usize + self.first).is_multiple_of(self.width) {
            return None;
        }
        let mut step = 1;
        for axis in self.axes.iter().rev().filter(|axis| axis.size != 1) {
            if axis.stride != step {
                return None;
            }
            step *= axis.size as isize;
        }
        self.memory
            .get(self.first..self.first + self.size() * self.width)
    }

    /// The elements at one place of an axis, before which all sizes are 1.
    pub(crate) fn within(&self, axis: usize, at: usize) -> View<'a> {
        let Axis { size, stride } = self.axes[axis];
        assert!(at < size, "the axis has no such place");
        let step = at as isize * stride * self.width as isize;
        View {
            first: self.first.wrapping_add_signed(step),
            axes: self.axes[axis + 1..].into(),
            ..*self
        }
    }

    /// The elements as they are broadcast to a shape, which they must fit.
    pub fn broadcast(&self, sizes: &[usize]) -> View<'a> {
        let new = sizes.len() - self.axes.len();
        let axes = sizes.iter().enumerate().map(|(at, &size)| {
            let own = at.checked_sub(new).map(|at| self.axes[at]);
            match own.filter(|axis| axis.size != 1) {
                Some(axis) => {
                    assert_eq!(axis.size, size, "an axis does not fit");
                    axis
                }
                None => Axis { size, stride: 0 },
            }
        });
        View {
            axes: axes.collect(),
            ..self.clone()
        }
    }

    /// The first element, so many times.
    pub(crate) fn repeated(&self, count: usize) -> View<'a> {
        let axis = Axis {
            size: count,
            stride: 0,
        };
        View {
            axes: Axes::from_slice(&[axis]),
            ..self.clone()
        }
    }

    /// The same elements with one axis behind all others.
    pub(crate) fn with_last(&self, axis: usize) -> View<'a> {
        let mut view = self.clone();
        let last = view.axes.remove(axis);
        view.axes.push(last);
        view
    }

    /// The elements in row-major order, gathered where they do not lie so, in memory that nobody counts: large arrays
    /// come in row-major order.
    pub fn to_row(&self) -> Row<'a> {
        match self.as_row() {
            Some(row) => Row::Borrowed(row),
            None => {
                let count = self.size() * self.width;
                let mut words = zeros(count.div_ceil(8));
                let part = PART * self.width;
                pool::each_part(&mut bytes_mut(&mut words)[..count], part, |at, row| {
                    let mut walk = Walk::new(self);
                    walk.skip(at * PART);
                    walk.copy(row);
                });
                Row::Gathered(words, count)
            }
        }
    }

    /// The elements of type `T`, which has the array's width.
    pub fn elements<T: Element>(&self) -> Elements<'a, T> {
        assert_eq!(size_of::<T>(), self.width);
        let before = self.first % self.width;
        let whole = self.memory.len() - (self.memory.len() - before) % self.width;
        let bytes = &self.memory[before..whole];
        // SAFETY: every pattern of bits is an element.
        let memory = match unsafe { bytes.align_to::<T>() } {
            ([], elements, []) => Cow::Borrowed(elements),
            // Memory that is not aligned is copied to where it is.
            _ => {
                let mut copy = zeros(bytes.len() / self.width);
                bytes_mut(&mut copy).copy_from_slice(bytes);
                Cow::Owned(copy)
            }
        };
        let first = ((self.first - before) / self.width) as isize;
        Elements { memory, first }
    }

    /// The bytes of the first element.
    pub fn first(&self) -> &'a [u8] {
        &self.memory[self.first..self.first + self.width]
    }
}

/// So many zeros. Where there is no memory it panics, which the caller's caller can catch.
pub(crate) fn zeros<T: Copy + Default>(count: usize) -> Vec<T> {
    let mut zeros = Vec::new();
    if let Err(error) = zeros.try_reserve_exact(count) {
        panic!("no memory for a copy of {count} elements: {error}");
    }
    zeros.resize(count, T::default());
    zeros
}

/// Elements in row-major order.
pub enum Row<'a> {
    Borrowed(&'a [u8]),
    /// Words of which so many bytes are elements.
    Gathered(Vec<u64>, usize),
}

impl Row<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Row::Borrowed(bytes) => bytes,
            Row::Gathered(words, count) => &bytes(words)[..*count],
        }
    }
}

/// An array's elements by their distance from the first.
pub struct Elements<'a, T: Element> {
    memory: Cow<'a, [T]>,
    first: isize,
}

impl<T: Element> Elements<'_, T> {
    /// Where the first element is, for who promises to stay among the array's.
    pub(crate) fn first(&self) -> *const T {
        self.memory.as_ptr().wrapping_offset(self.first)
    }

    /// The element at a distance from the first, which must lie in the array's memory.
    #[inline(always)]
    pub fn at(&self, distance: isize) -> T {
        self.memory[(self.first + distance) as usize]
    }

    /// All the memory, and where in it the first element is.
    pub(crate) fn memory(&self) -> (&[T], isize) {
        (&self.memory, self.first)
    }

    /// As many elements that follow each other.
    #[inline(always)]
    pub fn row(&self, distance: isize, count: usize) -> &[T] {
        let first = (self.first + distance) as usize;
        &self.memory[first..first + count]
    }
}

/// How many elements the array reaches before and after its first.
fn reach(axes: &[Axis]) -> (usize, usize) {
    let (mut before, mut after) = (0usize, 0usize);
    for axis in axes {
        let far = axis
            .size
            .saturating_sub(1)
            .saturating_mul(axis.stride.unsigned_abs());
        let side = if axis.stride < 0 {
            &mut before
        } else {
            &mut after
        };
        *side = side.saturating_add(far).min(usize::MAX / 16);
    }
    (before, after)
}

/// How many bytes the elements reach before and after the beginning of the first.
pub fn extent(axes: &[Axis], width: usize) -> (usize, usize) {
    let (before, after) = reach(axes);
    (before * width, (after + 1) * width)
}

/// Goes through an array in row-major order and copies its elements into rows.
pub struct Walk<'a> {
    view: View<'a>,
    at: SmallVec<[usize; 6]>,
    /// The place of the next element in bytes.
    place: isize,
}

impl<'a> Walk<'a> {
    pub fn new(view: &View<'a>) -> Self {
        let mut view = view.clone();
        view.axes = merged(&view.axes);
        let at = SmallVec::from_elem(0, view.axes.len());
        let place = view.first as isize;
        Walk { view, at, place }
    }

    /// Passes over so many elements; fewer than are left.
    pub fn skip(&mut self, mut count: usize) {
        if count == 0 {
            return;
        }
        for (at, axis) in self.at.iter_mut().zip(&self.view.axes).rev() {
            count += *at;
            let to = count % axis.size;
            let step = to as isize - *at as isize;
            self.place += step * axis.stride * self.view.width as isize;
            (*at, count) = (to, count / axis.size);
        }
    }

    /// Copies the elements that come next, as many as fit; no more than are left.
    pub fn copy(&mut self, to: &mut [u8]) {
        match self.view.width {
            1 => self.copy_as::<u8>(to),
            2 => self.copy_as::<u16>(to),
            4 => self.copy_as::<u32>(to),
            8 => self.copy_as::<u64>(to),
            width => panic!("no element is {width} bytes wide"),
        }
    }

    fn copy_as<T: Element>(&mut self, to: &mut [u8]) {
        let mut out = typed_mut::<T>(to);
        let last = self.view.axes.len() - 1;
        let axis = self.view.axes[last];
        while !out.is_empty() {
            let run = out.len().min(axis.size - self.at[last]);
            assert!(run > 0, "no elements are left");
            let (row, rest) = out.split_at_mut(run);
            // SAFETY: `View::new` made sure that all elements lie in the memory, and `place` is that of one of them
            // with at least `run - 1` behind it along the last axis. Elements need not be aligned there.
            unsafe {
                let from = self.view.memory.as_ptr().offset(self.place).cast::<T>();
                if axis.stride == 0 {
                    row.fill(from.read_unaligned());
                } else if axis.stride == 1 {
                    let bytes = run * self.view.width;
                    std::ptr::copy_nonoverlapping(
                        from.cast::<u8>(),
                        row.as_mut_ptr().cast(),
                        bytes,
                    );
                } else {
                    gather(row, from, axis.stride);
                }
            }
            out = rest;
            self.advance(run);
        }
    }

    fn advance(&mut self, by: usize) {
        let width = self.view.width as isize;
        let mut axis = self.view.axes.len() - 1;
        self.at[axis] += by;
        self.place += by as isize * self.view.axes[axis].stride * width;
        while axis > 0 && self.at[axis] == self.view.axes[axis].size {
            let Axis { size, stride } = self.view.axes[axis];
            self.place -= size as isize * stride * width;
            self.at[axis] = 0;
            axis -= 1;
            self.at[axis] += 1;
            self.place += self.view.axes[axis].stride * width;
        }
    }
}

/// Every so many elements from a place on. For the steps that views mostly have the compiler makes vectors.
///
/// # Safety
/// They lie there.
#[inline(always)]
unsafe fn gather<T: Element>(row: &mut [T], from: *const T, step: isize) {
    #[inline(always)]
    unsafe fn each<T: Element>(row: &mut [T], from: *const T, place: impl Fn(isize) -> isize) {
        for (i, to) in row.iter_mut().enumerate() {
            // SAFETY: so says the caller.
            *to = unsafe { from.offset(place(i as isize)).read_unaligned() };
        }
    }
    // SAFETY: as above.
    unsafe {
        match step {
            -1 => each(row, from, |i| -i),
            2 => each(row, from, |i| 2 * i),
            3 => each(row, from, |i| 3 * i),
            4 => each(row, from, |i| 4 * i),
            step => each(row, from, |i| i * step),
        }
    }
}

/// The same elements with fewer axes: those of one element go, those that lie as one become one.
pub(crate) fn merged(axes: &[Axis]) -> Axes {
    let mut merged = Axes::new();
    for &axis in axes.iter().filter(|axis| axis.size != 1) {
        match merged.last_mut() {
            Some(outer) if outer.stride == axis.stride * axis.size as isize => {
                *outer = Axis {
                    size: outer.size * axis.size,
                    stride: axis.stride,
                };
            }
            _ => merged.push(axis),
        }
    }
    if merged.is_empty() {
        merged.push(Axis { size: 1, stride: 1 });
    }
    merged
}
