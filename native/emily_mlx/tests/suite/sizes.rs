//! Sizes, axes and operands that are too many are refused before MLX is called.

use emily_mlx::{from_bytes, Arg, Dtype};

use crate::refusals::*;
use crate::support::*;

#[test]
fn more_axes_than_an_array_may_have() {
    let many: Vec<i64> = (0..500_000).collect();
    let ones = vec![1; 500_000];
    for (name, args) in [
        ("expand_dims", vec![x(), list(&many)]),
        ("sum", vec![x(), list(&many), boolean(false)]),
        ("transpose", vec![x(), list(&many)]),
        ("reshape", vec![x(), list(&ones)]),
        ("slice", vec![x(), list(&many), list(&many), list(&ones)]),
        ("as_strided", vec![x(), list(&[1]), list(&many), int(0)]),
    ] {
        let message = refusal(name, args);
        let wanted = format!("{name}: 500000 axes are more than the 1024 that an array may have");
        assert_eq!(message, wanted);
    }
    let widest = build(
        "reshape",
        vec![
            own(counted(&[6])),
            list(&[&[6][..], &ones[..1023]].concat()),
        ],
    );
    let widest = widest.expect("1024 axes are allowed");
    let one_more = ints(&[0], &[1, 1], Dtype::S32);
    for (name, args) in [
        ("expand_dims", vec![own(widest.clone()), list(&[0])]),
        ("stack", vec![Arg::Arrays(vec![widest.clone(); 2]), int(0)]),
        ("take", vec![own(widest.clone()), own(one_more), int(0)]),
    ] {
        assert!(refusal(name, args).starts_with(&format!("{name}: 1025 axes")));
    }
    let sum = vec![own(widest), list(&many[..1024]), boolean(false)];
    assert_eq!(result("sum", sum), [15.0]);
    let shape = vec![1; 500_000];
    let refused = from_bytes(&[0; 4], &shape, Dtype::F32)
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("from_binary: 500000 axes"), "{refused}");
}

#[test]
fn more_operands_than_an_einsum_takes() {
    let sum = |count: usize| {
        let text = text(vec!["a"; count].join(",") + "->a");
        vec![text, Arg::Arrays(vec![vector(&[1.0, 2.0]); count])]
    };
    assert_eq!(
        refusal("einsum", sum(800)),
        "einsum: takes up to 64 operands, got 800"
    );
    assert_eq!(result("einsum", sum(64)), [1.0, 2f64.powi(64)]);
    let blank = vec![
        text(" ".repeat(70_000) + "a->a"),
        Arg::Arrays(vec![vector(&[1.0])]),
    ];
    assert_eq!(
        refusal("einsum", blank),
        "einsum: takes subscripts of up to 65536 bytes, got 70004"
    );
}

#[test]
fn shapes_that_overflow() {
    let full = |shape: &[i64]| vec![list(shape), int(0), dtype(Dtype::F32)];
    refused(
        "full",
        vec![
            (full(&[-1]), "at least 1"),
            (full(&[2, i64::MIN]), "does not fit 32 bits"),
            (full(&[MOST, MOST, MOST]), "too many elements"),
            (full(&[MOST, MOST]), "too many elements"),
            (full(&[MOST, 4096]), "bytes of memory"),
        ],
    );
    refused("reshape", vec![(vec![x(), list(&[-1, 6])], "at least 1")]);
    refused(
        "broadcast_to",
        vec![(
            vec![own(shaped(&[1.0], &[])), list(&[MOST; 4])],
            "too many elements",
        )],
    );
    refused(
        "repeat",
        vec![
            (vec![x(), int(-1), int(0)], "at least 0"),
            (vec![x(), int(MOST), int(0)], "entries"),
            (vec![x(), int(MOST + 1), int(0)], "32 bits"),
        ],
    );
    refused(
        "tile",
        vec![
            (vec![x(), list(&[2])], "expected 2"),
            (vec![x(), list(&[-1, 1])], "at least 0"),
            (vec![x(), list(&[1, MOST])], "entries"),
        ],
    );
    let eye = |rows, columns| vec![int(rows), int(columns), int(0), dtype(Dtype::F32)];
    refused(
        "eye",
        vec![(eye(-1, 2), "at least 1"), (eye(MOST, 4096), "memory")],
    );
    let range = |start, stop, step| vec![float(start), float(stop), float(step), dtype(Dtype::F32)];
    refused(
        "arange",
        vec![
            (range(0.0, 1.0, 0.0), "no finite range"),
            (range(f64::NAN, 1.0, 1.0), "no finite range"),
            (range(0.0, f64::INFINITY, 1.0), "no finite range"),
            (range(0.0, 1e30, 1.0), "no finite range"),
        ],
    );
    // A sparse view of one number is a large array for whatever follows.
    let broad = build(
        "broadcast_to",
        vec![own(shaped(&[1.0], &[])), list(&[MOST, 4096])],
    );
    refused("exp", vec![(vec![own(broad.unwrap())], "bytes of memory")]);
    let long = || {
        let args = vec![own(shaped(&[1.0], &[])), list(&[MOST])];
        build("broadcast_to", args).unwrap()
    };
    let both = vec![Arg::Arrays(vec![long(), long()]), int(0)];
    refused("concatenate", vec![(both, "4294967294 entries")]);
}

#[test]
fn what_no_memory_holds_beside_a_result() {
    let conv = |x: &[i64], w: &[i64], low: i64, stride: i64| {
        let broad = |shape: &[i64]| {
            let args = vec![own(shaped(&[1.0], &[])), list(shape)];
            own(build("broadcast_to", args).unwrap())
        };
        let (low, one) = (list(&[low, low]), || list(&[1, 1]));
        let (strides, high) = (list(&[stride, stride]), list(&[0, 0]));
        let (groups, flip) = (int(1), boolean(false));
        vec![
            broad(x),
            broad(w),
            strides,
            low,
            high,
            one(),
            one(),
            groups,
            flip,
            boolean(false),
        ]
    };
    // The patches of a large kernel, and a padded input of which few elements count. A kernel of ours copies neither.
    let large = [
        (
            conv(&[1, 3000, 3000, 1], &[1, 1500, 1500, 1], 0, 1),
            "20277045000000 bytes",
        ),
        (
            conv(&[1, 4, 4, 1], &[1, 2, 2, 1], 1_000_000, 1_000_000),
            "bytes of memory",
        ),
    ];
    if emily_mlx::kernels().is_none() {
        refused("conv", large.into());
    } else {
        for (args, _) in large {
            assert!(build("conv", args).is_ok());
        }
    }
    // LAPACK's workspace is counted in 32 bits.
    let square = |size: i64| {
        let args = vec![own(shaped(&[1.0], &[])), list(&[size, size])];
        own(build("broadcast_to", args).unwrap())
    };
    refused("svd", vec![(vec![square(23_170), boolean(true)], "LAPACK")]);
    refused(
        "eigh",
        vec![(vec![square(32_767), boolean(true)], "LAPACK")],
    );
    refused(
        "cholesky",
        vec![(vec![square(46_341), boolean(true)], "LAPACK")],
    );
}
