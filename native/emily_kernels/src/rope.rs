//! Rotary embeddings. Angles are computed in f64, once for all heads; floats of 16 bits are turned in f32 and rounded once.

use std::ops::Range;

use crate::dispatch::{for_each_level, Level};
use crate::math::{map, Arithmetic, Binary, Cos, Pow, Sin};
use crate::pool::{self, Shared};
use crate::real::Real;
use crate::view::{Elements, View};

/// Rows of `columns`, of which the first `dims` are turned: `positions` of them for each of `heads`, for each of
/// `batches`.
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    pub batches: usize,
    pub heads: usize,
    pub positions: usize,
    pub columns: usize,
    /// An even number.
    pub dims: usize,
    /// Whether the two numbers of a plane are neighbours, and not half of `dims` apart.
    pub traditional: bool,
    /// What positions are multiplied by.
    pub scale: f64,
    /// The base of the planes' periods, where they are not given.
    pub base: f64,
}

impl Rotary {
    /// By what an angle grows from one position to the next, for each plane.
    #[inline(always)]
    fn frequencies<A: Arithmetic>(&self, periods: Option<&[f32]>) -> Vec<f64> {
        let planes = self.dims / 2;
        let mut frequencies = vec![0.0; planes];
        match periods {
            Some(periods) => {
                for (frequency, period) in frequencies.iter_mut().zip(periods) {
                    *frequency = self.scale * (1.0 / f64::from(*period));
                }
            }
            None => {
                for (plane, frequency) in frequencies.iter_mut().enumerate() {
                    let exponent = -2.0 * plane as f64 / self.dims as f64;
                    *frequency = self.scale * Pow::value::<A>(self.base, exponent);
                }
            }
        }
        frequencies
    }
}

/// The cosines and sines of the planes' angles at a position.
struct Turn {
    angles: Vec<f64>,
    values: Vec<f64>,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Turn {
    fn new(planes: usize) -> Self {
        Turn {
            angles: vec![0.0; planes],
            values: vec![0.0; planes],
            cosines: vec![0.0; planes],
            sines: vec![0.0; planes],
        }
    }

    #[inline(always)]
    fn to<A: Arithmetic>(&mut self, position: f64, frequencies: &[f64]) {
        for (angle, frequency) in self.angles.iter_mut().zip(frequencies) {
            *angle = position * frequency;
        }
        map::<Cos, A, f64>(&self.angles, &mut self.values);
        narrow(&self.values, &mut self.cosines);
        map::<Sin, A, f64>(&self.angles, &mut self.values);
        narrow(&self.values, &mut self.sines);
    }

    /// Turns planes of neighbours.
    #[inline(always)]
    fn neighbours<T: Real>(&self, x: &[T], output: &mut [T]) {
        let planes = x.chunks_exact(2).zip(output.chunks_exact_mut(2));
        for ((x, out), (cosine, sine)) in planes.zip(self.cosines.iter().zip(&self.sines)) {
            let (x, y) = (x[0].wide(), x[1].wide());
            out[0] = T::narrow(x * cosine - y * sine);
            out[1] = T::narrow(x * sine + y * cosine);
        }
    }

    /// Turns planes whose second numbers all come after the first ones.
    #[inline(always)]
    fn halves<T: Real>(&self, x: &[T], output: &mut [T]) {
        let planes = self.cosines.len();
        let (first, second) = x.split_at(planes);
        let (out_first, out_second) = output.split_at_mut(planes);
        let numbers = first.iter().zip(second);
        let places = out_first.iter_mut().zip(out_second);
        let turns = self.cosines.iter().zip(&self.sines);
        for (((x, y), (out_x, out_y)), (cosine, sine)) in numbers.zip(places).zip(turns) {
            let (x, y) = (x.wide(), y.wide());
            *out_x = T::narrow(x * cosine - y * sine);
            *out_y = T::narrow(x * sine + y * cosine);
        }
    }
}

#[inline(always)]
fn narrow(from: &[f64], to: &mut [f32]) {
    for (x, y) in from.iter().zip(to) {
        *y = *x as f32;
    }
}

/// So many elements are worth another thread, as each takes longer than elsewhere.
const PART: usize = pool::PART / 2;

/// Turns `x`, of shape `[batches, heads, positions, columns]`, into a row-major output. There is one first position in
/// `offsets`, or one for each batch; `periods` has one for each plane.
pub fn rotate<T: Real>(
    level: Level,
    rotary: &Rotary,
    x: &View,
    offsets: &[i32],
    periods: Option<&[f32]>,
    output: &mut [T],
) {
    let Rotary {
        batches,
        heads,
        positions,
        columns,
        dims,
        ..
    } = *rotary;
    let [of_batch, of_head, of_position, of_column] = x.axes() else {
        panic!("four axes")
    };
    let sizes = [of_batch, of_head, of_position, of_column].map(|axis| axis.size);
    assert!(sizes == [batches, heads, positions, columns] && output.len() == x.size());
    assert!(dims % 2 == 0 && dims <= columns, "planes within a row");
    assert!(
        of_column.stride == 1 || columns == 1,
        "rows whose numbers follow each other"
    );
    assert!(offsets.len() == 1 || offsets.len() == batches);
    assert!(periods.is_none_or(|periods| periods.len() == dims / 2));
    // Batches of one position have one turn.
    let each = if offsets.len() == 1 { batches } else { 1 };
    let many = (PART / (each * heads * columns).max(1)).clamp(1, positions.max(1));
    let parts = positions.div_ceil(many);
    let strides = [of_batch, of_head, of_position].map(|axis| axis.stride);
    let whole = output.len();
    let (elements, output) = (x.elements::<T>(), Shared::of(output));
    let turn = |part: usize| {
        let (group, first) = (part / parts, part % parts * many);
        let turned = Turned {
            batches: group * each..(group + 1) * each,
            positions: first..positions.min(first + many),
            offset: offsets[group],
        };
        rotate_part(
            level,
            rotary,
            (&elements, strides),
            &turned,
            periods,
            &output,
        );
    };
    match whole <= PART {
        true => (0..offsets.len() * parts).for_each(turn),
        false => pool::each(offsets.len() * parts, turn),
    }
}

/// The rows that are turned together, no two of which have others' elements.
struct Turned {
    batches: Range<usize>,
    positions: Range<usize>,
    offset: i32,
}

for_each_level! {
    fn rotate_part<T: Real; A>(
        rotary: &Rotary,
        x: (&Elements<T>, [isize; 3]),
        turned: &Turned,
        periods: Option<&[f32]>,
        output: &Shared<T>,
    ) {
        let Rotary { heads, positions, columns, dims, traditional, .. } = *rotary;
        let (elements, strides) = x;
        let frequencies = rotary.frequencies::<A>(periods);
        let mut turn = Turn::new(frequencies.len());
        for at in turned.positions.clone() {
            turn.to::<A>(f64::from(turned.offset) + at as f64, &frequencies);
            for batch in turned.batches.clone() {
                for head in 0..heads {
                    let places = [batch, head, at].into_iter().zip(strides);
                    let place = places.map(|(at, stride)| at as isize * stride).sum();
                    let (x, rest) = elements.row(place, columns).split_at(dims);
                    let start = ((batch * heads + head) * positions + at) * columns;
                    // SAFETY: the row is of one part alone, which is turned once.
                    let out = unsafe { output.part(start, columns) };
                    let (out, out_rest) = out.split_at_mut(dims);
                    if traditional {
                        turn.neighbours(x, out);
                    } else {
                        turn.halves(x, out);
                    }
                    out_rest.copy_from_slice(rest);
                }
            }
        }
    }
}
