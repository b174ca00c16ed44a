//! Convolutions against sums in doubles over all meetings of outputs, taps and entries.

use std::sync::Mutex;

use emily_kernels::conv::{convolve, Number, Output, Window};
use emily_kernels::dispatch::Level;
use emily_kernels::pool;
use emily_kernels::view::{extent, Axes, Axis, View};

/// The number of threads belongs to all tests.
static THREADS: Mutex<()> = Mutex::new(());

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }

    fn from(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
}

trait Float: Number + Into<f64> {
    const EPSILON: f64;
    fn of(value: f64) -> Self;
}

impl Float for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Float for f64 {
    const EPSILON: f64 = f64::EPSILON;
    fn of(value: f64) -> Self {
        value
    }
}

/// An array whose axes lie in some order in memory, some of them backwards, with gaps.
struct Owned<T> {
    memory: Vec<T>,
    first: usize,
    axes: Axes,
}

impl<T: Float> Owned<T> {
    fn random(sizes: &[usize], order: &[usize], numbers: &mut Numbers, plain: bool) -> Self {
        let mut axes = Axes::from_elem(Axis { size: 0, stride: 0 }, sizes.len());
        let mut step = 1;
        for &axis in order.iter().rev() {
            let backwards = !plain && numbers.below(6) == 0;
            axes[axis] = Axis {
                size: sizes[axis],
                stride: if backwards { -step } else { step },
            };
            step *= sizes[axis] as isize;
            if !plain && numbers.below(4) == 0 {
                step += 3;
            }
        }
        let (before, after) = extent(&axes, 1);
        let memory = (0..before + after)
            .map(|_| T::of(numbers.below(2001) as f64 / 1000.0 - 1.0))
            .collect();
        Owned {
            memory,
            first: before,
            axes,
        }
    }

    fn view(&self) -> View<'_> {
        // SAFETY: numbers are bytes.
        let bytes = unsafe { self.memory.align_to::<u8>().1 };
        View::new(
            bytes,
            self.first * size_of::<T>(),
            size_of::<T>(),
            self.axes.clone(),
        )
    }

    fn at(&self, place: &[usize]) -> f64 {
        let offset: isize = place
            .iter()
            .zip(&self.axes)
            .map(|(&i, axis)| i as isize * axis.stride)
            .sum();
        self.memory[(self.first as isize + offset) as usize].into()
    }
}

fn places(sizes: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..sizes.iter().product::<usize>()).map(|mut at| {
        let mut place = vec![0; sizes.len()];
        for (axis, size) in sizes.iter().enumerate().rev() {
            place[axis] = at % size;
            at /= size;
        }
        place
    })
}

fn shuffled(count: usize, numbers: &mut Numbers) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, numbers.below(i + 1));
    }
    order
}

/// The numbers and the bounds of their errors.
fn expected<T: Float>(
    x: &Owned<T>,
    w: &Owned<T>,
    windows: &[Window],
    outputs: &[usize],
) -> Vec<(f64, f64)> {
    let taps: Vec<usize> = w.axes[2..].iter().map(|axis| axis.size).collect();
    let one = |place: Vec<usize>| {
        let (mut sum, mut size, mut count) = (0.0, 0.0, 0.0);
        for tap in places(&taps) {
            let mut from = vec![place[0], place[1], tap[0]];
            for (a, window) in windows.iter().enumerate() {
                let at = (place[a + 3] * window.stride + tap[a + 1] * window.kernel_dilation)
                    as isize
                    - window.low;
                let step = window.input_dilation as isize;
                if at % step != 0 || at < 0 || at / step >= x.axes[a + 3].size as isize {
                    break;
                }
                from.push((at / step) as usize);
            }
            if from.len() < windows.len() + 3 {
                continue;
            }
            let product = x.at(&from) * w.at(&[&[place[0], place[2]], &tap[..]].concat());
            sum += product;
            size += product.abs();
            count += 1.0;
        }
        (sum, size * T::EPSILON * (count + 1.0))
    };
    places(outputs).map(one).collect()
}

fn convolved<T: Float>(
    level: Level,
    x: &Owned<T>,
    w: &Owned<T>,
    windows: &[Window],
    (sizes, order): (&[usize], &[usize]),
) -> Vec<T> {
    let mut axes = vec![Axis { size: 0, stride: 0 }; sizes.len()];
    let mut step = 1;
    for &axis in order.iter().rev() {
        axes[axis] = Axis {
            size: sizes[axis],
            stride: step,
        };
        step *= sizes[axis] as isize;
    }
    let mut data = vec![T::of(f64::NAN); step as usize];
    convolve(
        level,
        &x.view(),
        &w.view(),
        windows,
        Output {
            data: &mut data,
            axes: &axes,
        },
    );
    let at = |place: Vec<usize>| {
        let offset: isize = place
            .iter()
            .zip(&axes)
            .map(|(&i, axis)| i as isize * axis.stride)
            .sum();
        data[offset as usize]
    };
    places(sizes).map(at).collect()
}

/// Around the widths of vectors and panels; few under Miri, whose time is that of all products.
const CHANNELS: &[usize] = if cfg!(miri) {
    &[1, 2, 3, 17]
} else {
    &[1, 2, 3, 16, 17, 40]
};
const OUTPUTS: &[usize] = if cfg!(miri) {
    &[1, 2, 5, 13]
} else {
    &[1, 2, 5, 12, 13, 17, 30]
};

/// A convolution with all its options, of a size that `expected` can be asked for.
fn check<T: Float>(case: u64, numbers: &mut Numbers) {
    let spatial = 1 + case as usize % 3;
    let large = case.is_multiple_of(5);
    let by_depth = numbers.below(4) == 0;
    let groups = if by_depth {
        numbers.from(8, if cfg!(miri) { 17 } else { 80 })
    } else {
        [1, 1, 2, 5][numbers.below(4)]
    };
    let (batch, channels) = (
        numbers.from(1, 3),
        CHANNELS[numbers.below(if by_depth { 2 } else { CHANNELS.len() })],
    );
    let outputs = if by_depth {
        1
    } else {
        OUTPUTS[numbers.below(OUTPUTS.len())]
    };
    let (mut x_sizes, mut w_sizes) = (
        vec![groups, batch, channels],
        vec![groups, outputs, channels],
    );
    let mut sizes = vec![groups, batch, outputs];
    let mut windows = Vec::new();
    for _ in 0..spatial {
        let most = if cfg!(miri) {
            [12, 5, 3]
        } else {
            [
                if large { 90 } else { 40 },
                if large && !by_depth { 20 } else { 9 },
                5,
            ]
        }[spatial - 1];
        let most_taps = if spatial < 3 && numbers.below(4) == 0 {
            most
        } else {
            5
        };
        let (entries, taps) = (numbers.from(1, most), numbers.from(1, most_taps));
        let one_or = |numbers: &mut Numbers, most| {
            if numbers.below(2) == 0 {
                1
            } else {
                numbers.from(1, most)
            }
        };
        let (stride, kernel_dilation) = (one_or(numbers, 3), one_or(numbers, 3));
        let input_dilation = if numbers.below(3) == 0 {
            numbers.from(2, 4)
        } else {
            1
        };
        let (low, high) = (
            numbers.from(0, 5) as isize - 1,
            numbers.from(0, 5) as isize - 1,
        );
        let dilated = |size: usize, step: usize| ((size - 1) * step + 1) as isize;
        let room = dilated(entries, input_dilation) + low + high - dilated(taps, kernel_dilation);
        x_sizes.push(entries);
        w_sizes.push(taps);
        sizes.push(room.max(0) as usize / stride + 1);
        windows.push(Window {
            stride,
            low,
            kernel_dilation,
            input_dilation,
        });
    }
    let rank = spatial + 3;
    let orders: Vec<Vec<usize>> = (0..3)
        .map(|_| match numbers.below(3) {
            0 => (0..rank).collect(),
            // The channels last.
            1 => [&[1], &(3..rank).collect::<Vec<_>>()[..], &[2, 0]].concat(),
            _ => shuffled(rank, numbers),
        })
        .collect();
    let plain = numbers.below(2) == 0;
    let x = Owned::<T>::random(&x_sizes, &orders[0], numbers, plain);
    let w = Owned::<T>::random(&w_sizes, &orders[1], numbers, plain);
    let expected = expected(&x, &w, &windows, &sizes);
    for level in Level::available() {
        let about = || {
            format!(
                "{} {x_sizes:?} {w_sizes:?} {windows:?} {orders:?}",
                level.name()
            )
        };
        pool::set_threads(1);
        let alone = convolved(level, &x, &w, &windows, (&sizes, &orders[2]));
        for (i, (got, (sum, bound))) in alone.iter().zip(&expected).enumerate() {
            let error = ((*got).into() - sum).abs();
            assert!(
                error <= *bound,
                "{} at {i}: {error} beyond {bound}",
                about()
            );
        }
        for threads in [2, 3] {
            pool::set_threads(threads);
            let got = convolved(level, &x, &w, &windows, (&sizes, &orders[2]));
            assert!(got == alone, "{} on {threads} threads", about());
        }
    }
    pool::set_threads(0);
}

#[test]
fn convolutions_are_sums_of_all_meetings() {
    let _threads = THREADS.lock();
    let mut numbers = Numbers(1);
    for case in 0..if cfg!(miri) { 3 } else { 120 } {
        check::<f32>(case, &mut numbers);
        check::<f64>(case, &mut numbers);
    }
}
