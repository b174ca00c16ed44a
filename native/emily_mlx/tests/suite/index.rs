//! Indices are clamped into their axis, so that none reads or writes stray memory.

use emily_mlx::{Arg, Dtype};

use crate::support::*;

const FAR: [i64; 4] = [-1, 1, 100_000_000, i64::MAX];
const CLAMPED: [f64; 4] = [10.0, 20.0, 30.0, 30.0];

fn x() -> Arg<'static> {
    own(vector(&[10.0, 20.0, 30.0]))
}

fn far() -> mlx_rs::Array {
    ints(&FAR, &[4], Dtype::S64)
}

#[test]
fn reading() {
    assert_near(&result("take", vec![x(), own(far()), int(0)]), &CLAMPED);
    let along = vec![x(), own(far()), int(-1)];
    assert_near(&result("take_along_axis", along), &CLAMPED);
    let gather = vec![x(), Arg::Arrays(vec![far()]), list(&[0]), list(&[1])];
    assert_near(&result("gather", gather), &CLAMPED);
}

#[test]
fn narrow_and_unsigned_types() {
    let table = || own(counted(&[300]));
    let take = |values: &[i64], dtype| {
        let indices = ints(values, &[values.len() as i64], dtype);
        result("take", vec![table(), own(indices), int(0)])
    };
    assert_near(&take(&[127, -128], Dtype::S8), &[127.0, 0.0]);
    assert_near(&take(&[255], Dtype::U8), &[255.0]);
    assert_near(&take(&[301, -1], Dtype::S16), &[299.0, 0.0]);
    assert_near(&take(&[0xFFFF_FFFF], Dtype::U32), &[299.0]);
    assert_near(&take(&[-1], Dtype::U64), &[299.0]);
    assert_near(&take(&[i64::MIN, i64::MAX], Dtype::S64), &[0.0, 299.0]);
}

#[test]
fn several_axes() {
    let indices = vec![
        ints(&[-5, 1, 9], &[3], Dtype::S32),
        ints(&[0, 9, -9], &[3], Dtype::S32),
    ];
    let gather = vec![
        own(counted(&[2, 3])),
        Arg::Arrays(indices),
        list(&[0, 1]),
        list(&[1, 1]),
    ];
    assert_near(&result("gather", gather), &[0.0, 5.0, 3.0]);
}

#[test]
fn writing() {
    let scatter = |name: &str, updates: &[f32]| {
        let updates = shaped(updates, &[4, 1]);
        let indices = Arg::Arrays(vec![far()]);
        result(name, vec![x(), indices, own(updates), list(&[0])])
    };
    assert_near(
        &scatter("scatter_add", &[1.0, 2.0, 3.0, 4.0]),
        &[11.0, 22.0, 37.0],
    );
    assert_near(&scatter("scatter", &[5.0; 4]), &[5.0, 5.0, 5.0]);
    assert_near(&scatter("scatter_prod", &[2.0; 4]), &[20.0, 40.0, 120.0]);
    assert_near(
        &scatter("scatter_max", &[1.0, 25.0, 1.0, 1.0]),
        &[10.0, 25.0, 30.0],
    );
    assert_near(
        &scatter("scatter_min", &[1.0, 25.0, 1.0, 1.0]),
        &[1.0, 20.0, 1.0],
    );
}

#[test]
fn starts_of_slices() {
    let start = |value| own(ints(&[value], &[1], Dtype::S64));
    let slice = |value| {
        let args = vec![own(counted(&[5])), start(value), list(&[0]), list(&[2])];
        result("slice_dynamic", args)
    };
    assert_near(&slice(1), &[1.0, 2.0]);
    assert_near(&slice(-7), &[0.0, 1.0]);
    assert_near(&slice(i64::MAX), &[3.0, 4.0]);
    let update = |value| {
        let update = own(vector(&[8.0, 9.0]));
        let args = vec![own(counted(&[4])), update, start(value), list(&[0])];
        result("slice_update_dynamic", args)
    };
    assert_near(&update(-1), &[8.0, 9.0, 2.0, 3.0]);
    assert_near(&update(1_000_000_000_000), &[0.0, 1.0, 8.0, 9.0]);
    // Several axes, in another order than the array's.
    let starts = own(ints(&[9, -9], &[2], Dtype::S32));
    let args = vec![own(counted(&[3, 4])), starts, list(&[1, 0]), list(&[2, 3])];
    assert_near(
        &result("slice_dynamic", args),
        &[1.0, 2.0, 3.0, 5.0, 6.0, 7.0],
    );
}

/// Tables of 0, 1, 2... whose rows lie in other orders, with gaps, or many times; one has rows that no step fits.
fn tables() -> Vec<mlx_rs::Array> {
    let view = |name, args| build(name, args).expect("a view");
    let transposed =
        |shape: &[i64], axes: &[i64]| view("transpose", vec![own(counted(shape)), list(axes)]);
    let slice = |array, from: &[i64], to: &[i64], step: &[i64]| {
        view("slice", vec![own(array), list(from), list(to), list(step)])
    };
    vec![
        counted(&[7]),
        counted(&[7, 5]),
        counted(&[1, 7, 5]),
        transposed(&[5, 7], &[1, 0]),
        transposed(&[3, 5, 7], &[2, 1, 0]),
        transposed(&[7, 3, 5], &[0, 2, 1]),
        slice(counted(&[20, 9]), &[1, 2], &[15, 9], &[2, 3]),
        view("flip", vec![own(counted(&[7, 5])), list(&[0, 1])]),
        view("broadcast_to", vec![own(counted(&[5])), list(&[7, 5])]),
        view("broadcast_to", vec![own(counted(&[7, 1])), list(&[7, 5])]),
    ]
}

#[test]
fn rows_of_tables() {
    let chosen = [6, 0, -3, 3, 3, 99, 5];
    for table in tables() {
        let shape: Vec<i64> = table.shape().iter().map(|size| i64::from(*size)).collect();
        let axis = usize::from(shape[0] == 1);
        let all = numbers(table.clone());
        let columns = all.len() / 7;
        let row = |index: &i64| *index.clamp(&0, &6) as usize;
        let taken: Vec<f64> = chosen
            .iter()
            .flat_map(|index| all[row(index) * columns..][..columns].to_vec())
            .collect();
        let updates: Vec<f32> = (0..7 * columns).map(|i| 1000.0 + i as f32).collect();
        let (mut put, mut added) = (all.clone(), all.clone());
        for (at, index) in chosen.iter().enumerate() {
            for column in 0..columns {
                let update = f64::from(updates[at * columns + column]);
                put[row(index) * columns + column] = update;
                added[row(index) * columns + column] += update;
            }
        }
        let slices: Vec<i64> = shape
            .iter()
            .enumerate()
            .map(|(at, size)| if at == axis { 1 } else { *size })
            .collect();
        let sized = [vec![7], slices].concat();
        for kind in [
            Dtype::U8,
            Dtype::S16,
            Dtype::F16,
            Dtype::F32,
            Dtype::S64,
            Dtype::F64,
        ] {
            // 1000 and more do not fit every type.
            let fits = !matches!(kind, Dtype::U8 | Dtype::F16);
            let cast = |x| own(build("astype", vec![own(x), dtype(kind)]).expect("a cast"));
            let view = || match kind {
                Dtype::F32 => own(table.clone()),
                _ => cast(table.clone()),
            };
            let indices = || ints(&chosen, &[7], Dtype::S32);
            let got = result("take", vec![view(), own(indices()), int(axis as i64)]);
            assert_eq!(got, taken, "{shape:?} of {kind:?}");
            if !fits {
                continue;
            }
            for (name, wanted) in [("scatter", &put), ("scatter_add", &added)] {
                let updates = cast(shaped(&updates, &sized));
                let indices = Arg::Arrays(vec![indices()]);
                let got = result(name, vec![view(), indices, updates, list(&[axis as i64])]);
                assert!(got == *wanted, "{name} on {shape:?} of {kind:?}: {got:?}");
            }
        }
    }
}

#[test]
fn elements_of_rows() {
    for table in tables() {
        let all = numbers(table.clone());
        let shape: Vec<i64> = table.shape().iter().map(|size| i64::from(*size)).collect();
        let (columns, outer) = shape.split_last().expect("a table has axes");
        let rows = all.len() / *columns as usize;
        // More of them than a row has elements, some far outside.
        let indices: Vec<i64> = (0..rows as i64 * 9).map(|i| (i * 5) % 13 - 3).collect();
        let wanted: Vec<f64> = indices
            .iter()
            .enumerate()
            .map(|(at, index)| {
                all[at / 9 * *columns as usize + *index.clamp(&0, &(columns - 1)) as usize]
            })
            .collect();
        for kind in [Dtype::S8, Dtype::S32, Dtype::S64] {
            let indices = own(ints(&indices, &[outer, &[9]].concat(), kind));
            let got = result(
                "take_along_axis",
                vec![own(table.clone()), indices, int(-1)],
            );
            assert_eq!(got, wanted, "{shape:?} by {kind:?}");
        }
    }
}

#[test]
fn shapes_of_indices() {
    let x = || own(counted(&[4, 3]));
    let indices = || own(ints(&[3, 0, 1, 2, 2, 9], &[2, 3], Dtype::U16));
    let taken = build("take", vec![x(), indices(), int(0)]).expect("rows");
    assert_eq!(taken.shape(), [2, 3, 3]);
    let one = own(ints(&[2], &[], Dtype::S32));
    let row = build("take", vec![x(), one, int(0)]).expect("a row");
    assert_eq!(row.shape(), [3]);
    assert_eq!(numbers(row), [6.0, 7.0, 8.0]);
}

/// What is scattered into stays as it was.
#[test]
fn the_target_stays() {
    let x = counted(&[3]);
    let indices = || Arg::Arrays(vec![ints(&[0, 0], &[2], Dtype::S32)]);
    let updates = || own(shaped(&[5.0, 6.0], &[2, 1]));
    let args = vec![own(x.clone()), indices(), updates(), list(&[0])];
    assert_eq!(result("scatter_add", args), [11.0, 1.0, 2.0]);
    let twice = build("add", vec![own(x.clone()), own(x.clone())]).expect("a sum");
    let args = vec![own(twice), indices(), updates(), list(&[0])];
    assert_eq!(result("scatter_add", args), [11.0, 2.0, 4.0]);
    assert_eq!(numbers(x), [0.0, 1.0, 2.0]);
}
