//! Scales and biases.

use std::ops::Range;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::codes::e4m3;
use super::{Packed, LANES};
use crate::view::typed;

/// The types of scales and biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    F32,
    F16,
    Bf16,
    /// The exponent of a power of two, with 127 for zero; 255 is infinity, as in MLX.
    E8m0,
    /// A float of 8 bits, as the codes of that name.
    E4m3,
}

impl Factor {
    pub fn bytes(self) -> usize {
        match self {
            Factor::F32 => 4,
            Factor::F16 | Factor::Bf16 => 2,
            Factor::E8m0 | Factor::E4m3 => 1,
        }
    }

    /// Reads the factors of some groups, by their numbers.
    pub(super) fn read(self, bytes: &[u8], groups: Range<usize>, factors: &mut [f32]) {
        let bytes = &bytes[groups.start * self.bytes()..groups.end * self.bytes()];
        match self {
            Factor::F32 => factors.copy_from_slice(typed(bytes)),
            Factor::F16 => typed::<u16>(bytes)
                .reinterpret_cast::<f16>()
                .convert_to_f32_slice(factors),
            Factor::Bf16 => typed::<u16>(bytes)
                .reinterpret_cast::<bf16>()
                .convert_to_f32_slice(factors),
            Factor::E8m0 => each(bytes, factors, power_of_two),
            Factor::E4m3 => each(bytes, factors, |byte| e4m3(byte.into())),
        }
    }
}

fn each(bytes: &[u8], factors: &mut [f32], factor: impl Fn(u8) -> f32) {
    for (factor_of, byte) in factors.iter_mut().zip(bytes) {
        *factor_of = factor(*byte);
    }
}

/// `2^(exponent - 127)`.
#[inline(always)]
pub(super) fn power_of_two(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22),
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// The factors of a row's groups, one row after another.
pub(super) struct Factors {
    pub(super) scales: Vec<f32>,
    /// Zeros where there are no biases.
    pub(super) biases: Vec<f32>,
}

impl Factors {
    /// Room for a row's.
    pub(super) fn of(packed: &Packed) -> Self {
        Factors {
            scales: vec![0.0; packed.groups()],
            biases: vec![0.0; packed.groups()],
        }
    }

    pub(super) fn read(&mut self, packed: &Packed, row: usize) {
        packed.scales(row, 0..packed.groups(), &mut self.scales);
        packed.biases(row, 0..packed.groups(), &mut self.biases);
    }

    /// The scale and the bias of each group.
    pub(super) fn iter(&self) -> impl Iterator<Item = (f32, f32)> + '_ {
        self.scales.iter().copied().zip(self.biases.iter().copied())
    }
}

/// Gives each unit of a row the scale of its group, which has so many units.
#[inline(always)]
pub(super) fn spread(scales: impl Iterator<Item = f32>, units: usize, lanes: &mut [[f32; LANES]]) {
    // Whole stores in the place of loops.
    match units {
        1 => each_unit::<1>(scales, lanes),
        2 => each_unit::<2>(scales, lanes),
        4 => each_unit::<4>(scales, lanes),
        8 => each_unit::<8>(scales, lanes),
        16 => each_unit::<16>(scales, lanes),
        _ => each_unit::<32>(scales, lanes),
    }
}

#[inline(always)]
fn each_unit<const UNITS: usize>(scales: impl Iterator<Item = f32>, lanes: &mut [[f32; LANES]]) {
    let (groups, _) = lanes.as_flattened_mut().as_chunks_mut::<UNITS>();
    for (group, scale) in groups.iter_mut().zip(scales) {
        *group = [scale; UNITS];
    }
}
