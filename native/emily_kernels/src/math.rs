//! The elementary functions, for vectors: each is a straight line of additions, multiplications and selections,
//! which the compiler makes vector instructions of wherever it stands in a loop over a slice. No table is looked up,
//! no library called.
//!
//! Functions of f32 are computed in f64 and rounded once: they are the nearest f32 nearly always, and never further
//! than its neighbour. Functions of f64 are within two units of the last place. Limits and special cases are those of
//! C99.
//!
//! An element's value depends on nothing but the element and the [`Arithmetic`]: neither on its place nor on the width
//! of the vectors. The two kinds of arithmetic differ by a unit or two of the last place of an f64, and of an f32 near
//! ties only; one kind for all processors would take half as long again, up to twice as long, on those that multiply
//! and add in one step.
//!
//! The sine, cosine and tangent of numbers beyond 2^20 take another way, with integers and one by one; so a loop is
//! over the near ones, and those beyond are computed again: see [`map`].

mod arithmetic;
mod coefficients;
mod double;
mod single;

pub use arithmetic::{Arithmetic, Fused, Separate};
pub use single::gate::{Gate, Gelu, GeluTanh, Silu};

/// A function of one number.
///
/// ```
/// use emily_kernels::math::{Separate, Sin, Unary};
///
/// assert_eq!(Sin::value::<Separate>(1e22f64), -0.8522008497671888);
/// assert!(Sin::is_far(1e22f64));
/// ```
pub trait Unary<T> {
    /// The value where `x` is not far, without branches.
    fn near<A: Arithmetic>(x: T) -> T;

    /// Whether only [`Self::far`] has the value.
    #[inline(always)]
    fn is_far(_x: T) -> bool {
        false
    }

    /// The value where `x` is far, and nowhere else.
    fn far(x: T) -> T {
        x
    }

    /// The value anywhere.
    #[inline(always)]
    fn value<A: Arithmetic>(x: T) -> T
    where
        T: Copy,
    {
        if Self::is_far(x) {
            Self::far(x)
        } else {
            Self::near::<A>(x)
        }
    }
}

/// A function of two numbers.
pub trait Binary<T> {
    /// The value, without branches.
    fn value<A: Arithmetic>(x: T, y: T) -> T;
}

/// Puts the function of each number of `from` where it belongs in `to`; panics where they differ in length.
///
/// It is inlined, so vectors are as wide as the features of the function that calls it.
///
/// ```
/// use emily_kernels::math::{map, Exp, Separate};
///
/// let mut powers = [0.0; 3];
/// map::<Exp, Separate, f64>(&[0.0, 1.0, f64::NEG_INFINITY], &mut powers);
/// assert_eq!(powers, [1.0, std::f64::consts::E, 0.0]);
/// ```
#[inline(always)]
pub fn map<F: Unary<T>, A: Arithmetic, T: Copy>(from: &[T], to: &mut [T]) {
    assert_eq!(from.len(), to.len(), "slices of one length");
    const BLOCK: usize = 256;
    for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
        let mut any_far = false;
        for (x, y) in from.iter().zip(to.iter_mut()) {
            *y = F::near::<A>(*x);
            any_far |= F::is_far(*x);
        }
        if any_far {
            far::<F, T>(from, to);
        }
    }
}

#[inline(never)]
fn far<F: Unary<T>, T: Copy>(from: &[T], to: &mut [T]) {
    for (x, y) in from.iter().zip(to.iter_mut()) {
        if F::is_far(*x) {
            *y = F::far(*x);
        }
    }
}

/// [`map`] of two slices.
///
/// ```
/// use emily_kernels::math::{map2, Pow, Separate};
///
/// let mut powers = [0.0; 3];
/// map2::<Pow, Separate, f32>(&[2.0, -2.0, 4.0], &[3.0, 3.0, -0.5], &mut powers);
/// assert_eq!(powers, [8.0, -8.0, 0.5]);
/// ```
#[inline(always)]
pub fn map2<F: Binary<T>, A: Arithmetic, T: Copy>(left: &[T], right: &[T], to: &mut [T]) {
    assert_eq!(left.len(), right.len(), "slices of one length");
    assert_eq!(left.len(), to.len(), "slices of one length");
    for ((x, y), z) in left.iter().zip(right).zip(to.iter_mut()) {
        *z = F::value::<A>(*x, *y);
    }
}

/// One row a function: its type, what it is, and its name in a module of each element type.
macro_rules! functions {
    ($(unary $name:ident, $about:literal, $module:ident::$function:ident;)*
     $(exact $exact:ident, $exact_about:literal, $exact_module:ident::$exact_function:ident;)*
     $(angle $angle:ident, $angle_about:literal, $near:ident, $far:ident;)*
     $(binary $pair:ident, $pair_about:literal, $pair_module:ident::$pair_function:ident;)*) => {
        $(#[doc = $about]
          #[derive(Clone, Copy, Debug)]
          pub struct $name;
          functions!(@unary f32 $name single::$module::$function::<A>);
          functions!(@unary f64 $name double::$module::$function::<A>);)*
        // The processor's own operations, whatever the arithmetic.
        $(#[doc = $exact_about]
          #[derive(Clone, Copy, Debug)]
          pub struct $exact;
          functions!(@unary f32 $exact single::$exact_module::$exact_function);
          functions!(@unary f64 $exact double::$exact_module::$exact_function);)*
        $(#[doc = $angle_about]
          #[derive(Clone, Copy, Debug)]
          pub struct $angle;
          functions!(@angle f32 single $angle $near $far);
          functions!(@angle f64 double $angle $near $far);)*
        $(#[doc = $pair_about]
          #[derive(Clone, Copy, Debug)]
          pub struct $pair;
          functions!(@binary f32 single $pair $pair_module $pair_function);
          functions!(@binary f64 double $pair $pair_module $pair_function);)*
    };
    (@unary $type:ident $name:ident $function:path) => {
        impl Unary<$type> for $name {
            #[inline(always)]
            fn near<A: Arithmetic>(x: $type) -> $type {
                $function(x)
            }
        }
    };
    (@angle $type:ident $width:ident $name:ident $near:ident $far:ident) => {
        impl Unary<$type> for $name {
            #[inline(always)]
            fn near<A: Arithmetic>(x: $type) -> $type {
                $width::trigonometric::$near::<A>(x)
            }
            #[inline(always)]
            fn is_far(x: $type) -> bool {
                $width::trigonometric::is_far(x)
            }
            fn far(x: $type) -> $type {
                $width::trigonometric::$far(x)
            }
        }
    };
    (@binary $type:ident $width:ident $name:ident $module:ident $function:ident) => {
        impl Binary<$type> for $name {
            #[inline(always)]
            fn value<A: Arithmetic>(x: $type, y: $type) -> $type {
                $width::$module::$function::<A>(x, y)
            }
        }
    };
}

functions! {
    unary Exp, "`e^x`.", exponential::exp;
    unary Expm1, "`e^x - 1`.", exponential::expm1;
    unary Sigmoid, "`1 / (1 + e^-x)`.", exponential::sigmoid;
    unary Log, "The natural logarithm.", logarithm::log;
    unary Log1p, "`log(1 + x)`.", logarithm::log1p;
    unary Log2, "The logarithm to base 2.", logarithm::log2;
    unary Log10, "The logarithm to base 10.", logarithm::log10;
    unary Asin, "The arcsine.", trigonometric::asin;
    unary Acos, "The arc cosine.", trigonometric::acos;
    unary Atan, "The arc tangent.", trigonometric::atan;
    unary Sinh, "The hyperbolic sine.", hyperbolic::sinh;
    unary Cosh, "The hyperbolic cosine.", hyperbolic::cosh;
    unary Tanh, "The hyperbolic tangent.", hyperbolic::tanh;
    unary Asinh, "The inverse of the hyperbolic sine.", hyperbolic::asinh;
    unary Acosh, "The inverse of the hyperbolic cosine.", hyperbolic::acosh;
    unary Atanh, "The inverse of the hyperbolic tangent.", hyperbolic::atanh;
    unary Erf, "The error function.", error::erf;
    unary Erfc, "`1 - erf(x)`.", error::erfc;
    unary ErfInv, "The inverse of the error function.", error::erf_inv;
    unary Cbrt, "The cube root.", root::cbrt;
    exact Sqrt, "The square root.", root::sqrt;
    exact Rsqrt, "`1 / sqrt(x)`.", root::rsqrt;
    angle Sin, "The sine.", sin_near, sin_far;
    angle Cos, "The cosine.", cos_near, cos_far;
    angle Tan, "The tangent.", tan_near, tan_far;
    binary Pow, "`x^y`.", power::pow;
    binary Atan2, "The angle of a point: `Atan2::value(y, x)`.", trigonometric::atan2;
}
