//! The encoder of MLX 0.32.4 for CUDA, of which MLX gives no header away: what comes first in it, as GCC's C++ library
//! lays it out.

use std::ffi::{c_int, c_void};

use emily_kernels::dispatch::Level;
use once_cell::sync::Lazy;

use crate::runtime::device::version;
use crate::runtime::driver::{driver, Pointer};
use crate::runtime::library::next;

/// The version of MLX whose encoder this is.
const MLX: &str = "0.32.4";

/// Whether there is a driver for it, the version of MLX is known, and `EMILY_KERNELS` does not say `off`.
static IS_THERE: Lazy<bool> = Lazy::new(|| {
    let wanted = matches!(Level::chosen(), Ok(Some(_)));
    wanted && version().is_ok_and(|version| version == MLX) && driver().is_some()
});

pub(crate) fn is_there() -> bool {
    *IS_THERE
}

/// A `std::vector`.
#[repr(C)]
struct Vector<T> {
    first: *const T,
    end: *const T,
    room: *const T,
}

impl<T> Vector<T> {
    fn as_slice(&self) -> &[T] {
        if self.first.is_null() {
            return &[];
        }
        // SAFETY: a vector's elements lie from its first to its end, as long as nobody changes it.
        unsafe {
            let count = self.end.offset_from(self.first);
            std::slice::from_raw_parts(self.first, count.unsigned_abs())
        }
    }
}

/// A `std::string`, and a `std::shared_ptr`.
type Text = [usize; 4];
type Shared = [usize; 2];

/// `mlx::core::cu::CommandEncoder`
#[repr(C)]
pub(super) struct Encoder {
    device: Pointer,
    pub(super) stream: Pointer,
    pub(super) graph: Pointer,
    worker: Shared,
    pub(super) nodes: c_int,
    is_concurrent: bool,
    before: Vector<Pointer>,
    behind: Vector<Pointer>,
    nodes_key: Text,
    dependencies_key: Text,
    concurrent: Vector<Pointer>,
    temporaries: Vector<Shared>,
}

/// `mlx::core::Stream`
#[repr(C)]
struct MlxStream {
    number: c_int,
    /// `DeviceType::gpu`
    device: c_int,
    card: c_int,
}

/// CUDA's stream behind one of MLX's, by its number. To be asked for with the lock of the graph held, and once the stream has
/// been waited for: MLX throws where it has no encoder for a stream, which that needs too.
pub(crate) fn cuda_stream(number: c_int, card: c_int) -> Option<Pointer> {
    const GPU: c_int = 1;
    let found = next(c"_ZN3mlx4core2cu19get_command_encoderENS0_6StreamE")?;
    // SAFETY: MLX's function of this name takes a stream and gives a reference.
    let encoder = unsafe {
        std::mem::transmute::<Pointer, unsafe extern "C" fn(MlxStream) -> *const Encoder>(found)
    };
    // SAFETY: the encoder is there, as said above, and is not changed while the lock is held.
    unsafe {
        let stream = MlxStream {
            number,
            device: GPU,
            card,
        };
        Some((*encoder(stream)).stream)
    }
}

extern "C" {
    fn emily_hold(buffers: *const c_void) -> *mut c_void;
    fn emily_drop_held(held: *mut c_void);
}

impl Encoder {
    /// The edges that its graph gets when it is committed: of each node of the first the same of the second is behind.
    pub(super) fn edges(&self) -> (&[Pointer], &[Pointer]) {
        (self.before.as_slice(), self.behind.as_slice())
    }

    /// The memory that its graph uses.
    pub(super) fn hold(&self) -> Held {
        let buffers: *const Vector<Shared> = &self.temporaries;
        // SAFETY: they are a vector of shared pointers to memory of arrays, of which C++ makes a copy.
        Held(unsafe { emily_hold(buffers.cast()) })
    }
}

/// Memory of arrays, which lives as long as this.
pub(super) struct Held(*mut c_void);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the vector is owned and dropped once.
        unsafe { emily_drop_held(self.0) };
    }
}

/// An encoder that commits a graph of nodes with edges.
#[cfg(test)]
pub(super) fn encoder(
    stream: Pointer,
    graph: Pointer,
    nodes: usize,
    edges: &[[Pointer; 2]],
) -> (Encoder, [Vec<Pointer>; 2]) {
    let ends = [0, 1].map(|end| edges.iter().map(|edge| edge[end]).collect::<Vec<_>>());
    let vector = |list: &[Pointer]| {
        let range = list.as_ptr_range();
        Vector {
            first: range.start,
            end: range.end,
            room: range.end,
        }
    };
    let none = std::ptr::null();
    let encoder = Encoder {
        device: std::ptr::null_mut(),
        stream,
        graph,
        worker: [0; 2],
        nodes: nodes.try_into().expect("few nodes"),
        is_concurrent: false,
        before: vector(&ends[0]),
        behind: vector(&ends[1]),
        nodes_key: [0; 4],
        dependencies_key: [0; 4],
        concurrent: vector(&[]),
        temporaries: Vector {
            first: none,
            end: none,
            room: none,
        },
    };
    (encoder, ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_those_of_gcc() {
        // By hand: three pointers, a shared pointer, a number and a truth in 8 bytes, vectors of 24, texts of 32.
        assert_eq!(std::mem::offset_of!(Encoder, nodes), 40);
        assert_eq!(std::mem::offset_of!(Encoder, before), 48);
        assert_eq!(std::mem::offset_of!(Encoder, nodes_key), 96);
        assert_eq!(std::mem::offset_of!(Encoder, temporaries), 184);
    }
}
