//! mlx-c's functions alone, and processes to have them ended in.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{exit, Command, Stdio};
use std::sync::{Mutex, Once};
use std::{env, fs};

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

/// The last message of MLX's, whichever thread failed.
static MESSAGE: Mutex<String> = Mutex::new(String::new());

extern "C" fn keep_message(message: *const c_char, _data: *mut c_void) {
    // SAFETY: mlx-c passes a string that ends with a zero and lives for this call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    *MESSAGE.lock().expect("nobody panics with it") = message.into_owned();
}

/// The calling thread's stream of the CPU, which stays.
pub fn cpu() -> mlx_stream {
    static ONCE: Once = Once::new();
    // mlx-rs sets a handler of its own at its first call.
    ONCE.call_once(|| {
        let _ = mlx_rs::memory::active_memory();
        // SAFETY: the handler lives as long as the process and takes no data.
        unsafe { mlx_sys::mlx_set_error_handler(Some(keep_message), std::ptr::null_mut(), None) };
    });
    // SAFETY: it takes nothing.
    unsafe { mlx_sys::mlx_default_cpu_stream_new() }
}

/// What a call writes, or MLX's message.
pub fn tried(call: impl FnOnce(*mut mlx_array, mlx_stream) -> c_int) -> Result<Array, String> {
    let stream = cpu();
    // SAFETY: the handle is new, and the array's that is written to it where the call succeeds.
    unsafe {
        let mut result = mlx_sys::mlx_array_new();
        match call(&mut result, stream) {
            0 => Ok(Array::from_ptr(result)),
            _ => Err(MESSAGE.lock().expect("nobody panics with it").clone()),
        }
    }
}

pub fn made(call: impl FnOnce(*mut mlx_array, mlx_stream) -> c_int) -> Array {
    tried(call).expect("MLX has no objection")
}

/// `raw!(mlx_add, a, b)` calls the function of that name on the CPU.
macro_rules! raw {
    ($function:ident $(, $argument:expr)*) => {
        $crate::support::made(|result, stream| {
            // SAFETY: the handles are live, and each pointer is followed by its length.
            unsafe { mlx_sys::$function(result $(, $argument)*, stream) }
        })
    };
}
pub(crate) use raw;

/// MLX's message where the array cannot be computed.
pub fn computed(array: &Array) -> Result<(), String> {
    // SAFETY: the handle is live.
    match unsafe { mlx_sys::mlx_array_eval(array.as_ptr()) } {
        0 => Ok(()),
        _ => Err(MESSAGE.lock().expect("nobody panics with it").clone()),
    }
}

pub fn floats(array: &Array) -> Vec<f32> {
    let rows = raw!(mlx_contiguous, array.as_ptr(), false);
    computed(&rows).expect("it can be computed");
    rows.as_slice::<f32>().to_vec()
}

/// How a process ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// By itself, and `true` says that it saw the fault.
    Saw(bool),
    Signal(i32),
}

/// Runs `fault`, which may end the process or write where it must not, in a process that runs the test `name` alone.
pub fn apart(name: &str, fault: impl FnOnce() -> bool) -> End {
    const IN_IT: &str = "EMILY_CANARY";
    if env::var_os(IN_IT).is_some() {
        exit(if fault() { 0 } else { 1 });
    }
    let this = env::current_exe().expect("a test has a file");
    let status = Command::new(this)
        .args([name, "--exact", "--nocapture"])
        .env(IN_IT, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("it can be run again");
    match status.signal() {
        Some(signal) => End::Signal(signal),
        None => End::Saw(status.code() == Some(0)),
    }
}

/// Fails once the fault is gone. `issue` is MLX's, where there is one; `files` lean on the workaround.
pub fn leans_on(fault: bool, what: &str, issue: Option<u32>, files: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in files {
        assert!(
            fs::exists(root.join(file)).unwrap_or(false),
            "{file} is not there"
        );
    }
    let issue = issue.map_or(String::new(), |number| {
        format!(" (ml-explore/mlx#{number})")
    });
    assert!(
        fault,
        "MLX is mended: {what}{issue}. The workaround may go from {files:?}"
    );
}
