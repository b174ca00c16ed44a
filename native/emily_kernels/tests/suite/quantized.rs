//! Packed numbers against numbers taken from their bits one by one, and products against sums of f64.

use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::quantized::{dequantize, multiply, Code, Factor, Packed, Packing};

use crate::support::{bytes, Random};

const PACKINGS: [(Code, usize, Factor); 15] = [
    (Code::Unsigned(2), 32, Factor::F32),
    (Code::Unsigned(2), 128, Factor::F16),
    (Code::Unsigned(3), 32, Factor::F32),
    (Code::Unsigned(3), 64, Factor::Bf16),
    (Code::Unsigned(4), 32, Factor::F32),
    (Code::Unsigned(4), 64, Factor::F32),
    (Code::Unsigned(4), 128, Factor::F16),
    (Code::Unsigned(5), 32, Factor::Bf16),
    (Code::Unsigned(5), 128, Factor::F32),
    (Code::Unsigned(6), 64, Factor::F32),
    (Code::Unsigned(8), 32, Factor::F16),
    (Code::Unsigned(8), 128, Factor::F32),
    (Code::E2m1, 32, Factor::E8m0),
    (Code::E4m3, 32, Factor::E8m0),
    (Code::E2m1, 16, Factor::E4m3),
];

/// Rows and groups of each, and how many rows are multiplied with them.
const SIZES: &[(usize, usize)] = if cfg!(miri) {
    &[(2, 1)]
} else {
    &[(1, 1), (5, 3), (33, 2), (7, 9)]
};
const HEIGHTS: &[usize] = if cfg!(miri) { &[1, 6] } else { &[1, 2, 6, 17] };

/// The side of what several threads multiply.
const SIDE: usize = if cfg!(miri) { 32 } else { 1024 };
const THREADED: &[usize] = if cfg!(miri) { &[1, 9] } else { &[1, 3, 20] };

/// A packed matrix that owns its bytes.
struct Matrix {
    packing: Packing,
    columns: usize,
    words: Vec<u32>,
    scales: Vec<u32>,
    biases: Option<Vec<u32>>,
}

impl Matrix {
    fn random(random: &mut Random, packing: Packing, rows: usize, columns: usize) -> Self {
        let words = rows * columns * packing.code.bits() / 32;
        let factors = (rows * columns / packing.group * packing.factor.bytes()).div_ceil(4);
        let mut factors = || -> Vec<u32> {
            let byte = |random: &mut Random| match packing.factor {
                Factor::F32 => 0x3C00_0000 | (random.bits() as u32 & 0x80FF_FFFF),
                Factor::F16 => 0x2400_2400 | (random.bits() as u32 & 0x83FF_83FF),
                Factor::Bf16 => 0x3C00_3C00 | (random.bits() as u32 & 0x80FF_80FF),
                // Powers of two around one.
                Factor::E8m0 => 0x7878_7878 | (random.bits() as u32 & 0x0707_0707),
                Factor::E4m3 => random.bits() as u32 & 0x7777_7777,
            };
            (0..factors).map(|_| byte(random)).collect()
        };
        let scales = factors();
        let affine = matches!(packing.code, Code::Unsigned(_));
        let biases = affine.then(factors);
        let words = (0..words).map(|_| random.bits() as u32).collect();
        Matrix {
            packing,
            columns,
            words,
            scales,
            biases,
        }
    }

    fn packed(&self) -> Packed<'_> {
        let rows = self.words.len() * 32 / self.packing.code.bits() / self.columns;
        let length = rows * self.columns / self.packing.group * self.packing.factor.bytes();
        Packed {
            packing: self.packing,
            columns: self.columns,
            words: &self.words,
            scales: &bytes(&self.scales)[..length],
            biases: self.biases.as_ref().map(|biases| &bytes(biases)[..length]),
        }
    }

    /// A number by its row and column.
    fn number(&self, row: usize, column: usize) -> f64 {
        let bits = self.packing.code.bits();
        let first = (row * self.columns + column) * bits;
        let bit = |bit: usize| u32::from(self.words[bit / 32] >> (bit % 32) & 1 == 1);
        let code = (0..bits).fold(0, |code, at| code | bit(first + at) << at);
        let code = match self.packing.code {
            Code::Unsigned(_) => f64::from(code),
            Code::E2m1 => float(code, 2, 1, 1),
            Code::E4m3 => float(code, 4, 3, 7),
        };
        let group = (row * self.columns + column) / self.packing.group;
        let factor = |factors: &[u32]| {
            let width = self.packing.factor.bytes();
            let bytes = &bytes(factors)[group * width..][..width];
            let bits = bytes
                .iter()
                .rev()
                .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
            match self.packing.factor {
                Factor::F32 => f64::from(f32::from_bits(bits)),
                Factor::F16 => float(bits, 5, 10, 15),
                Factor::Bf16 => float(bits, 8, 7, 127),
                Factor::E8m0 => 2f64.powi(bits as i32 - 127),
                Factor::E4m3 => float(bits, 4, 3, 7),
            }
        };
        let bias = self.biases.as_ref().map_or(0.0, |biases| factor(biases));
        factor(&self.scales) * code + bias
    }
}

/// A float of a sign, an exponent and a mantissa, without numbers that are not finite.
fn float(bits: u32, exponent_bits: u32, mantissa_bits: u32, bias: i32) -> f64 {
    let sign = if bits >> (exponent_bits + mantissa_bits) & 1 == 1 {
        -1.0
    } else {
        1.0
    };
    let exponent = (bits >> mantissa_bits & ((1 << exponent_bits) - 1)) as i32;
    let mantissa = bits & ((1 << mantissa_bits) - 1);
    let fraction = f64::from(mantissa) / f64::from(1 << mantissa_bits);
    match exponent {
        0 => sign * fraction * 2f64.powi(1 - bias),
        exponent => sign * (1.0 + fraction) * 2f64.powi(exponent - bias),
    }
}

fn each_matrix(mut check: impl FnMut(&mut Random, &Matrix, usize, usize)) {
    let mut random = Random::new(31);
    for (code, group, factor) in PACKINGS {
        let packing = Packing {
            code,
            group,
            factor,
        };
        for &(rows, groups) in SIZES {
            let columns = groups * group;
            let matrix = Matrix::random(&mut random, packing, rows, columns);
            check(&mut random, &matrix, rows, columns);
        }
    }
}

#[test]
fn numbers() {
    each_matrix(|_, matrix, rows, columns| {
        for level in Level::available() {
            let mut got = vec![f32::NAN; rows * columns];
            dequantize(level, &matrix.packed(), &mut got);
            for (i, got) in got.iter().enumerate() {
                let wanted = matrix.number(i / columns, i % columns);
                let near = (f64::from(*got) - wanted).abs() <= 1e-6 * wanted.abs().max(1.0);
                assert!(
                    near,
                    "{:?} at {}: {got}, not {wanted}",
                    matrix.packing,
                    level.name()
                );
            }
        }
    });
}

#[test]
fn products() {
    each_matrix(|random, matrix, rows, columns| {
        for transpose in [true, false] {
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
                    multiply(level, &x, &matrix.packed(), transpose, &mut got);
                    for (i, got) in got.iter().enumerate() {
                        let terms = (0..inner).map(|k| {
                            let number = match transpose {
                                true => matrix.number(i % outer, k),
                                false => matrix.number(k, i % outer),
                            };
                            f64::from(x[i / outer * inner + k]) * number
                        });
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| {
                            (sum + term, size + term.abs())
                        });
                        assert!(
                            (f64::from(*got) - sum).abs() <= 1e-5 * size + 1e-6,
                            "{:?}, transpose: {transpose}, {height} rows at {}: {got}, not {sum}",
                            matrix.packing,
                            level.name()
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn threads_change_nothing() {
    let packing = Packing {
        code: Code::Unsigned(4),
        group: 32,
        factor: Factor::F32,
    };
    let mut random = Random::new(32);
    let matrix = Matrix::random(&mut random, packing, SIDE, SIDE);
    for transpose in [true, false] {
        for &height in THREADED {
            let x: Vec<f32> = (0..height * SIDE)
                .map(|_| random.below(2001) as f32 / 1000.0 - 1.0)
                .collect();
            let results = [1, 3, 4].map(|threads| {
                pool::set_threads(threads);
                let mut got = vec![f32::NAN; height * SIDE];
                multiply(Level::best(), &x, &matrix.packed(), transpose, &mut got);
                got
            });
            pool::set_threads(0);
            assert!(results[0] == results[1] && results[0] == results[2]);
        }
    }
}

#[test]
fn infinities_and_large_numbers_are_as_in_a_dense_product() {
    let packing = Packing {
        code: Code::Unsigned(4),
        group: 32,
        factor: Factor::F32,
    };
    // Numbers -1, whose codes are 0, scales 2 and biases -1.
    let matrix = Matrix {
        packing,
        columns: 64,
        words: vec![0; 64],
        scales: vec![2f32.to_bits(); 16],
        biases: Some(vec![(-1f32).to_bits(); 16]),
    };
    for (number, wanted) in [
        (f32::INFINITY, f32::NEG_INFINITY),
        (f32::NEG_INFINITY, f32::INFINITY),
        (2e38, -2e38),
    ] {
        let mut x = vec![0.0; 64];
        x[3] = number;
        for level in Level::available() {
            let mut got = vec![f32::NAN; 8];
            multiply(level, &x, &matrix.packed(), true, &mut got);
            assert_eq!(got, [wanted; 8], "{number} at {}", level.name());
        }
    }
}
