//! Folds against rows looked at one number after the other.

use emily_kernels::dispatch::Level;
use emily_kernels::number::Number;
use emily_kernels::reduce::fold::{self, Fold};

use crate::support::{bytes, bytes_mut, large, samples, Random, Sample, LENGTHS, LONG};

fn check<T: Sample, O: Sample>(name: &str, fold: Fold, wanted: impl Fn(&[T]) -> O) {
    let mut random = Random::new(7);
    for columns in LENGTHS.into_iter().chain([LONG]) {
        // Few different numbers have equals; rows of one number too.
        let few = samples::<T>(&mut random, 1 + columns / 9);
        let rows = 5;
        let mut x: Vec<T> = (0..rows * columns)
            .map(|_| few[random.below(few.len())])
            .collect();
        x[..columns].fill(few[0]);
        for level in Level::available() {
            let mut got = vec![O::default(); rows];
            fold(level, bytes(&x), bytes_mut(&mut got), columns);
            for (row, got) in x.chunks(columns).zip(got) {
                let wanted = wanted(row);
                assert!(
                    got.is(wanted),
                    "{} {name} of {row:?}: {got:?}, not {wanted:?}",
                    level.name()
                );
            }
        }
    }
}

/// The best by comparing each with all.
fn place<T: Number + Sample>(row: &[T], is_last: bool, no_worse: impl Fn(T, T) -> bool) -> u32 {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    if let Some(at) = row.iter().rposition(is_nan) {
        return at as u32;
    }
    let is_best = |x: &T| row.iter().all(|y| no_worse(*x, *y));
    let at = if is_last {
        row.iter().rposition(is_best)
    } else {
        row.iter().position(is_best)
    };
    at.expect("a row has a best") as u32
}

/// From the end: the last number that is no worse than all before it and than the first.
fn choice<T: Number + Sample>(row: &[T], no_worse: impl Fn(T, T) -> bool) -> u32 {
    let better = |at: &usize| {
        row[..*at]
            .iter()
            .all(|y| y.partial_cmp(y).is_none() || no_worse(row[*at], *y))
    };
    if row[0].partial_cmp(&row[0]).is_none() {
        return 0;
    }
    (0..row.len()).rev().find(better).unwrap_or(0) as u32
}

fn check_places<T: Number + Sample>() {
    check("argmax", fold::argmax::<T>, |row: &[T]| {
        place(row, false, |x, y| x >= y)
    });
    check("argmax_last", fold::argmax_last::<T>, |row: &[T]| {
        place(row, true, |x, y| x >= y)
    });
    check("argmin", fold::argmin::<T>, |row: &[T]| {
        place(row, false, |x, y| x <= y)
    });
    check("argmin_last", fold::argmin_last::<T>, |row: &[T]| {
        place(row, true, |x, y| x <= y)
    });
    check("window_argmax", fold::window_argmax::<T>, |row: &[T]| {
        choice(row, |x, y| x >= y)
    });
    check("window_argmin", fold::window_argmin::<T>, |row: &[T]| {
        choice(row, |x, y| x <= y)
    });
}

#[test]
fn places() {
    check_places::<u8>();
    check_places::<u16>();
    check_places::<u32>();
    check_places::<u64>();
    check_places::<i8>();
    check_places::<i16>();
    check_places::<i32>();
    check_places::<i64>();
    check_places::<f32>();
    check_places::<f64>();
}

/// As many as several threads take.
#[test]
fn places_of_many_rows() {
    for columns in [1, 33, large(70_000)] {
        let rows = large(200_000) / columns;
        let x: Vec<f32> = (0..rows * columns)
            .map(|i| (i * 7919 % 1009) as f32)
            .collect();
        let wanted = x.chunks(columns).map(|row| place(row, |x, y| x > y));
        fn place(row: &[f32], better: impl Fn(f32, f32) -> bool) -> u32 {
            let mut at = 0;
            for (i, x) in row.iter().enumerate() {
                at = if better(*x, row[at]) { i } else { at };
            }
            at as u32
        }
        let wanted: Vec<u32> = wanted.collect();
        for level in Level::available() {
            let mut got = vec![u32::MAX; rows];
            fold::argmax::<f32>(level, bytes(&x), bytes_mut(&mut got), columns);
            assert_eq!(got, wanted, "{columns} at {}", level.name());
        }
    }
}

#[test]
fn truth() {
    // By the bits but for the sign.
    let is_true = |x: &f32| x.to_bits() << 1 != 0;
    check("all", fold::all::<f32>, |row: &[f32]| {
        u8::from(row.iter().all(is_true))
    });
    check("any", fold::any::<f32>, |row: &[f32]| {
        u8::from(row.iter().any(is_true))
    });
    check("all", fold::all::<i64>, |row: &[i64]| {
        u8::from(!row.contains(&0))
    });
    check("any", fold::any::<u8>, |row: &[u8]| {
        u8::from(row.iter().any(|x| *x != 0))
    });
    check("all", fold::all_halves::<u16>, |row: &[u16]| {
        u8::from(row.iter().all(|x| x << 1 != 0))
    });
    check("any", fold::any_halves::<u16>, |row: &[u16]| {
        u8::from(row.iter().any(|x| x << 1 != 0))
    });
    // Rows of nothing but zeros of both signs, and one that is none at the very end.
    for columns in LENGTHS {
        let mut row: Vec<f32> = (0..columns).map(|i| [0.0, -0.0][i % 2]).collect();
        for (last, wanted) in [(0.0, 0u8), (f32::NAN, 1), (f32::from_bits(1), 1)] {
            row[columns - 1] = last;
            for level in Level::available() {
                let mut got = [7u8];
                fold::any::<f32>(level, bytes(&row), &mut got, columns);
                assert_eq!(got, [wanted], "{columns} at {level:?}");
            }
        }
    }
}
