//! Sums and products beside loops in f64: Emily's own of f32, small matrices, and floats of 16 bits.

use emily_mlx::{Arg, Dtype, SharedArray};
use mlx_rs::Array;

use crate::support::*;

fn view(name: &str, x: Array, lists: &[&[i64]]) -> Array {
    let mut args = vec![own(x)];
    args.extend(lists.iter().map(|values| list(values)));
    build(name, args).expect("a view")
}

fn shape(x: &Array) -> Vec<usize> {
    x.shape().iter().map(|size| *size as usize).collect()
}

/// Totals over `axes`, which are kept with one element.
fn reduced(
    x: &[f64],
    shape: &[usize],
    axes: &[usize],
    start: f64,
    f: fn(f64, f64) -> f64,
) -> Vec<f64> {
    let kept: Vec<usize> = (0..shape.len())
        .map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] })
        .collect();
    let mut totals = vec![start; kept.iter().product()];
    for (at, x) in x.iter().enumerate() {
        let (mut rest, mut place, mut step) = (at, 0, 1);
        for axis in (0..shape.len()).rev() {
            let index = rest % shape[axis];
            rest /= shape[axis];
            if kept[axis] > 1 {
                place += index * step;
                step *= kept[axis];
            }
        }
        totals[place] = f(totals[place], *x);
    }
    totals
}

fn subsets(rank: usize) -> Vec<Vec<usize>> {
    let all = 1..1usize << rank;
    all.map(|bits| (0..rank).filter(|axis| bits >> axis & 1 == 1).collect())
        .collect()
}

/// Whole numbers, whose totals f64 holds exactly in any order.
fn whole(shape: &[i64]) -> Array {
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 37) % 101 - 50) as f32).collect();
    shaped(&values, shape)
}

fn layouts() -> Vec<Array> {
    let cube = || whole(&[5, 1, 7, 11]);
    vec![
        whole(&[23]),
        whole(&[1]),
        cube(),
        view("transpose", cube(), &[&[3, 1, 0, 2]]),
        view("transpose", cube(), &[&[2, 3, 1, 0]]),
        view(
            "slice",
            cube(),
            &[&[1, 0, 2, 1], &[5, 1, 7, 10], &[2, 1, 1, 3]],
        ),
        view("flip", cube(), &[&[2, 3]]),
        view("flip", whole(&[3, 40]), &[&[0, 1]]),
        view("broadcast_to", whole(&[5, 1, 11]), &[&[2, 5, 7, 11]]),
        view("broadcast_to", whole(&[]), &[&[3, 40]]),
        view("broadcast_to", whole(&[9, 1]), &[&[9, 70]]),
        view("transpose", whole(&[70, 90]), &[&[1, 0]]),
        whole(&[2, 5000]),
        whole(&[300, 3]),
        whole(&[3, 300]),
        whole(&[200, 16]),
        whole(&[4, 130, 2]),
        // More than a cache holds.
        whole(&[2000, 90]),
    ]
}

#[test]
fn sums_over_any_axes_of_any_layout() {
    for x in layouts() {
        let (shape, elements) = (shape(&x), numbers(x.clone()));
        for axes in subsets(shape.len()) {
            let wanted = reduced(&elements, &shape, &axes, 0.0, |a, b| a + b);
            // From the end, as an axis may be named.
            let named: Vec<i64> = axes
                .iter()
                .map(|axis| *axis as i64 - shape.len() as i64)
                .collect();
            for keep in [true, false] {
                let sum =
                    build("sum", vec![own(x.clone()), list(&named), boolean(keep)]).expect("a sum");
                let rank = if keep {
                    shape.len()
                } else {
                    shape.len() - axes.len()
                };
                assert_eq!(sum.ndim(), rank);
                assert_eq!(numbers(sum), wanted, "{shape:?} over {axes:?}");
            }
        }
    }
}

#[test]
fn products_over_any_axes_of_any_layout() {
    for x in layouts() {
        // Powers of two, few of which are not 1.
        let count = x.size() as i64;
        let powers: Vec<f32> = (0..count)
            .map(|i| match i % 23 {
                0 => 2.0,
                7 => -0.5,
                11 => 4.0,
                _ => 1.0,
            })
            .collect();
        let dims: Vec<i64> = x.shape().iter().map(|size| i64::from(*size)).collect();
        let (shape, elements) = (shape(&x), powers.iter().map(|x| f64::from(*x)));
        let elements: Vec<f64> = elements.collect();
        for axes in subsets(shape.len()) {
            let wanted: Vec<f64> = reduced(&elements, &shape, &axes, 1.0, |a, b| a * b)
                .into_iter()
                .map(|product| f64::from(product as f32))
                .collect();
            let named: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
            let x = own(shaped(&powers, &dims));
            let got = result("prod", vec![x, list(&named), boolean(false)]);
            assert_eq!(got, wanted, "{shape:?} over {axes:?}");
        }
    }
}

fn total(name: &str, values: &[f32]) -> f64 {
    result(name, vec![own(vector(values)), list(&[0]), boolean(false)])[0]
}

#[test]
fn rows_of_every_length() {
    for length in 1..200i64 {
        let elements = numbers(whole(&[length]));
        let wanted: f64 = elements.iter().sum();
        let values: Vec<f32> = elements.iter().map(|x| *x as f32).collect();
        assert_eq!(total("sum", &values), wanted, "{length}");
    }
}

/// In f32 a one is lost beside 2^24.
#[test]
fn sums_lose_no_digits() {
    if without_kernels() {
        return;
    }
    let mut values = vec![1.0f32; 100_000];
    values[0] = 16_777_216.0;
    assert_eq!(total("sum", &values), 16_877_216.0);
    assert_eq!(total("sum", &[1.0e8, 1.0, -1.0e8]), 1.0);
    for length in [3, 40, 1000] {
        let mut values = vec![0.0; length];
        (values[0], values[1], values[length - 1]) = (1.0e8, 1.0, -1.0e8);
        assert_eq!(total("sum", &values), 1.0);
    }
    let columns = shaped(&[1.0e8, 3.0, 1.0, 4.0, -1.0e8, 5.0], &[3, 2]);
    let got = result("sum", vec![own(columns), list(&[0]), boolean(false)]);
    assert_eq!(got, [1.0, 12.0]);
    assert_eq!(total("prod", &[1.0e30, 1.0e30, 0.5e-30, 1.0e-30]), 0.5);
}

#[test]
fn totals_of_infinities_and_nan() {
    let (infinite, nan) = (f32::INFINITY, f32::NAN);
    for length in [4, 50, 300] {
        let with = |values: &[f32]| {
            let mut all = vec![1.0; length];
            all[length - values.len()..].copy_from_slice(values);
            all
        };
        for name in ["sum", "prod"] {
            assert!(total(name, &with(&[nan])).is_nan());
            assert_eq!(total(name, &with(&[infinite])), f64::INFINITY);
        }
        assert!(total("sum", &with(&[infinite, -infinite])).is_nan());
        assert!(total("prod", &with(&[infinite, 0.0])).is_nan());
        // Beyond f32 on the way is no infinity, at the end it is.
        if !without_kernels() {
            let sum = total("sum", &with(&[3.0e38, 3.0e38, -3.0e38]));
            assert_eq!(sum, f64::from(3.0e38f32));
        }
        assert_eq!(total("sum", &with(&[3.0e38, 3.0e38])), f64::INFINITY);
        assert_eq!(total("prod", &with(&[1.0e30, -1.0e30])), -f64::INFINITY);
    }
    assert_eq!(total("sum", &[-0.0, -0.0]), 0.0);
}

/// The product of matrices of one batch, in f64 and rounded.
fn product(a: &Array, b: &Array) -> Vec<f64> {
    let (rows, inner, columns) = (a.dim(-2) as usize, a.dim(-1) as usize, b.dim(-1) as usize);
    let (a, b) = (numbers(a.clone()), numbers(b.clone()));
    let mut wanted = Vec::new();
    for (a, b) in a.chunks(rows * inner).zip(b.chunks(inner * columns)) {
        for i in 0..rows {
            for j in 0..columns {
                let sum: f64 = (0..inner)
                    .map(|k| a[i * inner + k] * b[k * columns + j])
                    .sum();
                wanted.push(f64::from(sum as f32));
            }
        }
    }
    wanted
}

fn assert_product(a: Array, b: Array) {
    let wanted = product(&a, &b);
    let shapes = format!("{:?} and {:?}", a.shape(), b.shape());
    assert_eq!(result("matmul", vec![own(a), own(b)]), wanted, "{shapes}");
}

#[test]
fn matrices_of_every_size() {
    let sizes = [1, 2, 3, 4, 5, 7, 8, 9, 13];
    for rows in sizes {
        for inner in sizes {
            for columns in sizes {
                assert_product(whole(&[rows, inner]), whole(&[inner, columns]));
            }
        }
    }
    for (rows, inner, columns) in [
        (1, 500, 1),
        (1, 5003, 1),
        (2, 100, 2),
        (1, 20, 25),
        (40, 1, 12),
        (33, 33, 33),
    ] {
        assert_product(whole(&[rows, inner]), whole(&[inner, columns]));
    }
}

#[test]
fn matrices_of_any_layout() {
    let turned = |x, axes: &[i64]| view("transpose", x, &[axes]);
    for (rows, inner, columns) in [(3, 4, 5), (1, 20, 7), (5, 20, 1), (6, 9, 8), (1, 203, 1)] {
        let a = || whole(&[rows, inner]);
        let b = || whole(&[inner, columns]);
        let a_turned = || turned(whole(&[inner, rows]), &[1, 0]);
        let b_turned = || turned(whole(&[columns, inner]), &[1, 0]);
        assert_product(a_turned(), b());
        assert_product(a(), b_turned());
        assert_product(a_turned(), b_turned());
        assert_product(view("flip", a(), &[&[0, 1]]), view("flip", b(), &[&[1]]));
        let wide = whole(&[inner, 3 * columns]);
        let part = view(
            "slice",
            wide,
            &[&[0, 1], &[inner, 3 * columns - 1], &[1, 3]],
        );
        assert_product(a(), part);
        let one = view("broadcast_to", whole(&[]), &[&[inner, columns]]);
        assert_product(a(), one);
        // Batches, one of which is the same matrix all along.
        let many = || view("broadcast_to", a(), &[&[2, 3, rows, inner]]);
        assert_product(many(), whole(&[2, 3, inner, columns]));
        assert_product(
            many(),
            turned(whole(&[3, columns, 2, inner]), &[2, 0, 3, 1]),
        );
    }
}

#[test]
fn products_of_matrices_lose_no_digits() {
    if without_kernels() {
        return;
    }
    let a = || shaped(&[1.0e8, 1.0, 1.0e8, 3.0, 4.0, 5.0], &[2, 3]);
    let b = shaped(&[1.0, 1.0, -1.0], &[3, 1]);
    assert_eq!(result("matmul", vec![own(a()), own(b)]), [1.0, 2.0]);
    for length in [40, 3000] {
        let mut x = vec![1.0f32; length];
        (x[0], x[length - 1]) = (1.0e8, -1.0e8);
        let row = shaped(&x, &[1, length as i64]);
        let column = shaped(&vec![1.0; length], &[length as i64, 1]);
        let got = result("matmul", vec![own(row), own(column)]);
        assert_eq!(got, [length as f64 - 2.0]);
    }
    let b = shaped(&[1.0, 0.0, 1.0, 0.0, -1.0, 1.0], &[3, 2]);
    assert_eq!(
        result("matmul", vec![own(a()), own(b)]),
        [1.0, 1.0e8, 2.0, 5.0]
    );
}

#[test]
fn infinities_stay_in_their_rows() {
    let a = shaped(&[f32::INFINITY, 0.0, 1.0, 2.0, f32::NAN, 0.0], &[3, 2]);
    let b = shaped(&[0.0, 1.0, 1.0, 1.0, 1.0, 1.0], &[2, 3]);
    let got = result("matmul", vec![own(a), own(b)]);
    assert!(got[0].is_nan() && got[1] == f64::INFINITY && got[2] == f64::INFINITY);
    assert_eq!(got[3..6], [2.0, 3.0, 3.0]);
    assert!(got[6..].iter().all(|x| x.is_nan()));
}

/// Numbers of which 8192 would stand still at 256 in bf16 and at 2048 in f16, were they added in their own type.
fn halves(count: i64, kind: Dtype) -> (Array, Vec<f64>) {
    let fraction = |i: i64| 0.5 + 0.5 * (i as f64 * 0.618_033_988_749_895).fract();
    let values: Vec<f32> = (0..count).map(|i| fraction(i) as f32).collect();
    let x = cast(vector(&values), kind);
    (x.clone(), numbers(x))
}

fn cast(x: Array, kind: Dtype) -> Array {
    build("astype", vec![own(x), dtype(kind)]).expect("a cast")
}

/// One unit in the last place of a type for numbers of size 1, at most.
fn unit(kind: Dtype) -> f64 {
    if kind == Dtype::Bf16 {
        2f64.powi(-8)
    } else {
        2f64.powi(-11)
    }
}

fn assert_rounded_once(name: &str, kind: Dtype, got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{name}");
    for (a, b) in got.iter().zip(wanted) {
        let room = 1.1 * unit(kind) * b.abs();
        assert!((a - b).abs() <= room, "{name} of {kind:?}: {a}, not {b}");
    }
}

fn running(x: &[f64], start: f64, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let step = |total: &mut f64, x: &f64| {
        *total = f(*total, *x);
        Some(*total)
    };
    x.iter().scan(start, step).collect()
}

#[test]
fn halves_accumulate_in_f32() {
    const COUNT: i64 = 8192;
    for kind in [Dtype::F16, Dtype::Bf16] {
        let (x, values) = halves(COUNT, kind);
        let sum: f64 = values.iter().sum();
        let exps: Vec<f64> = values.iter().map(|x| x.exp()).collect();
        let all_exps: f64 = exps.iter().sum();
        let check = |name: &str, args: Vec<Arg>, wanted: &[f64]| {
            let array = build(name, args).expect("a total");
            assert_eq!(
                SharedArray::lazy(array.clone(), cpu(), 1, false)
                    .dtype()
                    .unwrap(),
                kind
            );
            assert_rounded_once(name, kind, &numbers(array), wanted);
        };
        let over_all = || vec![own(x.clone()), list(&[0]), boolean(false)];
        check("sum", over_all(), &[sum]);
        check("mean", over_all(), &[sum / COUNT as f64]);
        check("logsumexp", over_all(), &[all_exps.ln()]);
        let along = || vec![own(x.clone()), int(0), boolean(false)];
        check("cumsum", along(), &running(&values, 0.0, |a, b| a + b));
        let sums = running(&exps, 0.0, |a, b| a + b);
        let logs: Vec<f64> = sums.iter().map(|x| x.ln()).collect();
        check("logcumsumexp", along(), &logs);
        let shares: Vec<f64> = exps.iter().map(|x| x / all_exps).collect();
        // As small as f16 has with all its digits.
        assert!(shares.iter().all(|share| *share > 2f64.powi(-14)));
        check("softmax", over_all(), &shares);
        let einsum = vec![text("i->".into()), Arg::Arrays(vec![x.clone()])];
        check("einsum", einsum, &[sum]);
        let columns = build("reshape", vec![own(x.clone()), list(&[COUNT / 4, 4])]);
        let column = |at| values.iter().skip(at).step_by(4).sum::<f64>();
        let args = vec![own(columns.expect("a view")), list(&[0]), boolean(false)];
        check("sum", args, &[column(0), column(1), column(2), column(3)]);

        // Near 1, so that the product stays a number.
        let near: Vec<f32> = values.iter().map(|x| 0.9925 + 0.01 * *x as f32).collect();
        let near = cast(vector(&near), kind);
        let products = running(&numbers(near.clone()), 1.0, |a, b| a * b);
        let last = products[products.len() - 1];
        check(
            "prod",
            vec![own(near.clone()), list(&[0]), boolean(false)],
            &[last],
        );
        check(
            "cumprod",
            vec![own(near.clone()), int(0), boolean(false)],
            &products,
        );

        // All updates go to one entry, of any type.
        let places = || Arg::Arrays(vec![ints(&vec![1; COUNT as usize], &[COUNT], Dtype::S32)]);
        let column = |x: Array| build("reshape", vec![own(x), list(&[COUNT, 1])]).expect("a view");
        let into = |start: f32| own(cast(vector(&[start, start, start]), kind));
        let updates = own(column(x.clone()));
        let args = vec![into(0.0), places(), updates, list(&[0])];
        check("scatter_add", args, &[0.0, sum, 0.0]);
        let args = vec![into(1.0), places(), own(column(near)), list(&[0])];
        check("scatter_prod", args, &[1.0, last, 1.0]);
        let ones = own(ints(&vec![1; COUNT as usize], &[COUNT, 1], Dtype::S16));
        let args = vec![into(0.0), places(), ones, list(&[0])];
        check("scatter_add", args, &[0.0, COUNT as f64, 0.0]);
    }
}

type Function = fn(f64) -> f64;

#[test]
fn functions_of_halves_round_once() {
    for kind in [Dtype::F16, Dtype::Bf16] {
        let values: Vec<f32> = (-40..40).map(|i| i as f32 / 8.0).collect();
        let x = cast(vector(&values), kind);
        let wide = numbers(x.clone());
        let functions: [(&str, Function); 5] = [
            ("sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
            ("sin", f64::sin),
            ("tanh", f64::tanh),
            ("expm1", f64::exp_m1),
            ("arcsinh", f64::asinh),
        ];
        for (name, function) in functions {
            let got = result(name, vec![own(x.clone())]);
            let wanted: Vec<f64> = wide.iter().map(|x| function(*x)).collect();
            assert_rounded_once(name, kind, &got, &wanted);
        }
        let zero = || own(cast(vector(&[-0.0]), kind));
        for name in ["sin", "tanh", "expm1", "arcsinh"] {
            assert!(result(name, vec![zero()])[0].is_sign_negative(), "{name}");
        }
    }
}
