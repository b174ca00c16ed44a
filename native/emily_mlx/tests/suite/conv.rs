//! Convolution against loops written here.

use emily_mlx::Arg;

use crate::support::*;

#[derive(Clone, Debug)]
struct Conv {
    /// Batch, spatial sizes, channels.
    input: Vec<i64>,
    /// Outputs, spatial sizes, channels of a group.
    kernel: Vec<i64>,
    strides: Vec<i64>,
    low: Vec<i64>,
    high: Vec<i64>,
    kernel_dilation: Vec<i64>,
    input_dilation: Vec<i64>,
    groups: i64,
    flip: bool,
}

/// A convolution of `spatial` axes without options.
fn plain(input: &[i64], kernel: &[i64]) -> Conv {
    let each = |value| vec![value; input.len() - 2];
    Conv {
        input: input.to_vec(),
        kernel: kernel.to_vec(),
        strides: each(1),
        low: each(0),
        high: each(0),
        kernel_dilation: each(1),
        input_dilation: each(1),
        groups: 1,
        flip: false,
    }
}

/// Small whole numbers that repeat at no power of two, whose sums are exact.
fn values(shape: &[i64]) -> Vec<f32> {
    let count = shape.iter().product::<i64>();
    (0..count).map(|i| ((i * 7 + 3) % 11 - 5) as f32).collect()
}

/// Every position of a shape, row-major.
fn positions(shape: &[i64]) -> Vec<Vec<i64>> {
    shape.iter().fold(vec![vec![]], |positions, size| {
        let extend = |position: &Vec<i64>| {
            let position = position.clone();
            (0..*size).map(move |i| [position.clone(), vec![i]].concat())
        };
        positions.iter().flat_map(extend).collect()
    })
}

fn at(values: &[f32], shape: &[i64], position: &[i64]) -> f64 {
    let index = shape
        .iter()
        .zip(position)
        .fold(0, |index, (size, i)| index * size + i);
    values[index as usize].into()
}

impl Conv {
    fn by_loops(&self) -> Vec<f64> {
        let (x, w) = (values(&self.input), values(&self.kernel));
        let spatial = self.input.len() - 2;
        let (outputs, channels) = (self.kernel[0], self.kernel[spatial + 1]);
        let dilated = |size: i64, step: i64| (size - 1) * step + 1;
        let mut shape = vec![self.input[0]];
        for a in 0..spatial {
            let room =
                dilated(self.input[a + 1], self.input_dilation[a]) + self.low[a] + self.high[a]
                    - dilated(self.kernel[a + 1], self.kernel_dilation[a]);
            shape.push(room / self.strides[a] + 1);
        }
        shape.push(outputs);
        let one = |out: Vec<i64>| {
            let group = out[spatial + 1] / (outputs / self.groups);
            let mut sum = 0.0;
            for tap in positions(&self.kernel[1..]) {
                let mut from = vec![out[0]];
                for (a, i) in tap[..spatial].iter().enumerate() {
                    let place =
                        out[a + 1] * self.strides[a] + i * self.kernel_dilation[a] - self.low[a];
                    let (step, size) = (self.input_dilation[a], self.input[a + 1]);
                    if place < 0 || place % step != 0 || place / step >= size {
                        break;
                    }
                    from.push(place / step);
                }
                if from.len() <= spatial {
                    continue;
                }
                from.push(group * channels + tap[spatial]);
                let mut weight = vec![out[spatial + 1]];
                for (place, size) in tap[..spatial].iter().zip(&self.kernel[1..]) {
                    weight.push(if self.flip { size - 1 - place } else { *place });
                }
                weight.push(tap[spatial]);
                sum += at(&x, &self.input, &from) * at(&w, &self.kernel, &weight);
            }
            sum
        };
        positions(&shape).into_iter().map(one).collect()
    }

    fn check(&self) {
        let x = shaped(&values(&self.input), &self.input);
        let w = shaped(&values(&self.kernel), &self.kernel);
        let rank = self.input.len() as i64;
        let second: Vec<i64> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        let last: Vec<i64> = [0].into_iter().chain(2..rank).chain([1]).collect();
        for channels_first in [false, true] {
            let moved = |array, axes: &[i64]| {
                if channels_first {
                    build("transpose", vec![array, list(axes)]).unwrap()
                } else {
                    build("contiguous", vec![array]).unwrap()
                }
            };
            let args = vec![
                own(moved(Arg::Borrowed(&x), &second)),
                own(moved(Arg::Borrowed(&w), &second)),
                list(&self.strides),
                list(&self.low),
                list(&self.high),
                list(&self.kernel_dilation),
                list(&self.input_dilation),
                int(self.groups),
                boolean(self.flip),
                boolean(channels_first),
            ];
            let got = moved(own(build("conv", args).unwrap()), &last);
            assert_eq!(numbers(got), self.by_loops(), "{channels_first} {self:?}");
        }
        // The kernel is as it was: MLX's own flip on a CPU turns it round in place.
        let kernel: Vec<f64> = values(&self.kernel).into_iter().map(f64::from).collect();
        assert_eq!(numbers(w), kernel, "{self:?}");
    }
}

#[test]
fn one_to_three_axes() {
    plain(&[2, 7, 3], &[4, 3, 3]).check();
    plain(&[2, 5, 6, 3], &[2, 3, 2, 3]).check();
    plain(&[1, 3, 4, 5, 2], &[3, 2, 3, 2, 2]).check();
}

#[test]
fn strides_and_paddings() {
    for (stride, low, high) in [(1, 1, 1), (2, 0, 3), (2, 3, 0), (3, 1, 2), (3, 0, 0)] {
        let mut conv = plain(&[1, 5, 6, 2], &[3, 3, 2, 2]);
        conv.strides = vec![stride, 1];
        conv.low = vec![low, high];
        conv.high = vec![high, low];
        conv.check();
    }
}

#[test]
fn low_padding_that_reaches_the_whole_result() {
    for (size, kernel, low, high, stride) in [
        (1, 1, 2, 0, 1),
        (1, 3, 9, 0, 2),
        (3, 3, 8, 0, 5),
        (2, 2, 20, 1, 3),
        (4, 6, 5, 0, 1),
        (5, 11, 6, 0, 1),
        (5, 30, 40, 0, 7),
    ] {
        let mut line = plain(&[2, size, 2], &[3, kernel, 2]);
        (line.low, line.high, line.strides) = (vec![low], vec![high], vec![stride]);
        line.check();
        let mut plane = plain(&[1, size, size, 2], &[2, kernel, kernel, 2]);
        plane.low = vec![low; 2];
        plane.high = vec![high; 2];
        plane.strides = vec![stride; 2];
        plane.check();
    }
}

#[test]
fn dilations() {
    for (input, kernel, stride, low, high) in [
        (2, 1, 1, 0, 0),
        (1, 2, 1, 2, 1),
        (3, 1, 2, 1, 1),
        (2, 3, 3, 4, 5),
        (4, 2, 5, 3, 0),
    ] {
        let mut line = plain(&[2, 5, 2], &[3, 3, 2]);
        line.input_dilation = vec![input];
        line.kernel_dilation = vec![kernel];
        (line.low, line.high, line.strides) = (vec![low], vec![high], vec![stride]);
        line.check();
        let mut plane = plain(&[1, 5, 4, 2], &[2, 2, 3, 2]);
        plane.input_dilation = vec![input, 1];
        plane.kernel_dilation = vec![1, kernel];
        plane.low = vec![low, 2];
        plane.high = vec![1, high];
        plane.strides = vec![stride, 2];
        plane.check();
    }
}

#[test]
fn groups() {
    for groups in [1, 2, 3, 6] {
        let mut line = plain(&[2, 6, 6], &[6, 3, 6 / groups]);
        line.groups = groups;
        line.check();
        let mut plane = plain(&[1, 4, 5, 6], &[6, 2, 2, 6 / groups]);
        plane.groups = groups;
        plane.low = vec![1, 0];
        plane.check();
    }
}

#[test]
fn flipped_kernels() {
    let mut line = plain(&[1, 6, 2], &[2, 4, 2]);
    (line.flip, line.low) = (true, vec![3]);
    line.check();
    let mut plane = plain(&[1, 5, 5, 2], &[2, 2, 3, 2]);
    plane.flip = true;
    plane.kernel_dilation = vec![2, 1];
    plane.input_dilation = vec![1, 2];
    plane.check();
    let mut room = plain(&[1, 3, 3, 3, 1], &[2, 2, 2, 3, 1]);
    room.flip = true;
    room.check();
}
