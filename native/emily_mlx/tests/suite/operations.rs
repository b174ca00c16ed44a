//! Operations by name, against numbers worked out by hand.

use emily_mlx::{Arg, Dtype, Op};
use strum::IntoEnumIterator;

use crate::support::*;

#[test]
fn every_operation_has_a_name_of_its_own() {
    let mut names: Vec<_> = Op::iter().map(Op::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Op::iter().count());
    assert!(names.contains(&"slice_update_dynamic"));
}

#[test]
fn element_wise() {
    let x = || own(vector(&[-2.0, 0.0, 2.5]));
    let y = || own(vector(&[4.0, -1.0, 0.5]));
    assert_near(&result("abs", vec![x()]), &[2.0, 0.0, 2.5]);
    assert_near(&result("exp", vec![x()]), &[0.135335283, 1.0, 12.182494]);
    assert_near(&result("round", vec![x()]), &[-2.0, 0.0, 2.0]);
    assert_near(&result("sign", vec![x()]), &[-1.0, 0.0, 1.0]);
    assert_near(&result("add", vec![x(), y()]), &[2.0, -1.0, 3.0]);
    assert_near(&result("divide", vec![x(), y()]), &[-0.5, 0.0, 5.0]);
    assert_near(&result("less", vec![x(), y()]), &[1.0, 0.0, 0.0]);
    let condition = ints(&[1, 0, 1], &[3], Dtype::Bool);
    assert_near(
        &result("where", vec![own(condition), x(), y()]),
        &[-2.0, -1.0, 2.5],
    );
    let (low, high) = (own(shaped(&[-1.0], &[])), own(shaped(&[1.0], &[])));
    assert_near(&result("clip", vec![x(), low, high]), &[-1.0, 0.0, 1.0]);
}

#[test]
fn arrays_are_borrowed_or_owned() {
    let x = vector(&[1.0, 2.0]);
    let sum = result("add", vec![Arg::Borrowed(&x), Arg::Borrowed(&x)]);
    assert_near(&sum, &[2.0, 4.0]);
    assert_near(&numbers(x), &[1.0, 2.0]);
}

#[test]
fn broadcasting_and_products() {
    let column = || own(shaped(&[1.0, 2.0], &[2, 1]));
    let row = || own(shaped(&[10.0, 20.0, 30.0], &[1, 3]));
    let product = &[10.0, 20.0, 30.0, 20.0, 40.0, 60.0];
    assert_near(&result("multiply", vec![column(), row()]), product);
    assert_near(&result("matmul", vec![column(), row()]), product);
    let text = text("ij,jk->ki".to_owned());
    let operands = Arg::Arrays(vec![
        shaped(&[1.0, 2.0], &[2, 1]),
        shaped(&[10.0, 20.0, 30.0], &[1, 3]),
    ]);
    assert_near(
        &result("einsum", vec![text, operands]),
        &[10.0, 20.0, 20.0, 40.0, 30.0, 60.0],
    );
}

#[test]
fn shapes() {
    let x = || own(counted(&[2, 3]));
    let transposed = build("transpose", vec![x(), list(&[1, 0])]).unwrap();
    assert_eq!(transposed.shape(), [3, 2]);
    assert_near(&numbers(transposed), &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let slice = vec![x(), list(&[0, 0]), list(&[2, 3]), list(&[1, 2])];
    assert_near(&result("slice", slice), &[0.0, 2.0, 3.0, 5.0]);
    let padded = vec![
        own(vector(&[1.0])),
        list(&[0]),
        list(&[1]),
        list(&[2]),
        own(shaped(&[7.0], &[])),
    ];
    assert_near(&result("pad", padded), &[7.0, 1.0, 7.0, 7.0]);
    let windows = vec![own(counted(&[4])), list(&[3, 2]), list(&[1, 1]), int(0)];
    assert_near(
        &result("as_strided", windows),
        &[0.0, 1.0, 1.0, 2.0, 2.0, 3.0],
    );
    // The view is of the row-major elements, whatever lies in memory.
    let transposed = build("transpose", vec![x(), list(&[1, 0])]).unwrap();
    let view = vec![own(transposed), list(&[3]), list(&[-1]), int(5)];
    assert_near(&result("as_strided", view), &[5.0, 2.0, 4.0]);
    let joined = Arg::Arrays(vec![vector(&[1.0]), vector(&[2.0, 3.0])]);
    assert_near(
        &result("concatenate", vec![joined, int(-1)]),
        &[1.0, 2.0, 3.0],
    );
}

#[test]
fn reductions_and_order() {
    let x = || own(shaped(&[3.0, 1.0, 2.0, 6.0, 5.0, 4.0], &[2, 3]));
    let over = |name, axes| result(name, vec![x(), list(axes), boolean(false)]);
    assert_near(&over("sum", &[0]), &[9.0, 6.0, 6.0]);
    assert_near(&over("sum", &[]), &[3.0, 1.0, 2.0, 6.0, 5.0, 4.0]);
    assert_near(&over("mean", &[0, 1]), &[3.5]);
    assert_near(&over("max", &[-1]), &[3.0, 6.0]);
    let along = |name| result(name, vec![x(), int(1), boolean(false)]);
    assert_near(&along("argmin"), &[1.0, 2.0]);
    assert_near(&along("cumsum"), &[3.0, 4.0, 6.0, 6.0, 11.0, 15.0]);
    assert_near(
        &result("argsort", vec![x(), int(1), boolean(false)]),
        &[1.0, 2.0, 0.0, 2.0, 1.0, 0.0],
    );
    // Sums of narrow integers do not wrap at their own width.
    let bytes = own(ints(&[100, 100, 100], &[3], Dtype::S8));
    assert_near(
        &result("sum", vec![bytes, list(&[0]), boolean(false)]),
        &[300.0],
    );
}

#[test]
fn new_arrays() {
    let full = |number, of| result("full", vec![list(&[2]), number, dtype(of)]);
    assert_near(&full(int(7), Dtype::S64), &[7.0, 7.0]);
    // Integers wrap, floats saturate, as a cast does.
    assert_near(&full(int(-1), Dtype::U8), &[255.0, 255.0]);
    assert_near(&full(float(-1.0), Dtype::U8), &[0.0, 0.0]);
    assert_near(&full(float(1e30), Dtype::S16), &[32767.0, 32767.0]);
    assert_near(&full(float(f64::NAN), Dtype::S32), &[0.0, 0.0]);
    assert!(full(float(f64::NAN), Dtype::Bf16)[0].is_nan());
    assert_near(&full(float(0.5), Dtype::F16), &[0.5, 0.5]);
    let range = vec![int(3), int(-3), int(-2), dtype(Dtype::S32)];
    assert_near(&result("arange", range), &[3.0, 1.0, -1.0]);
    let eye = vec![int(2), int(3), int(1), dtype(Dtype::F32)];
    assert_near(&result("eye", eye), &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn linear_algebra() {
    let x = || own(shaped(&[4.0, 2.0, 2.0, 3.0], &[2, 2]));
    let root2 = 2.0f64.sqrt();
    assert_near(
        &result("cholesky", vec![x(), boolean(false)]),
        &[2.0, 0.0, 1.0, root2],
    );
    assert_near(&result("inv", vec![x()]), &[0.375, -0.25, -0.25, 0.5]);
    assert_near(&result("det", vec![x()]), &[8.0]);
    assert_near(
        &result("solve", vec![x(), own(vector(&[8.0, 8.0]))]),
        &[1.0, 2.0],
    );
    let qr = build_on(cpu(), "qr", vec![own(shaped(&[3.0, 4.0], &[2, 1]))]).unwrap();
    let [q, r] = <[_; 2]>::try_from(qr).expect("two results");
    let (q, r) = (numbers(q), numbers(r));
    assert_near(&[r[0].abs()], &[5.0]);
    assert_near(&[q[0] * r[0], q[1] * r[0]], &[3.0, 4.0]);
}

#[test]
fn fused_kernels() {
    let x = || own(shaped(&[3.0, -3.0, 3.0, -3.0], &[1, 4]));
    let weight = || own(vector(&[1.0, 2.0, 3.0, 4.0]));
    assert_near(
        &result("rms_norm", vec![x(), weight(), float(0.0)]),
        &[1.0, -2.0, 3.0, -4.0],
    );
    assert_near(
        &result("layer_norm", vec![x(), weight(), weight(), float(0.0)]),
        &[2.0, 0.0, 6.0, 0.0],
    );
    // A quarter turn of one plane: with base 1 the angle is position times scale.
    let quarter = std::f64::consts::FRAC_PI_2;
    let rope = vec![
        own(shaped(&[1.0, 0.0, 5.0], &[1, 1, 3])),
        int(2),
        boolean(true),
        float(1.0),
        float(quarter),
        own(ints(&[1], &[], Dtype::S32)),
        nil(),
    ];
    assert_near(&result("rope", rope), &[0.0, 1.0, 5.0]);
    // The last query sees both keys alike, the first only the first.
    let q = || own(shaped(&[0.0; 2], &[1, 1, 2, 1]));
    let v = own(shaped(&[2.0, 4.0], &[1, 1, 2, 1]));
    let causal = vec![q(), q(), v, float(1.0), causal(), nil()];
    assert_near(&result("attention", causal), &[2.0, 3.0]);
}

#[test]
fn a_view_of_one_element_of_a_slice_stays_within_it() {
    let x = counted(&[3, 3]);
    let element = build(
        "slice",
        vec![own(x), list(&[1, 1]), list(&[2, 2]), list(&[1, 1])],
    );
    let args = vec![
        own(element.expect("the slice lies within")),
        dtype(Dtype::U16),
    ];
    let halves = result("view", args);
    let bits = 4.0_f32.to_bits();
    assert_eq!(halves, [f64::from(bits & 0xFFFF), f64::from(bits >> 16)]);
}
