//! A value depends on the element and the arithmetic only.

use crate::table::{functions, functions2, Random};

fn numbers(count: usize) -> Vec<f64> {
    let mut random = Random(9);
    (0..count)
        .map(|i| match i % 4 {
            0 => random.between(-1.0, 1.0),
            1 => random.between(-20.0, 20.0),
            2 => random.between(0.0, 4.0),
            // Among the far angles, and further.
            _ => random.between(-1.0, 1.0) * 2f64.powi((random.bits() % 120) as i32),
        })
        .collect()
}

fn bits<T: Copy + Into<f64>>(values: &[T]) -> Vec<u64> {
    // All kinds of NaN are one.
    let bits = |x: f64| {
        if x.is_nan() {
            f64::NAN.to_bits()
        } else {
            x.to_bits()
        }
    };
    values.iter().map(|x| bits((*x).into())).collect()
}

#[test]
fn place_and_length_do_not_count() {
    let wide = numbers(300);
    let narrow: Vec<f32> = wide.iter().map(|x| *x as f32).collect();
    for row in functions() {
        for compiled in (row.double)() {
            let mut all = vec![0.0; wide.len()];
            (compiled.function)(&wide, &mut all);
            for (from, to) in [(0, 1), (1, 18), (7, 40), (33, 98), (250, 300)] {
                let mut part = vec![0.0; to - from];
                (compiled.function)(&wide[from..to], &mut part);
                assert_eq!(
                    bits(&part),
                    bits(&all[from..to]),
                    "{} {}",
                    row.name,
                    compiled.level
                );
            }
        }
        for compiled in (row.single)() {
            let mut all = vec![0.0; narrow.len()];
            (compiled.function)(&narrow, &mut all);
            for (from, to) in [(0, 1), (1, 18), (7, 40), (33, 98), (250, 300)] {
                let mut part = vec![0.0; to - from];
                (compiled.function)(&narrow[from..to], &mut part);
                assert_eq!(
                    bits(&part),
                    bits(&all[from..to]),
                    "{} {}",
                    row.name,
                    compiled.level
                );
            }
        }
    }
}

#[test]
fn the_width_of_vectors_does_not_count() {
    let wide = numbers(if cfg!(miri) { 40 } else { 20_000 });
    let narrow: Vec<f32> = wide.iter().map(|x| *x as f32).collect();
    for row in functions() {
        // All but the portable form multiply and add in one step.
        let results = (row.double)().into_iter().skip(1).map(|compiled| {
            let mut y = vec![0.0; wide.len()];
            (compiled.function)(&wide, &mut y);
            bits(&y)
        });
        let results: Vec<_> = results.collect();
        assert!(
            results.windows(2).all(|pair| pair[0] == pair[1]),
            "{} of f64",
            row.name
        );

        let results: Vec<_> = (row.single)()
            .into_iter()
            .map(|compiled| {
                let mut y = vec![0.0; narrow.len()];
                (compiled.function)(&narrow, &mut y);
                bits(&y)
            })
            .collect();
        assert!(
            results[1..].windows(2).all(|pair| pair[0] == pair[1]),
            "{} of f32",
            row.name
        );
        // With the portable form f32 agrees but for near ties.
        for other in &results[1..] {
            let differ = results[0].iter().zip(other).filter(|(a, b)| a != b).count();
            assert!(
                differ <= 3,
                "{} of f32: {differ} of {} differ",
                row.name,
                narrow.len()
            );
        }
    }
}

#[test]
fn pairs_do_not_depend_on_place_or_width() {
    let x = numbers(300);
    let y: Vec<f64> = x.iter().rev().map(|y| y * 0.75).collect();
    for row in functions2() {
        let mut results = vec![];
        for compiled in (row.double)() {
            let mut all = vec![0.0; x.len()];
            (compiled.function)(&x, &y, &mut all);
            let mut part = vec![0.0; 77];
            (compiled.function)(&x[13..90], &y[13..90], &mut part);
            assert_eq!(
                bits(&part),
                bits(&all[13..90]),
                "{} {}",
                row.name,
                compiled.level
            );
            results.push(bits(&all));
        }
        assert!(
            results[1..].windows(2).all(|pair| pair[0] == pair[1]),
            "{}",
            row.name
        );
    }
}

#[test]
fn no_value_is_beyond_its_bounds() {
    let mut random = Random(5);
    // Near whole numbers of quarter turns the sine and the cosine are nearest to one, far from zero the others.
    let mut wide: Vec<f64> = (0..if cfg!(miri) { 60 } else { 60_000 })
        .map(|_| {
            let turns = (random.bits() % 1_200_000) as f64 - 600_000.0;
            turns * std::f64::consts::FRAC_PI_2 * (1.0 + random.between(-1e-15, 1e-15))
        })
        .collect();
    wide.extend((0..wide.len() / 2).map(|_| random.between(-40.0, 40.0)));
    let narrow: Vec<f32> = wide.iter().map(|x| *x as f32).collect();
    for row in functions() {
        let (low, high) = match row.name {
            "sin" | "cos" | "tanh" | "erf" => (-1.0, 1.0),
            "sigmoid" => (0.0, 1.0),
            "erfc" => (0.0, 2.0),
            "atan" => (-std::f64::consts::FRAC_PI_2, std::f64::consts::FRAC_PI_2),
            "cosh" => (1.0, f64::INFINITY),
            _ => continue,
        };
        for compiled in (row.double)() {
            let mut y = vec![0.0; wide.len()];
            (compiled.function)(&wide, &mut y);
            for (x, y) in wide.iter().zip(y) {
                assert!(
                    (low..=high).contains(&y),
                    "{} {} of {x}: {y}",
                    row.name,
                    compiled.level
                );
            }
        }
        for compiled in (row.single)() {
            let mut y = vec![0.0; narrow.len()];
            (compiled.function)(&narrow, &mut y);
            let (low, high) = (low as f32, high as f32);
            for (x, y) in narrow.iter().zip(y) {
                assert!(
                    (low..=high).contains(&y),
                    "{} {} of {x}f32: {y}",
                    row.name,
                    compiled.level
                );
            }
        }
    }
}
