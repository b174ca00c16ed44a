//! Floats of which kernels take the values in f32: f32, and those of 16 bits.

use half::{bf16, f16};

use crate::view::Element;

/// A float of 32 or 16 bits.
pub trait Real: Element {
    /// The value, exactly.
    fn wide(self) -> f32;

    /// The nearest value, the even one of two.
    fn narrow(x: f32) -> Self;

    /// The elements as they are, where they are of f32.
    fn as_wide(_elements: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Real for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }

    fn as_wide(elements: &[Self]) -> Option<&[f32]> {
        Some(elements)
    }
}

impl Real for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let even = (bits >> 16) & 1;
        let nearest = (bits.wrapping_add(0x7fff + even) >> 16) as u16;
        let quiet = (bits >> 16) as u16 | 0x40;
        bf16::from_bits(if x.is_nan() { quiet } else { nearest })
    }
}

/// Without branches, which the library's has, so that the compiler makes vectors of it.
impl Real for f16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let size = (bits & 0x7fff) << 13;
        // The exponent counts from another number; a product by a power of two has the denormals right.
        let finite = (f32::from_bits(size) * f32::from_bits(0x7780_0000)).to_bits();
        let special = size | 0x7f80_0000;
        let size = if size < 0x0f80_0000 { finite } else { special };
        f32::from_bits(size | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let sign = (x.to_bits() >> 16) & 0x8000;
        let size = x.to_bits() & 0x7fff_ffff;
        let even = (size >> 13) & 1;
        let normal = size.wrapping_sub(0x3800_0000).wrapping_add(0xfff + even) >> 13;
        // The sum with one half has the denormal's bits at its end, rounded.
        let denormal = (f32::from_bits(size) + 0.5)
            .to_bits()
            .wrapping_sub(0x3f00_0000);
        let finite = if size < 0x3880_0000 { denormal } else { normal };
        let special = if size > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        let size = if size < 0x4780_0000 { finite } else { special };
        f16::from_bits((sign | size) as u16)
    }
}
