//! Walks against places computed one by one.

use emily_kernels::view::{extent, Axes, Axis, View, Walk};

use crate::support::{rounds, Random};

/// The places of all elements in row-major order, in elements.
fn places(axes: &[Axis]) -> Vec<isize> {
    axes.iter().fold(vec![0], |places, axis| {
        let along = |place: isize| (0..axis.size).map(move |i| place + i as isize * axis.stride);
        places.into_iter().flat_map(along).collect()
    })
}

pub fn random_axes(random: &mut Random) -> Axes {
    let rank = random.below(5);
    let axis = |random: &mut Random| Axis {
        size: 1 + random.below(5),
        stride: random.below(13) as isize - 6,
    };
    (0..rank).map(|_| axis(random)).collect()
}

#[test]
fn walks_go_in_row_major_order() {
    let mut random = Random::new(5);
    for round in 0..rounds(400) {
        let axes = random_axes(&mut random);
        for width in [1usize, 2, 4, 8] {
            let (before, after) = extent(&axes, width);
            let memory: Vec<u8> = (0..before + after).map(|_| random.bits() as u8).collect();
            let view = View::new(&memory, before, width, axes.clone());
            let wanted: Vec<u8> = places(&axes)
                .into_iter()
                .flat_map(|place| {
                    let first = (before as isize + place * width as isize) as usize;
                    memory[first..first + width].to_vec()
                })
                .collect();
            // In pieces, so that a walk goes on anywhere. Words are aligned for every width.
            let mut words = vec![0u64; view.size()];
            let got = crate::support::bytes_mut(&mut words);
            let mut walk = Walk::new(&view);
            let mut done = 0;
            while done < view.size() {
                let count = (1 + random.below(7)).min(view.size() - done);
                walk.copy(&mut got[done * width..(done + count) * width]);
                done += count;
            }
            assert_eq!(
                &got[..wanted.len()],
                wanted,
                "round {round}, width {width}, {axes:?}"
            );
            if let Some(row) = view.as_row() {
                assert_eq!(row, wanted, "{axes:?}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "outside")]
fn a_view_stays_in_its_memory() {
    View::new(
        &[0; 15],
        0,
        4,
        Axes::from_slice(&[Axis { size: 4, stride: 1 }]),
    );
}

#[test]
#[should_panic(expected = "outside")]
fn a_view_does_not_begin_before_its_memory() {
    View::new(
        &[0; 64],
        8,
        4,
        Axes::from_slice(&[Axis {
            size: 4,
            stride: -1,
        }]),
    );
}

#[test]
#[should_panic(expected = "no elements are left")]
fn a_walk_ends() {
    let memory = [0; 4];
    Walk::new(&View::row(&memory, 1)).copy(&mut [0; 5]);
}
