//! Softmax and norms against sums of f64.

use emily_kernels::dispatch::Level;
use emily_kernels::norm;
use emily_kernels::pool;
use emily_kernels::real::Real;
use half::{bf16, f16};

use crate::support::{large, Random, LENGTHS};

fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| (random.below(20_001) as f32 - 10_000.0) / 1000.0)
        .collect()
}

fn assert_near(got: &[f32], wanted: &[f64], what: &str) {
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().zip(wanted) {
        let near = (f64::from(*got) - wanted).abs() <= 2e-5 * wanted.abs().max(0.1);
        assert!(near, "{what}: {got}, not {wanted}");
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

#[test]
fn softmaxes() {
    let mut random = Random::new(13);
    for columns in LENGTHS {
        let x = numbers(&mut random, 12 * columns);
        let share = |row: &[f32]| {
            let powers: Vec<f64> = wide(row).iter().map(|x| x.exp()).collect();
            let total: f64 = powers.iter().sum();
            powers.into_iter().map(move |power| power / total)
        };
        let wanted: Vec<f64> = x.chunks(columns).flat_map(share).collect();
        for level in Level::available() {
            let mut got = x.clone();
            norm::softmax(level, None, &mut got, columns);
            assert_near(&got, &wanted, &format!("{columns} at {}", level.name()));
        }
    }
}

#[test]
fn nan_goes_through_a_softmax() {
    for at in [0, 5, 16, 33] {
        let mut x = vec![1.0; 34];
        x[at] = f32::NAN;
        for level in Level::available() {
            let mut got = x.clone();
            norm::softmax::<f32>(level, None, &mut got, 34);
            assert!(got.iter().all(|x| x.is_nan()), "{at} at {}", level.name());
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let mut random = Random::new(16);
    for columns in [7, large(300), large(20_000)] {
        let x = numbers(&mut random, large(60_000) / columns * columns);
        let (weight, bias) = (numbers(&mut random, columns), numbers(&mut random, columns));
        let (weight, bias) = (Some(&weight[..]), Some(&bias[..]));
        let bits = |threads| {
            pool::set_threads(threads);
            let level = Level::best();
            let mut got = [x.clone(), x.clone(), x.clone()];
            norm::softmax(level, Some(&x), &mut got[0], columns);
            norm::rms_norm(level, Some(&x), &mut got[1], columns, weight, 0.5);
            norm::layer_norm(level, None, &mut got[2], columns, weight, bias, 0.5);
            got.concat()
                .into_iter()
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        };
        let one = bits(1);
        assert!([2, 3, 8].into_iter().all(|threads| bits(threads) == one));
        // A row means what it means alone.
        let mut last = x[x.len() - columns..].to_vec();
        norm::softmax(Level::best(), None, &mut last, columns);
        let last: Vec<u32> = last.into_iter().map(f32::to_bits).collect();
        assert_eq!(last, one[x.len() - columns..x.len()]);
        pool::set_threads(0);
    }
}

#[test]
fn norms() {
    let mut random = Random::new(14);
    for columns in LENGTHS {
        let x = numbers(&mut random, 4 * columns);
        let (weight, bias) = (numbers(&mut random, columns), numbers(&mut random, columns));
        for mask in 0..4 {
            let weight = (mask & 1 != 0).then_some(&weight[..]);
            let bias = (mask & 2 != 0).then_some(&bias[..]);
            let weigh = |x: f64, at: usize| x * weight.map_or(1.0, |weight| weight[at].into());
            let (mut rms, mut layer) = (Vec::new(), Vec::new());
            for row in wide(&x).chunks(columns) {
                let square = mean(&row.iter().map(|x| x * x).collect::<Vec<f64>>());
                let middle = mean(row);
                let variance = mean(
                    &row.iter()
                        .map(|x| (x - middle).powi(2))
                        .collect::<Vec<f64>>(),
                );
                for (at, x) in row.iter().enumerate() {
                    rms.push(weigh(x / (square + 0.5).sqrt(), at));
                    let shift = bias.map_or(0.0, |bias| bias[at].into());
                    layer.push(weigh((x - middle) / (variance + 0.5).sqrt(), at) + shift);
                }
            }
            for level in Level::available() {
                let mut got = vec![f32::NAN; x.len()];
                norm::rms_norm(level, Some(&x), &mut got, columns, weight, 0.5);
                assert_near(&got, &rms, level.name());
                let mut got = x.clone();
                norm::layer_norm(level, None, &mut got, columns, weight, bias, 0.5);
                assert_near(&got, &layer, level.name());
            }
        }
    }
}

/// As those of f32, rounded once.
fn rounds_once<T: Real>() {
    let mut random = Random::new(15);
    for columns in LENGTHS {
        let mut halves = |count| -> Vec<T> {
            numbers(&mut random, count)
                .into_iter()
                .map(T::narrow)
                .collect()
        };
        let (x, weight, bias) = (halves(3 * columns), halves(columns), halves(columns));
        let wide = |x: &[T]| x.iter().map(|x| x.wide()).collect::<Vec<f32>>();
        let (x_wide, weight_wide, bias_wide) = (wide(&x), wide(&weight), wide(&bias));
        for level in Level::available() {
            let mut got = vec![T::narrow(f32::NAN); x.len()];
            let mut wanted = vec![f32::NAN; x.len()];
            let same = |got: &[T], wanted: &[f32]| {
                let wanted = wanted.iter().map(|x| T::narrow(*x).wide());
                assert!(got.iter().map(|x| x.wide()).eq(wanted), "{}", level.name());
            };
            norm::softmax(level, Some(&x), &mut got, columns);
            norm::softmax(level, Some(&x_wide), &mut wanted, columns);
            same(&got, &wanted);
            norm::rms_norm(level, Some(&x), &mut got, columns, Some(&weight), 0.5);
            norm::rms_norm(
                level,
                Some(&x_wide),
                &mut wanted,
                columns,
                Some(&weight_wide),
                0.5,
            );
            same(&got, &wanted);
            got.copy_from_slice(&x);
            norm::layer_norm(
                level,
                None,
                &mut got,
                columns,
                Some(&weight),
                Some(&bias),
                0.5,
            );
            let (weight, bias) = (Some(&weight_wide[..]), Some(&bias_wide[..]));
            norm::layer_norm(
                level,
                Some(&x_wide),
                &mut wanted,
                columns,
                weight,
                bias,
                0.5,
            );
            same(&got, &wanted);
        }
    }
}

#[test]
fn floats_of_16_bits() {
    rounds_once::<f16>();
    rounds_once::<bf16>();
}
