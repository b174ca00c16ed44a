//! Integer division, which ends the process in MLX where a CPU traps.

use emily_mlx::Dtype;

use crate::support::*;

fn divide(name: &str, x: i64, y: i64, dtype: Dtype) -> f64 {
    let array = |value| own(ints(&[value], &[1], dtype));
    result(name, vec![array(x), array(y)])[0]
}

const SIGNED: [(Dtype, i64); 4] = [
    (Dtype::S8, i8::MIN as i64),
    (Dtype::S16, i16::MIN as i64),
    (Dtype::S32, i32::MIN as i64),
    (Dtype::S64, i64::MIN),
];

#[test]
fn by_zero() {
    for (dtype, least) in SIGNED {
        for x in [0, 5, -5, least] {
            assert_eq!(divide("floor_divide", x, 0, dtype), -1.0, "{x} {dtype:?}");
            assert_eq!(divide("remainder", x, 0, dtype), x as f64, "{x} {dtype:?}");
        }
    }
    let unsigned = [
        (Dtype::U8, u8::MAX as f64),
        (Dtype::U16, u16::MAX as f64),
        (Dtype::U32, u32::MAX as f64),
        (Dtype::U64, u64::MAX as f64),
    ];
    for (dtype, greatest) in unsigned {
        assert_eq!(divide("floor_divide", 5, 0, dtype), greatest);
        assert_eq!(divide("remainder", 5, 0, dtype), 5.0);
    }
    assert_eq!(divide("floor_divide", 1, 0, Dtype::Bool), 255.0);
}

#[test]
fn of_the_least_number_by_minus_one() {
    for (dtype, least) in SIGNED {
        assert_eq!(divide("floor_divide", least, -1, dtype), least as f64);
        assert_eq!(divide("remainder", least, -1, dtype), 0.0);
        assert_eq!(divide("floor_divide", least, least, dtype), 1.0);
        assert_eq!(divide("floor_divide", 7, least, dtype), 0.0);
        assert_eq!(divide("floor_divide", 7, -1, dtype), -7.0);
    }
}

#[test]
fn of_other_numbers() {
    for (dtype, _) in SIGNED {
        // Quotients truncate, as C's do; remainders take the divisor's sign, as Python's do.
        assert_eq!(divide("floor_divide", 7, 2, dtype), 3.0);
        assert_eq!(divide("floor_divide", -7, 2, dtype), -3.0);
        assert_eq!(divide("remainder", -7, 2, dtype), 1.0);
        assert_eq!(divide("remainder", 7, -2, dtype), -1.0);
    }
}

#[test]
fn of_different_types() {
    let x = own(ints(&[-128, 127], &[2], Dtype::S8));
    let y = own(ints(&[0, 2], &[2], Dtype::U8));
    assert_eq!(result("floor_divide", vec![x, y]), [-1.0, 63.0]);
    let x = own(ints(&[3, -3], &[2], Dtype::S32));
    let quotients = result("floor_divide", vec![x, own(vector(&[0.0, 2.0]))]);
    assert_eq!(quotients, [f64::INFINITY, -2.0]);
}

/// The numbers between which integers of a type change their ways, and some others.
fn edges(dtype: Dtype) -> Vec<i128> {
    let (low, high) = range(dtype);
    let near = [low, low + 1, low / 2, high / 2, high - 1, high];
    let small = -9..=9i128;
    let scattered = (0..40).map(|i| low + (high - low) / 41 * i + i * i);
    let all = near.into_iter().chain(small).chain(scattered);
    all.filter(|number| (low..=high).contains(number)).collect()
}

fn range(dtype: Dtype) -> (i128, i128) {
    let bits = 8 * dtype.size() as u32;
    match dtype {
        Dtype::S8 | Dtype::S16 | Dtype::S32 | Dtype::S64 => {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        }
        _ => (0, (1 << bits) - 1),
    }
}

/// What is left of a number in a type.
fn wrapped(number: i128, dtype: Dtype) -> i128 {
    let (low, high) = range(dtype);
    (number - low).rem_euclid(high - low + 1) + low
}

fn whole(array: mlx_rs::Array, dtype: Dtype) -> Vec<i128> {
    let bytes = bytes_on(cpu(), array).expect("the array can be computed");
    let number = |bytes: &[u8]| {
        let mut wide = [0; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        wrapped(i128::from_le_bytes(wide), dtype)
    };
    bytes.chunks(dtype.size()).map(number).collect()
}

fn of(values: &[i128], shape: &[i64], dtype: Dtype) -> mlx_rs::Array {
    let values: Vec<i64> = values.iter().map(|value| *value as i64).collect();
    ints(&values, shape, dtype)
}

/// The operation on two numbers of a type, without a limit.
type Exact = fn(i128, i128, Dtype) -> i128;

fn power(x: i128, y: i128, dtype: Dtype) -> i128 {
    if y < 0 {
        return match x {
            1 => 1,
            -1 => 1 - 2 * (y & 1),
            _ => 0,
        };
    }
    let (mut result, mut square) = (1i128, wrapped(x, dtype));
    for bit in 0..64 {
        if y >> bit & 1 == 1 {
            result = wrapped(result.wrapping_mul(square), dtype);
        }
        // What wraps at 128 bits is right in the lowest 64.
        square = wrapped(square.wrapping_mul(square), dtype);
    }
    result
}

/// A negative count is a large one without its sign.
fn count(y: i128, dtype: Dtype) -> u32 {
    let bits = 8 * dtype.size() as i128;
    if (0..bits).contains(&y) {
        y as u32
    } else {
        100
    }
}

const EXACT: [(&str, Exact); 6] = [
    ("floor_divide", |x, y, _| if y == 0 { -1 } else { x / y }),
    ("fmod", |x, y, _| if y == 0 { x } else { x % y }),
    ("remainder", |x, y, _| match y {
        0 => x,
        y => (x % y + y) % y,
    }),
    ("integer_power", power),
    ("wide_left_shift", |x, y, dtype| match count(y, dtype) {
        100 => 0,
        count => x << count,
    }),
    ("wide_right_shift", |x, y, dtype| x >> count(y, dtype)),
];

#[test]
fn every_pair_of_edges() {
    for dtype in INTEGERS {
        let edges = edges(dtype);
        let size = edges.len() as i64;
        // Rows against columns: one broadcasts along each axis.
        let x = || own(of(&edges, &[size, 1], dtype));
        let y = || own(of(&edges, &[size], dtype));
        let pairs: Vec<(i128, i128)> = edges
            .iter()
            .flat_map(|x| edges.iter().map(|y| (*x, *y)))
            .collect();
        let (xs, ys): (Vec<i128>, Vec<i128>) = pairs.iter().copied().unzip();
        for (name, exact) in EXACT {
            let wanted: Vec<i128> = pairs
                .iter()
                .map(|(x, y)| wrapped(exact(*x, *y, dtype), dtype))
                .collect();
            let apart = whole(build(name, vec![x(), y()]).expect("a result"), dtype);
            let shape = [pairs.len() as i64];
            let rows = vec![own(of(&xs, &shape, dtype)), own(of(&ys, &shape, dtype))];
            let in_rows = whole(build(name, rows).expect("a result"), dtype);
            for (at, (x, y)) in pairs.iter().enumerate() {
                let got = (apart[at], in_rows[at]);
                assert_eq!(
                    got,
                    (wanted[at], wanted[at]),
                    "{name}({x}, {y}) of {dtype:?}"
                );
            }
        }
    }
}

#[test]
fn shifts_and_powers_of_a_scalar() {
    let two = || own(ints(&[2], &[], Dtype::S16));
    assert_eq!(result("integer_power", vec![two(), two()]), [4.0]);
    assert_eq!(result("wide_left_shift", vec![two(), two()]), [8.0]);
}

#[test]
fn floats_to_integers() {
    let mut numbers = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
    for exponent in [-3, 0, 1, 7, 8, 15, 16, 31, 32, 33, 52, 62] {
        let power = 2f64.powi(exponent);
        for near in [
            power - 1.0,
            power - 0.5,
            power,
            power + 0.5,
            power + 1.0,
            1.5 * power,
        ] {
            numbers.extend([near, -near]);
        }
    }
    // Half a vector is left over.
    numbers.extend([0.25; 9]);
    let shape = [numbers.len() as i64];
    let narrow: Vec<f64> = numbers.iter().map(|x| f64::from(*x as f32)).collect();
    let doubles: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let floats: Vec<u8> = numbers
        .iter()
        .flat_map(|x| (*x as f32).to_le_bytes())
        .collect();
    let array = |bytes: &[u8], dtype| emily_mlx::from_bytes(bytes, &shape, dtype).expect("it fits");
    for to in INTEGERS {
        let (low, high) = range(to);
        let exact = |x: &f64| match x {
            x if x.is_nan() => 0,
            x if x.is_infinite() && *x > 0.0 => high,
            x if x.is_infinite() => low,
            x => wrapped(x.trunc() as i128, to),
        };
        for (x, numbers) in [
            (array(&floats, Dtype::F32), &narrow),
            (array(&doubles, Dtype::F64), &numbers),
        ] {
            let wanted: Vec<i128> = numbers.iter().map(exact).collect();
            let got = whole(
                build("to_integer", vec![own(x), dtype(to)]).expect("a cast"),
                to,
            );
            for ((got, wanted), x) in got.iter().zip(wanted).zip(numbers) {
                assert_eq!(*got, wanted, "{x:e} as {to:?}");
            }
        }
    }
}

#[test]
fn to_integer_refuses() {
    let x = || own(vector(&[1.0]));
    let message = refusal("to_integer", vec![x(), dtype(Dtype::F64)]);
    assert!(message.contains("no type of integers"), "{message}");
}

/// Indices are clamped into the axis, whatever their type.
#[test]
fn indices_of_every_type() {
    for kind in INTEGERS {
        let indices: Vec<i128> = edges(kind).into_iter().cycle().take(150).collect();
        let wanted: Vec<f64> = indices.iter().map(|i| *i.clamp(&0, &99) as f64).collect();
        let x = own(counted(&[100]));
        let taken = result("take", vec![x, own(of(&indices, &[150], kind)), int(0)]);
        assert_eq!(taken, wanted, "{kind:?}");
    }
}
