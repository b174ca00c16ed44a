//! Rotary embeddings against planes that are turned in f64.

use emily_kernels::dispatch::Level;
use emily_kernels::rope::{rotate, Rotary};
use emily_kernels::view::{Axes, Axis, Element, View};

use emily_kernels::real::Real;
use half::{bf16, f16};

use crate::support::{large, Random};

/// One plane's numbers, turned by the angle of its position.
fn turned(
    rotary: &Rotary,
    periods: Option<&[f32]>,
    position: f64,
    plane: usize,
    [x, y]: [f32; 2],
) -> [f64; 2] {
    let frequency = match periods {
        Some(periods) => 1.0 / f64::from(periods[plane]),
        None => libm::pow(rotary.base, -2.0 * plane as f64 / rotary.dims as f64),
    };
    let (sine, cosine) = libm::sincos(position * (rotary.scale * frequency));
    let (x, y) = (f64::from(x), f64::from(y));
    [x * cosine - y * sine, x * sine + y * cosine]
}

fn view<T: Element>(memory: &[T], shape: [usize; 4], strides: [usize; 4]) -> View<'_> {
    let axes = shape.into_iter().zip(strides).map(|(size, stride)| Axis {
        size,
        stride: stride as isize,
    });
    // SAFETY: elements are bytes without gaps.
    let bytes = unsafe { memory.align_to().1 };
    View::new(bytes, 0, size_of::<T>(), axes.collect::<Axes>())
}

fn check(rotary: Rotary, offsets: &[i32], periods: Option<&[f32]>) {
    let Rotary {
        batches,
        heads,
        positions,
        columns,
        dims,
        ..
    } = rotary;
    let mut random = Random::new(columns as u64);
    let count = batches * heads * positions * columns;
    let x: Vec<f32> = (0..count)
        .map(|_| (random.below(2001) as f32 - 1000.0) / 500.0)
        .collect();
    let shape = [batches, heads, positions, columns];
    // Row-major, and with heads behind positions, with a gap behind each row.
    let strides = [
        [heads * positions * columns, positions * columns, columns, 1],
        [
            heads * positions * (columns + 1),
            columns + 1,
            heads * (columns + 1),
            1,
        ],
    ];
    let levels = Level::available().flat_map(|level| strides.map(|strides| (level, strides)));
    for (level, strides) in levels {
        let mut memory = vec![f32::NAN; batches * heads * positions * (columns + 1)];
        for (i, x) in x.iter().enumerate() {
            let at = [
                i / (heads * positions * columns),
                i / (positions * columns) % heads,
                i / columns % positions,
                i % columns,
            ];
            memory[at
                .iter()
                .zip(strides)
                .map(|(at, stride)| at * stride)
                .sum::<usize>()] = *x;
        }
        let mut got = vec![0.0f32; count];
        rotate(
            level,
            &rotary,
            &view(&memory, shape, strides),
            offsets,
            periods,
            &mut got,
        );
        for row in 0..count / columns {
            let start = row * columns;
            let batch = row / (heads * positions);
            let offset = offsets[batch.min(offsets.len() - 1)];
            let position = f64::from(offset) + (row % positions) as f64;
            for plane in 0..dims / 2 {
                let (first, second) = match rotary.traditional {
                    true => (start + 2 * plane, start + 2 * plane + 1),
                    false => (start + plane, start + dims / 2 + plane),
                };
                let wanted = turned(&rotary, periods, position, plane, [x[first], x[second]]);
                for (got, wanted) in [got[first], got[second]].into_iter().zip(wanted) {
                    assert!(
                        (f64::from(got) - wanted).abs() < 5e-7,
                        "{rotary:?}, row {row}, plane {plane} at {}: {got}, not {wanted}",
                        level.name()
                    );
                }
            }
            assert_eq!(
                got[start + dims..start + columns],
                x[start + dims..start + columns]
            );
        }
    }
}

/// Columns, and how many of them are turned; under Miri without the most, which go no other way.
const ROWS: &[(usize, usize)] = if cfg!(miri) {
    &[(2, 2), (7, 6), (40, 34)]
} else {
    &[(2, 2), (7, 6), (40, 34), (128, 128)]
};

/// As many as several threads turn.
#[test]
fn planes_of_many_positions_are_turned() {
    for offsets in [&[3][..], &[3, -2]] {
        let rotary = Rotary {
            batches: 2,
            heads: 3,
            positions: large(301),
            columns: 40,
            dims: 34,
            traditional: false,
            scale: 1.0,
            base: 10_000.0,
        };
        check(rotary, offsets, None);
    }
}

#[test]
fn planes_are_turned() {
    for traditional in [false, true] {
        for &(columns, dims) in ROWS {
            let rotary = Rotary {
                batches: 2,
                heads: 3,
                positions: 5,
                columns,
                dims,
                traditional,
                scale: 0.5,
                base: 10_000.0,
            };
            let periods: Vec<f32> = (0..dims / 2).map(|i| 1.5 + i as f32).collect();
            check(rotary, &[7], None);
            check(rotary, &[-3, 100], None);
            check(rotary, &[0, 2_000_000], Some(&periods));
        }
    }
}

#[test]
fn no_rows() {
    let rotary = Rotary {
        batches: 1,
        heads: 2,
        positions: 0,
        columns: 4,
        dims: 4,
        traditional: false,
        scale: 1.0,
        base: 10.0,
    };
    for level in Level::available() {
        let x = view::<f32>(&[], [1, 2, 0, 4], [0, 0, 4, 1]);
        rotate::<f32>(level, &rotary, &x, &[0], None, &mut []);
    }
}

/// As f32 is, rounded once.
fn rounds_once<T: Real>() {
    let rotary = Rotary {
        batches: 1,
        heads: 2,
        positions: 3,
        columns: 7,
        dims: 6,
        traditional: false,
        scale: 1.0,
        base: 10_000.0,
    };
    let (shape, strides) = ([1, 2, 3, 7], [42, 21, 7, 1]);
    let x: Vec<T> = (0..42).map(|i| T::narrow((i as f32 * 0.7).sin())).collect();
    let wide: Vec<f32> = x.iter().map(|x| x.wide()).collect();
    for level in Level::available() {
        let (mut got, mut wanted) = (vec![T::narrow(0.0); 42], vec![0.0f32; 42]);
        rotate(
            level,
            &rotary,
            &view(&x, shape, strides),
            &[11],
            None,
            &mut got,
        );
        rotate(
            level,
            &rotary,
            &view(&wide, shape, strides),
            &[11],
            None,
            &mut wanted,
        );
        for (got, wanted) in got.iter().zip(wanted) {
            assert_eq!(got.wide(), T::narrow(wanted).wide());
        }
    }
}

#[test]
fn floats_of_16_bits() {
    rounds_once::<f16>();
    rounds_once::<bf16>();
}
