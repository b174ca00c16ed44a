//! Reductions that count too little.

use mlx_rs::Array;

use crate::support::*;

/// 2^31 elements are one number in memory.
#[test]
fn elements_are_counted_in_32_bits() {
    let (one, shape) = (Array::from_slice(&[1u8], &[1, 1]), [1 << 16, 1 << 15]);
    let many = raw!(mlx_broadcast_to, one.as_ptr(), shape.as_ptr(), shape.len());
    let greatest = raw!(mlx_max, many.as_ptr(), false);
    computed(&greatest).expect("it can be computed");
    let files = ["native/emily_mlx/src/ops/reduce.rs"];
    leans_on(
        greatest.as_slice::<u8>() == [0],
        "reductions of 2^31 elements",
        Some(4539),
        &files,
    );
}

/// From 256 on bf16 has no next number.
#[test]
fn cumulative_sums_of_halves_round_each_step() {
    let (value, shape) = (Array::from_slice(&[1.0f32], &[1]), [4096]);
    let ones = raw!(
        mlx_broadcast_to,
        value.as_ptr(),
        shape.as_ptr(),
        shape.len()
    );
    let ones = raw!(mlx_astype, ones.as_ptr(), mlx_sys::mlx_dtype__MLX_BFLOAT16);
    let dtype = mlx_sys::mlx_optional_dtype {
        value: mlx_sys::mlx_dtype__MLX_BFLOAT16,
        has_value: true,
    };
    let sums = raw!(mlx_cumsum, ones.as_ptr(), false, true, dtype);
    let greatest = raw!(mlx_max, sums.as_ptr(), false);
    let greatest = raw!(
        mlx_astype,
        greatest.as_ptr(),
        mlx_sys::mlx_dtype__MLX_FLOAT32
    );
    let files = [
        "native/emily_mlx/src/ops/scan.rs",
        "native/emily_mlx/src/ops/cast.rs",
    ];
    leans_on(
        floats(&greatest) == [256.0],
        "cumulative sums of bf16",
        None,
        &files,
    );
}

#[test]
fn a_softmax_of_halves_adds_them_in_their_type() {
    let (value, shape) = (Array::from_slice(&[0.0f32], &[1]), [4096]);
    let zeros = raw!(
        mlx_broadcast_to,
        value.as_ptr(),
        shape.as_ptr(),
        shape.len()
    );
    let zeros = raw!(mlx_astype, zeros.as_ptr(), mlx_sys::mlx_dtype__MLX_BFLOAT16);
    let shares = raw!(mlx_softmax_axis, zeros.as_ptr(), 0, false);
    let greatest = raw!(mlx_max, shares.as_ptr(), false);
    let greatest = raw!(
        mlx_astype,
        greatest.as_ptr(),
        mlx_sys::mlx_dtype__MLX_FLOAT32
    );
    let files = [
        "native/emily_mlx/src/ops/norm.rs",
        "native/emily_mlx/src/ops/cast.rs",
    ];
    leans_on(
        floats(&greatest) == [1.0 / 256.0],
        "the softmax of bf16",
        None,
        &files,
    );
}
