//! A matrix of GGML's blocks, and their types.

use super::dots::Block;

/// GGML's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// Calls a function of the kernels' with the type that takes blocks apart.
macro_rules! by_type {
    ($type:expr, $function:ident ($($argument:expr),*)) => {
        match $type {
            $crate::quantized::matrix::Type::Q4_0 => $function::<$crate::quantized::formats::Q4_0>($($argument),*),
            $crate::quantized::matrix::Type::Q4_1 => $function::<$crate::quantized::formats::Q4_1>($($argument),*),
            $crate::quantized::matrix::Type::Q5_0 => $function::<$crate::quantized::formats::Q5_0>($($argument),*),
            $crate::quantized::matrix::Type::Q5_1 => $function::<$crate::quantized::formats::Q5_1>($($argument),*),
            $crate::quantized::matrix::Type::Q8_0 => $function::<$crate::quantized::formats::Q8_0>($($argument),*),
            $crate::quantized::matrix::Type::Q2K => $function::<$crate::quantized::formats::Q2K>($($argument),*),
            $crate::quantized::matrix::Type::Q3K => $function::<$crate::quantized::formats::Q3K>($($argument),*),
            $crate::quantized::matrix::Type::Q4K => $function::<$crate::quantized::formats::Q4K>($($argument),*),
            $crate::quantized::matrix::Type::Q5K => $function::<$crate::quantized::formats::Q5K>($($argument),*),
            $crate::quantized::matrix::Type::Q6K => $function::<$crate::quantized::formats::Q6K>($($argument),*),
            $crate::quantized::matrix::Type::Iq4Nl => $function::<$crate::quantized::formats::Iq4Nl>($($argument),*),
            $crate::quantized::matrix::Type::Iq4Xs => $function::<$crate::quantized::formats::Iq4Xs>($($argument),*),
            $crate::quantized::matrix::Type::Mxfp4 => $function::<$crate::quantized::formats::Mxfp4>($($argument),*),
        }
    };
}

impl Type {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Type); 13] = [
        ("q4_0", Type::Q4_0),
        ("q4_1", Type::Q4_1),
        ("q5_0", Type::Q5_0),
        ("q5_1", Type::Q5_1),
        ("q8_0", Type::Q8_0),
        ("q2_k", Type::Q2K),
        ("q3_k", Type::Q3K),
        ("q4_k", Type::Q4K),
        ("q5_k", Type::Q5K),
        ("q6_k", Type::Q6K),
        ("iq4_nl", Type::Iq4Nl),
        ("iq4_xs", Type::Iq4Xs),
        ("mxfp4", Type::Mxfp4),
    ];

    /// The type of that name.
    pub fn named(name: &str) -> Option<Type> {
        let mut all = Type::ALL.into_iter();
        all.find_map(|(own, found)| (own == name).then_some(found))
    }

    /// How many numbers a block has, and how many bytes.
    pub fn block(self) -> (usize, usize) {
        fn sizes<B: Block>() -> (usize, usize) {
            (B::NUMBERS, B::BYTES)
        }
        by_type!(self, sizes())
    }
}

/// A matrix of blocks, in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    pub of: Type,
    /// How many numbers a row has: whole blocks.
    pub columns: usize,
    pub bytes: &'a [u8],
}

impl<'a> Blocks<'a> {
    pub fn rows(&self) -> usize {
        self.bytes.len() / self.bytes_a_row()
    }

    pub(super) fn bytes_a_row(&self) -> usize {
        let (numbers, bytes) = self.of.block();
        self.columns / numbers * bytes
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.bytes_a_row()..][..self.bytes_a_row()]
    }
}

pub(super) use by_type;
