//! What kernels of several steps read, a block of elements at a time.

use crate::prefetch::prefetch_later;
use crate::view::{View, Walk};

/// How many elements are computed at a time.
pub(crate) const BLOCK: usize = 1024;

/// The widest element in bytes.
pub(crate) const WIDEST: usize = 8;

/// An input: an array, or what lies where the output goes.
pub enum Input<'a> {
    Array(View<'a>),
    InOutput,
}

/// A line of the cache, which vectors do not straddle.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Memory for a block of elements.
#[derive(Default)]
pub(crate) struct Block(Vec<Line>);

impl Block {
    pub(crate) fn new(elements: usize) -> Self {
        Block(vec![Line::default(); (elements * WIDEST).div_ceil(64)])
    }

    pub(crate) fn bytes(&self, count: usize) -> &[u8] {
        // SAFETY: lines are bytes without gaps.
        let (_, bytes, _) = unsafe { self.0.align_to() };
        &bytes[..count]
    }

    pub(crate) fn bytes_mut(&mut self, count: usize) -> &mut [u8] {
        // SAFETY: as above, and all bytes are lines.
        let (_, bytes, _) = unsafe { self.0.align_to_mut() };
        &mut bytes[..count]
    }
}

/// Where an input's elements come from.
pub(crate) enum Source<'a> {
    /// A row of all elements from the first of the part on, and how many bytes into it the strip is.
    Row {
        bytes: &'a [u8],
        width: usize,
        at: usize,
    },
    /// One element, a block of times.
    Scalar { block: Block, width: usize },
    /// Elements that are gathered, a strip of them at a time.
    Gathered {
        walk: Box<Walk<'a>>,
        block: Block,
        width: usize,
    },
    /// What is in the output's place: a block of it, which is copied before it is written over.
    Output { block: Block, width: usize },
}

impl<'a> Source<'a> {
    /// An input from its element `first` on, for strips of so many elements.
    pub(crate) fn new(input: &Input<'a>, first: usize, strip: usize) -> Self {
        let count = strip.min(BLOCK);
        let view = match input {
            Input::Array(view) => view,
            Input::InOutput => {
                return Source::Output {
                    block: Block::new(count),
                    width: 0,
                };
            }
        };
        let width = view.width();
        if view.is_scalar() {
            let mut block = Block::new(count);
            Walk::new(&view.repeated(count)).copy(block.bytes_mut(count * width));
            return Source::Scalar { block, width };
        }
        match view.as_row() {
            Some(bytes) => Source::Row {
                bytes: &bytes[first * width..],
                width,
                at: 0,
            },
            None => {
                let mut walk = Box::new(Walk::new(view));
                walk.skip(first);
                Source::Gathered {
                    walk,
                    block: Block::new(strip),
                    width,
                }
            }
        }
    }

    pub(crate) fn is_row(&self) -> bool {
        matches!(self, Source::Row { .. })
    }

    /// Goes to the strip of so many elements from `done` on.
    pub(crate) fn read(&mut self, done: usize, count: usize) {
        match self {
            Source::Row { width, at, .. } => *at = done * *width,
            Source::Gathered { walk, block, width } => walk.copy(block.bytes_mut(count * *width)),
            Source::Scalar { .. } | Source::Output { .. } => (),
        }
    }

    /// Asks for so many elements of the next strip, from its element `at` on; strips have `strip` elements.
    pub(crate) fn ask(&self, strip: usize, at: usize, count: usize) {
        if let Source::Row {
            bytes,
            width,
            at: start,
        } = self
        {
            let from = start + (strip + at) * width;
            prefetch_later(bytes.as_ptr().wrapping_add(from), count * width);
        }
    }

    /// Keeps so many elements of the output, a block at most, where it is read.
    pub(crate) fn hold(&mut self, count: usize, output: &[u8]) {
        if let Source::Output { block, width } = self {
            *width = output.len() / count;
            block.bytes_mut(output.len()).copy_from_slice(output);
        }
    }

    /// So many elements of the strip, a block at most, from its element `at` on.
    pub(crate) fn piece(&self, at: usize, count: usize) -> &[u8] {
        match self {
            Source::Row {
                bytes,
                width,
                at: strip,
            } => &bytes[strip + at * width..strip + (at + count) * width],
            Source::Gathered { block, width, .. } => {
                &block.bytes((at + count) * width)[at * width..]
            }
            Source::Scalar { block, width } | Source::Output { block, width } => {
                block.bytes(count * width)
            }
        }
    }
}
