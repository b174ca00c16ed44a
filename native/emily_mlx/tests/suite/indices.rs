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
