//! Rows from each of which comes one element: where an extreme is, and truth.

use crate::dispatch::Level;
use crate::lanes::in_lanes;
use crate::number::Number;
use crate::pool::{self, PART};
use crate::view::{typed, typed_mut, Element};

/// One element for each row of so many columns.
pub type Fold = fn(level: Level, input: &[u8], output: &mut [u8], columns: usize);

/// How many elements are looked at together: whether one of them is meant takes no branches, and so vectors.
const BLOCK: usize = 64;
/// Within them so many, the last of which are looked at one by one.
const PIECE: usize = 16;
/// Extremes are taken in so many lanes.
const LANES: usize = 32;

#[inline(always)]
fn contains<T: Element>(x: &[T], is: impl Fn(T) -> bool) -> bool {
    x.iter().fold(0, |found, x| found | u32::from(is(*x))) != 0
}

/// The place of the first element that is meant, or as many as there are.
#[inline(always)]
fn first<T: Element>(x: &[T], is: impl Fn(T) -> bool) -> usize {
    let mut past = 0;
    for size in [BLOCK, PIECE] {
        let blocks = x[past..].chunks_exact(size);
        past += blocks.take_while(|block| !contains(block, &is)).count() * size;
    }
    let found = x[past..].iter().position(|x| is(*x));
    found.map_or(x.len(), |at| past + at)
}

/// The place of the last, or as many as there are.
#[inline(always)]
fn last<T: Element>(x: &[T], is: impl Fn(T) -> bool) -> usize {
    let mut end = x.len();
    for size in [BLOCK, PIECE] {
        let blocks = x[..end].rchunks_exact(size);
        end -= blocks.take_while(|block| !contains(block, &is)).count() * size;
    }
    let found = x[..end].iter().rposition(|x| is(*x));
    found.unwrap_or(x.len())
}

/// The best number of a row; NaN goes through.
#[inline(always)]
fn extreme<T: Number>(x: &[T], is_better: impl Fn(T, T) -> bool) -> T {
    let better = |best: T, x: T| {
        let better = if is_better(x, best) { x } else { best };
        if x.is_nan() {
            x
        } else {
            better
        }
    };
    let (mut lanes, rest) = in_lanes(x, [x[0]; LANES], better);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = better(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    rest.iter().fold(lanes[0], |best, x| better(best, *x))
}

/// The last NaN, or else the first of the best, or the last of them.
#[inline(always)]
fn place<T: Number>(x: &[T], is_last: bool, is_better: impl Fn(T, T) -> bool) -> u32 {
    let best = extreme(x, is_better);
    let at = if best.is_nan() {
        last(x, T::is_nan)
    } else if is_last {
        last(x, |x| x == best)
    } else {
        first(x, |x| x == best)
    };
    at as u32
}

/// The last element that is no worse than all before it: a NaN stays where it comes first, and is passed over later.
#[inline(always)]
fn choice<T: Number>(x: &[T], is_no_worse: impl Fn(T, T) -> bool) -> u32 {
    let (mut best, mut at) = (x[0], 0);
    for (i, &x) in x.iter().enumerate() {
        let better = is_no_worse(x, best);
        best = if better { x } else { best };
        at = if better { i as u32 } else { at };
    }
    at
}

macro_rules! folds {
    ($($(#[$meta:meta])* $name:ident<$type:ident: $bound:ident>($x:ident) -> $result:ty = $value:expr;)+) => {
        $($(#[$meta])*
        pub fn $name<$type: $bound>(level: Level, input: &[u8], output: &mut [u8], columns: usize) {
            crate::dispatch::for_each_level! {
                fn rows<$type: $bound>(input: &[$type], output: &mut [$result], columns: usize) {
                    for (out, $x) in output.iter_mut().zip(input.chunks_exact(columns)) {
                        *out = $value;
                    }
                }
            }
            let (input, output) = (typed::<$type>(input), typed_mut::<$result>(output));
            assert_eq!(input.len(), output.len() * columns);
            let size = (PART / columns).max(1);
            pool::each_part(output, size, |at, output| {
                let start = at * size * columns;
                rows(level, &input[start..start + output.len() * columns], output, columns);
            });
        })+
    };
}

folds! {
    argmax<T: Number>(x) -> u32 = place(x, false, |x, best| x > best);
    argmin<T: Number>(x) -> u32 = place(x, false, |x, best| x < best);
    /// The last of equals.
    argmax_last<T: Number>(x) -> u32 = place(x, true, |x, best| x > best);
    argmin_last<T: Number>(x) -> u32 = place(x, true, |x, best| x < best);
    /// As Nx chooses from a window.
    window_argmax<T: Number>(x) -> u32 = choice(x, |x, best| x >= best);
    window_argmin<T: Number>(x) -> u32 = choice(x, |x, best| x <= best);
    /// Whether no number is zero.
    all<T: Number>(x) -> u8 = u8::from(first(x, |x| x == T::ZERO) == x.len());
    /// Whether any is another than zero.
    any<T: Number>(x) -> u8 = u8::from(first(x, |x| x != T::ZERO) < x.len());
    /// Of floats of 16 bits, by their bits but for the sign.
    all_halves<T: Half>(x) -> u8 = u8::from(first(x, |x| x.without_sign() == 0) == x.len());
    any_halves<T: Half>(x) -> u8 = u8::from(first(x, |x| x.without_sign() != 0) < x.len());
}

/// The bits of a float of 16 bits.
pub trait Half: Element {
    fn without_sign(self) -> u16;
}

impl Half for u16 {
    #[inline(always)]
    fn without_sign(self) -> u16 {
        self & 0x7FFF
    }
}
