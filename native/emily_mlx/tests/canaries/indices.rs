//! Places that nobody checks.

use std::ffi::CString;

use mlx_rs::Array;

use crate::support::*;

const INDEX: &str = "native/emily_mlx/src/ops/index.rs";
const FAR: i32 = 1 << 30;

#[test]
fn an_index_beyond_the_array_is_read() {
    let end = apart("indices::an_index_beyond_the_array_is_read", || {
        let (x, at) = (
            Array::from_slice(&[1.0f32, 2.0], &[2]),
            Array::from_slice(&[FAR], &[1]),
        );
        computed(&raw!(mlx_take_axis, x.as_ptr(), at.as_ptr(), 0)).is_ok()
    });
    leans_on(
        end != End::Saw(false),
        "indices of a gather",
        Some(206),
        &[INDEX],
    );
}

#[test]
fn an_index_beyond_the_array_is_written_to() {
    let end = apart("indices::an_index_beyond_the_array_is_written_to", || {
        let (x, at) = (
            Array::from_slice(&[1.0f32, 2.0], &[2]),
            Array::from_slice(&[FAR], &[1]),
        );
        let updates = Array::from_slice(&[9.0f32], &[1]);
        computed(&raw!(
            mlx_put_along_axis,
            x.as_ptr(),
            at.as_ptr(),
            updates.as_ptr(),
            0
        ))
        .is_ok()
    });
    leans_on(
        end != End::Saw(false),
        "indices of a scatter",
        Some(206),
        &[INDEX],
    );
}

#[test]
fn strides_may_leave_the_array() {
    let end = apart("indices::strides_may_leave_the_array", || {
        let x = Array::from_slice(&[1.0f32, 2.0], &[2]);
        let (shape, strides) = ([2], [1i64 << 33]);
        let far = raw!(
            mlx_as_strided,
            x.as_ptr(),
            shape.as_ptr(),
            1,
            strides.as_ptr(),
            1,
            0
        );
        computed(&raw!(mlx_abs, far.as_ptr())).is_ok()
    });
    leans_on(
        end != End::Saw(false),
        "strides",
        None,
        &["native/emily_mlx/src/ops/shape.rs"],
    );
}

#[test]
fn views_that_overlap_are_reduced_beyond_memory() {
    let end = apart(
        "indices::views_that_overlap_are_reduced_beyond_memory",
        || {
            let mut state = 1u32;
            let mut upto = |most: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) % most
            };
            for _ in 0..2000 {
                let shape: Vec<i32> = (0..3).map(|_| 1 + upto(4) as i32).collect();
                let strides: Vec<i64> = (0..3).map(|_| i64::from(upto(4))).collect();
                let reach: i64 = shape
                    .iter()
                    .zip(&strides)
                    .map(|(size, step)| i64::from(size - 1) * step)
                    .sum();
                let numbers: Vec<f32> = (0..=reach).map(|i| i as f32).collect();
                let x = Array::from_slice(&numbers, &[numbers.len() as i32]);
                let view = raw!(
                    mlx_as_strided,
                    x.as_ptr(),
                    shape.as_ptr(),
                    3,
                    strides.as_ptr(),
                    3,
                    0
                );
                let sums = floats(&raw!(mlx_sum_axis, view.as_ptr(), 0, false));
                let of = |i: i32, j: i32, k: i32| {
                    (i64::from(i) * strides[0]
                        + i64::from(j) * strides[1]
                        + i64::from(k) * strides[2]) as f32
                };
                let places = (0..shape[1]).flat_map(|j| (0..shape[2]).map(move |k| (j, k)));
                let wanted: Vec<f32> = places
                    .map(|(j, k)| (0..shape[0]).map(|i| of(i, j, k)).sum())
                    .collect();
                if sums != wanted {
                    return true;
                }
            }
            false
        },
    );
    leans_on(
        end != End::Saw(false),
        "reductions of overlapping views",
        None,
        &["native/emily_mlx/src/ops/shape.rs"],
    );
}

/// A name is looked up before the first letter that is left.
#[test]
fn an_ellipsis_runs_out_of_letters() {
    let letters: String = ('a'..='z').chain('A'..='Z').collect();
    let subscripts = CString::new(format!("...{letters}->...")).expect("letters");
    let shape = [1; 53];
    let refused = tried(|result, stream| {
        // SAFETY: the handles are live, the shape is followed by its length, and the vector is freed once.
        unsafe {
            let mut ones = mlx_sys::mlx_array_new();
            mlx_sys::mlx_ones(
                &mut ones,
                shape.as_ptr(),
                53,
                mlx_sys::mlx_dtype__MLX_FLOAT32,
                stream,
            );
            let operands = mlx_sys::mlx_vector_array_new_value(ones);
            let status = mlx_sys::mlx_einsum(result, subscripts.as_ptr(), operands, stream);
            mlx_sys::mlx_vector_array_free(operands);
            mlx_sys::mlx_array_free(ones);
            status
        }
    });
    let files = ["native/emily_mlx/src/ops/einsum.rs"];
    let lost = refused.is_err_and(|message| message.contains("basic_string"));
    leans_on(lost, "letters for an ellipsis", None, &files);
}
