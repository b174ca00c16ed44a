//! How long convolutions take, beside the products that they are: `cargo bench -p emily_kernels --bench conv`.

use std::time::Instant;

use emily_kernels::conv::{convolve, Output, Window};
use emily_kernels::dispatch::Level;
use emily_kernels::view::{Axes, Axis, View};

/// Row-major axes of the sizes, those of `order` from the outermost on.
fn axes(sizes: &[usize], order: &[usize]) -> Axes {
    let mut axes = Axes::from_elem(Axis { size: 0, stride: 0 }, sizes.len());
    let mut step = 1;
    for &axis in order.iter().rev() {
        axes[axis] = Axis {
            size: sizes[axis],
            stride: step,
        };
        step *= sizes[axis] as isize;
    }
    axes
}

const FIRST: [usize; 5] = [1, 0, 2, 3, 4];
const LAST: [usize; 5] = [1, 3, 4, 0, 2];
const SWAPPED: [usize; 5] = [2, 0, 1, 3, 4];

fn main() {
    let plain = |low| Window {
        stride: 1,
        low,
        kernel_dilation: 1,
        input_dilation: 1,
    };
    let two = |low| Window {
        stride: 2,
        ..plain(low)
    };
    let spread = |low| Window {
        input_dilation: 2,
        ..plain(low)
    };
    let apart = |low| Window {
        kernel_dilation: 2,
        ..plain(low)
    };
    // {groups, batch, channels, entries, outputs, taps, outputs' size}
    let cases = [
        ("3x3", [1, 8, 64, 56, 64, 3, 56], plain(1), FIRST, FIRST),
        (
            "3x3 to its input",
            [1, 8, 64, 56, 64, 3, 56],
            plain(1),
            FIRST,
            SWAPPED,
        ),
        (
            "3x3 to its kernel",
            [1, 64, 8, 56, 64, 56, 3],
            plain(1),
            SWAPPED,
            SWAPPED,
        ),
        (
            "3x3, channels last",
            [1, 8, 64, 56, 64, 3, 56],
            plain(1),
            LAST,
            LAST,
        ),
        ("1x1", [1, 8, 256, 28, 64, 1, 28], plain(0), FIRST, FIRST),
        ("7x7/2", [1, 8, 3, 224, 64, 7, 112], two(3), FIRST, FIRST),
        (
            "7x7/2, channels last",
            [1, 8, 3, 224, 64, 7, 112],
            two(3),
            LAST,
            LAST,
        ),
        (
            "7x7/2 to its kernel",
            [1, 3, 8, 224, 64, 112, 7],
            apart(3),
            SWAPPED,
            SWAPPED,
        ),
        (
            "3x3/2 to its input",
            [1, 8, 64, 28, 64, 3, 56],
            spread(1),
            FIRST,
            SWAPPED,
        ),
        (
            "depthwise",
            [64, 8, 1, 56, 1, 3, 56],
            plain(1),
            FIRST,
            FIRST,
        ),
        (
            "depthwise, channels last",
            [64, 8, 1, 56, 1, 3, 56],
            plain(1),
            LAST,
            LAST,
        ),
        (
            "depthwise to its kernel",
            [64, 1, 8, 56, 1, 56, 3],
            plain(1),
            [2, 0, 1, 3, 4],
            [2, 0, 1, 3, 4],
        ),
        (
            "{32,3,32,32} 3x3",
            [1, 32, 3, 32, 32, 3, 32],
            plain(1),
            FIRST,
            FIRST,
        ),
    ];
    let only = std::env::args()
        .nth(1)
        .filter(|name| !name.starts_with('-'));
    for (name, [groups, batch, channels, entries, outputs, taps, size], window, x_order, w_order) in
        cases
    {
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let x_axes = axes(&[groups, batch, channels, entries, entries], &x_order);
        let w_axes = axes(&[groups, outputs, channels, taps, taps], &w_order);
        let out_axes = axes(&[groups, batch, outputs, size, size], &x_order);
        let bytes = |axes: &Axes| -> Vec<f32> {
            let count = axes.iter().map(|axis| axis.size).product::<usize>();
            (0..count).map(|i| (i * 7 % 11) as f32 - 5.0).collect()
        };
        let (x, w, mut out) = (bytes(&x_axes), bytes(&w_axes), bytes(&out_axes));
        // SAFETY: floats are bytes.
        let (x_bytes, w_bytes) = unsafe { (x.align_to().1, w.align_to().1) };
        let (x, w) = (
            View::new(x_bytes, 0, 4, x_axes),
            View::new(w_bytes, 0, 4, w_axes),
        );
        let mut times = [f64::MAX; 15];
        for time in &mut times {
            let start = Instant::now();
            let output = Output {
                data: &mut out,
                axes: &out_axes,
            };
            convolve(Level::best(), &x, &w, &[window; 2], output);
            *time = start.elapsed().as_secs_f64() * 1e3;
        }
        times.sort_by(f64::total_cmp);
        let products = (out.len() * channels * taps * taps) as f64;
        println!(
            "{name:26} {:8.2} ms at least, {:8.2} ms in the middle, {:6.1} products/ns",
            times[0],
            times[7],
            products / times[0] / 1e6
        );
    }
}
