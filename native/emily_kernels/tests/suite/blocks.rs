//! GGML's blocks against numbers taken from their bits one by one, and products against sums of f64.

use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::quantized::blocks::{dequantize, multiply, Blocks, Type};

use crate::support::Random;

/// Blocks at random, whose floats of 16 bits are small.
fn random_bytes(random: &mut Random, of: Type, count: usize) -> Vec<u8> {
    let (_, size) = of.block();
    let halves: &[usize] = match of {
        Type::Q4_1 | Type::Q5_1 | Type::Q4K | Type::Q5K => &[0, 2],
        Type::Q4_0 | Type::Q5_0 | Type::Q8_0 | Type::Iq4Nl | Type::Iq4Xs => &[0],
        Type::Q2K => &[80, 82],
        Type::Q3K => &[108],
        Type::Q6K => &[208],
        Type::Mxfp4 => &[],
    };
    let mut bytes: Vec<u8> = (0..count * size).map(|_| random.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(size) {
        for &at in halves {
            block[at + 1] = block[at + 1] & 0x83 | 0x24;
        }
        if of == Type::Mxfp4 {
            block[0] = 120 + block[0] % 8;
        }
    }
    bytes
}

fn half(block: &[u8], at: usize) -> f64 {
    let bits = u16::from_le_bytes([block[at], block[at + 1]]);
    let size = f64::from(bits & 0x3FF) / 1024.0;
    let number = match bits >> 10 & 31 {
        0 => size * 2f64.powi(-14),
        exponent => (1.0 + size) * 2f64.powi(i32::from(exponent) - 15),
    };
    if bits >> 15 == 1 {
        -number
    } else {
        number
    }
}

fn bits(block: &[u8], at: usize, shift: usize, count: usize) -> f64 {
    f64::from(block[at] >> shift & ((1u16 << count) - 1) as u8)
}

const UNEVEN: [f64; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];
const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// A number of a block by its place.
fn number(of: Type, block: &[u8], i: usize) -> f64 {
    // Halves of bytes, of which 16 are neighbours.
    let nibble = |at: usize| bits(block, at + i % 16, i / 16 * 4, 4);
    let fifth = |at: usize| bits(block, at + i / 8, i % 8, 1) * 16.0;
    // The six bits of a scale, and of a step, of the eight of Q4_K and Q5_K.
    let six = |first: usize| {
        let group = i / 32;
        match group {
            0..4 => bits(block, 4 + first + group, 0, 6),
            _ => {
                let low = bits(block, 8 + group, if first == 0 { 0 } else { 4 }, 4);
                low + bits(block, first + group, 6, 2) * 16.0
            }
        }
    };
    let wide_nibble = |at: usize| bits(block, at + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4);
    let pair = |at: usize| bits(block, at + i / 128 * 32 + i % 32, i / 32 % 4 * 2, 2);
    let stepped = |code: f64| half(block, 0) * six(0) * code - half(block, 2) * six(4);
    match of {
        Type::Q4_0 => half(block, 0) * (nibble(2) - 8.0),
        Type::Q4_1 => half(block, 0) * nibble(4) + half(block, 2),
        Type::Q5_0 => half(block, 0) * (nibble(6) + fifth(2) - 16.0),
        Type::Q5_1 => half(block, 0) * (nibble(8) + fifth(4)) + half(block, 2),
        Type::Q8_0 => half(block, 0) * f64::from(block[2 + i] as i8),
        Type::Q2K => {
            half(block, 80) * bits(block, i / 16, 0, 4) * pair(16)
                - half(block, 82) * bits(block, i / 16, 4, 4)
        }
        Type::Q3K => {
            let group = i / 16;
            let scale = bits(block, 96 + group % 8, group / 8 * 4, 4)
                + bits(block, 104 + group % 4, group / 4 * 2, 2) * 16.0;
            let code = pair(32) + bits(block, i % 32, i / 32, 1) * 4.0;
            half(block, 108) * (scale - 32.0) * (code - 4.0)
        }
        Type::Q4K => stepped(wide_nibble(16)),
        Type::Q5K => stepped(wide_nibble(48) + bits(block, 16 + i % 32, i / 32, 1) * 16.0),
        Type::Q6K => {
            let low = bits(block, i / 128 * 64 + i % 64, i / 64 % 2 * 4, 4);
            let high = bits(block, 128 + i / 128 * 32 + i % 32, i / 32 % 4 * 2, 2);
            half(block, 208) * f64::from(block[192 + i / 16] as i8) * (low + high * 16.0 - 32.0)
        }
        Type::Iq4Nl => half(block, 0) * UNEVEN[nibble(2) as usize],
        Type::Iq4Xs => {
            let group = i / 32;
            let scale = bits(block, 4 + group / 2, group % 2 * 4, 4)
                + bits(block, 2 + group / 4, group % 4 * 2, 2) * 16.0;
            let code = bits(block, 8 + group * 16 + i % 16, i % 32 / 16 * 4, 4);
            half(block, 0) * (scale - 32.0) * UNEVEN[code as usize]
        }
        Type::Mxfp4 => {
            let code = nibble(1) as usize;
            let size = E2M1[code % 8] * 2f64.powi(i32::from(block[0]) - 127);
            if code < 8 {
                size
            } else {
                -size
            }
        }
    }
}

/// Rows and blocks of each, and how many rows are multiplied with them.
const SIZES: &[(usize, usize)] = if cfg!(miri) {
    &[(2, 1)]
} else {
    &[(1, 1), (5, 3), (9, 2)]
};
const HEIGHTS: &[usize] = if cfg!(miri) {
    &[1, 9]
} else {
    &[1, 2, 6, 8, 17]
};

/// What several threads multiply.
const ROWS: usize = if cfg!(miri) { 8 } else { 1024 };
const COLUMNS: usize = if cfg!(miri) { 256 } else { 1024 };
const THREADED: &[usize] = if cfg!(miri) { &[1, 9] } else { &[1, 3, 20] };

/// Random matrices of each type, with their numbers.
fn each_matrix(mut check: impl FnMut(&mut Random, &Blocks, &[f64])) {
    let mut random = Random::new(47);
    for (_, of) in Type::ALL {
        let (numbers, size) = of.block();
        for &(rows, blocks) in SIZES {
            let bytes = random_bytes(&mut random, of, rows * blocks);
            let columns = blocks * numbers;
            let dense: Vec<f64> = bytes
                .chunks_exact(size)
                .flat_map(|block| (0..numbers).map(|i| number(of, block, i)))
                .collect();
            let blocks = Blocks {
                of,
                columns,
                bytes: &bytes,
            };
            check(&mut random, &blocks, &dense);
        }
    }
}

#[test]
fn numbers() {
    each_matrix(|_, blocks, dense| {
        for level in Level::available() {
            let mut got = vec![f32::NAN; dense.len()];
            dequantize(level, blocks, &mut got);
            for (got, wanted) in got.iter().zip(dense) {
                assert!(
                    (f64::from(*got) - wanted).abs() <= 1e-6 * wanted.abs().max(0.1),
                    "{:?} at {}: {got}, not {wanted}",
                    blocks.of,
                    level.name()
                );
            }
        }
    });
}

#[test]
fn products() {
    each_matrix(|random, blocks, dense| {
        for transpose in [true, false] {
            let (rows, columns) = (blocks.rows(), blocks.columns);
            let (inner, outer) = if transpose {
                (columns, rows)
            } else {
                (rows, columns)
            };
            for &height in HEIGHTS {
                let x: Vec<f32> = (0..height * inner)
                    .map(|_| (random.below(4001) as f32 - 2000.0) / 500.0)
                    .collect();
                for level in Level::available() {
                    let mut got = vec![f32::NAN; height * outer];
                    multiply(level, &x, blocks, transpose, &mut got);
                    for (i, got) in got.iter().enumerate() {
                        let terms = (0..inner).map(|k| {
                            let number = match transpose {
                                true => dense[i % outer * columns + k],
                                false => dense[k * columns + i % outer],
                            };
                            // What 15 bits lose of the greatest, which is 4, and 16 with many rows.
                            let lost = match (transpose, height) {
                                (true, 8..) => 4.0 / 65024.0 * number.abs(),
                                (true, _) => 4.0 / 32512.0 * number.abs(),
                                (false, _) => 0.0,
                            };
                            (f64::from(x[i / outer * inner + k]) * number, lost)
                        });
                        let (sum, size, lost) =
                            terms.fold((0.0, 0.0, 0.0), |sums, (term, lost)| {
                                (sums.0 + term, sums.1 + f64::abs(term), sums.2 + lost)
                            });
                        assert!(
                            (f64::from(*got) - sum).abs() <= lost + 1e-5 * size + 1e-6,
                            "{:?}, transpose: {transpose}, {height} rows at {}: {got}, not {sum}",
                            blocks.of,
                            level.name()
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn whole_numbers_lose_nothing() {
    // Whole numbers whose greatest is the greatest code, times codes with the scale one, the least of which is -128.
    let mut random = Random::new(49);
    let mut bytes = vec![0x00, 0x3C];
    bytes.extend((0..32).map(|_| random.bits() as u8));
    let mut x: Vec<f32> = (0..32).map(|_| random.below(255) as f32 - 127.0).collect();
    x[7] = -127.0;
    bytes[2..6].fill(0x80);
    let wanted: f64 = x
        .iter()
        .zip(&bytes[2..])
        .map(|(x, code)| f64::from(*x) * f64::from(*code as i8))
        .sum();
    let blocks = Blocks {
        of: Type::Q8_0,
        columns: 32,
        bytes: &bytes,
    };
    for level in Level::available() {
        for rows in [1, 9] {
            let mut got = vec![f32::NAN; rows];
            multiply(level, &x.repeat(rows), &blocks, true, &mut got);
            assert!(
                got.iter().all(|got| f64::from(*got) == wanted),
                "{}",
                level.name()
            );
        }
    }
}

#[test]
fn threads_change_nothing() {
    let mut random = Random::new(48);
    for of in [Type::Q4_1, Type::Q6K] {
        let (numbers, _) = of.block();
        let bytes = random_bytes(&mut random, of, ROWS * COLUMNS / numbers);
        let blocks = Blocks {
            of,
            columns: COLUMNS,
            bytes: &bytes,
        };
        for &height in THREADED {
            let x: Vec<f32> = (0..height * COLUMNS)
                .map(|_| random.below(2001) as f32 / 1000.0 - 1.0)
                .collect();
            let results = [1, 3, 4].map(|threads| {
                pool::set_threads(threads);
                let mut got = vec![f32::NAN; height * ROWS];
                multiply(Level::best(), &x, &blocks, true, &mut got);
                got
            });
            pool::set_threads(0);
            assert!(results[0] == results[1] && results[0] == results[2]);
        }
    }
}

#[test]
fn zeros_infinities_and_the_smallest_numbers() {
    // The numbers are all -1: scale 1, code 7 of Q4_0.
    let block: Vec<u8> = [0x00, 0x3C].into_iter().chain([0x77; 16]).collect();
    let bytes = block.repeat(2 * 8);
    let blocks = Blocks {
        of: Type::Q4_0,
        columns: 64,
        bytes: &bytes,
    };
    let least = f32::from_bits(1);
    for (number, wanted) in [
        (0.0, 0.0),
        (f32::INFINITY, f32::NEG_INFINITY),
        (2e38, -2e38),
        (1e-30, -1e-30),
    ] {
        let mut x = vec![0.0; 64];
        x[3] = number;
        for level in Level::available() {
            let mut got = vec![f32::NAN; 8];
            multiply(level, &x, &blocks, true, &mut got);
            let near = |got: &f32| *got == wanted || (got / wanted - 1.0).abs() < 1e-5;
            assert!(
                got.iter().all(near),
                "{number} at {}: {got:?}",
                level.name()
            );
        }
    }
    // What has no inverse counts as zero.
    for level in Level::available() {
        let mut got = vec![f32::NAN; 8];
        multiply(level, &[least; 64], &blocks, true, &mut got);
        assert!(
            got.iter().all(|got| got.abs() <= 64.0 * least),
            "{}: {got:?}",
            level.name()
        );
    }
}
