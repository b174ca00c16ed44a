//! Reductions that mean more than MLX's: the place of an extreme, and truth.

use emily_mlx::Dtype;

use crate::support::*;

/// Rows of every length, long enough for vectors and a rest, with extremes and NaN in various places.
fn rows() -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for length in [1, 2, 3, 5, 15, 16, 17, 63, 64, 65, 200] {
        let row: Vec<f32> = (0..length)
            .map(|i| ((i * 37 + length) % 11) as f32 - 5.0)
            .collect();
        let mut holes = [0, length / 2, length - 1].map(|at| {
            let mut row = row.clone();
            row[at] = f32::NAN;
            row
        });
        holes[1][0] = f32::NAN;
        rows.extend(holes);
        rows.push(vec![f32::NEG_INFINITY; length]);
        rows.push(vec![f32::NAN; length]);
        rows.push(row);
    }
    rows
}

fn last(row: &[f32], is: impl Fn(&f32) -> bool) -> Option<usize> {
    row.iter().rposition(is)
}

fn extreme(row: &[f32], greatest: bool) -> f32 {
    let start = if greatest {
        f32::NEG_INFINITY
    } else {
        f32::INFINITY
    };
    // Both pass over NaN.
    row.iter()
        .fold(start, |a, b| if greatest { a.max(*b) } else { a.min(*b) })
}

/// The answer of Nx: the last NaN, or else the first or the last of equals.
fn place(row: &[f32], greatest: bool, high: bool) -> usize {
    let best = extreme(row, greatest);
    last(row, |x| x.is_nan()).unwrap_or_else(|| {
        let found = if high {
            last(row, |x| *x == best)
        } else {
            row.iter().position(|x| *x == best)
        };
        found.expect("a row without NaN has an extreme")
    })
}

/// The answer of Nx's windows: the last of equals, or a NaN that comes first.
fn choice(row: &[f32], greatest: bool) -> usize {
    if row[0].is_nan() {
        return 0;
    }
    let best = extreme(row, greatest);
    last(row, |x| *x == best).expect("the first is a number")
}

#[test]
fn places_along_each_axis() {
    for row in rows() {
        let length = row.len();
        // Twice, so that there are several rows; and once as columns.
        let both: Vec<f32> = row.iter().chain(row.iter().rev()).copied().collect();
        let reversed: Vec<f32> = row.iter().rev().copied().collect();
        let x = || shaped(&both, &[2, length as i64]);
        let columns = || own(build("transpose", vec![own(x()), list(&[1, 0])]).expect("a view"));
        for (name, greatest) in [("argmax_nan", true), ("argmin_nan", false)] {
            for high in [false, true] {
                let wanted = [&row, &reversed].map(|row| place(row, greatest, high) as f64);
                for kind in [Dtype::F32, Dtype::F64, Dtype::Bf16] {
                    let x = build("astype", vec![own(x()), dtype(kind)]).expect("a cast");
                    let got = result(name, vec![own(x), int(1), boolean(high)]);
                    assert_eq!(got, wanted, "{name} of {row:?} in {kind:?}");
                }
                let got = result(name, vec![columns(), int(0), boolean(high)]);
                assert_eq!(got, wanted, "{name} of columns of {row:?}");
            }
        }
        for (name, greatest) in [("window_argmax", true), ("window_argmin", false)] {
            let wanted = [&row, &reversed].map(|row| choice(row, greatest) as f64);
            let got = result(name, vec![own(x()), int(1)]);
            assert_eq!(got, wanted, "{name} of {row:?}");
            let got = result(name, vec![columns(), int(0)]);
            assert_eq!(got, wanted, "{name} of columns of {row:?}");
        }
    }
}

#[test]
fn places_of_integers() {
    for kind in INTEGERS {
        let numbers: Vec<i64> = (0..150).map(|i| (i * 37) % 23 + 1).collect();
        let x = || own(ints(&numbers, &[150], kind));
        let of = |best: i64| {
            let is_best = |x: &i64| *x == best;
            let first = numbers.iter().position(is_best).expect("it is there");
            let last = numbers.iter().rposition(is_best).expect("it is there");
            (first as f64, last as f64)
        };
        for (names, best) in [
            (["argmax_nan", "window_argmax"], 23),
            (["argmin_nan", "window_argmin"], 1),
        ] {
            let (first, last) = of(best);
            assert_eq!(result(names[0], vec![x(), int(0), boolean(false)]), [first]);
            assert_eq!(result(names[0], vec![x(), int(0), boolean(true)]), [last]);
            assert_eq!(result(names[1], vec![x(), int(0)]), [last], "{kind:?}");
        }
    }
}

#[test]
fn truth_of_every_type() {
    let others = [
        Dtype::Bool,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F32,
        Dtype::F64,
        Dtype::C64,
    ];
    for kind in INTEGERS.into_iter().chain(others) {
        for length in [1, 7, 64, 100] {
            // Rows of ones, of zeros, and with one that differs at each end; minus zero is false.
            let ones = vec![1.0; length];
            let zeros: Vec<f32> = (0..length)
                .map(|i| if i % 2 == 0 { -0.0 } else { 0.0 })
                .collect();
            let (mut one, mut zero) = (zeros.clone(), ones.clone());
            one[length - 1] = 1.0;
            zero[0] = -0.0;
            let rows = [&ones, &zeros, &one, &zero];
            let all: Vec<f32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
            let x = shaped(&all, &[4, length as i64]);
            let x = || build("astype", vec![own(x.clone()), dtype(kind)]).expect("a cast");
            let columns =
                || own(build("transpose", vec![own(x()), list(&[1, 0])]).expect("a view"));
            for name in ["all", "any"] {
                let truth = |row: &&Vec<f32>| match name {
                    "all" => row.iter().all(|x| *x != 0.0),
                    _ => row.iter().any(|x| *x != 0.0),
                };
                let wanted: Vec<f64> = rows.iter().map(|row| truth(row).into()).collect();
                let got = result(name, vec![own(x()), list(&[1]), boolean(true)]);
                assert_eq!(got, wanted, "{name} of {length} in {kind:?}");
                let got = result(name, vec![columns(), list(&[0]), boolean(false)]);
                assert_eq!(got, wanted, "{name} of columns of {length} in {kind:?}");
                let everything = result(name, vec![own(x()), list(&[1, 0]), boolean(false)]);
                assert_eq!(everything, [f64::from(name == "any")], "{kind:?}");
            }
        }
    }
    // NaN is no zero.
    let nan = own(vector(&[f32::NAN]));
    assert_eq!(result("all", vec![nan, list(&[0]), boolean(false)]), [1.0]);
}
