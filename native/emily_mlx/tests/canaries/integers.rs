//! Arithmetic of integers that is undefined in C++, and what an x86-64 processor makes of it.
#![cfg(target_arch = "x86_64")]

use mlx_rs::Array;

use crate::support::*;

const INTEGER: &str = "native/emily_mlx/src/ops/integer.rs";

#[test]
fn the_least_number_by_minus_one_ends_the_process() {
    let end = apart(
        "integers::the_least_number_by_minus_one_ends_the_process",
        || {
            let (x, y) = (
                Array::from_slice(&[i32::MIN], &[1]),
                Array::from_slice(&[-1], &[1]),
            );
            computed(&raw!(mlx_floor_divide, x.as_ptr(), y.as_ptr())).is_err()
        },
    );
    leans_on(
        end == End::Signal(libc::SIGFPE),
        "the least number divided by -1",
        None,
        &[INTEGER],
    );
}

#[test]
fn the_least_number_modulo_minus_one_ends_the_process() {
    let end = apart(
        "integers::the_least_number_modulo_minus_one_ends_the_process",
        || {
            let (x, y) = (
                Array::from_slice(&[i64::MIN], &[1]),
                Array::from_slice(&[-1i64], &[1]),
            );
            computed(&raw!(mlx_remainder, x.as_ptr(), y.as_ptr())).is_err()
        },
    );
    leans_on(
        end == End::Signal(libc::SIGFPE),
        "the remainder of the least number and -1",
        None,
        &[INTEGER],
    );
}

#[test]
fn a_shift_by_the_width_shifts_nothing() {
    let (x, by) = (
        Array::from_slice(&[1i32], &[1]),
        Array::from_slice(&[32i32], &[1]),
    );
    let shifted = raw!(mlx_left_shift, x.as_ptr(), by.as_ptr());
    computed(&shifted).expect("it can be computed");
    let files = [INTEGER, "lib/emily/lower/elementwise.ex"];
    leans_on(
        shifted.as_slice::<i32>() == [1],
        "shifts by the width",
        None,
        &files,
    );
}

/// As with the other backends of MLX; in Nx 1 and -1 keep their powers.
#[test]
fn negative_powers_of_one_are_zero() {
    let (x, by) = (
        Array::from_slice(&[1i32, -1], &[2]),
        Array::from_slice(&[-1i32, -2], &[2]),
    );
    let power = raw!(mlx_power, x.as_ptr(), by.as_ptr());
    computed(&power).expect("it can be computed");
    let files = [INTEGER, "lib/emily/lower/elementwise.ex"];
    leans_on(
        power.as_slice::<i32>() == [0, 0],
        "negative powers",
        Some(4100),
        &files,
    );
}
