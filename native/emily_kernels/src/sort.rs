//! Numbers in order along an axis, their places in that order, and the places of the greatest. Equals keep their
//! order, whichever way it goes. NaN is greater than all others, and minus zero equals zero.

#[cfg(target_arch = "x86_64")]
mod quick;

#[cfg(target_arch = "x86_64")]
use crate::dispatch::Kind;
use crate::dispatch::{for_each_level, Level};
use crate::pool::{self, Shared, PART};
use crate::view::{typed, typed_mut, zeros, Element, View};

/// A type of numbers, and the unsigned integers that are in order as they are.
pub trait Ordered: Send + Sync + 'static {
    type Element: Element;
    type Rank: Rank;
    /// The same for equals.
    fn rank(x: Self::Element) -> Self::Rank;
    /// Of minus zero right below that of zero.
    fn code(x: Self::Element) -> Self::Rank;
    /// The bits of the number that has a code.
    fn bits(code: Self::Rank) -> Self::Rank;
}

/// An unsigned integer, and its digits from the lowest on.
pub trait Rank: Ord + Element {
    const DIGITS: u32;
    fn digit(self, at: u32) -> usize;
    /// In the opposite order.
    fn reversed(self) -> Self;
    /// Puts numbers in order, vectors at a time, where the level has a way, and says whether it did. What is to spare is
    /// made as large as the numbers.
    fn by_vectors(_level: Level, _items: &mut [Self], _spare: &mut Vec<Self>) -> bool {
        false
    }
}

const DIGIT: u32 = 8;
/// How many values a digit has.
const VALUES: usize = 1 << DIGIT;

macro_rules! ranks {
    ($($type:ident $({ $($by_vectors:tt)* })?)*) => {
        $(impl Rank for $type {
            const DIGITS: u32 = $type::BITS / DIGIT;
            #[inline(always)]
            fn digit(self, at: u32) -> usize { (self >> (at * DIGIT)) as usize % VALUES }
            #[inline(always)]
            fn reversed(self) -> Self { !self }
            $($($by_vectors)*)?
        })*
    };
}

ranks! {
    u8
    u16
    u32 {
        #[cfg(target_arch = "x86_64")]
        fn by_vectors(level: Level, items: &mut [u32], spare: &mut Vec<u32>) -> bool {
            let has = matches!(level.0, Kind::Avx512 | Kind::Avx512Vnni | Kind::Avx512Amx);
            if has {
                resize(spare, items.len());
                // SAFETY: there is a level only where the processor has its instructions.
                unsafe { quick::sort(items, spare) };
            }
            has
        }
    }
    u64
}

macro_rules! integers {
    ($($type:ident => $rank:ident)*) => {
        $(impl Ordered for $type {
            type Element = $type;
            type Rank = $rank;
            #[inline(always)]
            fn rank(x: $type) -> $rank { Self::code(x) }
            #[inline(always)]
            fn code(x: $type) -> $rank { (x ^ $type::MIN) as $rank }
            #[inline(always)]
            fn bits(code: $rank) -> $rank { code ^ $type::MIN as $rank }
        })*
    };
}

integers!(u8 => u8 u16 => u16 u32 => u32 u64 => u64 i8 => u8 i16 => u16 i32 => u32 i64 => u64);

/// Floats of 16 bits, by their bits.
pub struct F16;
pub struct Bf16;

macro_rules! floats {
    ($($name:ident, $element:ident => $rank:ident $signed:ident, $bits:expr, $infinity:expr;)*) => {
        $(impl Ordered for $name {
            type Element = $element;
            type Rank = $rank;
            #[inline(always)]
            fn rank(x: $element) -> $rank {
                const SIGN: $rank = 1 << ($rank::BITS - 1);
                // Minus zero's code is all ones but for the sign.
                let code = Self::code(x);
                code + $rank::from(code == !SIGN)
            }
            #[inline(always)]
            fn code(x: $element) -> $rank {
                const SIGN: $rank = 1 << ($rank::BITS - 1);
                let bits: $rank = $bits(x);
                // What is below zero is in the opposite order.
                let below = (bits as $signed >> ($rank::BITS - 1)) as $rank;
                let is_nan = (bits & !SIGN) > $infinity;
                (bits ^ (below | SIGN)) | $rank::from(is_nan).wrapping_neg()
            }
            #[inline(always)]
            fn bits(code: $rank) -> $rank {
                const SIGN: $rank = 1 << ($rank::BITS - 1);
                let below = !((code as $signed >> ($rank::BITS - 1)) as $rank);
                code ^ (below | SIGN)
            }
        })*
    };
}

floats! {
    F16, u16 => u16 i16, |bits| bits, 0x7C00;
    Bf16, u16 => u16 i16, |bits| bits, 0x7F80;
    f32, f32 => u32 i32, f32::to_bits, 0x7F80_0000;
    f64, f64 => u64 i64, f64::to_bits, 0x7FF0_0000_0000_0000;
}

/// Fewer elements are compared, more are put into their places digit by digit.
const FEW: usize = 128;
/// More bytes than these are not ordered digit by digit all at once: they would not stay in a near cache.
const CACHED: usize = 8 * PART;

/// In how many parts a row is taken. What comes out does not depend on it.
fn parts(columns: usize) -> usize {
    pool::threads().min(columns / PART).max(1)
}

/// The elements of `x` in order along `axis`.
pub fn sort<K: Ordered>(level: Level, x: &View, axis: usize, descending: bool, output: &mut [u8]) {
    let output = typed_mut::<K::Rank>(output);
    along(x, axis, output, |row: &[K::Element], codes, spare| {
        let size = row.len().div_ceil(parts(row.len()));
        pool::each_part(codes, size, |part, codes| {
            encode::<K>(level, &row[part * size..], descending, codes);
        });
        if !K::Rank::by_vectors(level, codes, spare) {
            order(codes, spare, |code| code);
        }
        pool::each_part(codes, size, |_, codes| {
            decode::<K>(level, descending, codes)
        });
    });
}

for_each_level! {
    fn encode<K: Ordered>(row: &[K::Element], descending: bool, codes: &mut [K::Rank]) {
        for (code, x) in codes.iter_mut().zip(row) {
            *code = directed(K::code(*x), descending);
        }
    }
}

for_each_level! {
    /// Puts numbers in the place of their codes.
    fn decode<K: Ordered>(descending: bool, codes: &mut [K::Rank]) {
        for code in codes {
            *code = K::bits(directed(*code, descending));
        }
    }
}

/// The places along `axis` that the elements have of which those in order come, in numbers of 32 bits.
pub fn argsort<K: Ordered>(
    level: Level,
    x: &View,
    axis: usize,
    descending: bool,
    output: &mut [u8],
) {
    let output = typed_mut::<u32>(output);
    along(x, axis, output, |row, out, (places, spare)| {
        placed::<K>(level, row, descending, places);
        order(places, spare, |(rank, _)| rank);
        for (out, (_, place)) in out.iter_mut().zip(places) {
            *out = *place;
        }
    });
}

/// The places along the last axis of the `count` greatest elements, the greatest first, in numbers of 32 bits.
pub fn top<K: Ordered>(level: Level, x: &View, count: usize, output: &mut [u8]) {
    let axes = x.axes();
    let columns = axes[axes.len() - 1].size;
    let output = typed_mut::<u32>(output);
    let rows = x.to_row();
    let rows = typed::<K::Element>(rows.bytes());
    let group = (PART / columns).max(1);
    pool::each_part(output, group * count, |at, output| {
        let rows = rows[at * group * columns..].chunks_exact(columns);
        for (row, out) in rows.zip(output.chunks_exact_mut(count)) {
            for (out, (_, place)) in out.iter_mut().zip(greatest::<K>(level, row, count)) {
                *out = place;
            }
        }
    });
}

#[inline(always)]
fn directed<R: Rank>(rank: R, descending: bool) -> R {
    if descending {
        rank.reversed()
    } else {
        rank
    }
}

/// A rank, and the place of what has it.
type Placed<R> = (R, u32);

fn placed<K: Ordered>(
    level: Level,
    row: &[K::Element],
    descending: bool,
    places: &mut Vec<Placed<K::Rank>>,
) {
    resize(places, row.len());
    let size = row.len().div_ceil(parts(row.len()));
    pool::each_part(places, size, |part, places| {
        let first = part * size;
        place::<K>(level, &row[first..], first as u32, descending, places);
    });
}

for_each_level! {
    fn place<K: Ordered>(row: &[K::Element], first: u32, descending: bool, places: &mut [Placed<K::Rank>]) {
        for ((place, x), number) in places.iter_mut().zip(row).zip(first..) {
            *place = (directed(K::rank(*x), descending), number);
        }
    }
}

fn resize<T: Copy + Default>(items: &mut Vec<T>, count: usize) {
    if items.len() != count {
        *items = zeros(count);
    }
}

/// Calls `f` with each row along an axis of `x`, where its result goes, and memory for one thread.
fn along<E: Element, O: Element, S: Default>(
    x: &View,
    axis: usize,
    output: &mut [O],
    f: impl Fn(&[E], &mut [O], &mut S) + Sync,
) {
    let sizes = x.axes().iter().map(|axis| axis.size);
    let columns = x.axes()[axis].size;
    let inner: usize = sizes.skip(axis + 1).product();
    let rows = x.with_last(axis).to_row();
    let rows = typed::<E>(rows.bytes());
    let group = (PART / columns).max(1) * columns;
    let each = |output: &mut [O]| {
        pool::each_part(output, group, |at, output| {
            let mut own = S::default();
            let rows = rows[at * group..].chunks_exact(columns);
            for (row, out) in rows.zip(output.chunks_exact_mut(columns)) {
                f(row, out, &mut own);
            }
        });
    };
    if inner == 1 {
        return each(output);
    }
    let mut turned = zeros(output.len());
    each(&mut turned);
    let plane = inner * columns;
    let planes = (PART / plane).max(1) * plane;
    pool::each_part(output, planes, |at, output| {
        let turned = turned[at * planes..].chunks_exact(plane);
        for (turned, output) in turned.zip(output.chunks_exact_mut(plane)) {
            turn_back(turned, columns, output);
        }
    });
}

/// Puts rows of so many columns into columns.
fn turn_back<O: Element>(turned: &[O], columns: usize, output: &mut [O]) {
    // As many at a time as a line of the cache has.
    const LINE: usize = 16;
    let inner = turned.len() / columns;
    let lines = LINE.max(PART / inner);
    pool::each_part(output, lines * inner, |at, output| {
        let count = output.len() / inner;
        for (column, row) in turned.chunks_exact(columns).enumerate() {
            for (i, x) in row[at * lines..][..count].iter().enumerate() {
                output[i * inner + column] = *x;
            }
        }
    });
}

/// Puts items in the order of their ranks; equals keep theirs.
fn order<T: Copy + Default + Send + Sync, R: Rank>(
    items: &mut [T],
    spare: &mut Vec<T>,
    rank: impl Fn(T) -> R + Sync,
) {
    if items.len() > FEW {
        resize(spare, items.len());
    }
    order_by(R::DIGITS, items, spare, false, &rank);
}

/// Puts items in the order of the lowest `digits` of their ranks, which are the same in all others: in `items`, or in
/// `other` with `moves`. Many are put into the order of the highest of these digits first, so that
/// those of each value stay in a cache.
fn order_by<T: Copy + Send + Sync, R: Rank>(
    digits: u32,
    items: &mut [T],
    other: &mut [T],
    moves: bool,
    rank: &(impl Fn(T) -> R + Sync),
) {
    if items.len() <= FEW || digits == 0 {
        if digits > 0 {
            items.sort_by_key(|item| rank(*item));
        }
        if moves {
            other.copy_from_slice(items);
        }
        return;
    }
    if size_of_val(items) > CACHED && digits > 1 {
        let highest = digits - 1;
        let Some(ends) = by_digit(items, other, |item| rank(item).digit(highest)) else {
            return order_by(highest, items, other, moves, rank);
        };
        let (items, other) = (Shared::of(items), Shared::of(other));
        pool::each(VALUES, |value| {
            let start = if value == 0 { 0 } else { ends[value - 1] };
            let count = ends[value] - start;
            // SAFETY: each item has one value, and is of that part alone.
            let (back, from) = unsafe { (items.part(start, count), other.part(start, count)) };
            order_by(highest, from, back, !moves, rank);
        });
        return;
    }
    let (mut from, mut to) = (items, other);
    let mut moved = false;
    for at in 0..digits {
        if by_digit(from, to, |item| rank(item).digit(at)).is_some() {
            std::mem::swap(&mut from, &mut to);
            moved = !moved;
        }
    }
    if moved != moves {
        to.copy_from_slice(from);
    }
}

/// Writes items in the order of a digit, and answers where those of each value end; or none, and writes nothing, where
/// all have one value.
fn by_digit<T: Copy + Send + Sync>(
    from: &[T],
    to: &mut [T],
    digit: impl Fn(T) -> usize + Sync,
) -> Option<[usize; VALUES]> {
    let parts = parts(from.len());
    let size = from.len().div_ceil(parts);
    let mut counts = vec![[0usize; VALUES]; parts];
    pool::each_part(&mut counts, 1, |part, counts| {
        for item in from.iter().skip(part * size).take(size) {
            counts[0][digit(*item) % VALUES] += 1;
        }
    });
    let total = |value: usize| counts.iter().map(|counts| counts[value]).sum::<usize>();
    if (0..VALUES).any(|value| total(value) == from.len()) {
        return None;
    }
    // Each count becomes the place of the first that has the value in that part.
    let (mut place, mut ends) = (0, [0; VALUES]);
    for value in 0..VALUES {
        for counts in &mut counts {
            place += std::mem::replace(&mut counts[value], place);
        }
        ends[value] = place;
    }
    let to = Shared::of(to);
    pool::each_part(&mut counts, 1, |part, places| {
        for item in from.iter().skip(part * size).take(size) {
            let place = &mut places[0][digit(*item) % VALUES];
            // SAFETY: the items were counted, so that each has a place of its own.
            unsafe { to.put(*place, *item) };
            *place += 1;
        }
    });
    Some(ends)
}

/// The `count` greatest of a row, the greatest first.
fn greatest<K: Ordered>(level: Level, row: &[K::Element], count: usize) -> Vec<Placed<K::Rank>> {
    let mut found;
    if count > row.len() / 8 {
        found = Vec::new();
        placed::<K>(level, row, true, &mut found);
        order(&mut found, &mut Vec::new(), |(rank, _)| rank);
    } else {
        let parts = parts(row.len());
        let size = row.len().div_ceil(parts);
        let mut of_parts = vec![Vec::new(); parts];
        pool::each_part(&mut of_parts, 1, |part, found| {
            let first = (part * size).min(row.len());
            let row = &row[first..(first + size).min(row.len())];
            select::<K>(level, row, first as u32, count, &mut found[0]);
        });
        found = of_parts.concat();
        found.sort_unstable();
    }
    found.truncate(count);
    found
}

for_each_level! {
    /// Finds the `count` greatest of a row, whose first has the place `first`.
    fn select<K: Ordered>(row: &[K::Element], first: u32, count: usize, found: &mut Vec<Placed<K::Rank>>) {
        // Whether one of so many is greater than those found takes no branches, and so vectors.
        const BLOCK: usize = 64;
        let most = 2 * count + BLOCK;
        let mut least = None;
        for (at, block) in row.chunks(BLOCK).enumerate() {
            if let Some(least) = least {
                let is_greater = |any, x: &K::Element| any | u32::from(K::rank(*x) > least);
                if block.iter().fold(0, is_greater) == 0 {
                    continue;
                }
            }
            for (i, x) in block.iter().enumerate() {
                let rank = K::rank(*x);
                // Of equals those that come first are found already.
                if least.is_none_or(|least| rank > least) {
                    found.push((rank.reversed(), first + (at * BLOCK + i) as u32));
                }
            }
            if found.len() > most {
                found.select_nth_unstable(count - 1);
                found.truncate(count);
                least = Some(found[count - 1].0.reversed());
            }
        }
    }
}
