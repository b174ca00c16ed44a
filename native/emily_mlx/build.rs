//! Compiles what is in `cpp/` against the prebuilt MLX, and tells this crate's own tests where that is.
//! Both come from the build-script override of mlx-sys; where its own build makes MLX, and on processors
//! for which there are no kernels, MLX's are taken.

use std::env;

/// The kinds of processor that the loops are compiled for, and the compiler's options for each.
const KINDS: [(&str, &[&str]); 2] = [
    ("v3", &["-march=x86-64-v3"]),
    ("v4", &["-march=x86-64-v4", "-mprefer-vector-width=512"]),
];

/// The files of loops.
const LOOPS: [&str; 2] = ["vector", "rotary"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rustc-check-cfg=cfg(own_kernels, cpp_kernels)");
    if let Ok(folder) = env::var("DEP_MLX_LIBRARIES") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    let Ok(include) = env::var("DEP_MLX_INCLUDE") else {
        return;
    };
    println!("cargo::rustc-cfg=own_kernels");
    compile_nodes(
        &include,
        "emily_nodes",
        &[
            "cpp/allocator.cpp",
            "cpp/kernel.cpp",
            "cpp/layout.cpp",
            "cpp/short.cpp",
            "cpp/truthful.cpp",
        ],
    );
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        println!("cargo::rustc-cfg=cpp_kernels");
        compile_loops();
        compile_nodes(&include, "emily_kernels", &["cpp/maps.cpp", "cpp/rope.cpp"]);
    }
}

// The libraries are linked where the crate is, so before the libraries that they need.
fn compile_loops() {
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
    println!("cargo::rustc-link-lib=dylib=mvec");
}

/// What knows MLX.
fn compile_nodes(include: &str, library: &str, files: &[&str]) {
    compiler()
        .opt_level(2)
        .flag("-isystem")
        .flag(include)
        // MLX puts the names of its files into error messages.
        .flag(format!("-ffile-prefix-map={include}=mlx"))
        .files(files)
        .compile(library);
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
