//! Products of a few rows on CUDA, as of one token's: memory's speed is theirs, and a launch costs as much as a product. So
//! a norm of the rows, the activation of a gate, a sum and the rotation of one position are part of them.

use std::ffi::CStr;

use mlx_rs::Array;
use once_cell::sync::OnceCell;
use smallvec::{smallvec, SmallVec};

use crate::ops::gate::activation_number;
use crate::ops::op::Op;
use crate::ops::rope::{Turn, PERIODS};
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::{self, mlx};
use crate::runtime::inspect::Node;
use crate::runtime::stream::StreamHandle;

/// Up to so many rows are few: for more the processors of matrices are faster.
const MOST_ROWS: i32 = 4;
const IN_BLOCK: i32 = 256;
/// So many blocks keep a GPU busy; each goes on where there are more columns.
const MOST_BLOCKS: i32 = 1 << 13;

static FEW: Source = Source {
    name: "few_rows",
    inputs: &[c"x", c"matrix", c"other", c"weight", c"added"],
    header: c"",
    ahead: concat!(
        "constexpr bool turned = false;\nconstexpr int half = 1;\n",
        include_str!("few_matrix.cu.h")
    ),
    text: concat!(include_str!("../activation.cu.h"), include_str!("few.cu.h")),
    in_rows: false,
    made: OnceCell::new(),
};

static TURNED: Source = Source {
    name: "few_rows_turned",
    inputs: &[
        c"x", c"matrix", c"other", c"weight", c"added", c"offset", c"periods",
    ],
    header: PERIODS,
    ahead: concat!(
        "#define TURNED\nconstexpr bool turned = true;\n",
        include_str!("../angle.cu.h"),
        include_str!("few_matrix.cu.h")
    ),
    text: concat!(include_str!("../activation.cu.h"), include_str!("few.cu.h")),
    in_rows: false,
    made: OnceCell::new(),
};

/// `{:rms_norm, x, weight, eps}` of rows of a matrix.
#[derive(Clone)]
pub(crate) struct Norm {
    x: Array,
    weight: Array,
    eps: f32,
}

impl Norm {
    /// Of an array that has few rows.
    pub(crate) fn of(
        x: &Array,
        weight: &Array,
        eps: f32,
        stream: &StreamHandle,
    ) -> Option<Result<Norm>> {
        let columns = *x.shape().last()?;
        let rows = x.size().checked_div(columns as usize)? as i32;
        let fits = is_few(rows, Dtype::of(x), stream)
            && Dtype::of(weight) == Dtype::of(x)
            && eps.is_sign_positive();
        fits.then(|| {
            let x = ffi::reshape(x, &[rows, columns], stream.raw())?;
            let weight = weight.clone();
            Ok(Norm { x, weight, eps })
        })
    }
}

/// A product of few rows by a matrix.
#[derive(Clone)]
pub(crate) struct Product {
    x: Array,
    norm: Option<Norm>,
    matrix: Array,
}

impl Product {
    pub(crate) fn of(x: &Array, matrix: &Array, stream: &StreamHandle) -> Option<Product> {
        let ([rows, inner], [terms, columns]) = (x.shape(), matrix.shape()) else {
            return None;
        };
        let dtype = Dtype::of(x);
        let fits = is_few(*rows, dtype, stream)
            && dtype == Dtype::of(matrix)
            && inner == terms
            && *inner > 0
            && *columns > 0;
        fits.then(|| Product {
            x: x.clone(),
            norm: None,
            matrix: matrix.clone(),
        })
    }

    /// That of the norm's rows, in the place of what it gives.
    pub(crate) fn behind(self, norm: &Norm) -> Product {
        let norm = (norm.x.shape() == self.x.shape()).then(|| norm.clone());
        Product { norm, ..self }
    }

    pub(crate) fn add(&self, stream: &StreamHandle) -> Result<Array> {
        self.launch(Behind::default(), stream)
    }

    /// A gate of this, `{:swiglu, ...}` and the like, times another product of the same rows.
    pub(crate) fn gate(
        &self,
        op: Op,
        up: &Product,
        stream: &StreamHandle,
    ) -> Option<Result<Array>> {
        let id = |array: &Array| Node::of(array).id();
        let rows = |product: &Product| match &product.norm {
            Some(norm) => (id(&norm.x), Some((id(&norm.weight), norm.eps.to_bits()))),
            None => (id(&product.x), None),
        };
        let alike = rows(self) == rows(up) && self.matrix.shape() == up.matrix.shape();
        let gate = Some((op, &up.matrix));
        let behind = Behind {
            gate,
            ..Behind::default()
        };
        alike.then(|| self.launch(behind, stream))
    }

    /// The sum with an array of a row for each of this, or of one for all.
    pub(crate) fn plus(&self, added: &Array, stream: &StreamHandle) -> Option<Result<Array>> {
        let (rows, columns) = (self.x.dim(0), self.matrix.dim(1));
        let fits = Dtype::of(added) == Dtype::of(&self.x) && added.shape().last() == Some(&columns);
        let its_rows = (added.size() / columns as usize) as i32;
        (fits && (its_rows == rows || its_rows == 1)).then(|| {
            let added = ffi::reshape(added, &[its_rows, columns], stream.raw())?;
            let (to, s) = ([rows, columns], stream.raw());
            let added = mlx!(mlx_broadcast_to, added.as_ptr(), to.as_ptr(), 2, s)?;
            let added = Some(&added);
            self.launch(
                Behind {
                    added,
                    ..Behind::default()
                },
                stream,
            )
        })
    }

    /// This, of one row, as an array of heads of one position that is turned.
    pub(crate) fn turned(
        &self,
        heads: &Array,
        turn: &Turn,
        stream: &StreamHandle,
    ) -> Option<Result<Array>> {
        let [.., positions, dims] = *heads.shape() else {
            return None;
        };
        let fits = self.is_of_one_row()
            && heads.size() as i32 == self.matrix.dim(1)
            && positions == 1
            && dims == turn.dims
            && !turn.traditional
            && turn.offset.size() == 1;
        if !fits {
            return None;
        }
        let arrays = || Ok((turn.offsets(stream)?, turn.periods(stream)?));
        let (offset, periods) = match arrays() {
            Ok((offset, Some(periods))) => (offset, periods),
            Ok((_, None)) => return None,
            Err(error) => return Some(Err(error)),
        };
        let turned = Some((turn, &offset, &periods));
        Some(self.launch(
            Behind {
                turned,
                ..Behind::default()
            },
            stream,
        ))
    }

    /// Whether any array of its numbers has them in the same order.
    pub(crate) fn is_of_one_row(&self) -> bool {
        self.x.dim(0) == 1
    }

    fn launch(&self, behind: Behind, stream: &StreamHandle) -> Result<Array> {
        let Behind {
            gate,
            added,
            turned,
        } = behind;
        let x = self.norm.as_ref().map_or(&self.x, |norm| &norm.x);
        let (other, weight) = (gate.map(|(_, up)| up), self.norm.as_ref());
        let (rows, columns) = (x.dim(0), self.matrix.dim(1));
        let blocks = (columns / (IN_BLOCK / 32)).clamp(1, MOST_BLOCKS);
        let groups = match columns {
            ..4096 => 2,
            4096..32_768 => 4,
            _ => 8,
        };
        // What there is none of is not read.
        let mut inputs: SmallVec<[&Array; 7]> = smallvec![
            x,
            &self.matrix,
            other.unwrap_or(&self.matrix),
            weight.map_or(x, |norm| &norm.weight),
            added.unwrap_or(x),
        ];
        let mut numbers: SmallVec<[(&CStr, i32); 11]> = smallvec![
            (c"rows", rows),
            (c"threads", IN_BLOCK),
            (c"groups", groups),
            (c"normed", weight.is_some().into()),
            (c"gated", gate.is_some().into()),
            (c"summed", added.is_some().into()),
            (
                c"activation",
                gate.map_or(0, |(op, _)| activation_number(op)),
            ),
            (
                c"eps_bits",
                weight.map_or(0, |norm| norm.eps.to_bits() as i32),
            ),
        ];
        let mut source = &FEW;
        if let Some((turn, offset, periods)) = turned {
            inputs.extend([offset, periods]);
            numbers.extend(turn.numbers());
            source = &TURNED;
        }
        let launch = Launch {
            inputs: &inputs,
            output: (&[rows, columns], Dtype::of(x)),
            threads: blocks * IN_BLOCK,
            in_block: IN_BLOCK,
            dtype: Some((c"T", Dtype::of(x))),
            numbers: &numbers,
            zeroed: false,
        };
        cuda::launch(source, &launch, stream)
    }
}

/// What is taken into the kernel behind a product.
#[derive(Default)]
struct Behind<'a> {
    /// The other matrix of a gate.
    gate: Option<(Op, &'a Array)>,
    added: Option<&'a Array>,
    /// With the offset and the periods of its planes.
    turned: Option<(&'a Turn<'a>, &'a Array, &'a Array)>,
}

/// What an array is, where a product or what is behind one may take it into its kernel.
pub(crate) enum Made {
    Norm(Norm),
    /// Of which nobody else reads anything.
    Product(Product),
}

fn is_few(rows: i32, dtype: Dtype, stream: &StreamHandle) -> bool {
    let known = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
    cuda::is_cuda(stream) && known && (1..=MOST_ROWS).contains(&rows)
}
