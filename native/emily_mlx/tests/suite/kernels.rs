//! Emily's own kernels beside the scalar functions of libm in f64, which no kernel uses.

use emily_mlx::Dtype;

use crate::support::*;

/// A name and the function in f64.
type Case = (&'static str, fn(f64) -> f64);

const UNARY: [Case; 29] = [
    ("exp", libm::exp),
    ("expm1", libm::expm1),
    ("log", libm::log),
    ("log1p", libm::log1p),
    ("log2", libm::log2),
    ("log10", libm::log10),
    ("sqrt", f64::sqrt),
    ("rsqrt", |x| 1.0 / x.sqrt()),
    ("sin", libm::sin),
    ("cos", libm::cos),
    ("tan", libm::tan),
    ("arcsin", libm::asin),
    ("arccos", libm::acos),
    ("arctan", libm::atan),
    ("sinh", libm::sinh),
    ("cosh", libm::cosh),
    ("tanh", libm::tanh),
    ("arcsinh", libm::asinh),
    (
        "arccosh",
        |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) },
    ),
    ("arctanh", libm::atanh),
    ("erf", libm::erf),
    ("erfc", libm::erfc),
    ("sigmoid", |x| 1.0 / (1.0 + libm::exp(-x))),
    ("floor", f64::floor),
    ("ceil", f64::ceil),
    ("cbrt", libm::cbrt),
    ("sign", |x| {
        if x == 0.0 || x.is_nan() {
            x
        } else {
            x.signum()
        }
    }),
    ("round_away", f64::round),
    ("erfinv", erfinv),
];

/// By bisection, since libm has none.
fn erfinv(y: f64) -> f64 {
    if y == 0.0 {
        return y;
    }
    if y.is_nan() || y.abs() >= 1.0 {
        return if y.abs() == 1.0 {
            y * f64::INFINITY
        } else {
            f64::NAN
        };
    }
    let (mut low, mut high) = (0.0f64, 6.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        // The difference to 1 keeps the digits that the function loses near it.
        let below = if y.abs() < 0.5 {
            libm::erf(middle) < y.abs()
        } else {
            libm::erfc(middle) > 1.0 - y.abs()
        };
        *(if below { &mut low } else { &mut high }) = middle;
    }
    (0.5 * (low + high)).copysign(y)
}

/// Numbers of every size and sign, and those between which functions change.
fn inputs() -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bits = (0..20_000).map({
        let mut next = next;
        move |_| f32::from_bits(next() as u32)
    });
    let usual: Vec<f32> = (0..20_000)
        .map(|_| (next() as u32 as f32 / u32::MAX as f32 - 0.5) * 20.0)
        .collect();
    let unit = usual.clone().into_iter().map(|x| x / 10.0);
    let special = [
        0.0,
        1.0,
        0.5,
        0.49999997,
        0.99999994,
        1.0000001,
        88.72283,
        88.72284,
        -103.97208,
        -104.0,
        f32::MAX,
        f32::MIN_POSITIVE,
        1.0e-45,
        1.0e-39,
        f32::INFINITY,
        f32::NAN,
    ];
    let signed = special.into_iter().flat_map(|x| [x, -x]);
    bits.chain(usual.clone())
        .chain(unit)
        .chain(signed)
        .collect()
}

/// Floats in order, so that neighbours differ by one.
fn place(x: f32) -> i64 {
    let bits = x.to_bits() as i32 as i64;
    if bits < 0 {
        i64::from(i32::MIN) - bits
    } else {
        bits
    }
}

fn off(got: f32, wanted: f64) -> u64 {
    let wanted = wanted as f32;
    match (got.is_nan(), wanted.is_nan()) {
        (true, true) => 0,
        (false, false) => place(got).abs_diff(place(wanted)),
        _ => u64::MAX,
    }
}

#[test]
fn functions_of_one_number() {
    let inputs = inputs();
    let mut wrong = Vec::new();
    for (name, function) in UNARY {
        let got = result(name, vec![own(vector(&inputs))]);
        let furthest = inputs
            .iter()
            .zip(&got)
            .map(|(x, got)| (off(*got as f32, function(f64::from(*x))), *x, *got))
            .max_by_key(|(off, _, _)| *off);
        let (off, x, got) = furthest.expect("there are inputs");
        // Two f64 near the middle of two f32 may round to either. The polynomials of Nx's erfinv know eight digits.
        let most = if name == "erfinv" { 2 } else { 1 };
        if off > most && !without_kernels() {
            wrong.push(format!("{name}({x:e}) = {got:e}, off by {off}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Also of MLX's own, whose digits are five (of `erf` six behind the point), which have no subnormal results, and whose
/// `exp` ends a little below the greatest number.
#[test]
fn functions_of_one_number_are_near_and_their_limits_exact() {
    let inputs = inputs();
    let mut wrong = Vec::new();
    for (name, function) in UNARY {
        let results = result(name, vec![own(vector(&inputs))]);
        let wanted = |x: &f32| function(f64::from(*x)) as f32;
        for (x, got) in inputs.iter().zip(results) {
            let (got, wanted) = (got as f32, wanted(x));
            let same = got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan());
            let near = (got - wanted).abs() <= 1e-5 * wanted.abs() + 1e-6
                || (without_kernels() && wanted > 0.99 * f32::MAX && got == f32::INFINITY);
            // What is left of zero there has no sign.
            let unsigned = ["sign", "round_away"].contains(&name) && got == wanted;
            if !(same || unsigned || (near && *x != 0.0)) {
                wrong.push(format!("{name}({x:e}) = {got:e}, not {wanted:e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Most of MLX's functions of f64 would do, but not all: some have f32's digits alone.
#[test]
fn functions_of_one_wide_number() {
    let narrow = inputs();
    let wide: Vec<f64> = narrow
        .iter()
        .zip(narrow.iter().rev())
        .map(|(x, other)| f64::from(*x) * (1.0 + f64::from(other.fract()) * 1e-7))
        .collect();
    let bytes: Vec<u8> = wide.iter().flat_map(|x| x.to_le_bytes()).collect();
    let count = [wide.len() as i64];
    for (name, function) in UNARY {
        let x = emily_mlx::from_bytes(&bytes, &count, Dtype::F64).expect("numbers");
        for (x, got) in wide.iter().zip(result(name, vec![own(x)])) {
            let wanted = function(*x);
            let near = (got - wanted).abs() <= 2e-15 * wanted.abs() + 1e-307;
            let same = got == wanted || (got.is_nan() && wanted.is_nan());
            assert!(near || same, "{name}({x:e}) = {got:e}, not {wanted:e}");
        }
    }
}

#[test]
fn small_numbers_are_chopped() {
    let inputs = inputs();
    let wanted = |x: &f32| if x.abs() <= 0.5 { 0.0 } else { f64::from(*x) };
    let same = |(a, b): (&f64, f64)| *a == b || (a.is_nan() && b.is_nan());
    let got = result("chop", vec![own(vector(&inputs)), float(0.5)]);
    assert!(got.iter().zip(inputs.iter().map(wanted)).all(same));

    let bytes: Vec<u8> = inputs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let pairs = [inputs.len() as i64 / 2];
    let complex = emily_mlx::from_bytes(&bytes, &pairs, Dtype::C64).expect("pairs");
    let chopped = build("chop", vec![own(complex), float(0.5)]).expect("a result");
    let parts = build("view", vec![own(chopped), dtype(Dtype::F32)]).expect("a view");
    assert!(numbers(parts)
        .iter()
        .zip(inputs.iter().map(wanted))
        .all(same));
}

#[test]
fn functions_of_two_numbers() {
    let inputs = inputs();
    let (x, y): (Vec<f32>, Vec<f32>) = (inputs.clone(), inputs.iter().rev().copied().collect());
    for (name, function) in [
        ("power", libm::pow as fn(f64, f64) -> f64),
        ("arctan2", libm::atan2),
    ] {
        let got = result(name, vec![own(vector(&x)), own(vector(&y))]);
        for ((x, y), got) in x.iter().zip(&y).zip(got) {
            let wanted = function(f64::from(*x), f64::from(*y));
            let off = off(got as f32, wanted);
            assert!(off <= 1, "{name}({x:e}, {y:e}) = {got:e}, not {wanted:e}");
        }
    }
}

#[test]
fn an_element_does_not_depend_on_its_place() {
    let inputs: Vec<f32> = (0..100).map(|i| i as f32 * 0.37 - 9.0).collect();
    for name in ["exp", "sin", "erf", "sigmoid"] {
        let all = result(name, vec![own(vector(&inputs))]);
        for (start, length) in [(0, 1), (1, 15), (3, 16), (5, 17), (7, 33), (40, 60)] {
            let part = result(name, vec![own(vector(&inputs[start..start + length]))]);
            assert_eq!(part, all[start..start + length], "{name} from {start}");
        }
    }
}

/// Rust's remainder of f32 is C's: quotients of every size, and what is not finite.
#[test]
fn remainders_are_exact() {
    let x = inputs();
    let special = [
        f32::NAN,
        f32::INFINITY,
        0.0,
        -0.0,
        1.0e-45,
        -3.0,
        0.1,
        f32::MAX,
    ];
    let y: Vec<f32> = x.iter().rev().copied().collect();
    for y in special.map(|y| vec![y; x.len()]).into_iter().chain([y]) {
        let got = result("fmod", vec![own(vector(&x)), own(vector(&y))]);
        for ((x, y), got) in x.iter().zip(&y).zip(got) {
            let (got, wanted) = (got as f32, x % y);
            let same = got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan());
            assert!(same, "fmod({x:e}, {y:e}) = {got:e}, not {wanted:e}");
        }
    }
}

#[test]
fn comparisons_of_every_type() {
    let small = |i: i64| (i * 7) % 5 + 1;
    let x: Vec<i64> = (0..150).map(small).collect();
    let y: Vec<i64> = (0..150).map(|i| small(i / 3)).collect();
    type Holds<T> = fn(&T, &T) -> bool;
    let names = [
        "equal",
        "not_equal",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
    ];
    let whole: [Holds<i64>; 6] = [i64::eq, i64::ne, i64::gt, i64::ge, i64::lt, i64::le];
    let floats: [Holds<f32>; 6] = [f32::eq, f32::ne, f32::gt, f32::ge, f32::lt, f32::le];
    let kinds = [
        Dtype::U8,
        Dtype::S8,
        Dtype::U16,
        Dtype::S16,
        Dtype::U32,
        Dtype::S32,
    ];
    for kind in kinds
        .into_iter()
        .chain([Dtype::U64, Dtype::S64, Dtype::F64])
    {
        for (name, holds) in names.into_iter().zip(whole) {
            let of = |values| {
                let values = ints(values, &[150], Dtype::S64);
                own(build("astype", vec![own(values), dtype(kind)]).expect("a cast"))
            };
            let wanted: Vec<f64> = x.iter().zip(&y).map(|(x, y)| holds(x, y).into()).collect();
            assert_eq!(
                result(name, vec![of(&x), of(&y)]),
                wanted,
                "{name} of {kind:?}"
            );
        }
    }
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0];
    let pairs = special
        .iter()
        .flat_map(|x| special.iter().map(|y| (*x, *y)));
    let (x, y): (Vec<f32>, Vec<f32>) = pairs.unzip();
    for (name, holds) in names.into_iter().zip(floats) {
        let wanted: Vec<f64> = x.iter().zip(&y).map(|(x, y)| holds(x, y).into()).collect();
        assert_eq!(
            result(name, vec![own(vector(&x)), own(vector(&y))]),
            wanted,
            "{name}"
        );
    }
    // The sign is no part of an unsigned number, and the least signed one is below it.
    let far = |kind| {
        let x = own(ints(&[-1, i64::MIN, 0], &[3], kind));
        result("less", vec![x, own(ints(&[1, 0, 1], &[3], kind))])
    };
    assert_eq!(far(Dtype::S64), [1.0, 1.0, 1.0]);
    assert_eq!(far(Dtype::U64), [0.0, 0.0, 1.0]);
}

/// Views of 0, 1, 2... whose elements lie in other orders, with gaps, or many times.
#[test]
fn inputs_lie_as_they_like() {
    let slice = |array, from: [i64; 2], to: [i64; 2], step: [i64; 2]| {
        build(
            "slice",
            vec![own(array), list(&from), list(&to), list(&step)],
        )
        .expect("a view")
    };
    let transposed =
        || build("transpose", vec![own(counted(&[50, 70])), list(&[1, 0])]).expect("a view");
    let views = [
        transposed(),
        slice(counted(&[50, 70]), [3, 1], [40, 70], [2, 3]),
        slice(transposed(), [3, 1], [61, 50], [1, 7]),
        build("flip", vec![own(counted(&[50, 70])), list(&[0])]).expect("a view"),
        build("broadcast_to", vec![own(counted(&[70])), list(&[40, 70])]).expect("a view"),
        build(
            "broadcast_to",
            vec![own(counted(&[40, 1])), list(&[40, 70])],
        )
        .expect("a view"),
        build(
            "broadcast_to",
            vec![own(shaped(&[7.0], &[])), list(&[40, 70])],
        )
        .expect("a view"),
    ];
    for view in views {
        let elements = numbers(view.clone());
        let roots: Vec<f64> = elements
            .iter()
            .map(|x| f64::from((*x as f32).sqrt()))
            .collect();
        assert_eq!(result("sqrt", vec![own(view.clone())]), roots);

        let shape: Vec<i64> = view.shape().iter().map(|size| i64::from(*size)).collect();
        let other = counted(&shape);
        let angles: Vec<f64> = elements
            .iter()
            .enumerate()
            .map(|(i, x)| libm::atan2(*x, i as f64))
            .collect();
        let got = result("arctan2", vec![own(view.clone()), own(other.clone())]);
        assert_near(&got, &angles);

        let limit = own(shaped(&[100.0], &[]));
        let small = build("less", vec![own(view.clone()), limit]).expect("a comparison");
        let chosen: Vec<f64> = elements
            .iter()
            .enumerate()
            .map(|(i, x)| if *x < 100.0 { *x } else { i as f64 })
            .collect();
        assert_eq!(
            result("where", vec![own(small), own(view), own(other)]),
            chosen
        );
    }
}

#[test]
fn a_choice_of_every_type() {
    for kind in [Dtype::U8, Dtype::S16, Dtype::U32, Dtype::S64] {
        let chosen = ints(&[1, 0, 0, 1, 1], &[5], Dtype::Bool);
        let (x, y) = (
            ints(&[1, 2, 3, 4, 5], &[5], kind),
            ints(&[9, 8, 7, 6, 5], &[5], kind),
        );
        assert_eq!(
            result("where", vec![own(chosen), own(x), own(y)]),
            [1.0, 8.0, 7.0, 4.0, 5.0]
        );
    }
}

/// The memory of what nobody else needs is taken for the result, and only of that.
#[test]
fn shared_inputs_stay() {
    let x = vector(&[1.0, 4.0, 9.0]);
    let once = build("sqrt", vec![own(x.clone())]).expect("a root");
    let twice = build("sqrt", vec![own(once.clone())]).expect("a root");
    let thrice = build("sqrt", vec![own(twice)]).expect("a root");
    assert_near(
        &numbers(thrice),
        &[1.0, 4.0f64.powf(0.125), 9.0f64.powf(0.125)],
    );
    assert_eq!(numbers(once), [1.0, 2.0, 3.0]);
    assert_eq!(numbers(x), [1.0, 4.0, 9.0]);
}

#[test]
fn norms_of_rows_of_every_length() {
    for length in [1, 3, 16, 17, 64, 100] {
        let x: Vec<f32> = (0..2 * length)
            .map(|i| ((i * 37) % 11) as f32 - 4.0)
            .collect();
        let weight: Vec<f32> = (0..length).map(|i| 0.5 + i as f32 * 0.1).collect();
        let bias: Vec<f32> = (0..length).map(|i| i as f32 * 0.01 - 0.3).collect();
        let (mut rms, mut layer) = (Vec::new(), Vec::new());
        for row in x.chunks(length) {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let mean = row.iter().sum::<f64>() / length as f64;
            let square = row.iter().map(|x| x * x).sum::<f64>() / length as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / length as f64;
            for (i, x) in row.iter().enumerate() {
                let (w, b) = (f64::from(weight[i]), f64::from(bias[i]));
                rms.push(x / (square + 1e-5).sqrt() * w);
                layer.push((x - mean) / (variance + 1e-5).sqrt() * w + b);
            }
        }
        let shape = [2, length as i64];
        let eps = || float(1e-5);
        let (w, b) = (|| own(vector(&weight)), || own(vector(&bias)));
        assert_near(
            &result("rms_norm", vec![own(shaped(&x, &shape)), w(), eps()]),
            &rms,
        );
        let got = result("layer_norm", vec![own(shaped(&x, &shape)), w(), b(), eps()]);
        assert_near(&got, &layer);
    }
}
