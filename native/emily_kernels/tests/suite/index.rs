//! Rows taken and written one element after the other.

use emily_kernels::dispatch::Level;
use emily_kernels::index::{self, Index, Indices};
use emily_kernels::view::{extent, Axes, Axis, View, Walk};

use crate::support::{bytes, bytes_mut, large, rounds, samples, Random, Sample};

/// Indices on both sides of what there is.
fn clamped<I: Sample>(index: I, rows: usize) -> usize
where
    i128: From<I>,
{
    i128::from(index).clamp(0, rows as i128 - 1) as usize
}

fn check_numbers<I: Index + Sample>()
where
    i128: From<I>,
{
    let mut random = Random::new(8);
    for rows in [1, 2, 100, 300, 1 << 40] {
        let indices = samples::<I>(&mut random, 700);
        let wanted: Vec<usize> = indices.iter().map(|index| clamped(*index, rows)).collect();
        for level in Level::available() {
            let mut got = vec![0; 700];
            Indices::new::<I>(level, bytes(&indices)).numbers(rows, &mut got);
            assert_eq!(got, wanted, "{}", level.name());
        }
    }
}

#[test]
fn indices_are_clamped() {
    check_numbers::<u8>();
    check_numbers::<u16>();
    check_numbers::<u32>();
    check_numbers::<u64>();
    check_numbers::<i8>();
    check_numbers::<i16>();
    check_numbers::<i32>();
    check_numbers::<i64>();
}

fn random_indices(random: &mut Random, count: usize, rows: usize) -> Vec<i16> {
    (0..count)
        .map(|_| random.below(rows + 4) as i16 - 2)
        .collect()
}

#[test]
fn rows_are_taken_of_any_layout() {
    let mut random = Random::new(9);
    for round in 0..rounds(300) {
        let ones = random.below(3);
        let mut axes: Axes = (0..ones)
            .map(|_| Axis {
                size: 1,
                stride: 99,
            })
            .collect();
        for _ in 0..1 + random.below(4) {
            axes.push(Axis {
                size: 1 + random.below(6),
                stride: random.below(15) as isize - 7,
            });
        }
        let (before, after) = extent(&axes, 4);
        let memory = samples::<u32>(&mut random, (before + after) / 4);
        let x = View::new(bytes(&memory), before, 4, axes.clone());
        let mut row_major = vec![0u32; x.size()];
        Walk::new(&x).copy(bytes_mut(&mut row_major));
        let rows = axes[ones].size;
        let columns = x.size() / rows;
        let indices = random_indices(&mut random, 1 + round * 2, rows);
        let mut got = vec![0u32; indices.len() * columns];
        let numbers = Indices::new::<i16>(Level::best(), bytes(&indices));
        index::take::<u32>(&x, ones, numbers, bytes_mut(&mut got));
        for (at, index) in indices.iter().enumerate() {
            let row = clamped(*index, rows);
            assert_eq!(
                got[at * columns..][..columns],
                row_major[row * columns..][..columns],
                "{axes:?}"
            );
        }
    }
}

/// As many as several threads take.
#[test]
fn many_rows_are_taken() {
    let mut random = Random::new(12);
    for columns in [1, 3, large(700), large(40_000)] {
        let x = samples::<u32>(&mut random, 9 * columns);
        let indices = random_indices(&mut random, large(100_000) / columns + 1, 9);
        let mut got = vec![0u32; indices.len() * columns];
        let numbers = Indices::new::<i16>(Level::best(), bytes(&indices));
        let rows = View::in_rows(bytes(&x), 4, &[9, columns]);
        index::take::<u32>(&rows, 0, numbers, bytes_mut(&mut got));
        for (got, index) in got.chunks(columns).zip(&indices) {
            let row = clamped(*index, 9);
            assert_eq!(got, &x[row * columns..][..columns]);
        }
    }
}

#[test]
fn elements_are_taken_along_rows() {
    let mut random = Random::new(10);
    for (rows, columns, count) in [(1, 1, 1), (3, 5, 2), (4, 300, 700), (7, 2, 9)] {
        let x = samples::<u64>(&mut random, rows * columns);
        let indices = random_indices(&mut random, rows * count, columns);
        let mut got = vec![0u64; rows * count];
        let numbers = Indices::new::<i16>(Level::best(), bytes(&indices));
        index::take_along::<u64>(bytes(&x), columns, numbers, count, bytes_mut(&mut got));
        for at in 0..rows * count {
            assert_eq!(
                got[at],
                x[at / count * columns + clamped(indices[at], columns)]
            );
        }
    }
}

#[test]
fn rows_are_written_and_added_in_turn() {
    let mut random = Random::new(11);
    for (rows, columns, count) in [(1, 1, 3), (5, 1, 40), (4, 33, 600), (3, 16, 2)] {
        let x = samples::<f32>(&mut random, rows * columns);
        let updates = samples::<f32>(&mut random, count * columns);
        let indices = random_indices(&mut random, count, rows);
        for level in Level::available() {
            let (mut written, mut added) = (x.clone(), x.clone());
            let places = Indices::new::<i16>(level, bytes(&indices));
            index::scatter::<u32>(
                level,
                bytes(&updates),
                columns,
                places,
                bytes_mut(&mut written),
            );
            index::scatter_add::<f32>(
                level,
                bytes(&updates),
                columns,
                places,
                bytes_mut(&mut added),
            );
            let (mut last, mut sums) = (x.clone(), x.clone());
            for (at, update) in updates.iter().enumerate() {
                let place = clamped(indices[at / columns], rows) * columns + at % columns;
                last[place] = *update;
                sums[place] += update;
            }
            assert!(written.iter().zip(last).all(|(got, wanted)| got.is(wanted)));
            assert!(added.iter().zip(sums).all(|(got, wanted)| got.is(wanted)));
        }
    }
}
