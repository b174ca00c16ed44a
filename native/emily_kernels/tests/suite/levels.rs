//! Every kernel at every level against its portable form: over lengths and layouts at random, and numbers of which many
//! are NaN, infinite, subnormal or where their type ends. What the numbers mean is tested a file a family.

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::elementwise::functions::{self, binary, power, unary, NxErfInv, NxSigmoid};
use emily_kernels::math::{self, Binary, Unary};
use emily_kernels::reduce::{fold, reduce, Reduction};
use emily_kernels::rope::{rotate, Rotary};
use emily_kernels::view::{extent, Axes, View};
use emily_kernels::{cast, compare, dot, elementwise, index, integer, norm};

use crate::support::{bytes, bytes_mut, mapped, random_axes, rounds, samples, Random, Sample};

/// Up to some blocks of a chain.
const MOST: usize = if cfg!(miri) { 70 } else { 2100 };

/// The longest axis of an array with several.
const WIDEST: usize = if cfg!(miri) { 6 } else { 24 };

fn levels() -> impl Iterator<Item = Level> {
    Level::available().filter(|level| *level != Level::PORTABLE)
}

/// Results that may differ by so much of the larger one, or of the smallest normal number.
fn assert_same<T: Sample + Into<f64>>(what: &str, portable: &[T], got: &[T], tolerance: f64) {
    let smallest = match size_of::<T>() {
        4 => f32::MIN_POSITIVE.into(),
        _ => f64::MIN_POSITIVE,
    };
    for (at, (a, b)) in portable.iter().zip(got).enumerate() {
        let (wide, other): (f64, f64) = ((*a).into(), (*b).into());
        let size = wide.abs().max(other.abs()).max(smallest);
        let near = tolerance > 0.0 && (wide - other).abs() <= tolerance * size;
        assert!(
            a.is(*b) || near,
            "{what}: number {at} is {b:?}, portable {a:?}"
        );
    }
}

/// Maps of `count` inputs of type `T` that give numbers of type `O`.
fn maps<T: Sample, O: Sample>(count: usize, maps: &[(&str, &dyn Map)]) {
    let mut random = Random::new(41);
    for _ in 0..rounds(6) {
        let length = 1 + random.below(MOST);
        let inputs: Vec<Vec<T>> = (0..count).map(|_| samples(&mut random, length)).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(|input| bytes(input)).collect();
        for (name, map) in maps {
            let portable: Vec<O> = mapped(*map, Level::PORTABLE, &inputs, length, 7.0);
            for level in levels() {
                let got: Vec<O> = mapped(*map, level, &inputs, length, 7.0);
                let same = portable.iter().zip(&got).all(|(a, b)| a.is(*b));
                assert!(same, "{name} of {length} at {}", level.name());
            }
        }
    }
}

/// A row a kernel, by its name.
macro_rules! table {
    ($($module:ident::$name:ident::<$($type:ty),+>)+) => {
        &[$((stringify!($name), &$module::$name::<$($type),+> as &dyn Map)),+]
    };
}

#[test]
fn numbers() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            maps::<$type, $type>(2, table![
                elementwise::add::<$type> elementwise::subtract::<$type> elementwise::multiply::<$type>
                elementwise::maximum::<$type> elementwise::minimum::<$type>
            ]);
            maps::<$type, $type>(1, table![
                elementwise::negative::<$type> elementwise::abs::<$type> elementwise::square::<$type>
            ]);
            maps::<$type, $type>(3, table![elementwise::clip::<$type>]);
            maps::<$type, u8>(2, table![
                elementwise::logical_and::<$type> elementwise::logical_or::<$type> compare::equal::<$type>
                compare::not_equal::<$type> compare::greater::<$type> compare::greater_equal::<$type>
                compare::less::<$type> compare::less_equal::<$type>
            ]);
            maps::<$type, u8>(1, table![
                elementwise::is_nan::<$type> elementwise::logical_not::<$type> cast::to_bool::<$type>
            ]);
            maps::<$type, f32>(1, table![cast::cast::<$type, f32>]);
            maps::<$type, f64>(1, table![cast::cast::<$type, f64>]);
        )*};
    }
    test!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);
}

#[test]
fn integers() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            maps::<$type, $type>(2, table![
                integer::floor_divide::<$type> integer::fmod::<$type> integer::remainder::<$type>
                integer::power::<$type> integer::wide_left_shift::<$type> integer::wide_right_shift::<$type>
                integer::left_shift::<$type> integer::right_shift::<$type> integer::bitwise_and::<$type>
                integer::bitwise_or::<$type> integer::bitwise_xor::<$type>
            ]);
            maps::<$type, $type>(1, table![integer::bitwise_invert::<$type> integer::clamp::<$type>]);
            maps::<$type, u16>(1, table![cast::cast::<$type, u16>]);
            maps::<f32, $type>(1, table![cast::to_integer::<f32, $type>]);
            maps::<f64, $type>(1, table![cast::to_integer::<f64, $type>]);
        )*};
    }
    test!(u8 u16 u32 u64 i8 i16 i32 i64);
}

#[test]
fn floats() {
    macro_rules! test {
        ($($type:ident)*) => {$(
            maps::<$type, $type>(2, table![elementwise::divide::<$type>]);
            maps::<$type, $type>(1, table![
                elementwise::sqrt::<$type> elementwise::floor::<$type> elementwise::ceil::<$type>
                elementwise::round::<$type> elementwise::round_away::<$type> elementwise::sign::<$type>
                elementwise::rectify::<$type>
            ]);
            maps::<$type, $type>(1, &[
                ("Sqrt", &unary::<math::Sqrt, $type>), ("Rsqrt", &unary::<math::Rsqrt, $type>),
            ]);
            maps::<$type, u8>(1, table![
                elementwise::is_infinite::<$type> elementwise::is_finite::<$type> elementwise::is_positive::<$type>
            ]);
        )*};
    }
    test!(f32 f64);
    maps::<f32, f32>(1, &[("chop", &elementwise::chop)]);
    maps::<f32, f32>(2, &[("fmod", &functions::fmod)]);
}

/// Whether a processor multiplies and adds in one step shows in the last digits.
fn functions_of<T: Sample + Into<f64>>(maps: &[(&str, usize, &dyn Map)], tolerance: f64) {
    let mut random = Random::new(42);
    for _ in 0..rounds(3) {
        let length = 1 + random.below(MOST);
        let inputs: [Vec<T>; 2] = [samples(&mut random, length), samples(&mut random, length)];
        let inputs = [bytes(&inputs[0]), bytes(&inputs[1])];
        for (name, count, map) in maps {
            let portable: Vec<T> = mapped(*map, Level::PORTABLE, &inputs[..*count], length, 0.0);
            for level in levels() {
                let got: Vec<T> = mapped(*map, level, &inputs[..*count], length, 0.0);
                assert_same(
                    &format!("{name} at {}", level.name()),
                    &portable,
                    &got,
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn functions() {
    fn one<F: Unary<T>, T: Sample>(level: Level, inputs: &[&[u8]], output: &mut [u8], option: f64) {
        unary::<F, T>(level, inputs, output, option)
    }
    fn two<F: Binary<T>, T: Sample>(
        level: Level,
        inputs: &[&[u8]],
        output: &mut [u8],
        option: f64,
    ) {
        binary::<F, T>(level, inputs, output, option)
    }
    macro_rules! all {
        ($type:ident: $($function:ident)*) => {
            &[
                $((stringify!($function), 1, &one::<math::$function, $type> as &dyn Map),)*
                ("Atan2", 2, &two::<math::Atan2, $type>), ("Pow", 2, &power::<math::Pow, $type>),
            ]
        };
    }
    functions_of::<f32>(
        all![f32: Exp Expm1 Sigmoid Log Log1p Log2 Log10 Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh
            Erf Erfc ErfInv Cbrt],
        f32::EPSILON.into(),
    );
    functions_of::<f64>(
        all![f64: Exp Expm1 Sigmoid Log Log1p Log2 Log10 Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh
            Erf Erfc ErfInv Cbrt],
        4.0 * f64::EPSILON,
    );
    functions_of::<f64>(
        &[("NxSigmoid", 1, &one::<NxSigmoid, f64>)],
        4.0 * f64::EPSILON,
    );
    functions_of::<f32>(
        &[("NxErfInv", 1, &one::<NxErfInv, f32>)],
        f32::EPSILON.into(),
    );
}

#[test]
fn folds() {
    fn check<T: Sample, O: Sample>(folds: &[fold::Fold]) {
        let mut random = Random::new(43);
        for _ in 0..rounds(20) {
            let (rows, columns) = (1 + random.below(4), 1 + random.below(300));
            let x: Vec<T> = samples(&mut random, rows * columns);
            for fold in folds {
                let run = |level| {
                    let mut output = vec![O::default(); rows];
                    fold(level, bytes(&x), bytes_mut(&mut output), columns);
                    output
                };
                for level in levels() {
                    assert_eq!(run(level), run(Level::PORTABLE), "{}", level.name());
                }
            }
        }
    }
    macro_rules! test {
        ($($type:ident)*) => {$(
            check::<$type, u32>(&[
                fold::argmax::<$type>, fold::argmin::<$type>, fold::argmax_last::<$type>, fold::argmin_last::<$type>,
                fold::window_argmax::<$type>, fold::window_argmin::<$type>,
            ]);
            check::<$type, u8>(&[fold::all::<$type>, fold::any::<$type>]);
        )*};
    }
    test!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);
    check::<u16, u8>(&[fold::all_halves::<u16>, fold::any_halves::<u16>]);
}

/// Mostly numbers whose sums tell something: one of the others decides a sum alone.
fn numbers_to_add(random: &mut Random, count: usize) -> Vec<f32> {
    let odd = random.below(3) == 0;
    let number = |random: &mut Random| match random.below(40) {
        0 if odd => f32::sample(random),
        1 => f32::from_bits(random.bits() as u32 & 0x807F_FFFF),
        _ => (random.below(20_001) as f32 - 10_000.0) / 512.0,
    };
    (0..count).map(|_| number(random)).collect()
}

/// Such numbers in memory of such axes.
fn stored(random: &mut Random, shape: &[usize]) -> (Vec<f32>, usize, Axes) {
    let axes = random_axes(random, shape);
    let (before, after) = extent(&axes, 4);
    let memory = numbers_to_add(random, (before + after) / 4);
    (memory, before, axes)
}

#[test]
fn totals() {
    let mut random = Random::new(44);
    for _ in 0..rounds(150) {
        let shape: Vec<usize> = (0..random.below(5))
            .map(|_| 1 + random.below(WIDEST))
            .collect();
        let (memory, first, axes) = stored(&mut random, &shape);
        let reduced: Vec<usize> = (0..shape.len()).filter(|_| random.below(2) == 0).collect();
        let kept = (0..shape.len()).filter(|at| !reduced.contains(at));
        let count = kept.map(|at| shape[at]).product();
        let view = View::new(bytes(&memory), first, 4, axes);
        for reduction in [Reduction::Sum, Reduction::Product] {
            let run = |level| {
                let mut output = vec![0.0; count];
                reduce(level, reduction, &view, &reduced, &mut output);
                output
            };
            for level in levels() {
                let what = format!("{reduction:?} of {view:?} at {}", level.name());
                assert_same(&what, &run(Level::PORTABLE), &run(level), 0.0);
            }
        }
    }
}

#[test]
fn products() {
    let mut random = Random::new(45);
    for _ in 0..rounds(100) {
        let [batch, rows, inner, columns] = [3, 9, 70, 60].map(|most| 1 + random.below(most));
        let (a, first_a, axes_a) = stored(&mut random, &[batch, rows, inner]);
        let (b, first_b, axes_b) = stored(&mut random, &[batch, inner, columns]);
        let a = View::new(bytes(&a), first_a, 4, axes_a);
        let b = View::new(bytes(&b), first_b, 4, axes_b);
        let run = |level| {
            let mut output = vec![0.0; batch * rows * columns];
            dot::products(level, &a, &b, &mut output);
            output
        };
        // Sums of f32 in another order, where terms cancel each other, and where one is beyond all others.
        let portable: Vec<f32> = run(Level::PORTABLE);
        for level in levels() {
            for (wanted, got) in portable.iter().zip(run(level)) {
                let near = (wanted - got).abs() <= 1e-5 * wanted.abs().max(400.0 * inner as f32);
                let beyond = !wanted.is_finite() || wanted.abs() > 1e6;
                assert!(
                    near || beyond || got.is(*wanted),
                    "{got}, portable {wanted}"
                );
            }
        }
    }
}

#[test]
fn rows() {
    let mut random = Random::new(46);
    for _ in 0..rounds(100) {
        let (rows, columns) = (1 + random.below(6), 1 + random.below(200));
        let x = numbers_to_add(&mut random, rows * columns);
        let (weight, bias): (Vec<f32>, Vec<f32>) =
            (samples(&mut random, columns), samples(&mut random, columns));
        let with = random.below(2) == 0;
        let run = |level| {
            let mut outputs = [(); 3].map(|()| vec![0.0; x.len()]);
            let [softmax, rms, layer] = &mut outputs;
            norm::softmax(level, Some(&x), softmax, columns);
            norm::rms_norm(level, Some(&x), rms, columns, with.then_some(&weight), 1e-6);
            norm::layer_norm(
                level,
                Some(&x),
                layer,
                columns,
                with.then_some(&weight),
                None,
                1e-6,
            );
            // In place, with a bias.
            let mut biased = x.clone();
            norm::layer_norm(level, None, &mut biased, columns, None, Some(&bias), 1e-6);
            (outputs, biased)
        };
        let (portable, portable_biased) = run(Level::PORTABLE);
        for level in levels() {
            let (got, biased) = run(level);
            for (name, at) in [("softmax", 0), ("rms_norm", 1), ("layer_norm", 2)] {
                let what = format!("{name} of {columns} at {}", level.name());
                assert_same(
                    &what,
                    &portable[at],
                    &got[at],
                    4.0 * f64::from(f32::EPSILON),
                );
            }
            assert_same(
                "biased",
                &portable_biased,
                &biased,
                4.0 * f64::from(f32::EPSILON),
            );
        }
    }
}

#[test]
fn planes() {
    let mut random = Random::new(47);
    for _ in 0..rounds(60) {
        let dims = 2 + 2 * random.below(40);
        let rotary = Rotary {
            batches: 1 + random.below(3),
            heads: 1 + random.below(3),
            positions: random.below(6),
            columns: dims + random.below(5),
            dims,
            traditional: random.below(2) == 0,
            scale: 0.75,
            base: 10_000.0,
        };
        let count = rotary.batches * rotary.heads * rotary.positions * rotary.columns;
        let x: Vec<f32> = samples(&mut random, count);
        let offsets = [random.below(10_000) as i32 - 100];
        let shape = [
            rotary.batches,
            rotary.heads,
            rotary.positions,
            rotary.columns,
        ];
        let view = View::in_rows(bytes(&x), 4, &shape);
        let run = |level| {
            let mut output = vec![0.0; count];
            rotate(level, &rotary, &view, &offsets, None, &mut output);
            output
        };
        for level in levels() {
            // A sum of two products, each rounded in f64 or not.
            for (wanted, got) in run(Level::PORTABLE).into_iter().zip(run(level)) {
                let beyond = !wanted.is_finite() || wanted.abs() > 1e30;
                let near = (wanted - got).abs() <= 1e-6 * wanted.abs().max(1e6);
                assert!(
                    got.is(wanted) || near || beyond,
                    "{rotary:?}: {got}, portable {wanted}"
                );
            }
        }
    }
}

#[test]
fn rows_that_are_added() {
    let mut random = Random::new(48);
    for _ in 0..rounds(40) {
        let [rows, columns, count] = [9, 80, 30].map(|most| 1 + random.below(most));
        let x: Vec<f32> = samples(&mut random, rows * columns);
        let updates: Vec<f32> = samples(&mut random, count * columns);
        let indices: Vec<u8> = samples(&mut random, count);
        let run = |level| {
            let mut output = x.clone();
            let places = index::Indices::new::<u8>(level, &indices);
            let output_bytes = bytes_mut(&mut output);
            index::scatter_add::<f32>(level, bytes(&updates), columns, places, output_bytes);
            output
        };
        for level in levels() {
            assert_same(level.name(), &run(Level::PORTABLE), &run(level), 0.0);
        }
    }
}
