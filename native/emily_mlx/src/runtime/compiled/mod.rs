//! What NVRTC compiles for MLX, kept on disk: MLX (0.32.4) keeps its own kernels alone, and none of `mx.fast.cuda_kernel`,
//! which takes a second or more for each, in each process.
//!
//! The library that loads MLX comes before NVRTC where the dynamic linker looks for a function, so that MLX calls these.
//! A program is known by its source, its names and its options. Where a file of that is in the folder of MLX's own,
//! nothing is compiled, and the code and the names that the compiler gave them are the file's.

mod file;

use std::collections::hash_map::DefaultHasher;
use std::collections::HashMap;
use std::ffi::{c_char, c_int, CStr, CString, OsStr};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use crate::runtime::library::functions;
use file::File;

type Pointer = *mut std::ffi::c_void;
type Text = *const c_char;

functions! {
    /// NVRTC's own functions.
    struct Compiler {
        version = c"nvrtcVersion"(*mut c_int, *mut c_int);
        create = c"nvrtcCreateProgram"(*mut Pointer, Text, Text, c_int, *const Text, *const Text);
        add_name = c"nvrtcAddNameExpression"(Pointer, Text);
        compile = c"nvrtcCompileProgram"(Pointer, c_int, *const Text);
        lowered_name = c"nvrtcGetLoweredName"(Pointer, Text, *mut Text);
        ptx_size = c"nvrtcGetPTXSize"(Pointer, *mut usize);
        ptx = c"nvrtcGetPTX"(Pointer, *mut c_char);
        binary_size = c"nvrtcGetCUBINSize"(Pointer, *mut usize);
        binary = c"nvrtcGetCUBIN"(Pointer, *mut c_char);
        destroy = c"nvrtcDestroyProgram"(*mut Pointer);
    }
}

static COMPILER: Lazy<Option<Compiler>> = Lazy::new(Compiler::find);

/// What is answered where there is no compiler: `NVRTC_ERROR_INTERNAL_ERROR`.
const NONE: c_int = 11;

/// The folder of MLX's compiled kernels, where the environment names one.
static FOLDER: Lazy<Option<PathBuf>> = Lazy::new(|| {
    let named = std::env::var_os("MLX_PTX_CACHE_DIR");
    named
        .filter(|folder| folder.as_os_str() != OsStr::new(""))
        .map(PathBuf::from)
});

struct Program {
    /// Of the source, and what it includes.
    hasher: DefaultHasher,
    names: Vec<CString>,
    path: Option<PathBuf>,
    /// What was kept of it.
    kept: Option<File>,
}

static PROGRAMS: Lazy<Mutex<HashMap<usize, Program>>> = Lazy::new(Mutex::default);

/// What is known of a program.
fn of<T>(program: Pointer, look: impl FnOnce(&mut Program) -> T) -> Option<T> {
    PROGRAMS.lock().get_mut(&program.addr()).map(look)
}

/// # Safety
/// The text ends with NUL.
unsafe fn text(text: Text) -> CString {
    // SAFETY: so says the caller.
    unsafe { CStr::from_ptr(text) }.to_owned()
}

/// # Safety
/// As many texts follow on one another.
unsafe fn texts<'a>(texts: *const Text, count: c_int) -> &'a [Text] {
    match usize::try_from(count) {
        Ok(count) if count > 0 => {
            // SAFETY: so says the caller.
            unsafe { std::slice::from_raw_parts(texts, count) }
        }
        _ => &[],
    }
}

/// Whether code that is compiled with an option is other code. Where the headers of MLX and CUDA are is not in it: each
/// version of MLX has a folder of its own.
fn counts(option: &[u8]) -> bool {
    !option.starts_with(b"-I") && !option.starts_with(b"--include-path")
}

#[export_name = "nvrtcCreateProgram"]
unsafe extern "C" fn create(
    program: *mut Pointer,
    source: Text,
    name: Text,
    count: c_int,
    headers: *const Text,
    header_names: *const Text,
) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    // SAFETY: as the caller calls NVRTC, whose arguments these are.
    let status = unsafe { (compiler.create)(program, source, name, count, headers, header_names) };
    if status == 0 {
        let mut hasher = DefaultHasher::new();
        let mut version = [0; 2];
        // SAFETY: NVRTC has read the texts and written the program; the places for its version are live.
        let program = unsafe {
            text(source).hash(&mut hasher);
            for header in texts(headers, count) {
                text(*header).hash(&mut hasher);
            }
            let [major, minor] = &mut version;
            (compiler.version)(major, minor);
            *program
        };
        version.hash(&mut hasher);
        let known = Program {
            hasher,
            names: Vec::new(),
            path: None,
            kept: None,
        };
        PROGRAMS.lock().insert(program.addr(), known);
    }
    status
}

#[export_name = "nvrtcAddNameExpression"]
unsafe extern "C" fn add_name(program: Pointer, name: Text) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    // SAFETY: as the caller calls NVRTC.
    let status = unsafe { (compiler.add_name)(program, name) };
    if status == 0 {
        // SAFETY: NVRTC has read the name.
        let name = unsafe { text(name) };
        of(program, |program| program.names.push(name));
    }
    status
}

#[export_name = "nvrtcCompileProgram"]
unsafe extern "C" fn compile(program: Pointer, count: c_int, options: *const Text) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    // SAFETY: as many options follow, each of which ends with NUL, or NVRTC could not read them.
    let all = unsafe { texts(options, count) };
    let kept = of(program, |program| {
        let mut hasher = program.hasher.clone();
        program.names.hash(&mut hasher);
        for option in all {
            // SAFETY: as above.
            let option = unsafe { CStr::from_ptr(*option) };
            if counts(option.to_bytes()) {
                option.hash(&mut hasher);
            }
        }
        let name = format!("{:016x}.kernel", hasher.finish());
        program.path = FOLDER.as_ref().map(|folder| folder.join(name));
        program.kept = program
            .path
            .as_ref()
            .and_then(|path| File::read(path, &program.names));
        program.kept.is_some()
    });
    if kept == Some(true) {
        return 0;
    }
    // SAFETY: as the caller calls NVRTC.
    unsafe { (compiler.compile)(program, count, options) }
}

#[export_name = "nvrtcGetLoweredName"]
unsafe extern "C" fn lowered_name(program: Pointer, name: Text, lowered: *mut Text) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    // SAFETY: the name ends with NUL, or NVRTC could not read it.
    let wanted = unsafe { CStr::from_ptr(name) };
    // As long as the program is, so is what is kept of it.
    let kept = of(program, |program| {
        Some(
            program
                .kept
                .as_ref()?
                .lowered(&program.names, wanted)?
                .as_ptr(),
        )
    });
    match kept.flatten() {
        Some(kept) => {
            // SAFETY: the caller gives a place for the name.
            unsafe { *lowered = kept };
            0
        }
        // SAFETY: as the caller calls NVRTC.
        None => unsafe { (compiler.lowered_name)(program, name, lowered) },
    }
}

#[export_name = "nvrtcGetPTXSize"]
unsafe extern "C" fn ptx_size(program: Pointer, size: *mut usize) -> c_int {
    // SAFETY: as the caller calls NVRTC.
    unsafe { code_size(program, size, |compiler| compiler.ptx_size) }
}

#[export_name = "nvrtcGetCUBINSize"]
unsafe extern "C" fn binary_size(program: Pointer, size: *mut usize) -> c_int {
    // SAFETY: as the caller calls NVRTC.
    unsafe { code_size(program, size, |compiler| compiler.binary_size) }
}

#[export_name = "nvrtcGetPTX"]
unsafe extern "C" fn ptx(program: Pointer, code: *mut c_char) -> c_int {
    // SAFETY: as the caller calls NVRTC.
    unsafe { copy_code(program, code, |compiler| (compiler.ptx_size, compiler.ptx)) }
}

#[export_name = "nvrtcGetCUBIN"]
unsafe extern "C" fn binary(program: Pointer, code: *mut c_char) -> c_int {
    // SAFETY: as the caller calls NVRTC.
    unsafe {
        copy_code(program, code, |compiler| {
            (compiler.binary_size, compiler.binary)
        })
    }
}

type Size = unsafe extern "C" fn(Pointer, *mut usize) -> c_int;
type Code = unsafe extern "C" fn(Pointer, *mut c_char) -> c_int;

/// Which of the two forms MLX asks for depends on the options, and so does the file.
///
/// # Safety
/// As NVRTC's functions of the size.
unsafe fn code_size(
    program: Pointer,
    size: *mut usize,
    own: impl FnOnce(&Compiler) -> Size,
) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    let kept = of(program, |program| {
        program.kept.as_ref().map(|kept| kept.code.len())
    });
    match kept.flatten() {
        Some(kept) => {
            // SAFETY: the caller gives a place for the size.
            unsafe { *size = kept };
            0
        }
        // SAFETY: as the caller calls NVRTC.
        None => unsafe { own(compiler)(program, size) },
    }
}

/// Copies the code of a program, and keeps it if it was compiled.
///
/// # Safety
/// As NVRTC's functions of the code.
unsafe fn copy_code(
    program: Pointer,
    code: *mut c_char,
    own: impl FnOnce(&Compiler) -> (Size, Code),
) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    let copied = of(program, |program| {
        program.kept.as_ref().map(|kept| {
            // SAFETY: the caller has asked for the size, and gives so much room.
            unsafe {
                std::ptr::copy_nonoverlapping(kept.code.as_ptr(), code.cast(), kept.code.len())
            };
        })
    });
    if copied.flatten().is_some() {
        return 0;
    }
    let (own_size, own_code) = own(compiler);
    // SAFETY: as the caller calls NVRTC.
    let status = unsafe { own_code(program, code) };
    let mut size = 0;
    // SAFETY: the program is live, and so is the place for the size.
    if status == 0 && unsafe { own_size(program, &mut size) } == 0 {
        // SAFETY: NVRTC has written so many bytes.
        let code = unsafe { std::slice::from_raw_parts(code.cast::<u8>(), size) };
        keep(compiler, program, code);
    }
    status
}

/// Writes down what was compiled. Where that cannot be, it is compiled again the next time.
fn keep(compiler: &Compiler, program: Pointer, code: &[u8]) {
    let known = of(program, |program| {
        (program.path.clone(), program.names.clone())
    });
    let Some((Some(path), names)) = known else {
        return;
    };
    let lowered = |name: &CString| {
        let mut lowered: Text = std::ptr::null();
        // SAFETY: the program is live and compiled, the name ends with NUL, and what NVRTC answers lives as long as the
        // program.
        unsafe {
            let status = (compiler.lowered_name)(program, name.as_ptr(), &mut lowered);
            (status == 0).then(|| text(lowered))
        }
    };
    let lowered: Option<Vec<CString>> = names.iter().map(lowered).collect();
    if let Some(lowered) = lowered {
        let file = File {
            lowered,
            code: code.to_vec(),
        };
        // It costs time alone.
        let _ = file.write(&path, &names);
    }
}

#[export_name = "nvrtcDestroyProgram"]
unsafe extern "C" fn destroy(program: *mut Pointer) -> c_int {
    let Some(compiler) = &*COMPILER else {
        return NONE;
    };
    // SAFETY: the caller names a program.
    PROGRAMS.lock().remove(&unsafe { *program }.addr());
    // SAFETY: as the caller calls NVRTC.
    unsafe { (compiler.destroy)(program) }
}
