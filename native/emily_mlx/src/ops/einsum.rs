//! Einstein's sums, through mlx-rs.

use mlx_rs::Array;

use crate::ops::args::Args;
use crate::ops::{cast, checks};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Result};
use crate::runtime::stream::StreamHandle;

/// How many operands an einsum takes, as NumPy's: MLX looks at each pair before each contraction.
const MOST_OPERANDS: usize = 64;
/// A letter for every axis that the operands may have.
const MOST_SUBSCRIPTS: usize = MOST_OPERANDS * checks::MOST_AXES;

/// `{:einsum, subscripts, operands}`: the contraction that `subscripts` names, in the order that MLX finds cheapest.
pub(crate) fn einsum(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (subscripts, operands) = (args.text()?, args.arrays()?);
    if operands.is_empty() {
        refuse!("einsum: needs at least one operand")
    }
    if operands.len() > MOST_OPERANDS {
        refuse!(
            "einsum: takes up to {MOST_OPERANDS} operands, got {}",
            operands.len()
        )
    }
    if subscripts.len() > MOST_SUBSCRIPTS {
        refuse!(
            "einsum: takes subscripts of up to {MOST_SUBSCRIPTS} bytes, got {}",
            subscripts.len()
        )
    }
    enough_letters(subscripts, operands)?;
    let s = stream.raw();
    let wide = operands.iter().map(|x| cast::widened(x, s));
    let wide = wide.collect::<Result<Vec<_>>>()?;
    let result = stream.on(|| mlx_rs::ops::einsum(subscripts, &wide))?;
    match common_half(operands) {
        Some(half) => cast::cast(&result, half, s),
        None => Ok(result),
    }
}

/// The 16-bit floats that operands of these types have in common, if that is their common type.
fn common_half(operands: &[Array]) -> Option<Dtype> {
    let exact = |dtype: &Dtype| dtype.is_integer() || *dtype == Dtype::Bool;
    let mut floats = operands.iter().map(Dtype::of).filter(|dtype| !exact(dtype));
    let first = floats.next().filter(|dtype| dtype.is_half())?;
    floats.all(|dtype| dtype == first).then_some(first)
}

/// MLX 0.32.4 names the axes of an ellipsis by letters that the equation leaves, without a look at how many
/// those are, and reads on before the first one.
fn enough_letters(subscripts: &str, operands: &[Array]) -> Result<()> {
    let named = |text: &str| text.chars().filter(char::is_ascii_alphabetic).count();
    let used = ('A'..='z')
        .filter(|&c| c.is_ascii_alphabetic() && subscripts.contains(c))
        .count();
    let text = subscripts.replace(' ', "");
    let inputs = text.split("->").next().unwrap_or_default();
    let widest = inputs
        .split(',')
        .zip(operands)
        .filter(|(group, _)| group.contains("..."))
        .map(|(group, operand)| operand.ndim().saturating_sub(named(group)))
        .max()
        .unwrap_or(0);
    if used + widest > 52 {
        refuse!("einsum: {subscripts:?} names {used} axes, and {widest} more are too many: there are 52 letters")
    }
    Ok(())
}
