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
