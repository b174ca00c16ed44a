//! Kernels of Emily's own on an NVIDIA GPU. MLX compiles them when they are first used; `compiled` keeps what it compiled.

use std::ffi::{CStr, CString};

use mlx_rs::Array;
use once_cell::sync::OnceCell;

use crate::runtime::dtype::Dtype;
use crate::runtime::error::{Error, Result};
use crate::runtime::ffi::{self, Arrays};
use crate::runtime::stream::StreamHandle;

/// A kernel. Its inputs are pointers of their names, with `x_shape` and `x_strides` where the source names them of an
/// input `x` that has an axis; its output is `out`. `cg::this_grid()` are the threads.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) inputs: &'static [&'static CStr],
    /// What stands before it.
    pub(crate) header: &'static CStr,
    /// What it does while those before it in a graph still run (`runtime/replay/edges.rs`): it reads nothing that they write.
    pub(crate) ahead: &'static str,
    pub(crate) text: &'static str,
    /// Whether MLX copies inputs that do not lie in row-major order.
    pub(crate) in_rows: bool,
    /// What MLX makes of it, once it is called.
    pub(crate) made: OnceCell<Kernel>,
}

/// What a kernel is called with.
pub(crate) struct Launch<'a> {
    pub(crate) inputs: &'a [&'a Array],
    pub(crate) output: (&'a [i32], Dtype),
    pub(crate) threads: i32,
    pub(crate) in_block: i32,
    /// The type that the source calls by a name.
    pub(crate) dtype: Option<(&'static CStr, Dtype)>,
    /// Numbers that the source calls by name. Others make another kernel, so none that changes from call to call.
    pub(crate) numbers: &'a [(&'static CStr, i32)],
    /// Whether the output is zero to begin with.
    pub(crate) zeroed: bool,
}

/// Lets those behind it in a graph begin, which wait as this does.
const BEGIN: &str = "
#if __CUDA_ARCH__ >= 900
asm volatile(\"griddepcontrol.launch_dependents;\");
#endif
";

/// Waits until all before it are through and what they wrote is there. At once, unless the graph had it begin early.
const WAIT: &str = "
#if __CUDA_ARCH__ >= 900
asm volatile(\"griddepcontrol.wait;\" ::: \"memory\");
#endif
";

/// What the names of all of them begin with, behind MLX's own words.
pub(crate) const OWN: &str = "emily_";

/// Whether a stream's device takes these kernels.
pub(crate) fn is_cuda(stream: &StreamHandle) -> bool {
    cfg!(target_os = "linux") && stream.is_gpu()
}

struct Names(mlx_sys::mlx_vector_string);

impl Names {
    fn new(names: &[&CStr]) -> Result<Names> {
        // SAFETY: the vector is owned by the value, which frees it; MLX copies the names.
        unsafe {
            let vector = Names(mlx_sys::mlx_vector_string_new());
            for name in names {
                let name = name.as_ptr();
                ffi::status(|| mlx_sys::mlx_vector_string_append_value(vector.0, name))?;
            }
            Ok(vector)
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: the vector is owned and freed once.
        unsafe { mlx_sys::mlx_vector_string_free(self.0) };
    }
}

pub(crate) struct Kernel(mlx_sys::mlx_fast_cuda_kernel);

// SAFETY: MLX's (0.32.4) function has copies of the names and the source, and changes nothing when it is called.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Drop for Kernel {
    fn drop(&mut self) {
        // SAFETY: the kernel is owned and freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_free(self.0) };
    }
}

struct Config(mlx_sys::mlx_fast_cuda_kernel_config);

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the configuration is owned and freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_config_free(self.0) };
    }
}

impl Source {
    fn kernel(&self) -> Result<&Kernel> {
        self.made.get_or_try_init(|| {
            let (inputs, outputs) = (Names::new(self.inputs)?, Names::new(&[c"out"])?);
            let c_text =
                |text: String| CString::new(text).map_err(|error| Error::Mlx(error.to_string()));
            let name = c_text([OWN, self.name].concat())?;
            let text = c_text([BEGIN, self.ahead, WAIT, self.text].concat())?;
            // SAFETY: the handles are live, the name and the sources end with NUL, and MLX copies all of them.
            Ok(Kernel(unsafe {
                mlx_sys::mlx_fast_cuda_kernel_new(
                    name.as_ptr(),
                    inputs.0,
                    outputs.0,
                    text.as_ptr(),
                    self.header.as_ptr(),
                    self.in_rows,
                    0,
                )
            }))
        })
    }
}

/// Adds a call of a kernel to the graph of a stream of which `is_cuda` is true.
pub(crate) fn launch(source: &Source, launch: &Launch, stream: &StreamHandle) -> Result<Array> {
    let kernel = source.kernel()?;
    let arrays = Arrays::new(launch.inputs.iter().copied())?;
    let (shape, dtype) = launch.output;
    // SAFETY: the handles are live, names end with NUL, the shape is followed by its rank, and MLX copies all of them. The
    // configuration is owned by the value that frees it.
    let results = unsafe {
        let config = Config(mlx_sys::mlx_fast_cuda_kernel_config_new());
        let of = config.0;
        ffi::status(|| {
            mlx_sys::mlx_fast_cuda_kernel_config_add_output_arg(
                of,
                shape.as_ptr(),
                shape.len(),
                dtype.raw(),
            )
        })?;
        let (threads, in_block) = (launch.threads, launch.in_block);
        ffi::status(|| mlx_sys::mlx_fast_cuda_kernel_config_set_grid(of, threads, 1, 1))?;
        ffi::status(|| mlx_sys::mlx_fast_cuda_kernel_config_set_thread_group(of, in_block, 1, 1))?;
        if launch.zeroed {
            ffi::status(|| mlx_sys::mlx_fast_cuda_kernel_config_set_init_value(of, 0.0))?;
        }
        if let Some((name, dtype)) = launch.dtype {
            let (name, dtype) = (name.as_ptr(), dtype.raw());
            ffi::status(|| {
                mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_dtype(of, name, dtype)
            })?;
        }
        for (name, number) in launch.numbers {
            let name = name.as_ptr();
            ffi::status(|| {
                mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_int(of, name, *number)
            })?;
        }
        ffi::arrays(|results| {
            mlx_sys::mlx_fast_cuda_kernel_apply(
                results,
                kernel.0,
                arrays.as_ptr(),
                config.0,
                stream.raw(),
            )
        })?
    };
    let first = results.into_iter().next();
    first.ok_or_else(|| Error::Mlx("MLX gave no array".to_owned()))
}
