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
    let taps: Vec<Vec<usize>> = places(&taps).collect();
    let one = |place: Vec<usize>| {
        let (mut sum, mut size, mut count) = (0.0, 0.0, 0.0);
        for tap in &taps {
            let mut from = Vec::with_capacity(windows.len() + 3);
            from.extend([place[0], place[1], tap[0]]);
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

/// The sizes of {groups, batch, channels, spatial...} and of what stands for these, and the windows.
struct Sizes {
    x: Vec<usize>,
    w: Vec<usize>,
    out: Vec<usize>,
    windows: Vec<Window>,
}

impl Sizes {
    fn new([groups, batch, channels, outputs]: [usize; 4]) -> Self {
        Sizes {
            x: vec![groups, batch, channels],
            w: vec![groups, outputs, channels],
            out: vec![groups, batch, outputs],
            windows: Vec::new(),
        }
    }

    /// A spatial axis, with so many zeros behind its last entry.
    fn push(&mut self, [entries, taps]: [usize; 2], window: Window, high: isize) {
        let dilated = |size: usize, step: usize| ((size - 1) * step + 1) as isize;
        let room = dilated(entries, window.input_dilation) + window.low + high
            - dilated(taps, window.kernel_dilation);
        self.x.push(entries);
        self.w.push(taps);
        self.out.push(room.max(0) as usize / window.stride + 1);
        self.windows.push(window);
    }
}

/// How the axes of entries, kernel and outputs lie in memory.
type Orders = [Vec<usize>; 3];

fn channels_last(rank: usize) -> Vec<usize> {
    [&[1], &(3..rank).collect::<Vec<_>>()[..], &[2, 0]].concat()
}

/// A convolution with all its options, of a size that `expected` can be asked for.
fn random(case: u64, numbers: &mut Numbers) -> (Sizes, Orders, bool) {
    let spatial = 1 + case as usize % 3;
    let large = case.is_multiple_of(5);
    let by_depth = numbers.below(4) == 0;
    let groups = if by_depth {
        numbers.from(8, 80)
    } else {
        [1, 1, 2, 5][numbers.below(4)]
    };
    // Around the widths of vectors and panels.
    let (batch, channels) = (
        numbers.from(1, 3),
        [1, 2, 3, 16, 17, 40][numbers.below(if by_depth { 2 } else { 6 })],
    );
    let outputs = if by_depth {
        1
    } else {
        [1, 2, 5, 12, 13, 17, 30][numbers.below(7)]
    };
    let mut sizes = Sizes::new([groups, batch, channels, outputs]);
    for _ in 0..spatial {
        let most = [
            if large { 90 } else { 40 },
            if large && !by_depth { 20 } else { 9 },
            5,
        ][spatial - 1];
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
        let window = Window {
            stride,
            low,
            kernel_dilation,
            input_dilation,
        };
        sizes.push([entries, taps], window, high);
    }
    let rank = spatial + 3;
    let orders = [(); 3].map(|()| match numbers.below(3) {
        0 => (0..rank).collect(),
        1 => channels_last(rank),
        _ => shuffled(rank, numbers),
    });
    (sizes, orders, numbers.below(2) == 0)
}

/// Under Miri, whose time is that of all meetings: as few of them as walk each of the kernels' ways.
fn few() -> Vec<(Sizes, Orders, bool)> {
    let plain = Window {
        stride: 1,
        low: 1,
        kernel_dilation: 1,
        input_dilation: 1,
    };
    let whole = Window { low: 0, ..plain };
    let dilated = Window {
        stride: 3,
        low: 2,
        kernel_dilation: 2,
        input_dilation: 2,
    };
    let cut = Window { low: -1, ..plain };
    let apart = Window {
        kernel_dilation: 2,
        ..plain
    };
    let of = |sizes, axes: &[([usize; 2], Window)], last: bool, is_plain| {
        let mut all = Sizes::new(sizes);
        for (sizes, window) in axes {
            all.push(*sizes, *window, window.low);
        }
        let rank = axes.len() + 3;
        let order = || match last {
            true => channels_last(rank),
            false => (0..rank).collect(),
        };
        (all, [(); 3].map(|()| order()), is_plain)
    };
    vec![
        // Blocks of columns and of rows.
        of([1, 2, 1, 13], &[([17, 2], plain)], false, true),
        // Rows of taps, more terms than are added up in registers, and numbers that are apart.
        of([1, 1, 16, 1], &[([18, 17], whole)], false, true),
        of(
            [1, 1, 1, 2],
            &[([2, 2], whole), ([33, 17], apart)],
            false,
            false,
        ),
        // Channels along memory.
        of(
            [1, 1, 17, 4],
            &[([2, 2], whole), ([2, 2], plain)],
            true,
            true,
        ),
        // Groups along memory, more than are taken together, and more terms.
        of([65, 1, 1, 1], &[([3, 2], plain)], true, true),
        of([8, 1, 130, 1], &[([2, 2], whole)], true, true),
        // Phases, of which some see nothing.
        of(
            [2, 2, 2, 2],
            &[([2, 2], dilated), ([3, 1], cut), ([2, 2], dilated)],
            false,
            false,
        ),
    ]
}

fn check<T: Float>((sizes, orders, plain): &(Sizes, Orders, bool), numbers: &mut Numbers) {
    let Sizes { x, w, out, windows } = sizes;
    let about = |level: Level| format!("{} {x:?} {w:?} {windows:?} {orders:?}", level.name());
    let x = Owned::<T>::random(x, &orders[0], numbers, *plain);
    let w = Owned::<T>::random(w, &orders[1], numbers, *plain);
    let expected = expected(&x, &w, windows, out);
    for level in Level::available() {
        pool::set_threads(1);
        let alone = convolved(level, &x, &w, windows, (out, &orders[2]));
        for (i, (got, (sum, bound))) in alone.iter().zip(&expected).enumerate() {
            let error = ((*got).into() - sum).abs();
            assert!(
                error <= *bound,
                "{} at {i}: {error} beyond {bound}",
                about(level)
            );
        }
        for threads in [2, 3] {
            pool::set_threads(threads);
            let got = convolved(level, &x, &w, windows, (out, &orders[2]));
            assert!(got == alone, "{} on {threads} threads", about(level));
        }
    }
    pool::set_threads(0);
}

#[test]
fn convolutions_are_sums_of_all_meetings() {
    let _threads = THREADS.lock();
    let mut numbers = Numbers(1);
    if cfg!(miri) {
        // Each has a type of its own.
        for (at, case) in few().iter().enumerate() {
            match at % 2 == 0 {
                true => check::<f32>(case, &mut numbers),
                false => check::<f64>(case, &mut numbers),
            }
        }
        return;
    }
    for case in 0..120 {
        let of_f32 = random(case, &mut numbers);
        check::<f32>(&of_f32, &mut numbers);
        let of_f64 = random(case, &mut numbers);
        check::<f64>(&of_f64, &mut numbers);
    }
}
