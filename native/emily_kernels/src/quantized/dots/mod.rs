//! Sums of products of integers: each processor's own instructions, by which blocks are multiplied.

mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use plain::Plain;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Vnni256, Vnni512};

#[cfg(target_arch = "x86_64")]
use crate::dispatch::Kind;
use crate::dispatch::Level;

/// So many codes are multiplied at a time.
pub(super) const CODES: usize = 32;
/// Codes from here on are wide: two of their products do not fit 16 bits.
pub(super) const WIDE: i32 = 128;

/// Blocks are met so many numbers at a time: one that is large, or several small ones.
pub(super) const NUMBERS: usize = 256;
/// So many of a matrix's rows stand side by side in a panel.
pub(super) const PANEL: usize = 16;
/// The sets of codes of so many numbers, and the most scales that they have.
pub(super) const SETS: usize = NUMBERS / CODES;
pub(super) const FACTORS: usize = 16;

/// What the kernels are compiled for: a number is `scale * (code - OFFSET) - least`.
pub(super) trait Block: 'static {
    /// How many numbers a block has, and how many bytes.
    const NUMBERS: usize;
    const BYTES: usize;
    /// How many numbers share a scale: 16 or 32.
    const GROUP: usize;
    /// How many sets of codes a block has.
    const SETS: usize = Self::NUMBERS / CODES;
    /// Codes have no sign; they reach `WIDE` where this is it.
    const OFFSET: i32 = 0;
    /// Whether anything is subtracted.
    const LEAST: bool = false;

    /// So many codes of a block, of which they are the `at`th.
    fn codes<D: Dots>(dots: D, block: &[u8], at: usize) -> D::Codes;

    /// The scale of each group of blocks that have at most `NUMBERS` numbers, and what is subtracted.
    fn factors<D: Dots>(
        dots: D,
        blocks: &[u8],
        scales: &mut [f32; FACTORS],
        least: &mut [f32; FACTORS],
    );
}

/// The instructions of a level. Who has a value of such a type runs where the processor has them.
pub(super) trait Dots: Copy + Sync + 'static {
    /// So many of a panel's rows are in a vector.
    const LANES: usize;
    /// So many rows are multiplied with a panel at a time.
    const ROWS: usize;
    /// `CODES` codes of 8 bits, without signs.
    type Codes: Copy;
    /// Sums of f32, some side by side.
    type Sums: Copy;
    /// A sum for each of a panel's rows.
    type Floats: Copy;
    type Integers: Copy;

    /// The numbers that the bits of two f16 stand for, the first in the lower ones.
    fn halves(self, bits: u32) -> [f32; 2];
    /// Those of eight times two, the first ones and the second ones.
    fn many_halves(self, bits: [u32; 8]) -> [[f32; 8]; 2];
    /// `a * b + c`.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;

    fn load(self, bytes: &[u8; CODES]) -> Self::Codes;
    fn store(self, codes: Self::Codes) -> [u8; CODES];
    /// The low halves of bytes, then the high ones.
    fn nibbles(self, bytes: &[u8; CODES / 2]) -> Self::Codes;
    /// The bits of a mask, from so many bits on.
    fn pick(self, codes: Self::Codes, shift: u32, mask: u8) -> Self::Codes;
    /// `low | high << shift`, where no bits are lost.
    fn join(self, low: Self::Codes, high: Self::Codes, shift: u32) -> Self::Codes;
    /// A code of each bit, the lowest first.
    fn bits(self, bits: u32) -> Self::Codes;
    /// Turns the highest bits: what had a sign is `WIDE` more.
    fn turn(self, codes: Self::Codes) -> Self::Codes;
    /// The entries with these numbers, which are below 16.
    fn look_up(self, table: &[u8; 16], codes: Self::Codes) -> Self::Codes;

    /// How `add` reads the higher and the lower integers of what is multiplied with blocks of this type.
    fn arrange<B: Block>(self, x: [[i8; CODES]; 2]) -> [[i8; CODES]; 2] {
        x
    }

    fn none(self) -> Self::Sums;
    /// Adds the products of `x`, as it was arranged, and the codes less the blocks' offset, times a scale for each group.
    /// `starts` is what the offset makes of each, in its first lane.
    fn add<B: Block>(
        self,
        sums: Self::Sums,
        codes: Self::Codes,
        x: &[[i8; CODES]; 2],
        starts: &[i32; 8],
        scales: &[f32],
    ) -> Self::Sums;
    fn join_sums(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    fn total(self, sums: Self::Sums) -> f32;

    fn zeros(self) -> (Self::Floats, Self::Integers);
    /// The first `LANES` of these.
    fn floats(self, from: &[f32]) -> Self::Floats;
    fn put(self, floats: Self::Floats, to: &mut [f32]);
    /// Adds the products of two numbers and two codes of each of a vector's rows.
    fn multiply(self, sums: Self::Integers, codes: &[[i16; 2]], x: [i16; 2]) -> Self::Integers;
    /// `totals + sums * (scales * scale)`.
    fn scale(
        self,
        totals: Self::Floats,
        sums: Self::Integers,
        scales: Self::Floats,
        scale: f32,
    ) -> Self::Floats;
    /// `totals + a * b`.
    fn add_scaled(self, totals: Self::Floats, a: Self::Floats, b: f32) -> Self::Floats;
}

/// Whether a level multiplies integers of 16 bits, two at a time, faster than it does floats.
pub(super) fn has_products_of_pairs(level: Level) -> bool {
    match level.0 {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni | Kind::Avx512Vnni | Kind::Avx512Amx => true,
        _ => false,
    }
}

/// Compiles a function for the instructions of each level, a value of which the body has under the last name.
macro_rules! for_each_dots {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<B: Block; $dots:ident>($($argument:ident: $type:ty),* $(,)?) $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name<B: Block>(level: $crate::dispatch::Level, $($argument: $type),*) {
            use $crate::dispatch::Kind;
            use $crate::quantized::dots::{Dots, Plain};
            #[cfg(target_arch = "x86_64")]
            use $crate::quantized::dots::{Avx2, Vnni256, Vnni512};

            #[inline(always)]
            fn body<B: Block, D: Dots>($dots: D, $($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
            fn avx2<B: Block>(dots: Avx2, $($argument: $type),*) {
                body::<B, _>(dots, $($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,avxvnni")]
            fn vnni256<B: Block>(dots: Vnni256, $($argument: $type),*) {
                body::<B, _>(dots, $($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx2,fma,f16c,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni"
            )]
            fn vnni512<B: Block>(dots: Vnni512, $($argument: $type),*) {
                body::<B, _>(dots, $($argument),*)
            }

            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            fn neon<B: Block>($($argument: $type),*) {
                body::<B, _>(Plain::<$crate::math::Fused>::new(), $($argument),*)
            }

            match level.0 {
                Kind::Portable => {
                    body::<B, _>(Plain::<$crate::math::Separate>::new(), $($argument),*)
                }
                // SAFETY: there is a level only where the processor has its instructions.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 | Kind::Avx512 => unsafe { avx2::<B>(Avx2::new(), $($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kind::AvxVnni => unsafe { vnni256::<B>(Vnni256::new(), $($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512Vnni | Kind::Avx512Amx => unsafe { vnni512::<B>(Vnni512::new(), $($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => unsafe { neon::<B>($($argument),*) },
            }
        }
    };
}
pub(super) use for_each_dots;
