//! The loop at the heart of a product in parts, on the tiles of AMX.
//!
//! A panel holds 32 lines, rows of the left side or columns of the right one. For each step of 32 terms it has two tiles
//! of 16 lines of the highest parts, two of the middle ones, and two of the lowest. Of the left side a tile's row is a line with its
//! terms, of the right side it is a pair of terms with its lines.

use std::arch::asm;

/// So many lines and so many terms.
pub(super) const SIDE: usize = 32;
/// The bytes of a tile.
pub(super) const TILE: usize = 1024;
/// The bytes of two tiles of each part.
pub(super) const STEP: usize = 3 * 2 * TILE;
/// The bytes of a tile's row.
pub(super) const ROW: usize = 64;

/// The bytes between panels: a few more than they have, so that those that are written together do not all take the same
/// places of the nearest cache.
pub(super) const fn panel(terms: usize) -> usize {
    const APART: usize = 8 * ROW;
    terms.div_ceil(SIDE) * STEP + APART
}

/// The shapes of all eight tiles, for as long as it lives.
pub(super) struct Tiles;

#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = ROW as u16;
        rows[tile] = (TILE / ROW) as u8;
        tile += 1;
    }
    Shapes {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        row_bytes,
        rows,
    }
};

impl Tiles {
    /// # Safety
    /// The processor must have AMX, and the process be allowed to use it.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's promise; the shapes are those of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) }
        Tiles
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever made it had AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// Two tiles of the left side by two of the right one.
macro_rules! multiply {
    () => {
        "tdpbf16ps tmm0, tmm4, tmm6
         tdpbf16ps tmm1, tmm4, tmm7
         tdpbf16ps tmm2, tmm5, tmm6
         tdpbf16ps tmm3, tmm5, tmm7"
    };
}

/// Writes the sums over all steps, 32 rows of 32 numbers that follow each other. What is small is added up first: the
/// products of the highest parts are the last, so that no more than these round.
///
/// # Safety
/// The panels must have so many steps, at least one, and `sums` the room; the tiles must have their shapes.
#[inline(always)]
pub(super) unsafe fn sums(
    _: &Tiles,
    left: *const u8,
    right: *const u8,
    steps: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's promises. Rust has no name for the tiles, and so keeps nothing there.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "mov {left_step}, {steps}",
            "2:",
            // The highest by the lowest.
            "tileloadd tmm4, [{left} + {row}]",
            "tileloadd tmm6, [{right} + {row} + 4096]",
            "tileloadd tmm7, [{right} + {row} + 5120]",
            "tileloadd tmm5, [{left} + {row} + 1024]",
            multiply!(),
            // By the middle.
            "tileloadd tmm6, [{right} + {row} + 2048]",
            "tileloadd tmm7, [{right} + {row} + 3072]",
            multiply!(),
            // The middle by the middle.
            "tileloadd tmm4, [{left} + {row} + 2048]",
            "tileloadd tmm5, [{left} + {row} + 3072]",
            multiply!(),
            // By the highest.
            "tileloadd tmm6, [{right} + {row}]",
            "tileloadd tmm7, [{right} + {row} + 1024]",
            multiply!(),
            // The lowest by the highest.
            "tileloadd tmm4, [{left} + {row} + 4096]",
            "tileloadd tmm5, [{left} + {row} + 5120]",
            multiply!(),
            "add {left}, 6144",
            "add {right}, 6144",
            "dec {left_step}",
            "jnz 2b",
            "mov {left_step}, {steps}",
            "3:",
            "sub {left}, 6144",
            "sub {right}, 6144",
            // The highest by the highest.
            "tileloadd tmm4, [{left} + {row}]",
            "tileloadd tmm6, [{right} + {row}]",
            "tileloadd tmm7, [{right} + {row} + 1024]",
            "tileloadd tmm5, [{left} + {row} + 1024]",
            multiply!(),
            "dec {left_step}",
            "jnz 3b",
            "tilestored [{sums} + 2*{row}], tmm0",
            "tilestored [{sums} + 2*{row} + 64], tmm1",
            "tilestored [{sums} + 2*{row} + 2048], tmm2",
            "tilestored [{sums} + 2*{row} + 2112], tmm3",
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            left_step = out(reg) _,
            steps = in(reg) steps,
            row = in(reg) ROW,
            sums = in(reg) sums,
            options(nostack),
        );
    }
}
