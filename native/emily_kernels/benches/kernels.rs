//! How long kernels take for an element, at each level: `cargo bench -p emily_kernels`.

use std::hint::black_box;
use std::time::Instant;

use emily_kernels::attention::{attend, Attention, Mask};
use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use emily_kernels::dot::products;
use emily_kernels::elementwise::{self, functions};
use emily_kernels::gemm;
use emily_kernels::index::{take, Indices};
use emily_kernels::norm::{rms_norm, softmax};
use emily_kernels::reduce::fold;
use emily_kernels::reduce::{reduce, Reduction};
use emily_kernels::view::{bytes_mut, Axes, Axis, Element, View};
use emily_kernels::{cast, compare, integer, math};

/// As many elements as the nearest cache holds of each operand.
const COUNT: usize = 2048;

fn main() {
    let maps: [(&str, &dyn Map, usize, [usize; 4]); 16] = [
        (
            "exp f32",
            &functions::unary::<math::Exp, f32>,
            4,
            [4, 0, 0, 0],
        ),
        (
            "sigmoid f32",
            &functions::unary::<math::Sigmoid, f32>,
            4,
            [4, 0, 0, 0],
        ),
        ("add f32", &elementwise::add::<f32>, 4, [4, 4, 0, 0]),
        ("maximum f32", &elementwise::maximum::<f32>, 4, [4, 4, 0, 0]),
        (
            "round_away f32",
            &elementwise::round_away::<f32>,
            4,
            [4, 0, 0, 0],
        ),
        ("sign f32", &elementwise::sign::<f32>, 4, [4, 0, 0, 0]),
        ("less f32", &compare::less::<f32>, 1, [4, 4, 0, 0]),
        ("less s64", &compare::less::<i64>, 1, [8, 8, 0, 0]),
        ("select 8", &elementwise::select::<u8>, 1, [1, 1, 1, 0]),
        ("select 32", &elementwise::select::<u32>, 4, [1, 4, 4, 0]),
        (
            "floor_divide s32",
            &integer::floor_divide::<i32>,
            4,
            [4, 4, 0, 0],
        ),
        ("remainder u8", &integer::remainder::<u8>, 1, [1, 1, 0, 0]),
        ("power s32", &integer::power::<i32>, 4, [4, 4, 0, 0]),
        (
            "shift s16",
            &integer::wide_left_shift::<i16>,
            2,
            [2, 2, 0, 0],
        ),
        (
            "to_integer f32 s32",
            &cast::to_integer::<f32, i32>,
            4,
            [4, 0, 0, 0],
        ),
        (
            "to_integer f64 u8",
            &cast::to_integer::<f64, u8>,
            1,
            [8, 0, 0, 0],
        ),
    ];
    for (name, map, width, operands) in maps {
        let inputs: Vec<Vec<u64>> = operands
            .iter()
            .filter(|width| **width > 0)
            .map(|width| vec![0x3F91_0203_4123_0001; COUNT * width / 8])
            .collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(|words| as_bytes(words)).collect();
        let mut output = vec![0u64; COUNT * width / 8];
        // SAFETY: words are bytes, and all bytes are words.
        let output = unsafe { output.align_to_mut().1 };
        time(name, COUNT, |level| {
            map.run(level, black_box(&inputs), output, 3.0)
        });
    }
    let x: Vec<f32> = (0..64 * COUNT).map(|i| (i % 97) as f32).collect();
    let mut output = vec![0.0f32; 64 * COUNT];
    let sums: [(&str, [usize; 2], [usize; 1]); 4] = [
        ("sum of rows", [64, COUNT], [1]),
        ("sum of columns", [64, COUNT], [0]),
        ("sum of few columns", [16 * COUNT, 4], [0]),
        ("sum of short rows", [16 * COUNT, 4], [1]),
    ];
    for (name, [rows, columns], reduced) in sums {
        let axes = [(rows, columns), (columns, 1)];
        let axes = axes.map(|(size, stride)| Axis {
            size,
            stride: stride as isize,
        });
        let view = View::new(as_bytes(&x), 0, 4, Axes::from_slice(&axes));
        let output = &mut output[..rows * columns / axes[reduced[0]].size];
        time(name, 64 * COUNT, |level| {
            reduce(level, Reduction::Sum, &view, &reduced, output)
        });
    }
    matrices();
    let shape = |sizes: [usize; 3]| {
        let strides = [sizes[1] * sizes[2], sizes[2], 1];
        let axis = |(&size, stride): (&usize, usize)| Axis {
            size,
            stride: stride as isize,
        };
        sizes.iter().zip(strides).map(axis).collect::<Axes>()
    };
    let matrices = View::new(as_bytes(&x), 0, 4, shape([COUNT, 8, 8]));
    time("8 by 8 matrices", 64 * COUNT, |level| {
        products(level, &matrices, &matrices, &mut output)
    });
    let (row, column) = (shape([1, 1, 64 * COUNT]), shape([1, 64 * COUNT, 1]));
    let [row, column] = [row, column].map(|axes| View::new(as_bytes(&x), 0, 4, axes));
    time("dot", 64 * COUNT, |level| {
        products(level, &row, &column, &mut output[..1])
    });
    time("rms_norm of 4", 64 * COUNT, |level| {
        rms_norm(level, Some(&x), &mut output, 4, None, 1e-5)
    });
    time("rms_norm of 2048", 64 * COUNT, |level| {
        rms_norm(level, Some(&x), &mut output, COUNT, None, 1e-5)
    });
    let near: Vec<f32> = x.iter().map(|x| x / 97.0).collect();
    time("softmax of 2048", 64 * COUNT, |level| {
        softmax(level, Some(&near), &mut output, COUNT)
    });
    attentions();
    let mut place = [0u8; 4 * 64];
    time("argmax f32", 64 * COUNT, |level| {
        fold::argmax::<f32>(level, as_bytes(&x), &mut place, COUNT)
    });
    let mut places = vec![0u8; 4 * COUNT];
    time("argmax of 64 f32", 64 * COUNT, |level| {
        fold::argmax::<f32>(level, as_bytes(&x), &mut places, 64)
    });
    let numbers: Vec<u32> = (0..COUNT).map(|i| (i * 7 % COUNT) as u32).collect();
    let rows = View::in_rows(as_bytes(&x), 4, &[COUNT, 64]);
    time("take rows of 64 f32", 64 * COUNT, |level| {
        let numbers = Indices::new::<u32>(level, as_bytes(&numbers));
        take::<u32>(&rows, 0, numbers, bytes_mut(&mut output))
    });
    time("all f32", COUNT - 1, |level| {
        fold::all::<f32>(level, as_bytes(&x[1..COUNT]), &mut [0], COUNT - 1)
    });
}

fn matrices() {
    // Rows, terms, columns, and the distance of the right side's rows.
    for sizes in [
        [32, 128, 512, 512],
        [32, 128, 512, 528],
        [36, 128, 512, 512],
        [42, 128, 512, 512],
        [100, 100, 100, 100],
        [128, 784, 512, 512],
        [784, 128, 512, 512],
        [128, 512, 10, 10],
        [512, 128, 10, 10],
    ] {
        let [rows, inner, columns, apart] = sizes;
        let a = vec![0.5f32; rows * inner];
        let b = vec![0.5f32; inner * apart];
        let mut output = vec![0.0f32; rows * columns];
        let axes = |sizes: [usize; 2], row| {
            let [rows, columns] = sizes.map(|size| Axis { size, stride: 1 });
            let stride = row as isize;
            Axes::from_slice(&[Axis { stride, ..rows }, columns])
        };
        let a = View::new(as_bytes(&a), 0, 4, axes([rows, inner], inner));
        let b = View::new(as_bytes(&b), 0, 4, axes([inner, columns], apart));
        let name = format!("product {rows} {inner} {columns} {apart}");
        time(&name, rows * inner * columns, |level| {
            gemm::products::<f32>(level, &a, &b, &mut output)
        });
    }
}

fn attentions() {
    fn view<'a>(x: &'a [f32], axes: &Axes) -> View<'a> {
        View::new(as_bytes(x), 0, 4, axes.clone())
    }
    for (name, mask, [heads, key_heads, queries, keys, size]) in [
        ("attention", Mask::None, [12, 12, 128, 128, 32]),
        ("causal attention", Mask::Causal, [12, 12, 128, 128, 32]),
        ("grouped attention", Mask::None, [9, 3, 256, 256, 64]),
        ("the same, causal", Mask::Causal, [9, 3, 256, 256, 64]),
        ("one token", Mask::None, [9, 3, 1, 128, 64]),
        ("one token of many", Mask::None, [9, 3, 1, 4096, 64]),
    ] {
        let array = |heads, rows| {
            let axes = [heads * rows * size, rows * size, size, 1].map(|stride| stride as isize);
            let sizes = [1, heads, rows, size].into_iter().zip(axes);
            let axes = sizes.map(|(size, stride)| Axis { size, stride });
            let x: Vec<f32> = (0..heads * rows * size)
                .map(|i| (i % 97) as f32 / 97.0)
                .collect();
            (x, axes.collect::<Axes>())
        };
        let [q, k, v] =
            [(heads, queries), (key_heads, keys), (key_heads, keys)].map(|(h, n)| array(h, n));
        let problem = Attention {
            q: view(&q.0, &q.1),
            k: view(&k.0, &k.1),
            v: view(&v.0, &v.1),
            scale: 0.125,
            mask,
            sinks: None,
        };
        let mut output = vec![0.0f32; heads * queries * size];
        time(name, heads * queries * keys, |level| {
            attend(level, &problem, &mut output)
        });
    }
}

/// Prints the shortest of many runs.
fn time(name: &str, count: usize, mut run: impl FnMut(Level)) {
    print!("{name:20}");
    for level in Level::available() {
        let fastest = (0..300).map(|_| {
            let begun = Instant::now();
            run(level);
            begun.elapsed()
        });
        let nanoseconds = fastest.min().map_or(0, |time| time.as_nanos());
        print!(
            "  {} {:.3} ns",
            level.name(),
            nanoseconds as f64 / count as f64
        );
    }
    println!();
}

fn as_bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements are bytes without gaps.
    unsafe { elements.align_to().1 }
}
