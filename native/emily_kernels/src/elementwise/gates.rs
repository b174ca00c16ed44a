//! Activations and gates, in one pass: computed in f64 and rounded to f32 once, and from there to floats of 16 bits.

use crate::dispatch::for_each_level;
use crate::math::Gate;
use crate::real::Real;
use crate::view::{typed, typed_mut};

for_each_level! {
    /// The activation of each number.
    pub fn activate<G: Gate, T: Real; A>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        let (x, out) = (typed::<T>(inputs[0]), typed_mut::<T>(output));
        assert_eq!(x.len(), out.len());
        for (x, out) in x.iter().zip(out) {
            *out = T::narrow(G::of::<A>(f64::from(x.wide())) as f32);
        }
    }
}

for_each_level! {
    /// The activation of each number of the first input times that of the second.
    pub fn gate<G: Gate, T: Real; A>(inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        let (x, y, out) = (typed::<T>(inputs[0]), typed::<T>(inputs[1]), typed_mut::<T>(output));
        assert!(x.len() == out.len() && y.len() == out.len());
        for ((x, y), out) in x.iter().zip(y).zip(out) {
            let product = G::of::<A>(f64::from(x.wide())) * f64::from(y.wide());
            *out = T::narrow(product as f32);
        }
    }
}
