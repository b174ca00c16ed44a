//! What every operation says of its results' memory: kernels trust it without a look, so that a wrong number here is a
//! write beyond somebody's memory there.

use std::collections::BTreeSet;

use emily_mlx::inspect::{memory, nodes};
use emily_mlx::{apply, Arg, Args, Dtype, Op, Value};
use mlx_rs::Array;
use strum::{EnumIter, IntoEnumIterator};

use crate::support::*;

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, EnumIter, PartialEq)]
enum Form {
    RowMajor,
    Transposed,
    Broadcast,
    Reversed,
    Sliced,
}

const DTYPES: [Dtype; 8] = [
    Dtype::F32,
    Dtype::F64,
    Dtype::F16,
    Dtype::C64,
    Dtype::S32,
    Dtype::S64,
    Dtype::U8,
    Dtype::Bool,
];

/// Shapes of operands of some rank, with and without axes of one entry.
const VECTORS: [&[i64]; 2] = [&[1], &[6]];
const MATRICES: [&[i64]; 6] = [&[1, 1], &[1, 5], &[5, 1], &[4, 2], &[3, 3], &[2, 3, 4]];
const SQUARES: [&[i64]; 5] = [&[1, 1], &[4, 4], &[3, 1, 1], &[2, 3, 3], &[1, 5, 5]];

/// Small numbers, of which matrices are not singular.
fn row_major(shape: &[i64], dtype: Dtype) -> Array {
    let count: i64 = shape.iter().product();
    let numbers: Vec<f32> = (0..count)
        .map(|i| ((i * 7919 + 13) % 101) as f32 / 11.0 - 2.0)
        .collect();
    cast(shaped(&numbers, shape), dtype)
}

fn cast(array: Array, to: Dtype) -> Array {
    build("astype", vec![own(array), dtype(to)]).expect("every type can be cast to")
}

fn computed(array: Array) -> Array {
    evaluate_on(cpu(), vec![array])
        .expect("a view can be computed")
        .remove(0)
}

/// An operand of a shape and a type that lies in memory as `form` says.
fn operand(form: Form, shape: &[i64], dtype: Dtype) -> Array {
    let axes: Vec<i64> = (0..shape.len() as i64).rev().collect();
    let made = |name: &str, args: Vec<Arg>| build(name, args).expect("the arguments fit");
    let array = match form {
        Form::RowMajor => row_major(shape, dtype),
        Form::Transposed => {
            let turned: Vec<i64> = shape.iter().rev().copied().collect();
            let base = row_major(&turned, dtype);
            made("transpose", vec![own(base), list(&axes)])
        }
        Form::Broadcast => {
            let mut small = shape.to_vec();
            if let Some(size) = small.first_mut() {
                *size = 1;
            }
            let base = row_major(&small, dtype);
            made("broadcast_to", vec![own(base), list(shape)])
        }
        Form::Reversed => made("flip", vec![own(row_major(shape, dtype)), list(&axes)]),
        Form::Sliced => {
            let large: Vec<i64> = shape.iter().map(|size| 2 * size + 1).collect();
            let ones = vec![1; shape.len()];
            let twos = vec![2; shape.len()];
            let args = vec![
                own(row_major(&large, dtype)),
                list(&ones),
                list(&large),
                list(&twos),
            ];
            made("slice", args)
        }
    };
    computed(array)
}

/// The calls of an operation on operands of a form and a type.
#[rustfmt::skip]
fn calls(op: Op, form: Form, of: Dtype) -> Vec<Vec<Arg<'static>>> {
    let x = |shape: &[i64]| own(operand(form, shape, of));
    let number = |value: f32, of: Dtype| own(computed(cast(shaped(&[value], &[]), of)));
    let some = |dtype: Dtype| move |shape: &[i64]| own(operand(form, shape, dtype));
    let floats = some(if of == Dtype::F64 { Dtype::F64 } else { Dtype::F32 });
    let truth = some(Dtype::Bool);
    let places = |values: &[i64], shape: &[i64]| own(ints(values, shape, Dtype::S32));
    let all = || [&[&[][..]], &VECTORS[..], &MATRICES[..]].concat();
    let axed = || [&VECTORS[..], &MATRICES[..]].concat();
    let last = |shape: &[i64]| shape.len() as i64 - 1;
    let every = |shape: &[i64]| (0..shape.len() as i64).collect::<Vec<i64>>();
    // A right-hand side with as many axes.
    let columns = |shape: &[i64]| [&shape[..shape.len() - 1], &[2]].concat();
    match op {
        Op::Abs | Op::Negative | Op::Exp | Op::Expm1 | Op::Log | Op::Log1p | Op::Log2 | Op::Log10 | Op::Sqrt | Op::Rsqrt
        | Op::Square | Op::Sin | Op::Cos | Op::Tan | Op::Arcsin | Op::Arccos | Op::Arctan | Op::Sinh | Op::Cosh | Op::Tanh
        | Op::Arcsinh | Op::Arccosh | Op::Arctanh | Op::Erf | Op::Erfc | Op::Erfinv | Op::Sigmoid | Op::Cbrt | Op::Sign | Op::Floor
        | Op::Rectify | Op::IsPositive | Op::Ceil | Op::Round | Op::RoundAway | Op::Trunc | Op::LogicalNot | Op::BitwiseInvert | Op::Isnan | Op::Isinf
        | Op::Isfinite | Op::Isposinf | Op::Isneginf | Op::Real | Op::Imag | Op::Conjugate | Op::Contiguous | Op::Gelu
        | Op::GeluTanh => all().into_iter().map(|shape| vec![x(shape)]).collect(),
        Op::Chop => all().into_iter().map(|shape| vec![x(shape), float(0.5)]).collect(),
        Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::FloorDivide | Op::Remainder | Op::Fmod | Op::Power
        | Op::IntegerPower | Op::Maximum | Op::Minimum | Op::Arctan2 | Op::Logaddexp | Op::Equal | Op::NotEqual | Op::Greater
        | Op::GreaterEqual | Op::Less | Op::LessEqual | Op::LogicalAnd | Op::LogicalOr | Op::BitwiseAnd | Op::BitwiseOr
        | Op::BitwiseXor | Op::LeftShift | Op::RightShift | Op::WideLeftShift | Op::WideRightShift | Op::Swiglu | Op::Geglu
        | Op::GegluTanh => {
            let same = all().into_iter().map(|shape| vec![x(shape), x(shape)]);
            let scalars = all().into_iter().map(|shape| vec![x(shape), number(2.0, of)]);
            let rows = MATRICES.into_iter().map(|shape| vec![x(shape), own(row_major(&shape[shape.len() - 1..], of))]);
            same.chain(scalars).chain(rows).collect()
        }
        Op::Matmul => MATRICES.into_iter().map(|shape| {
            let turned = [&shape[..shape.len() - 2], &[shape[shape.len() - 1], 3]].concat();
            vec![x(shape), x(&turned)]
        }).collect(),
        Op::Astype | Op::View => DTYPES.into_iter().flat_map(|to| {
            all().into_iter().map(move |shape| vec![own(operand(form, shape, of)), dtype(to)])
        }).collect(),
        Op::ToInteger => all().into_iter().map(|shape| vec![x(shape), dtype(Dtype::S32)]).collect(),
        Op::Where => all().into_iter().flat_map(|shape| [
            vec![truth(shape), x(shape), x(shape)],
            vec![truth(shape), number(1.0, of), x(shape)],
            vec![truth(&[]), x(shape), number(1.0, of)],
        ]).collect(),
        Op::Clip => all().into_iter().map(|shape| vec![x(shape), number(1.0, of), number(3.0, of)]).collect(),
        Op::Full => all().into_iter().map(|shape| vec![list(shape), float(1.0), dtype(of)]).collect(),
        Op::Arange => vec![vec![float(0.0), float(5.0), float(1.0), dtype(of)]],
        Op::Eye => vec![vec![int(3), int(4), int(1), dtype(of)], vec![int(1), int(1), int(0), dtype(of)]],
        Op::Reshape => all().into_iter().map(|shape| vec![x(shape), list(&[shape.iter().product::<i64>(), 1])]).chain([
            vec![x(&[6, 4]), list(&[2, 3, 4])], vec![x(&[2, 3, 4]), list(&[6, 4])], vec![x(&[2, 4, 4]), list(&[2, 2, 2, 4])],
            vec![x(&[6, 1]), list(&[2, 3])], vec![x(&[6]), list(&[3, 2])], vec![x(&[4, 4]), list(&[2, 8])],
        ]).collect(),
        Op::Transpose => all().into_iter().map(|shape| vec![x(shape), list(&every(shape).into_iter().rev().collect::<Vec<_>>())]).collect(),
        Op::BroadcastTo => all().into_iter().map(|shape| vec![x(shape), list(&[&[2], shape].concat())]).collect(),
        Op::ExpandDims => all().into_iter().map(|shape| vec![x(shape), list(&[0, -1])]).collect(),
        Op::Squeeze => vec![vec![x(&[1, 1]), list(&[0, 1])], vec![x(&[3, 1, 2]), list(&[1])], vec![x(&[1, 4]), list(&[0])]],
        Op::Flip => axed().into_iter().map(|shape| vec![x(shape), list(&[0])]).collect(),
        Op::Slice => vec![
            vec![x(&[6]), list(&[1]), list(&[6]), list(&[2])],
            vec![x(&[4, 3]), list(&[1, 0]), list(&[3, 3]), list(&[1, 2])],
            vec![x(&[2, 3, 4]), list(&[1, 2, 3]), list(&[2, 3, 4]), list(&[1, 1, 1])],
        ],
        Op::SliceUpdate | Op::SliceUpdateAdd | Op::SliceUpdateProd | Op::SliceUpdateMax | Op::SliceUpdateMin => vec![
            vec![x(&[6]), x(&[3]), list(&[1]), list(&[6]), list(&[2])],
            vec![x(&[4, 3]), x(&[2, 2]), list(&[1, 0]), list(&[3, 3]), list(&[1, 2])],
            vec![x(&[1, 1]), x(&[1, 1]), list(&[0, 0]), list(&[1, 1]), list(&[1, 1])],
        ],
        Op::SliceDynamic => vec![vec![x(&[4, 3]), places(&[1], &[1]), list(&[0]), list(&[2, 3])]],
        Op::SliceUpdateDynamic => vec![vec![x(&[4, 3]), x(&[2, 3]), places(&[1], &[1]), list(&[0])]],
        Op::Concatenate | Op::Stack => axed().into_iter().map(|shape| {
            vec![Arg::Arrays(vec![operand(form, shape, of), operand(form, shape, of)]), int(last(shape))]
        }).collect(),
        Op::Pad => axed().into_iter().map(|shape| vec![x(shape), list(&[0]), list(&[1]), list(&[2]), number(1.0, of)]).collect(),
        Op::AsStrided => vec![vec![x(&[6]), list(&[3, 2]), list(&[1, 2]), int(1)], vec![x(&[3, 3]), list(&[3]), list(&[4]), int(0)]],
        Op::Tril | Op::Triu => MATRICES.into_iter().map(|shape| vec![x(shape), int(0)]).collect(),
        Op::Diagonal => MATRICES.into_iter().map(|shape| vec![x(shape), int(0), int(-2), int(-1)]).collect(),
        Op::Repeat => axed().into_iter().map(|shape| vec![x(shape), int(2), int(0)]).collect(),
        Op::Tile => axed().into_iter().map(|shape| vec![x(shape), list(&vec![2; shape.len()])]).collect(),
        Op::Sum | Op::Prod | Op::Max | Op::Min | Op::Mean | Op::All | Op::Any | Op::Logsumexp => axed().into_iter().flat_map(|shape| [
            vec![x(shape), list(&[0]), boolean(true)],
            vec![x(shape), list(&[last(shape)]), boolean(false)],
            vec![x(shape), list(&every(shape)), boolean(false)],
        ]).collect(),
        Op::Softmax => axed().into_iter().flat_map(|shape| [
            vec![x(shape), list(&[0]), boolean(true)],
            vec![x(shape), list(&[last(shape)]), boolean(false)],
        ]).collect(),
        Op::Argmax | Op::Argmin | Op::ArgmaxNan | Op::ArgminNan | Op::Cumsum | Op::Cumprod | Op::Cummax | Op::Cummin
        | Op::Logcumsumexp => axed().into_iter().flat_map(|shape| [
            vec![x(shape), int(0), boolean(true)],
            vec![x(shape), int(last(shape)), boolean(false)],
        ]).collect(),
        Op::Sort | Op::Argsort => axed().into_iter().flat_map(|shape| [
            vec![x(shape), int(0), boolean(false)],
            vec![x(shape), int(last(shape)), boolean(true)],
        ]).collect(),
        Op::TopK => axed().into_iter().map(|shape| vec![x(shape), int(1)]).collect(),
        Op::WindowArgmax | Op::WindowArgmin => axed().into_iter().flat_map(|shape| [
            vec![x(shape), int(0)],
            vec![x(shape), int(last(shape))],
        ]).collect(),
        Op::Take => axed().into_iter().flat_map(|shape| [
            vec![x(shape), places(&[0, 1, 0], &[3]), int(0)],
            vec![x(shape), places(&[0], &[]), int(last(shape))],
        ]).collect(),
        Op::TakeAlongAxis => axed().into_iter().map(|shape| {
            let at = vec![0; shape.iter().product::<i64>() as usize];
            vec![x(shape), places(&at, shape), int(last(shape))]
        }).collect(),
        Op::Gather => vec![vec![x(&[4, 3]), Arg::Arrays(vec![ints(&[1, 0], &[2], Dtype::S32)]), list(&[0]), list(&[1, 3])]],
        Op::Scatter | Op::ScatterAdd | Op::ScatterProd | Op::ScatterMax | Op::ScatterMin => vec![
            vec![x(&[4, 3]), Arg::Arrays(vec![ints(&[1, 0], &[2], Dtype::S32)]), x(&[2, 1, 3]), list(&[0])],
            vec![x(&[1]), Arg::Arrays(vec![ints(&[0], &[1], Dtype::S32)]), x(&[1, 1]), list(&[0])],
        ],
        Op::Cholesky | Op::Eigh => SQUARES.into_iter().map(|shape| vec![x(shape), boolean(false)]).collect(),
        Op::Lu | Op::LuFactor | Op::Qr => [&SQUARES[..], &MATRICES[..]].concat().into_iter().map(|shape| vec![x(shape)]).collect(),
        Op::Svd => MATRICES.into_iter().flat_map(|shape| [vec![x(shape), boolean(true)], vec![x(shape), boolean(false)]]).collect(),
        Op::Inv | Op::Det => SQUARES.into_iter().map(|shape| vec![x(shape)]).collect(),
        Op::Solve => SQUARES.into_iter().map(|shape| vec![x(shape), x(&columns(shape))]).chain([vec![x(&[4, 4]), x(&[4])]]).collect(),
        Op::SolveTriangular => SQUARES.into_iter().map(|shape| vec![x(shape), x(&columns(shape)), boolean(true)]).collect(),
        Op::Fft | Op::Ifft | Op::Rfft | Op::Irfft => axed().into_iter().flat_map(|shape| [
            vec![x(shape), int(4), int(0)],
            vec![x(shape), int(3), int(last(shape))],
        ]).collect(),
        Op::Conv => [1, 2].into_iter().map(|groups| vec![
            x(&[2, 5, 4, 4]), x(&[2, 2, 3, 4 / groups]), list(&[1, 2]), list(&[0, 1]), list(&[1, 0]), list(&[1, 1]), list(&[2, 1]),
            int(groups), boolean(true), boolean(false),
        ]).chain([vec![
            x(&[1, 6, 1]), x(&[1, 2, 1]), list(&[1]), list(&[0]), list(&[0]), list(&[1]), list(&[1]), int(1), boolean(false), boolean(false),
        ]]).collect(),
        Op::RmsNorm => axed().into_iter().map(|shape| vec![floats(shape), floats(&shape[shape.len() - 1..]), float(1e-5)]).collect(),
        Op::LayerNorm => axed().into_iter().map(|shape| vec![floats(shape), floats(&shape[shape.len() - 1..]), nil(), float(1e-5)]).collect(),
        Op::Rope => vec![vec![floats(&[2, 3, 4, 8]), int(8), boolean(false), float(100.0), float(1.0), places(&[1], &[]), nil()]],
        Op::Attention => vec![
            vec![floats(&[2, 4, 3, 8]), floats(&[2, 2, 5, 8]), floats(&[2, 2, 5, 8]), float(0.3), nil(), nil()],
            vec![floats(&[1, 1, 1, 1]), floats(&[1, 1, 1, 1]), floats(&[1, 1, 1, 1]), float(0.3), causal(), nil()],
        ],
        Op::CachedAttention => vec![vec![
            floats(&[1, 2, 4, 8]), floats(&[1, 2, 6, 8]), floats(&[1, 2, 6, 8]), float(0.3), places(&[1; 6], &[1, 6]), places(&[1], &[]),
        ]],
        Op::Quantize => [&[1, 32][..], &[3, 64], &[2, 3, 32]].into_iter().flat_map(|shape: &[i64]| [
            vec![x(shape), int(32), int(4), text("affine".into())],
            vec![x(shape), int(32), int(8), text("mxfp8".into())],
        ]).collect(),
        Op::Dequantize => {
            let words = some(Dtype::U32);
            let scales = some(Dtype::U8);
            vec![
                vec![words(&[3, 8]), x(&[3, 2]), x(&[3, 2]), int(32), int(4), text("affine".into()), dtype(Dtype::F32)],
                vec![words(&[3, 4]), scales(&[3, 2]), nil(), int(16), int(4), text("nvfp4".into()), dtype(Dtype::Bf16)],
            ]
        }
        Op::QuantizedMatmul => {
            let words = some(Dtype::U32);
            let scales = some(Dtype::U8);
            let affine = |x: Arg<'static>, batch: &[i64], transpose: bool| {
                let shape = |size: i64| [batch, &[3, size]].concat();
                let factors = || own(operand(form, &shape(2), of));
                vec![x, words(&shape(8)), factors(), factors(), boolean(transpose), int(32), int(4), text("affine".into())]
            };
            vec![
                affine(x(&[64]), &[], true),
                affine(x(&[2, 2, 64]), &[], true),
                affine(x(&[2, 3]), &[], false),
                affine(x(&[2, 2, 64]), &[2], true),
                vec![x(&[20, 64]), words(&[3, 8]), scales(&[3, 2]), nil(), boolean(true), int(32), int(4), text("mxfp4".into())],
            ]
        }
        Op::GatherQmm => {
            let words = some(Dtype::U32);
            let indices = some(Dtype::S64);
            vec![vec![
                x(&[2, 2, 64]), words(&[2, 3, 8]), x(&[2, 3, 2]), x(&[2, 3, 2]), indices(&[3, 1]), indices(&[2]),
                boolean(true), int(32), int(4), text("affine".into()),
            ]]
        }
        Op::DequantizeBlocks => {
            let bytes = some(Dtype::U8);
            vec![
                vec![bytes(&[3, 36]), text("q4_0".into()), dtype(Dtype::F32)],
                vec![bytes(&[2, 1, 144]), text("q4_k".into()), dtype(Dtype::Bf16)],
            ]
        }
        Op::BlocksMatmul => {
            let bytes = some(Dtype::U8);
            vec![
                vec![x(&[64]), bytes(&[3, 36]), text("q4_0".into()), boolean(true)],
                vec![x(&[2, 3]), bytes(&[3, 36]), text("q4_0".into()), boolean(false)],
                vec![x(&[2, 10, 256]), bytes(&[3, 144]), text("q4_k".into()), boolean(true)],
            ]
        }
        Op::Einsum => vec![
            vec![text("ij,jk->ki".to_owned()), Arg::Arrays(vec![operand(form, &[3, 4], of), operand(form, &[4, 2], of)])],
            vec![text("ii->i".to_owned()), Arg::Arrays(vec![operand(form, &[3, 3], of)])],
        ],
    }
}

/// What is untrue of a computed array's memory.
fn lies(array: &Array) -> Vec<String> {
    let Some(memory) = memory(array) else {
        return vec!["there is none".to_owned()];
    };
    let sizes: Vec<i64> = array.shape().iter().map(|size| i64::from(*size)).collect();
    let strides: Vec<i64> = array
        .strides()
        .iter()
        .map(|stride| *stride as i64)
        .collect();
    let axes = || sizes.iter().copied().zip(strides.iter().copied());
    let reach = |axis: (i64, i64)| (axis.0 - 1) * axis.1;
    let low: i64 = axes().map(reach).filter(|reach| *reach < 0).sum();
    let high: i64 = axes().map(reach).filter(|reach| *reach > 0).sum();
    let (item, buffer) = (memory.item as i64, memory.buffer as i64);
    let data_size = memory.data_size as i64;
    // Whether each axis, from the nearest on, steps over what those before it fill.
    let packed = |axes: &mut dyn Iterator<Item = (i64, i64)>| {
        let mut step = 1;
        axes.filter(|(size, _)| *size > 1).all(|(size, stride)| {
            let fits = stride == step;
            step *= size;
            fits
        })
    };
    let distinct: i64 = axes()
        .filter(|(_, stride)| *stride > 0)
        .map(|(size, _)| size)
        .product();
    let truths = [
        (
            memory.offset + low * item >= 0,
            "elements before the buffer",
        ),
        (
            memory.offset + (high + 1) * item <= buffer,
            "elements behind the buffer",
        ),
        (
            memory.offset + (low + data_size) * item <= buffer,
            "more elements than the buffer holds",
        ),
        (
            !memory.row_contiguous || packed(&mut axes().rev()),
            "row-major",
        ),
        (
            !memory.col_contiguous || packed(&mut axes()),
            "column-major",
        ),
        (
            !(memory.row_contiguous || memory.col_contiguous)
                || data_size == sizes.iter().product::<i64>(),
            "in order with another number of elements",
        ),
        (!memory.contiguous || distinct == data_size, "without gaps"),
    ];
    truths
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, lie)| format!("{lie}: {memory:?}, shape {sizes:?}, strides {strides:?}"))
        .collect()
}

/// Every result of some calls, with all of their graphs where those are `held`, and whether there is any.
fn looked_at(op: Op, calls: Vec<Vec<Arg>>, held: bool) -> (Vec<Array>, bool) {
    let (mut graph, mut computed) = (Vec::new(), Vec::new());
    let mut together = Vec::new();
    for args in calls {
        let results = match apply(op, &Args::new(op.name(), args.into()), cpu()) {
            Ok(Value::One(array)) => vec![array],
            Ok(Value::Many(arrays)) => arrays,
            // Not for this type.
            Err(_) => continue,
        };
        if held {
            let walked = results
                .iter()
                // LU's own factors are only copied, by their strides.
                .flat_map(|array| nodes(array, c"LUF").expect("a graph can be walked"));
            graph.extend(walked);
        }
        if op.is_linalg() {
            // A singular matrix gives nothing to look at.
            computed.extend(evaluate_failing(cpu(), results).into_iter().flatten());
        } else {
            together.extend(results);
        }
    }
    // Some types are refused here only.
    computed.extend(evaluate_on(cpu(), together).into_iter().flatten());
    let any = !computed.is_empty();
    // What is behind a singular matrix has no memory.
    graph.retain(|array| memory(array).is_some());
    (computed.into_iter().chain(graph).collect(), any)
}

#[test]
fn every_operation_tells_the_truth_of_its_memory() {
    let mut found = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for op in Op::iter() {
        let mut computed = false;
        for (form, of) in Form::iter().flat_map(|form| DTYPES.map(|of| (form, of))) {
            // Once with all of the graph held, whose arrays are looked at too, and once as it runs, where an
            // operation takes over the memory of what nobody holds.
            for held in [true, false] {
                let (arrays, any) = looked_at(op, calls(op, form, of), held);
                computed |= any;
                for lie in arrays.iter().flat_map(lies) {
                    found.insert(format!("{} of {of:?} {form:?}: {lie}", op.name()));
                }
            }
        }
        if !computed {
            silent.insert(op.name());
        }
    }
    assert!(silent.is_empty(), "nothing was computed by {silent:?}");
    let shown: Vec<&String> = found.iter().take(60).collect();
    assert!(found.is_empty(), "{} lies: {shown:#?}", found.len());
}
