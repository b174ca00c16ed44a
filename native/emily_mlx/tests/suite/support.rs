//! Arrays in, numbers out.

use std::sync::mpsc::channel;

use emily_kernels::dispatch::Level;
use emily_mlx::{
    apply, from_bytes, Arg, Args, Device, Dtype, Error, Job, Literal, Number, Op, Result,
    SharedArray, StreamHandle, Value,
};
use mlx_rs::Array;
use strum::IntoEnumIterator;

/// Whether MLX's own operations are taken (`EMILY_KERNELS=off`), which add in f32 and have fewer digits.
pub fn without_kernels() -> bool {
    Level::chosen() == Ok(None)
}

pub fn cpu() -> &'static StreamHandle {
    StreamHandle::default_on(Device::Cpu).expect("every build of MLX has the CPU")
}

pub fn op(name: &str) -> Op {
    Op::iter()
        .find(|op| op.name() == name)
        .unwrap_or_else(|| panic!("no operation is called {name}"))
}

pub fn shaped(values: &[f32], shape: &[i64]) -> Array {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    from_bytes(&bytes, shape, Dtype::F32).expect("the values fill the shape")
}

pub fn vector(values: &[f32]) -> Array {
    shaped(values, &[values.len() as i64])
}

/// 0, 1, 2... in a shape.
pub fn counted(shape: &[i64]) -> Array {
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
    shaped(&values, shape)
}

/// Integers in any integer type.
pub fn ints(values: &[i64], shape: &[i64], dtype: Dtype) -> Array {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes()[..dtype.size()].to_vec())
        .collect();
    from_bytes(&bytes, shape, dtype).expect("the values fill the shape")
}

pub fn list(values: &[i64]) -> Arg<'static> {
    Literal::Ints(values.into()).into()
}

pub fn int(value: i64) -> Arg<'static> {
    Literal::Number(Number::Int(value.into())).into()
}

pub fn float(value: f64) -> Arg<'static> {
    Literal::Number(Number::Float(value)).into()
}

pub fn boolean(value: bool) -> Arg<'static> {
    Literal::Bool(value).into()
}

pub fn dtype(value: Dtype) -> Arg<'static> {
    Literal::Dtype(value).into()
}

pub fn text(value: String) -> Arg<'static> {
    Literal::Text(value).into()
}

pub fn nil() -> Arg<'static> {
    Literal::Nil.into()
}

pub fn causal() -> Arg<'static> {
    Literal::Causal.into()
}

pub fn own(array: Array) -> Arg<'static> {
    Arg::Owned(array)
}

pub fn build_on(stream: &StreamHandle, name: &str, args: Vec<Arg>) -> Result<Vec<Array>> {
    let op = op(name);
    match apply(op, &Args::new(op.name(), args.into()), stream)? {
        Value::One(array) => Ok(vec![array]),
        Value::Many(arrays) => Ok(arrays),
    }
}

/// The one array that an operation gives, uncomputed.
pub fn build(name: &str, args: Vec<Arg>) -> Result<Array> {
    let mut arrays = build_on(cpu(), name, args)?;
    assert_eq!(arrays.len(), 1, "{name} gave several arrays");
    Ok(arrays.remove(0))
}

/// The message of a refusal that came before MLX was called.
pub fn refusal(name: &str, args: Vec<Arg>) -> String {
    match build_on(cpu(), name, args) {
        Err(Error::Argument(message)) => message,
        Err(Error::Mlx(message)) => panic!("{name} reached MLX, which said {message}"),
        Ok(arrays) => panic!("{name} gave {arrays:?}"),
    }
}

/// Computes arrays on the worker of a stream and waits for its answer.
pub fn evaluate_on(stream: &StreamHandle, arrays: Vec<Array>) -> Result<Vec<Array>> {
    answer_of(stream, arrays, false)
}

/// As `evaluate_on`, for arrays with linear algebra behind them.
pub fn evaluate_failing(stream: &StreamHandle, arrays: Vec<Array>) -> Result<Vec<Array>> {
    answer_of(stream, arrays, true)
}

fn answer_of(stream: &StreamHandle, arrays: Vec<Array>, may_fail: bool) -> Result<Vec<Array>> {
    let (answer, answered) = channel();
    let job = Job::Evaluate {
        arrays,
        may_fail,
        fetched: None,
        wanted: Box::new(|| true),
        done: Box::new(move |result| answer.send(result).expect("the test waits")),
    };
    assert!(stream.worker().push(job).is_ok(), "the queue is full");
    answered.recv().expect("every job is answered")
}

pub const INTEGERS: [Dtype; 8] = [
    Dtype::U8,
    Dtype::U16,
    Dtype::U32,
    Dtype::U64,
    Dtype::S8,
    Dtype::S16,
    Dtype::S32,
    Dtype::S64,
];

/// The bytes of an array, computed.
pub fn bytes_on(stream: &StreamHandle, array: Array) -> Result<Vec<u8>> {
    let readable = SharedArray::lazy(array, stream, 1, false).readable()?;
    let computed = evaluate_on(stream, vec![readable])?.remove(0);
    let computed = SharedArray::computed(computed, stream);
    let bytes = computed.bytes()?.expect("the copy is row-major").to_vec();
    Ok(bytes)
}

fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let chunks = bytes.chunks_exact(N);
    chunks
        .map(|chunk| number(chunk.try_into().expect("chunks are exact")))
        .collect()
}

/// The elements of an array of real numbers.
pub fn numbers_on(stream: &StreamHandle, array: Array) -> Vec<f64> {
    let dtype = SharedArray::lazy(array.clone(), stream, 1, false)
        .dtype()
        .unwrap();
    let bytes = bytes_on(stream, array).expect("the array can be computed");
    match dtype {
        Dtype::Bool | Dtype::U8 => each::<1>(&bytes, |b| u8::from_ne_bytes(b).into()),
        Dtype::S8 => each::<1>(&bytes, |b| i8::from_ne_bytes(b).into()),
        Dtype::U16 => each::<2>(&bytes, |b| u16::from_ne_bytes(b).into()),
        Dtype::S16 => each::<2>(&bytes, |b| i16::from_ne_bytes(b).into()),
        Dtype::U32 => each::<4>(&bytes, |b| u32::from_ne_bytes(b).into()),
        Dtype::S32 => each::<4>(&bytes, |b| i32::from_ne_bytes(b).into()),
        Dtype::U64 => each::<8>(&bytes, |b| u64::from_ne_bytes(b) as f64),
        Dtype::S64 => each::<8>(&bytes, |b| i64::from_ne_bytes(b) as f64),
        Dtype::F16 => each::<2>(&bytes, |b| half::f16::from_ne_bytes(b).into()),
        Dtype::Bf16 => each::<2>(&bytes, |b| half::bf16::from_ne_bytes(b).into()),
        Dtype::F32 => each::<4>(&bytes, |b| f32::from_ne_bytes(b).into()),
        Dtype::F64 => each::<8>(&bytes, f64::from_ne_bytes),
        Dtype::C64 => panic!("complex numbers are not real"),
    }
}

pub fn numbers(array: Array) -> Vec<f64> {
    numbers_on(cpu(), array)
}

/// What an operation on arrays and options gives, computed.
pub fn result(name: &str, args: Vec<Arg>) -> Vec<f64> {
    numbers(build(name, args).unwrap_or_else(|error| panic!("{name}: {error}")))
}

pub fn assert_near(got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{got:?} against {wanted:?}");
    for (a, b) in got.iter().zip(wanted) {
        let near = (a - b).abs() <= 1e-5 * b.abs().max(1.0);
        assert!(near, "{got:?} against {wanted:?}");
    }
}
