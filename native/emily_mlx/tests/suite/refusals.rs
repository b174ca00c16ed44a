//! What would end the process or touch stray memory in MLX is refused before it is called.

use emily_mlx::{from_bytes, Arg, Dtype, Error, Literal, Number};

use crate::support::*;

pub(crate) const MOST: i64 = i32::MAX as i64;

pub(crate) fn x() -> Arg<'static> {
    own(counted(&[2, 3]))
}

pub(crate) fn index(values: &[i64]) -> mlx_rs::Array {
    ints(values, &[values.len() as i64], Dtype::S32)
}

/// Every row is refused with a message that names the operation and holds the words given.
pub(crate) fn refused(name: &str, rows: Vec<(Vec<Arg>, &str)>) {
    for (args, words) in rows {
        let shown = format!("{args:?}");
        let message = refusal(name, args);
        assert!(message.starts_with(name), "{message:?} of {shown}");
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn wrong_arguments() {
    refused(
        "add",
        vec![
            (vec![], "argument 1 is missing"),
            (vec![x()], "argument 2 is missing"),
            (vec![x(), x(), x()], "takes 2 arguments, got 3"),
            (
                vec![x(), int(1)],
                "argument 2 must be an array, got a number",
            ),
            (vec![x(), nil()], "got nil"),
            (vec![x(), causal()], "got :causal"),
            (vec![x(), Arg::Arrays(vec![])], "got a list of arrays"),
        ],
    );
    refused(
        "reshape",
        vec![
            (
                vec![x(), boolean(true)],
                "a list of integers, got a boolean",
            ),
            (vec![x(), dtype(Dtype::F32)], "got a type"),
            (vec![x(), text("6".to_owned())], "got a string"),
            (vec![x(), list(&[i64::MAX])], "does not fit 32 bits"),
        ],
    );
    refused("astype", vec![(vec![x(), list(&[1])], "a type")]);
    refused("sum", vec![(vec![x(), list(&[0]), int(1)], "a boolean")]);
    refused("sort", vec![(vec![x(), float(0.0)], "an integer")]);
    let complex = Literal::Number(Number::Complex(1.0, 1.0)).into();
    refused(
        "rms_norm",
        vec![(vec![x(), nil(), complex], "a real number")],
    );
    refused("einsum", vec![(vec![x(), Arg::Arrays(vec![])], "a string")]);
}

#[test]
fn bytes_that_do_not_fill_a_shape() {
    for (bytes, shape) in [
        (&[0u8; 4][..], &[2][..]),
        (&[0; 8], &[1]),
        (&[], &[]),
        (&[0; 4], &[-1, -1]),
        (&[0; 4], &[1 << 40]),
        (&[], &[0]),
        (&[], &[0, i64::MIN]),
        (&[], &[MOST, MOST, MOST]),
    ] {
        let refused = from_bytes(bytes, shape, Dtype::F32);
        assert!(matches!(refused, Err(Error::Argument(_))), "{shape:?}");
    }
}

#[test]
fn axes() {
    for axis in [2, -3, MOST, -MOST] {
        refused("sort", vec![(vec![x(), int(axis)], "out of bounds")]);
        refused(
            "sum",
            vec![(vec![x(), list(&[axis]), boolean(false)], "out of bounds")],
        );
        refused("flip", vec![(vec![x(), list(&[axis])], "out of bounds")]);
        let arrays = Arg::Arrays(vec![counted(&[2, 3])]);
        refused(
            "concatenate",
            vec![(vec![arrays, int(axis)], "out of bounds")],
        );
    }
    refused(
        "stack",
        vec![
            (
                vec![Arg::Arrays(vec![counted(&[2, 3])]), int(3)],
                "out of bounds",
            ),
            (vec![Arg::Arrays(vec![]), int(0)], "at least one array"),
        ],
    );
    refused(
        "transpose",
        vec![
            (vec![x(), list(&[0, 0])], "named twice"),
            (vec![x(), list(&[0])], "expected 2"),
        ],
    );
    refused("squeeze", vec![(vec![x(), list(&[0, -2])], "named twice")]);
    refused(
        "expand_dims",
        vec![(vec![x(), list(&[0, -4])], "named twice")],
    );
    refused(
        "diagonal",
        vec![(
            vec![own(vector(&[1.0])), int(0), int(0), int(0)],
            "two axes",
        )],
    );
    refused(
        "tril",
        vec![(vec![own(vector(&[1.0])), int(0)], "two axes")],
    );
}

#[test]
fn slices() {
    let slice = |starts: &[i64], stops: &[i64], strides: &[i64]| {
        vec![x(), list(starts), list(stops), list(strides)]
    };
    refused(
        "slice",
        vec![
            (slice(&[0], &[2], &[1]), "expected 2"),
            (slice(&[0, 0], &[2, 3], &[1, 0]), "at least 1"),
            (slice(&[0, 0], &[2, 3], &[1, -1]), "at least 1"),
            (slice(&[-1, 0], &[2, 3], &[1, 1]), "is not within"),
            (slice(&[0, 0], &[2, 4], &[1, 1]), "is not within"),
            (slice(&[0, 3], &[2, 2], &[1, 1]), "is not within"),
        ],
    );
    for name in ["slice_update", "slice_update_add", "slice_update_max"] {
        let args = vec![x(), x(), list(&[0, 0]), list(&[2, 9]), list(&[1, 1])];
        refused(name, vec![(args, "is not within")]);
    }
    let start = |count: usize| own(index(&vec![0; count]));
    refused(
        "slice_dynamic",
        vec![
            (
                vec![x(), start(1), list(&[0]), list(&[3, 1])],
                "leaves axis 0",
            ),
            (vec![x(), start(1), list(&[0]), list(&[1])], "expected 2"),
            (
                vec![x(), start(2), list(&[0]), list(&[1, 1])],
                "starts must have shape",
            ),
            (
                vec![x(), start(1), list(&[0]), list(&[1, 4])],
                "leaves axis 1",
            ),
            (
                vec![x(), x(), list(&[0, 1]), list(&[1, 1])],
                "starts must have shape",
            ),
            (
                vec![x(), own(vector(&[0.0])), list(&[0]), list(&[1, 1])],
                "indices must be integers",
            ),
        ],
    );
    refused(
        "slice_update_dynamic",
        vec![
            (
                vec![x(), own(counted(&[3, 3])), start(1), list(&[0])],
                "leaves axis 0",
            ),
            (
                vec![x(), own(counted(&[3])), start(1), list(&[0])],
                "differ in rank",
            ),
            (
                vec![x(), own(counted(&[1, 4])), start(1), list(&[0])],
                "leaves axis 1",
            ),
        ],
    );
}

#[test]
fn strided_views() {
    let view = |shape: &[i64], strides: &[i64], offset| {
        vec![own(counted(&[6])), list(shape), list(strides), int(offset)]
    };
    refused(
        "as_strided",
        vec![
            (view(&[6], &[1], 1), "leave the 6 elements"),
            (view(&[1], &[0], 6), "leave the 6 elements"),
            (view(&[1], &[0], -1), "leave the 6 elements"),
            (view(&[3], &[-1], 1), "leave the 6 elements"),
            (view(&[2, 2], &[5, 1], 0), "leave the 6 elements"),
            (view(&[2], &[i64::MAX], 0), "leave the 6 elements"),
            (
                view(&[3, 3], &[i64::MAX, i64::MIN], 3),
                "leave the 6 elements",
            ),
            (view(&[2], &[1, 1], 0), "expected 1"),
        ],
    );
    assert_near(
        &result("as_strided", view(&[6], &[-1], 5)),
        &[5.0, 4.0, 3.0, 2.0, 1.0, 0.0],
    );
}

#[test]
fn indices() {
    let some = || own(index(&[0]));
    refused(
        "take",
        vec![
            (vec![x(), own(vector(&[0.0])), int(0)], "integers, got f32"),
            (
                vec![x(), own(ints(&[1], &[1], Dtype::Bool)), int(0)],
                "got bool",
            ),
        ],
    );
    refused(
        "take_along_axis",
        vec![(vec![x(), some(), int(0)], "differ in rank")],
    );
    let gather = |indices: Vec<mlx_rs::Array>, axes: &[i64], sizes: &[i64]| {
        vec![x(), Arg::Arrays(indices), list(axes), list(sizes)]
    };
    refused(
        "gather",
        vec![
            (gather(vec![], &[], &[1, 1]), "at least one axis"),
            (gather(vec![index(&[0])], &[0, 1], &[1, 1]), "expected 2"),
            (gather(vec![index(&[0])], &[0], &[2, 3]), "1 is the most"),
            (gather(vec![index(&[0])], &[0], &[1, 4]), "3 is the most"),
            (gather(vec![index(&[0])], &[0], &[1]), "expected 2"),
            (
                gather(vec![index(&[0]); 2], &[0, 0], &[1, 1]),
                "named twice",
            ),
            (
                gather(vec![vector(&[0.0])], &[0], &[1, 1]),
                "must be integers",
            ),
        ],
    );
    for name in [
        "scatter",
        "scatter_add",
        "scatter_prod",
        "scatter_max",
        "scatter_min",
    ] {
        let scatter = |updates: &[i64]| {
            let updates = own(counted(updates));
            vec![x(), Arg::Arrays(vec![index(&[0])]), updates, list(&[0])]
        };
        refused(
            name,
            vec![
                (scatter(&[]), "lack the indices' axes"),
                (scatter(&[1, 1]), "expected 2"),
                (scatter(&[1, 2, 3]), "1 is the most"),
                (scatter(&[1, 1, 4]), "3 is the most"),
            ],
        );
    }
}

#[test]
fn paddings() {
    let pad = |axes: &[i64], low: &[i64], high: &[i64], value| {
        vec![x(), list(axes), list(low), list(high), own(value)]
    };
    let zero = || shaped(&[0.0], &[]);
    refused(
        "pad",
        vec![
            (pad(&[0], &[-1], &[0], zero()), "at least 0"),
            (pad(&[0], &[0], &[-1], zero()), "at least 0"),
            (pad(&[0], &[0, 0], &[0], zero()), "expected 1"),
            (pad(&[0], &[MOST], &[MOST], zero()), "entries"),
            (pad(&[0], &[0], &[0], vector(&[0.0])), "must be a scalar"),
        ],
    );
}

#[test]
fn results_of_nothing() {
    let range = vec![int(1), int(0), int(1), dtype(Dtype::F32)];
    refused("arange", vec![(range, "is empty")]);
    let slice = vec![x(), list(&[1, 0]), list(&[1, 3]), list(&[1, 1])];
    refused("slice", vec![(slice, "is empty")]);
    refused("tile", vec![(vec![x(), list(&[0, 1])], "is empty")]);
    refused("repeat", vec![(vec![x(), int(0), int(0)], "is empty")]);
}

#[test]
fn matrices() {
    for name in ["qr", "lu", "lu_factor", "inv", "det"] {
        refused(
            name,
            vec![
                (vec![own(vector(&[1.0]))], "needs matrices"),
                (
                    vec![own(ints(&[1], &[1, 1], Dtype::S32))],
                    "f32 or f64, got s32",
                ),
            ],
        );
    }
    refused("inv", vec![(vec![x()], "square")]);
    refused("det", vec![(vec![x()], "square")]);
    refused("cholesky", vec![(vec![x(), boolean(true)], "square")]);
    refused("eigh", vec![(vec![x(), boolean(true)], "square")]);
    let a = || own(counted(&[2, 2]));
    let sides = [vec![1, 1], vec![3], vec![]];
    for b in &sides {
        refused("solve", vec![(vec![a(), own(counted(b))], "no system")]);
        let triangular = vec![a(), own(counted(b)), boolean(true)];
        refused("solve_triangular", vec![(triangular, "no system")]);
    }
    let fft = |length, shape: &[i64]| vec![own(counted(shape)), int(length), int(0)];
    for name in ["fft", "ifft", "rfft", "irfft"] {
        refused(
            name,
            vec![(fft(0, &[2]), "at least 1"), (fft(-1, &[2]), "at least 1")],
        );
    }
}

#[test]
fn convolutions() {
    let conv = |input: &[i64], kernel: &[i64], stride, low, dilation, groups| {
        let spatial = input.len().saturating_sub(2);
        let each = |value| list(&vec![value; spatial]);
        vec![
            own(counted(input)),
            own(counted(kernel)),
            each(stride),
            each(low),
            each(0),
            each(dilation),
            each(dilation),
            int(groups),
            boolean(false),
            boolean(false),
        ]
    };
    refused(
        "conv",
        vec![
            (conv(&[2, 3], &[2, 3], 1, 0, 1, 1), "rank from 3 on"),
            (conv(&[1, 3, 1], &[1, 1, 1, 1], 1, 0, 1, 1), "same rank"),
            (conv(&[1, 3, 1], &[1, 1, 1], 0, 0, 1, 1), "at least 1"),
            (conv(&[1, 3, 1], &[1, 1, 1], -1, 0, 1, 1), "at least 1"),
            (conv(&[1, 3, 1], &[1, 1, 1], 1, -1, 1, 1), "at least 0"),
            (conv(&[1, 3, 1], &[1, 1, 1], 1, 0, 0, 1), "at least 1"),
            (conv(&[1, 3, 1], &[1, 1, 1], 1, 0, 1, 0), "at least 1"),
            (conv(&[1, 3, 1], &[1, 1, 1], 1, 0, 1, -2), "at least 1"),
            (conv(&[1, 3, 4], &[2, 1, 1], 1, 0, 1, 2), "do not divide"),
            (conv(&[1, 3, 4], &[3, 1, 2], 1, 0, 1, 2), "do not divide"),
            (conv(&[1, 3, 2], &[1, 1, 3], 1, 0, 1, 1), "do not divide"),
            (conv(&[1, 3, 1], &[1, 4, 1], 1, 0, 1, 1), "does not fit"),
            (conv(&[1, 3, 1], &[1, 1, 1], 1, MOST, 1, 1), "does not fit"),
        ],
    );
}

#[test]
fn norms() {
    let eps = || float(1e-5);
    let whole = || own(ints(&[1, 2], &[2], Dtype::S32));
    refused(
        "rms_norm",
        vec![
            (
                vec![own(shaped(&[1.0], &[])), nil(), eps()],
                "at least one axis",
            ),
            (vec![whole(), nil(), eps()], "floating-point type, got s32"),
            (
                vec![x(), own(vector(&[1.0])), eps()],
                "weight must have shape [3], got [1]",
            ),
            (
                vec![x(), own(shaped(&[1.0; 3], &[1, 3])), eps()],
                "weight must have shape",
            ),
        ],
    );
    refused(
        "layer_norm",
        vec![
            (
                vec![x(), nil(), own(vector(&[1.0])), eps()],
                "bias must have shape",
            ),
            (
                vec![x(), whole(), nil(), eps()],
                "weight must have a floating-point type",
            ),
        ],
    );
}

#[test]
fn rope() {
    let base = || float(10_000.0);
    let zero = || own(ints(&[0], &[], Dtype::S32));
    let rope = |x: mlx_rs::Array, dims, base, offset, freqs| {
        vec![
            own(x),
            int(dims),
            boolean(false),
            base,
            float(1.0),
            offset,
            freqs,
        ]
    };
    let x = || counted(&[2, 3, 4]);
    let offsets = |count: usize| own(index(&vec![0; count]));
    refused(
        "rope",
        vec![
            (
                rope(counted(&[3, 4]), 4, base(), zero(), nil()),
                "three axes",
            ),
            (rope(x(), 3, base(), zero(), nil()), "even"),
            (rope(x(), 0, base(), zero(), nil()), "even"),
            (rope(x(), -2, base(), zero(), nil()), "even"),
            (rope(x(), 6, base(), zero(), nil()), "even"),
            (
                rope(x(), 4, base(), own(shaped(&[0.0], &[])), nil()),
                "integers",
            ),
            (
                rope(x(), 4, base(), own(counted(&[1, 1])), nil()),
                "integers",
            ),
            (rope(x(), 4, base(), offsets(3), nil()), "3 offsets"),
            (rope(x(), 4, nil(), zero(), nil()), "either a base or freqs"),
            (
                rope(x(), 4, base(), zero(), own(vector(&[1.0, 1.0]))),
                "either a base or freqs",
            ),
            (
                rope(x(), 4, nil(), zero(), own(vector(&[1.0]))),
                "freqs must have shape [2]",
            ),
        ],
    );
}

#[test]
fn attention() {
    let call = |q: &[i64], k: &[i64], v: &[i64], mask, sinks| {
        let arrays = [q, k, v].map(|shape| own(counted(shape)));
        let mut args = Vec::from(arrays);
        args.extend([float(1.0), mask, sinks]);
        args
    };
    let (q, k) = (&[2, 4, 3, 8], &[2, 2, 5, 8]);
    refused(
        "attention",
        vec![
            (
                call(&[4, 3, 8], k, k, nil(), nil()),
                "[batch, heads, seq, head_dim]",
            ),
            (
                call(q, &[1, 2, 5, 8], k, nil(), nil()),
                "do not fit together",
            ),
            (
                call(q, &[2, 3, 5, 8], &[2, 3, 5, 8], nil(), nil()),
                "do not fit",
            ),
            (
                call(q, k, &[2, 1, 5, 8], nil(), nil()),
                "do not fit together",
            ),
            (
                call(q, &[2, 2, 5, 4], k, nil(), nil()),
                "do not fit together",
            ),
            (
                call(q, k, &[2, 2, 4, 8], nil(), nil()),
                "do not fit together",
            ),
            (
                call(q, k, k, own(counted(&[3, 4])), nil()),
                "does not broadcast",
            ),
            (
                call(q, k, k, own(counted(&[1, 1, 1, 3, 5])), nil()),
                "does not broadcast",
            ),
            (call(q, k, k, boolean(true), nil()), ":causal or nil"),
            (
                call(q, k, k, nil(), own(counted(&[2]))),
                "sinks must have shape [4]",
            ),
            (
                call(q, k, k, nil(), own(index(&[0; 4]))),
                "sinks must have a floating",
            ),
        ],
    );
}

#[test]
fn what_mlx_refuses_comes_with_its_message() {
    let mismatch = build("add", vec![x(), own(counted(&[2, 2]))]);
    assert!(matches!(mismatch, Err(Error::Mlx(message)) if message.contains("broadcast")));
    let subscripts = text("ijk,jk->ik".to_owned());
    let einsum = build(
        "einsum",
        vec![subscripts, Arg::Arrays(vec![counted(&[2, 2]); 2])],
    );
    assert!(
        matches!(&einsum, Err(Error::Mlx(message)) if message.contains("einsum")),
        "{einsum:?}"
    );
    let nothing = build("einsum", vec![text(String::new()), Arg::Arrays(vec![])]);
    assert!(matches!(nothing, Err(Error::Argument(_))));
}
