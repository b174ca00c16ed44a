//! Activations and gates: kernels of one pass on a CPU, and composed of MLX's operations elsewhere and of f64.

use emily_kernels::chain::Map;
use emily_kernels::elementwise::gates::{activate, gate as gated};
use emily_kernels::math::{Gelu, GeluTanh, Silu};
use half::{bf16, f16};
use mlx_rs::Array;
use once_cell::sync::OnceCell;

use crate::ops::args::Args;
use crate::ops::checks::real_float;
use crate::ops::create::number_like;
use crate::ops::map::{some, Mapping};
use crate::ops::op::Op;
use crate::ops::{cast, elementwise};
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::call;
use crate::runtime::kernel::level;
use crate::runtime::stream::StreamHandle;

/// `{:gelu, x}` and `{:gelu_tanh, x}`
pub(crate) fn activation(op: Op, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let x = args.array()?;
    real_float(args.op, "x", x)?;
    if let Some(kernel) = Mapping::of(own, op, &[x], level(stream)) {
        return kernel.apply(&[x], stream);
    }
    if is_on_cuda(&[x], stream) {
        return launch(&ACTIVATION, op, &[x], stream);
    }
    cast::in_f32(x, stream.raw(), |x| activated(op, x, stream))
}

/// `{:swiglu, gate, up}`, `{:geglu, gate, up}` and `{:geglu_tanh, gate, up}`: the activation of `gate`, times `up`.
pub(crate) fn gate(op: Op, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, y) = (args.array()?, args.array()?);
    for (name, array) in [("gate", x), ("up", y)] {
        real_float(args.op, name, array)?;
    }
    if Dtype::of(x) != Dtype::of(y) {
        refuse!(
            "{}: gate and up must have one type, got {} and {}",
            args.op,
            Dtype::of(x).name(),
            Dtype::of(y).name()
        )
    }
    if let Some(kernel) = Mapping::of(own, op, &[x, y], level(stream)) {
        return kernel.apply(&[x, y], stream);
    }
    if is_on_cuda(&[x, y], stream) {
        return launch(&GATE, op, &[x, y], stream);
    }
    let s = stream.raw();
    let y = cast::widened(y, s)?;
    cast::in_f32(x, s, |x| {
        call(mlx_sys::mlx_multiply, &activated(op, x, stream)?, &y, s)
    })
}

/// What a number tells `activation.cu.h`.
pub(crate) fn activation_number(op: Op) -> i32 {
    match op {
        Op::Swiglu => 1,
        Op::Gelu | Op::Geglu => 2,
        _ => 3,
    }
}

const TEXT: &str = concat!(include_str!("activation.cu.h"), include_str!("gate.cu.h"));

static ACTIVATION: Source = Source {
    name: "activation",
    inputs: &[c"x"],
    header: c"#define UP x\n#define HAS_UP false\n",
    ahead: "",
    text: TEXT,
    in_rows: true,
    made: OnceCell::new(),
};

static GATE: Source = Source {
    name: "gate",
    inputs: &[c"x", c"up"],
    header: c"#define UP up\n#define HAS_UP true\n",
    ahead: "",
    text: TEXT,
    in_rows: true,
    made: OnceCell::new(),
};

/// Whether arrays are of one shape, on CUDA, where there is a kernel for these.
fn is_on_cuda(arrays: &[&Array], stream: &StreamHandle) -> bool {
    let fits = |x: &&Array| x.shape() == arrays[0].shape() && (1..=8).contains(&x.ndim());
    cuda::is_cuda(stream) && arrays.iter().all(fits)
}

fn launch(source: &Source, op: Op, arrays: &[&Array], stream: &StreamHandle) -> Result<Array> {
    let (shape, dtype) = (arrays[0].shape(), Dtype::of(arrays[0]));
    let launch = Launch {
        inputs: arrays,
        output: (shape, dtype),
        threads: arrays[0].size().div_ceil(16 / dtype.size()).min(1 << 22) as i32,
        in_block: 256,
        dtype: Some((c"T", dtype)),
        numbers: &[(c"activation", activation_number(op))],
        zeroed: false,
    };
    cuda::launch(source, &launch, stream)
}

/// The activation of a gate, of f32 or f64, by MLX's operations and the kernels in their place.
fn activated(op: Op, x: &Array, stream: &StreamHandle) -> Result<Array> {
    let s = stream.raw();
    let multiply = |x: &Array, y: &Array| call(mlx_sys::mlx_multiply, x, y, s);
    let times = |x: &Array, factor: f64| multiply(x, &number_like(op.name(), factor, x)?);
    let sigmoid = |x: &Array| elementwise::one(Op::Sigmoid, mlx_sys::mlx_sigmoid, x, stream);
    match op {
        Op::Gelu | Op::Geglu => {
            let at = times(x, std::f64::consts::FRAC_1_SQRT_2)?;
            let erf = elementwise::one(Op::Erf, mlx_sys::mlx_erf, &at, stream)?;
            let one = number_like(op.name(), 1.0, x)?;
            times(&multiply(x, &call(mlx_sys::mlx_add, &erf, &one, s)?)?, 0.5)
        }
        Op::GeluTanh | Op::GegluTanh => {
            // (1 + tanh(u)) / 2 is the sigmoid of 2u.
            let cubic = times(&multiply(&multiply(x, x)?, x)?, 0.044715)?;
            let inner = call(mlx_sys::mlx_add, x, &cubic, s)?;
            let factor = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            multiply(x, &sigmoid(&times(&inner, factor)?)?)
        }
        _ => multiply(x, &sigmoid(x)?),
    }
}

/// The map of an activation or a gate on numbers of one type.
pub(crate) fn own(op: Op, dtype: Dtype) -> Option<&'static dyn Map> {
    macro_rules! of {
        ($map:ident, $gate:ident) => {
            match dtype {
                Dtype::F32 => some(&$map::<$gate, f32>),
                Dtype::F16 => some(&$map::<$gate, f16>),
                Dtype::Bf16 => some(&$map::<$gate, bf16>),
                _ => None,
            }
        };
    }
    match op {
        Op::Gelu => of!(activate, Gelu),
        Op::GeluTanh => of!(activate, GeluTanh),
        Op::Swiglu => of!(gated, Silu),
        Op::Geglu => of!(gated, Gelu),
        Op::GegluTanh => of!(gated, GeluTanh),
        _ => None,
    }
}
