//! How long products with packed numbers take on one thread, at each level: `cargo bench -p emily_kernels --bench quantized`.

use std::time::{Duration, Instant};

use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::quantized::blocks::{self, Blocks, Type};
use emily_kernels::quantized::{self, Code, Factor, Packed, Packing};

/// Rows and columns of matrices: two of a small model's, and one of a large one's.
const SIZES: [(usize, usize); 3] = [(1536, 576), (49152, 576), (11008, 4096)];

fn main() {
    pool::set_threads(1);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| {
        wanted
            .iter()
            .all(|word| name.contains(word) || word == "--bench")
    };
    for (name, of) in Type::ALL {
        for ((rows, columns), heights) in SIZES.into_iter().zip([[1, 4, 256], [1, 1, 1], [1, 1, 1]])
        {
            let (numbers, size) = of.block();
            // A model's rows are whole blocks.
            let columns = columns.next_multiple_of(numbers);
            let bytes: Vec<u8> = (0..rows * columns / numbers * size)
                .map(|i| (i * 37 % 61) as u8)
                .collect();
            let blocks = Blocks {
                of,
                columns,
                bytes: &bytes,
            };
            let mut done = 0;
            for height in heights
                .into_iter()
                .filter(|height| (done != *height).then(|| done = *height).is_some())
            {
                let name = format!("{name} {rows} x {columns}, {height}");
                let mut output = vec![0.0; rows * height];
                if is_wanted(&name) {
                    time(
                        &name,
                        rows * columns,
                        bytes.len(),
                        height,
                        |level, x| blocks::multiply(level, x, &blocks, true, &mut output),
                        columns,
                    );
                }
            }
        }
    }
    for (bits, group) in [(4, 64), (8, 64), (2, 32)] {
        let (rows, columns) = SIZES[2];
        let words: Vec<u32> = (0..rows * columns * bits / 32)
            .map(|i| i as u32 * 0x9E37_79B9)
            .collect();
        let factors = vec![0x3C; rows * columns / group * 4];
        let packed = Packed {
            packing: Packing {
                code: Code::Unsigned(bits),
                group,
                factor: Factor::F32,
            },
            columns,
            words: &words,
            scales: &factors,
            biases: Some(&factors),
        };
        for transpose in [true, false] {
            let name = format!("affine of {bits} bits, transposed: {transpose}");
            let (inner, outer) = if transpose {
                (columns, rows)
            } else {
                (rows, columns)
            };
            let mut output = vec![0.0; outer];
            if is_wanted(&name) {
                let size = words.len() * 4 + factors.len() * 2;
                time(
                    &name,
                    rows * columns,
                    size,
                    1,
                    |level, x| quantized::multiply(level, x, &packed, transpose, &mut output),
                    inner,
                );
            }
        }
    }
}

/// Prints the shortest of many runs: nanoseconds for a number and a row, and bytes of the matrix a nanosecond.
fn time(
    name: &str,
    numbers: usize,
    bytes: usize,
    height: usize,
    mut run: impl FnMut(Level, &[f32]),
    inner: usize,
) {
    let x: Vec<f32> = (0..inner * height)
        .map(|i| (i % 97) as f32 / 97.0 - 0.3)
        .collect();
    print!("{name:28}");
    for level in Level::available() {
        let (mut fastest, start) = (Duration::MAX, Instant::now());
        while start.elapsed() < Duration::from_millis(400) {
            let begun = Instant::now();
            run(level, &x);
            fastest = fastest.min(begun.elapsed());
        }
        let nanoseconds = fastest.as_nanos() as f64;
        print!(
            "  {} {:.4} ns, {:.1} GB/s",
            level.name(),
            nanoseconds / (numbers * height) as f64,
            bytes as f64 / nanoseconds
        );
    }
    println!();
}
