//! Does what mlx-sys's own build script does, against a prebuilt MLX: compiles the mlx-c sources that the crate carries
//! into `libmlxc.a` and generates `bindings.rs`.
//!
//! Usage: `mlx_prep NATIVE_DIR MLX_INCLUDE_DIR OUT_DIR TARGET`, with the C++ compiler in `CXX`. The target is Rust's
//! name of the machine to compile for.

use std::error::Error;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// A header put before every translation unit.
///
/// On x86-64 there is no `__fp16`, so mlx-c leaves out the float16 and bfloat16 accessors that
/// mlx-rs calls: it names the types g++ and clang have.
///
/// The crate's mlx-c is made for MLX 0.32.2. In 0.32.4 one function that it calls has one parameter more,
/// `global_scale`: it gets its old form back.
const PRELUDE: &str = "\
#if defined(__x86_64__)
#define HAS_FLOAT16
#define HAS_BFLOAT16
typedef _Float16 float16_t;
typedef __bf16 bfloat16_t;
#endif
#ifdef __cplusplus
#include \"mlx/mlx.h\"
namespace mlx::core {
inline array gather_qmm(
    const array& x, const array& w, const array& scales, const std::optional<array>& biases,
    const std::optional<array>& lhs_indices, const std::optional<array>& rhs_indices, bool transpose,
    std::optional<int> group_size, std::optional<int> bits, const std::string& mode, bool sorted_indices,
    StreamOrDevice s) {
  return gather_qmm(
      x, w, scales, biases, lhs_indices, rhs_indices, transpose, group_size, bits, mode, std::nullopt, sorted_indices, s);
}
} // namespace mlx::core
#endif
";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [native, mlx_include, out, target] = arguments.as_slice() else {
        return Err("usage: mlx_prep NATIVE_DIR MLX_INCLUDE_DIR OUT_DIR TARGET".into());
    };
    let target = target.display().to_string();
    fs::create_dir_all(out)?;
    let prelude = out.join("prelude.h");
    fs::write(&prelude, PRELUDE)?;

    let mlx_c = mlx_sys_sources(native)?.join("src/mlx-c");
    // libclang reads the headers while GCC does.
    thread::scope(|scope| {
        let bindings = scope.spawn(|| {
            generate_bindings(&mlx_c, mlx_include, &prelude, out, &target)
                .map_err(|error| error.to_string())
        });
        compile(&mlx_c, mlx_include, out, &target)?;
        bindings
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(())
    })
}

/// The folder of the mlx-sys crate that the workspace's lock file names. Of what cargo says, this path alone is
/// read: a parser of JSON takes longer to compile than all of this crate.
fn mlx_sys_sources(native: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .current_dir(native)
        .args(["metadata", "--format-version=1", "--locked"])
        .stderr(Stdio::inherit())
        .output()?;
    let metadata = String::from_utf8(output.stdout)?;
    let folder = metadata
        .split('"')
        .filter_map(|text| text.strip_suffix("/Cargo.toml"))
        .map(Path::new)
        .find(|folder| is_mlx_sys(folder));
    Ok(folder
        .ok_or("the workspace does not depend on mlx-sys")?
        .into())
}

/// cargo's folders of crates end in their versions, and those of `cargo vendor` need not.
fn is_mlx_sys(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "mlx-sys" || name.starts_with("mlx-sys-"))
}

fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn compile(
    mlx_c: &Path,
    mlx_include: &Path,
    out: &Path,
    target: &str,
) -> Result<(), Box<dyn Error>> {
    let system = if cfg!(target_os = "macos") {
        "apple-darwin"
    } else {
        "unknown-linux-gnu"
    };
    let host = format!("{}-{system}", std::env::consts::ARCH);
    let files = with_extension(&mlx_c.join("mlx/c"), "cpp")?;
    println!("compiling {} files of mlx-c", files.len());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .target(target)
        .host(&host)
        .opt_level(2)
        .pic(true)
        .warnings(false)
        .std("c++20")
        .include(mlx_c)
        .include(mlx_include)
        // mlx-c and MLX put the names of their files into error messages.
        .flag(format!("-ffile-prefix-map={}=mlx-c", mlx_c.display()))
        .flag(format!("-ffile-prefix-map={}=mlx", mlx_include.display()))
        .out_dir(out)
        .cargo_metadata(false);
    // Another file than the bindings' one: libclang would try what stands beside it.
    let prelude = out.join("prelude.hpp");
    fs::write(&prelude, PRELUDE)?;
    let precompiled = precompile(&build, &prelude)?;
    build
        .flag("-include")
        .flag(&prelude)
        .files(files)
        .try_compile("mlxc")?;
    if let Some(precompiled) = precompiled {
        fs::remove_file(precompiled)?;
    }
    Ok(())
}

/// Every file of mlx-c reads all of MLX's headers, which takes most of its time: GCC reads them once, and takes this
/// file in the place of the header that it stands beside.
fn precompile(build: &cc::Build, header: &Path) -> Result<Option<PathBuf>, Box<dyn Error>> {
    let compiler = build.try_get_compiler()?;
    if !compiler.is_like_gnu() {
        return Ok(None);
    }
    let precompiled = header.with_extension("hpp.gch");
    let status = compiler
        .to_command()
        .args(["-x", "c++-header", "-o"])
        .args([&precompiled, header])
        .status()?;
    if !status.success() {
        return Err(format!("precompiling {}: {status}", header.display()).into());
    }
    Ok(Some(precompiled))
}

fn generate_bindings(
    mlx_c: &Path,
    mlx_include: &Path,
    prelude: &Path,
    out: &Path,
    target: &str,
) -> Result<(), Box<dyn Error>> {
    println!("generating the bindings of mlx-c");
    let path = |path: &Path| path.display().to_string();
    // `malloc` and `realloc` are left out as mlx-sys's own build script leaves them out.
    let mut builder = bindgen::Builder::default()
        .rust_target(bindgen::RustTarget::stable(73, 0).map_err(|error| format!("{error:?}"))?)
        .clang_args(["-I", &path(mlx_c), "-I", &path(mlx_include)])
        .clang_args(["-include", &path(prelude)])
        .blocklist_function("malloc")
        .blocklist_function("realloc")
        .formatter(bindgen::Formatter::None);
    // macOS's libclang knows where this machine's headers are, but not those of a target that is named.
    if !cfg!(target_os = "macos") {
        builder = builder.clang_args(["-target", target]);
    }
    // The C library's headers for another machine than this one, where Debian puts them.
    let arch = target.split('-').next().unwrap_or_default();
    if arch != std::env::consts::ARCH && !target.ends_with("-apple-darwin") {
        let headers = format!("/usr/{arch}-linux-gnu/include");
        builder = builder.clang_args(["-isystem", &headers]);
    }
    for header in with_extension(&mlx_c.join("mlx/c"), "h")? {
        builder = builder.header(path(&header));
    }
    let bindings = with_signed_mode(&builder.generate()?.to_string())?;
    fs::write(out.join("bindings.rs"), bindings)?;
    Ok(())
}

/// mlx-rs takes C's `char` for `i8` where it calls `mlx_pad`, which on ARM it is not: that parameter is `i8` here.
fn with_signed_mode(bindings: &str) -> Result<String, Box<dyn Error>> {
    const MODE: &str = "mode : * const :: std :: os :: raw :: c_char";
    let pad = bindings.find("fn mlx_pad (");
    let mode = pad.and_then(|pad| Some(pad + bindings[pad..].find(MODE)?));
    let (before, after) = bindings.split_at(mode.ok_or("mlx-c has no `mlx_pad` with a mode")?);
    Ok(before.to_string() + "mode : * const i8" + &after[MODE.len()..])
}
