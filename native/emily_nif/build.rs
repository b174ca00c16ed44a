//! How the NIF library is linked: it finds MLX beside itself, and the VM's functions in the VM.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arguments: &[&str] = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => &[
            "-undefined",
            "dynamic_lookup",
            "-Wl,-rpath,@loader_path/mlx/lib",
        ],
        _ => &["-Wl,-rpath,$ORIGIN/mlx/lib"],
    };
    for argument in arguments {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
