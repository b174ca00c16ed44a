//! Compiles what is in `cpp/` against the prebuilt MLX, and tells this crate's own tests where that is.
//! Both come from the build-script override of mlx-sys; where it names no headers, MLX's kernels are taken.

use std::env;

/// What knows MLX.
const FILES: [&str; 3] = ["allocator", "inspect", "node"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rustc-check-cfg=cfg(own_kernels)");
    if let Ok(folder) = env::var("DEP_MLX_LIBRARIES") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    let Ok(include) = env::var("DEP_MLX_INCLUDE") else {
        return;
    };
    println!("cargo::rustc-cfg=own_kernels");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .pic(true)
        .opt_level(2)
        .define("NDEBUG", None)
        .cpp_link_stdlib(None)
        .warnings_into_errors(true)
        .extra_warnings(true)
        .flag("-Wno-unused-parameter")
        .flag("-isystem")
        .flag(&include)
        // MLX puts the names of its files into error messages.
        .flag(format!("-ffile-prefix-map={include}=mlx"))
        .files(FILES.map(|file| format!("cpp/{file}.cpp")));
    if let Ok(compiler) = env::var("DEP_MLX_COMPILER") {
        build.compiler(compiler);
    }
    build.compile("emily_nodes");
}
