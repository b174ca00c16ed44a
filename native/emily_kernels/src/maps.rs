//! Operations that give an element for an element of each input.

use crate::view::{typed, typed_mut, Element};

/// An element for each of the input's.
#[inline(always)]
pub(crate) fn unary<T: Element, O: Element>(
    inputs: &[&[u8]],
    output: &mut [u8],
    f: impl Fn(T) -> O,
) {
    let (x, out) = (typed::<T>(inputs[0]), typed_mut::<O>(output));
    assert!(x.len() == out.len() && inputs.len() == 1);
    for (out, x) in out.iter_mut().zip(x) {
        *out = f(*x);
    }
}

/// An element for each pair of the inputs'.
#[inline(always)]
pub(crate) fn binary<T: Element, O: Element>(
    inputs: &[&[u8]],
    output: &mut [u8],
    f: impl Fn(T, T) -> O,
) {
    let (x, y, out) = (
        typed::<T>(inputs[0]),
        typed::<T>(inputs[1]),
        typed_mut::<O>(output),
    );
    assert!(x.len() == out.len() && y.len() == out.len() && inputs.len() == 2);
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = f(*x, *y);
    }
}

/// Functions of one or two numbers of a type, as operations of a chain.
macro_rules! maps {
    ($($(#[$meta:meta])* $name:ident<$type:ident: $bound:ident>($($x:ident),+) -> $result:ty = $value:expr;)+) => {
        $($crate::maps::maps!(@one [$(#[$meta])*] $name $type $bound ($($x),+) $result, $value);)+
    };
    (@one [$($meta:tt)*] $name:ident $type:ident $bound:ident ($x:ident) $result:ty, $value:expr) => {
        $crate::dispatch::for_each_level! {
            $($meta)*
            pub fn $name<$type: $bound>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
                $crate::maps::unary::<$type, $result>(inputs, output, |$x| $value)
            }
        }
    };
    (@one [$($meta:tt)*] $name:ident $type:ident $bound:ident ($x:ident, $y:ident) $result:ty, $value:expr) => {
        $crate::dispatch::for_each_level! {
            $($meta)*
            pub fn $name<$type: $bound>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
                $crate::maps::binary::<$type, $result>(inputs, output, |$x, $y| $value)
            }
        }
    };
}
pub(crate) use maps;
