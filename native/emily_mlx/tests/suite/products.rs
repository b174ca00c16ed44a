//! MLX's products land in this library, whatever asks for them.

use std::process::Command;

use emily_mlx::{blas, Arg, Dtype};

use crate::support::*;

fn doubles(shape: &[i64]) -> mlx_rs::Array {
    build("astype", vec![own(counted(shape)), dtype(Dtype::F64)]).unwrap()
}

/// Runs a test of this file alone, so that no other's products are counted.
fn alone(name: &str) -> bool {
    const MARK: &str = "EMILY_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let name = format!("products::{name}");
    let status = Command::new(this)
        .args(["--exact", &name])
        .env(MARK, "1")
        .status();
    assert!(status.unwrap().success());
    false
}

#[test]
fn mlx_calls_here() {
    if !alone("mlx_calls_here") {
        return;
    }
    let matrices = || counted(&[3, 20, 20]);
    // Not `matmul`, which is a node of Emily's own.
    let product = |subscripts: &str, a, b| {
        let operands = Arg::Arrays(vec![a, b]);
        build("einsum", vec![text(subscripts.to_owned()), operands])
    };
    let convolution = vec![
        own(counted(&[2, 12, 12, 8])),
        own(counted(&[16, 3, 3, 8])),
        list(&[1, 1]),
        list(&[0, 0]),
        list(&[0, 0]),
        list(&[1, 1]),
        list(&[1, 1]),
        int(1),
        boolean(false),
        boolean(false),
    ];
    for (what, least, array) in [
        (
            "floats",
            1,
            product("ij,jk->ik", counted(&[30, 20]), counted(&[20, 40])),
        ),
        (
            "doubles",
            1,
            product("ij,jk->ik", doubles(&[30, 20]), doubles(&[20, 40])),
        ),
        (
            "a batch",
            3,
            product("aij,ajk->aik", matrices(), matrices()),
        ),
        ("a convolution", 1, build("conv", convolution)),
    ] {
        let before = blas::calls();
        assert!(numbers(array.unwrap()).len() > 100);
        // A kernel of ours has the convolution, where there is one.
        let least = if what == "a convolution" && emily_mlx::kernels().is_some() {
            0
        } else {
            least
        };
        assert!(blas::calls() - before >= least, "{what}");
    }
}

#[test]
fn a_product_is_right() {
    let product = |a, b| result("matmul", vec![a, b]);
    let (a, b): (Vec<f64>, Vec<f64>) = (
        (0..600).map(f64::from).collect(),
        (0..800).map(f64::from).collect(),
    );
    let mut wanted = vec![];
    for i in 0..30 {
        for j in 0..40 {
            wanted.push((0..20).map(|p| a[i * 20 + p] * b[p * 40 + j]).sum());
        }
    }
    // Sums of whole numbers below 2^24 are exact.
    assert_eq!(
        product(own(counted(&[30, 20])), own(counted(&[20, 40]))),
        wanted
    );
    assert_eq!(
        product(own(doubles(&[30, 20])), own(doubles(&[20, 40]))),
        wanted
    );
}
