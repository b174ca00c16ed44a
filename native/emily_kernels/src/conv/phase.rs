//! One spatial axis of a convolution, without the zeros between its entries.

/// How a kernel goes along a spatial axis. Output `o` sees entry `e` through tap `t` where
/// `o * stride + t * kernel_dilation == low + e * input_dilation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub stride: usize,
    /// How many zeros are before the first entry; fewer than none cut entries away.
    pub low: isize,
    pub kernel_dilation: usize,
    pub input_dilation: usize,
}

/// Outputs that see entries through the same taps: those from `first_output` on, `output_step` apart. Output `o` of
/// them sees entry `at + o * by_output + t * by_tap` through tap `t` of those from `first_tap` on, `tap_step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    pub first_output: usize,
    pub output_step: usize,
    pub outputs: usize,
    pub first_tap: usize,
    pub tap_step: usize,
    pub taps: usize,
    pub at: isize,
    pub by_output: isize,
    pub by_tap: isize,
}

/// The outputs of an axis by the taps through which they see entries: where there are zeros between the entries, only
/// every so manieth tap meets one.
pub(super) fn phases(window: &Window, outputs: usize, taps: usize) -> Vec<Phase> {
    let [stride, dilation, spread] =
        [window.stride, window.kernel_dilation, window.input_dilation].map(|step| step as i64);
    let output_step = spread / gcd(stride, spread);
    let common = gcd(dilation, spread);
    let tap_step = spread / common;
    let inverse = inverse(dilation / common, tap_step);
    let phase = |first: i64| {
        let rest = (window.low as i64 - first * stride).rem_euclid(spread);
        let first_tap =
            (i128::from(rest / common) * i128::from(inverse) % i128::from(tap_step)) as i64;
        let meet = rest % common == 0 && first_tap < taps as i64;
        Phase {
            first_output: first as usize,
            output_step: output_step as usize,
            outputs: (outputs - first as usize).div_ceil(output_step as usize),
            first_tap: first_tap as usize,
            tap_step: tap_step as usize,
            taps: if meet {
                (taps - first_tap as usize).div_ceil(tap_step as usize)
            } else {
                0
            },
            at: (first * stride + first_tap * dilation - window.low as i64).div_euclid(spread)
                as isize,
            by_output: (output_step * stride / spread) as isize,
            by_tap: (tap_step * dilation / spread) as isize,
        }
    };
    (0..output_step.min(outputs as i64)).map(phase).collect()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

/// What `a`, which has no factor with `modulus`, is to be multiplied by to leave 1.
fn inverse(a: i64, modulus: i64) -> i64 {
    let (mut row, mut next) = ((a.rem_euclid(modulus), 1), (modulus, 0));
    while next.0 != 0 {
        let times = row.0 / next.0;
        (row, next) = (next, (row.0 - times * next.0, row.1 - times * next.1));
    }
    row.1.rem_euclid(modulus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every meeting of outputs, taps and entries, by trying all.
    #[test]
    fn phases_hold_all_meetings() {
        let cases: u64 = if cfg!(miri) { 40 } else { 4000 };
        let mut some = 0;
        for case in 0..cases {
            let number = |at: u32, below: u64| {
                (case.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at * 7) >> 20) % below
            };
            let window = Window {
                stride: 1 + number(1, 6) as usize,
                low: number(2, 12) as isize - 4,
                kernel_dilation: 1 + number(3, 6) as usize,
                input_dilation: 1 + number(4, 6) as usize,
            };
            let (outputs, taps, entries) = (1 + number(5, 9) as i64, 1 + number(6, 5) as i64, 6);
            let mut expected = Vec::new();
            for (o, t) in (0..outputs).flat_map(|o| (0..taps).map(move |t| (o, t))) {
                let place = o * window.stride as i64 + t * window.kernel_dilation as i64
                    - window.low as i64;
                let step = window.input_dilation as i64;
                if place % step == 0 && (0..entries).contains(&(place / step)) {
                    expected.push((o, t, place / step));
                }
            }
            let mut found = Vec::new();
            for phase in phases(&window, outputs as usize, taps as usize) {
                for (o, t) in (0..phase.outputs).flat_map(|o| (0..phase.taps).map(move |t| (o, t)))
                {
                    let entry = phase.at + o as isize * phase.by_output + t as isize * phase.by_tap;
                    if (0..entries).contains(&(entry as i64)) {
                        let output = phase.first_output + o * phase.output_step;
                        let tap = phase.first_tap + t * phase.tap_step;
                        found.push((output as i64, tap as i64, entry as i64));
                    }
                }
            }
            found.sort_unstable();
            some += expected.len();
            assert_eq!(found, expected, "{window:?} {outputs} {taps}");
        }
        assert!(some > 2 * cases as usize);
    }
}
