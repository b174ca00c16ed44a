//! Compiles the kernels of `cpp/` against the prebuilt MLX, and tells this crate's own tests where that is.
//! Both come from the build-script override of mlx-sys; where its own build makes MLX, and on processors
//! for which there are no kernels, MLX's are taken.

use std::env;

/// The kinds of processor that the loops are compiled for, and the compiler's options for each.
const KINDS: [(&str, &[&str]); 2] = [
    ("v3", &["-march=x86-64-v3"]),
    ("v4", &["-march=x86-64-v4", "-mprefer-vector-width=512"]),
];

/// The files of loops.
const LOOPS: [&str; 8] = [
    "vector", "integer", "compare", "fold", "index", "totals", "products", "rotary",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rustc-check-cfg=cfg(own_kernels)");
    if let Ok(folder) = env::var("DEP_MLX_LIBRARIES") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    if let (Ok(include), Ok("x86_64")) = (
        env::var("DEP_MLX_INCLUDE"),
        env::var("CARGO_CFG_TARGET_ARCH").as_deref(),
    ) {
        println!("cargo::rustc-cfg=own_kernels");
        compile_kernels(&include);
    }
}

fn compile_kernels(include: &str) {
    // The library is linked where the crate is, so before the libraries that it needs.
    for (kind, options) in KINDS {
        for file in LOOPS {
            compiler()
                .opt_level(3)
                .flag("-fno-math-errno")
                .flag("-fno-trapping-math")
                .flags(options)
                .define("KERNELS", format!("{file}_{kind}").as_str())
                .file(format!("cpp/{file}.cpp"))
                .compile(&format!("emily_{file}_{kind}"));
        }
    }
    compiler()
        .opt_level(2)
        .flag("-isystem")
        .flag(include)
        // MLX puts the names of its files into error messages.
        .flag(format!("-ffile-prefix-map={include}=mlx"))
        .files([
            "cpp/kernels.cpp",
            "cpp/reduce.cpp",
            "cpp/matmul.cpp",
            "cpp/truthful.cpp",
            "cpp/layout.cpp",
            "cpp/rope.cpp",
            "cpp/short.cpp",
        ])
        .compile("emily_kernels");
    println!("cargo::rustc-link-lib=dylib=mvec");
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    // The functions are compared with the scalar ones of the same library: no extra precision.
    build
        .cpp(true)
        .std("c++20")
        .pic(true)
        .define("NDEBUG", None)
        .flag("-ffp-contract=off")
        .cpp_link_stdlib(None)
        .extra_warnings(true)
        .flag("-Wno-unused-parameter");
    if let Ok(compiler) = env::var("DEP_MLX_COMPILER") {
        build.compiler(compiler);
    }
    build
}
