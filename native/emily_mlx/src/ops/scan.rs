//! Sums, products and extremes along an axis, of all elements up to each: by kernels on a CPU, elsewhere by MLX, whose sums
//! lose digits of f32 with every addend.

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::scan as kernels;
use emily_kernels::view::View;
use half::{bf16, f16};
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream};

use crate::ops::args::Args;
use crate::ops::cast;
use crate::ops::op::Op;
use crate::runtime::dtype::{by_type, Dtype};
use crate::runtime::error::Result;
use crate::runtime::ffi::{self, mlx};
use crate::runtime::kernel::{self, level, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

type Cumulative =
    unsafe extern "C" fn(*mut mlx_array, mlx_array, i32, bool, bool, mlx_stream) -> i32;
type TypedCumulative = unsafe extern "C" fn(
    *mut mlx_array,
    mlx_array,
    i32,
    bool,
    bool,
    mlx_sys::mlx_optional_dtype,
    mlx_stream,
) -> i32;

pub(crate) fn cumulate(
    op: Op,
    function: Cumulative,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    by_kernel_or(op, args, stream, |x, axis, reverse| {
        // SAFETY: the handles are live, and the axis is within the rank.
        ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, reverse, true, s) })
    })
}

pub(crate) fn cumulate_typed(
    op: Op,
    function: TypedCumulative,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    by_kernel_or(op, args, stream, |x, axis, reverse| {
        // The result has the type of the input.
        let dtype = mlx_sys::mlx_optional_dtype {
            value: Dtype::of(x).raw(),
            has_value: true,
        };
        // SAFETY: the handles are live, and the axis is within the rank.
        ffi::array(|result| unsafe { function(result, x.as_ptr(), axis, reverse, true, dtype, s) })
    })
}

/// By a kernel, or else by MLX's function of the input, the axis, and whether it goes from the end on.
fn by_kernel_or(
    op: Op,
    args: &Args,
    stream: &StreamHandle,
    own: impl FnOnce(&Array, i32, bool) -> Result<Array>,
) -> Result<Array> {
    let along = Along::of(args)?;
    if let Some(scan) = along.by_kernel(op, stream) {
        return scan;
    }
    let Along { x, axis, reverse } = along;
    cast::in_f32(x, stream.raw(), |x| own(x, axis, reverse))
}

/// `{op, x, axis, reverse}`
struct Along<'a> {
    x: &'a Array,
    axis: i32,
    reverse: bool,
}

impl<'a> Along<'a> {
    fn of(args: &'a Args) -> Result<Self> {
        let x = args.array()?;
        let (axis, reverse) = (args.axis(x)?, args.bool()?);
        Ok(Along { x, axis, reverse })
    }

    /// None where there is no kernel.
    fn by_kernel(&self, op: Op, stream: &StreamHandle) -> Option<Result<Array>> {
        let level = level(stream)?;
        if (op, Dtype::of(self.x)) == (Op::Cumsum, Dtype::C64) {
            return Some(self.sum_of_parts(level, stream));
        }
        let run = kernel_of(op, Dtype::of(self.x))?;
        Some(self.added(op, run, self.x, level, stream))
    }

    /// The sums of complex numbers: those of their real and their imaginary parts.
    fn sum_of_parts(&self, level: Level, stream: &StreamHandle) -> Result<Array> {
        let (shape, s) = (self.x.shape(), stream.raw());
        let parts = ffi::reshape(self.x, &[shape, &[1]].concat(), s)?;
        let parts = mlx!(mlx_view, parts.as_ptr(), Dtype::F32.raw(), s)?;
        let run = kernels::scan::<kernels::Sum, f32>;
        let sums = self.added(Op::Cumsum, run, &parts, level, stream)?;
        let sums = mlx!(mlx_view, sums.as_ptr(), Dtype::C64.raw(), s)?;
        ffi::reshape(&sums, shape, s)
    }

    fn added(
        &self,
        op: Op,
        run: Run,
        x: &Array,
        level: Level,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let scan = Scan {
            run,
            axis: self.axis as usize,
            reverse: self.reverse,
            level,
        };
        let result = (x.shape(), Dtype::of(x));
        kernel::add(op.name(), scan, &[x], result, Placement::Apart, stream)
    }
}

type Run = fn(Level, &View, usize, bool, &mut [u8]);

/// A scan along an axis, for a level of the processor.
struct Scan {
    run: Run,
    axis: usize,
    reverse: bool,
    level: Level,
}

impl Kernel for Scan {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let x = view(&inputs[0]);
        (self.run)(self.level, x, self.axis, self.reverse, output);
    }

    fn steps(&self) -> usize {
        2
    }
}

/// The kernel of an operation on numbers of one type, if there is one.
fn kernel_of(op: Op, dtype: Dtype) -> Option<Run> {
    match dtype {
        Dtype::F16 => run::<f16>(op),
        Dtype::Bf16 => run::<bf16>(op),
        _ => by_type!(dtype, numbers, T => run::<T>(op)),
    }
}

fn run<T: kernels::Scanned>(op: Op) -> Option<Run> {
    match op {
        Op::Cumsum => Some(kernels::scan::<kernels::Sum, T>),
        Op::Cumprod => Some(kernels::scan::<kernels::Product, T>),
        Op::Cummax => Some(kernels::scan::<kernels::Greatest, T>),
        Op::Cummin => Some(kernels::scan::<kernels::Least, T>),
        _ => None,
    }
}
