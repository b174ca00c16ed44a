//! The functions under test, with the levels that they are compiled for.

use emily_kernels::math::{self, map, map2, Arithmetic, Binary, Separate, Unary};

/// A way to compute a function of slices.
pub type Function<T> = fn(&[T], &mut [T]);
pub type Function2<T> = fn(&[T], &[T], &mut [T]);

/// A function of one number on a level of processors.
pub struct Compiled<T> {
    pub level: &'static str,
    pub function: Function<T>,
}

pub struct Compiled2<T> {
    pub level: &'static str,
    pub function: Function2<T>,
}

pub struct Row {
    pub name: &'static str,
    pub single: fn() -> Vec<Compiled<f32>>,
    pub double: fn() -> Vec<Compiled<f64>>,
}

pub struct Row2 {
    pub name: &'static str,
    pub single: fn() -> Vec<Compiled2<f32>>,
    pub double: fn() -> Vec<Compiled2<f64>>,
}

fn plain<F: Unary<T>, A: Arithmetic, T: Copy>(x: &[T], y: &mut [T]) {
    map::<F, A, T>(x, y);
}

fn plain2<F: Binary<T>, A: Arithmetic, T: Copy>(x: &[T], y: &[T], z: &mut [T]) {
    map2::<F, A, T>(x, y, z);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use emily_kernels::math::Fused;

    macro_rules! level {
        ($one:ident, $two:ident, $inner:ident, $inner2:ident, $features:literal) => {
            #[target_feature(enable = $features)]
            fn $inner<F: Unary<T>, T: Copy>(x: &[T], y: &mut [T]) {
                map::<F, Fused, T>(x, y);
            }

            #[target_feature(enable = $features)]
            fn $inner2<F: Binary<T>, T: Copy>(x: &[T], y: &[T], z: &mut [T]) {
                map2::<F, Fused, T>(x, y, z);
            }

            pub fn $one<F: Unary<T>, T: Copy>(x: &[T], y: &mut [T]) {
                // SAFETY: the tables have this function only where the processor has these features.
                unsafe { $inner::<F, T>(x, y) }
            }

            pub fn $two<F: Binary<T>, T: Copy>(x: &[T], y: &[T], z: &mut [T]) {
                // SAFETY: as above.
                unsafe { $inner2::<F, T>(x, y, z) }
            }
        };
    }

    level!(avx2, avx2_pair, avx2_inner, avx2_pair_inner, "avx2,fma");
    level!(
        avx512,
        avx512_pair,
        avx512_inner,
        avx512_pair_inner,
        "avx2,fma,avx512f,avx512dq,avx512vl"
    );

    pub fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    pub fn has_avx512() -> bool {
        has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }
}

fn compiled<F: Unary<T>, T: Copy>() -> Vec<Compiled<T>> {
    let one = |level, function: Function<T>| Compiled { level, function };
    #[allow(unused_mut)]
    let mut levels = vec![one("portable", plain::<F, Separate, T> as Function<T>)];
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx2() {
            levels.push(one("avx2", x86::avx2::<F, T>));
        }
        if x86::has_avx512() {
            levels.push(one("avx512", x86::avx512::<F, T>));
        }
    }
    #[cfg(target_arch = "aarch64")]
    levels.push(one("neon", plain::<F, math::Fused, T>));
    levels
}

fn compiled2<F: Binary<T>, T: Copy>() -> Vec<Compiled2<T>> {
    let one = |level, function: Function2<T>| Compiled2 { level, function };
    #[allow(unused_mut)]
    let mut levels = vec![one("portable", plain2::<F, Separate, T> as Function2<T>)];
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx2() {
            levels.push(one("avx2", x86::avx2_pair::<F, T>));
        }
        if x86::has_avx512() {
            levels.push(one("avx512", x86::avx512_pair::<F, T>));
        }
    }
    #[cfg(target_arch = "aarch64")]
    levels.push(one("neon", plain2::<F, math::Fused, T>));
    levels
}

macro_rules! rows {
    ($row:ident, $compiled:ident, $($name:literal $function:ident),*) => {
        vec![$($row {
            name: $name,
            single: $compiled::<math::$function, f32>,
            double: $compiled::<math::$function, f64>,
        }),*]
    };
}

pub fn functions() -> Vec<Row> {
    rows![
        Row, compiled, "exp" Exp, "expm1" Expm1, "sigmoid" Sigmoid, "log" Log, "log1p" Log1p, "log2" Log2, "log10" Log10,
        "sin" Sin, "cos" Cos, "tan" Tan, "asin" Asin, "acos" Acos, "atan" Atan, "sinh" Sinh, "cosh" Cosh, "tanh" Tanh,
        "asinh" Asinh, "acosh" Acosh, "atanh" Atanh, "erf" Erf, "erfc" Erfc, "erf_inv" ErfInv, "rsqrt" Rsqrt,
        "cbrt" Cbrt
    ]
}

pub fn functions2() -> Vec<Row2> {
    rows![Row2, compiled2, "pow" Pow, "atan2" Atan2]
}

/// The true value as other libraries compute it in f64.
// The standard library's would be the system's, of which Miri gives other digits each time.
pub fn oracle(name: &str) -> fn(f64) -> f64 {
    match name {
        "exp" => libm::exp,
        "expm1" => libm::expm1,
        "sigmoid" => |x| 1.0 / (1.0 + libm::exp(-x)),
        "log" => libm::log,
        "log1p" => libm::log1p,
        "log2" => libm::log2,
        "log10" => libm::log10,
        "sin" => libm::sin,
        "cos" => libm::cos,
        "tan" => libm::tan,
        "asin" => libm::asin,
        "acos" => libm::acos,
        "atan" => libm::atan,
        "sinh" => libm::sinh,
        "cosh" => libm::cosh,
        "tanh" => libm::tanh,
        "asinh" => libm::asinh,
        "acosh" => |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) },
        "atanh" => libm::atanh,
        "erf" => libm::erf,
        "erfc" => libm::erfc,
        "erf_inv" => erf_inv,
        "rsqrt" => |x| 1.0 / x.sqrt(),
        "cbrt" => libm::cbrt,
        _ => panic!("no oracle for {name}"),
    }
}

pub fn oracle2(name: &str) -> fn(f64, f64) -> f64 {
    match name {
        "pow" => libm::pow,
        "atan2" => libm::atan2,
        _ => panic!("no oracle for {name}"),
    }
}

/// The place where another library's error function is `x`, found by halving; near zero, its series.
fn erf_inv(x: f64) -> f64 {
    let size = x.abs();
    if size >= 1.0 || x.is_nan() {
        return if size == 1.0 {
            x * f64::INFINITY
        } else {
            f64::NAN
        };
    }
    if size < 1e-4 {
        return x
            * (std::f64::consts::PI.sqrt() / 2.0)
            * (1.0 + std::f64::consts::PI / 12.0 * x * x);
    }
    let (mut low, mut high) = (0.0, 6.0);
    for _ in 0..58 {
        let middle = 0.5 * (low + high);
        let above = if size < 0.5 {
            libm::erf(middle) > size
        } else {
            libm::erfc(middle) < 1.0 - size
        };
        if above {
            high = middle;
        } else {
            low = middle;
        }
    }
    low.copysign(x)
}

/// Numbers that look random, the same ones in each run.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
