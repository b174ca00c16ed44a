//! Kernels of `emily_kernels` as nodes of MLX's graph, on a CPU.

use emily_kernels::chain::Input;
use emily_kernels::dispatch::Level;
use emily_kernels::view::{Row, View, Walk};
use mlx_rs::Array;

use crate::runtime::device::Device;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::ffi::mlx;
use crate::runtime::stream::StreamHandle;

/// The level of the processor that kernels are taken for, if any are.
pub(crate) fn level(stream: &StreamHandle) -> Option<Level> {
    chosen().filter(|_| stream.device() == Device::Cpu)
}

/// The name of the level that a CPU's kernels are taken for, if any are.
pub fn kernels() -> Option<&'static str> {
    chosen().map(Level::name)
}

fn chosen() -> Option<Level> {
    if cfg!(not(own_kernels)) {
        return None;
    }
    // What names no level is refused where streams are made.
    Level::chosen().ok().flatten()
}

/// The level that kernels of f32 are taken for, if all arrays are of that type.
pub(crate) fn level_of_f32(arrays: &[Option<&Array>], stream: &StreamHandle) -> Option<Level> {
    let mut arrays = arrays.iter().flatten();
    level(stream).filter(|_| arrays.all(|array| Dtype::of(array) == Dtype::F32))
}

/// Where an output's elements go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Placement {
    /// In row-major order, into memory of their own.
    Apart,
    /// In the order of the inputs, which are broadcast to one shape, and into the place of one, where that can be.
    Elementwise,
    /// Into the place of the first input, which has the output's shape, where that can be.
    InFirst,
}

/// What computes an array.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Computes the output's elements, in row-major order, or in the inputs' where these all have one.
    fn run(&self, inputs: &[Input], output: &mut [u8]);
}

/// Adds a kernel to the graph. The shape of what is elementwise comes from the inputs.
pub(crate) fn add(
    name: &'static str,
    kernel: impl Kernel,
    inputs: &[&Array],
    (shape, dtype): (&[i32], Dtype),
    placement: Placement,
    stream: &StreamHandle,
) -> Result<Array> {
    own::add(name, kernel, inputs, (shape, dtype), placement, stream)
}

/// An input's array. None but that of an elementwise kernel or the first of an `InFirst` one lies in the output's place.
pub(crate) fn view<'a, 'b>(input: &'a Input<'b>) -> &'a View<'b> {
    match input {
        Input::Array(view) => view,
        Input::InOutput => unreachable!("nothing takes the place of this input"),
    }
}

/// An array for `row` to read: where it is in another order MLX copies it, in memory that is asked for.
pub(crate) fn in_rows(x: &Array, stream: &StreamHandle) -> Result<Array> {
    mlx!(mlx_contiguous, x.as_ptr(), false, stream.raw())
}

/// An input's elements in row-major order. It comes from `in_rows`.
pub(crate) fn row<'a>(input: &Input<'a>) -> Row<'a> {
    view(input).to_row()
}

/// Copies the first input of an `InFirst` kernel to the output, unless it is there.
pub(crate) fn copy_into(input: &Input, output: &mut [u8]) {
    if let Input::Array(view) = input {
        Walk::new(view).copy(output);
    }
}

#[cfg(own_kernels)]
mod own {
    use std::ffi::{c_char, c_int, c_void};
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::slice;

    use emily_kernels::chain::Input;
    use emily_kernels::view::{extent, Axes, Axis, View};
    use mlx_rs::Array;
    use mlx_sys::{mlx_array, mlx_dtype, mlx_stream};
    use smallvec::SmallVec;

    use super::{Kernel, Placement};
    use crate::runtime::dtype::Dtype;
    use crate::runtime::error::Result;
    use crate::runtime::ffi;
    use crate::runtime::stream::StreamHandle;

    /// As in `cpp/kernel.cpp`.
    #[repr(C)]
    struct RawView {
        data: *mut u8,
        shape: *const i64,
        strides: *const i64,
        rank: usize,
        width: usize,
        data_size: usize,
    }

    /// As in `cpp/kernel.cpp`.
    #[repr(C)]
    struct RawKernel {
        data: *mut c_void,
        run: unsafe extern "C" fn(
            *const c_void,
            *const RawView,
            usize,
            *const RawView,
            c_int,
            bool,
        ) -> bool,
        drop: unsafe extern "C" fn(*mut c_void),
    }

    extern "C" {
        fn emily_add_kernel(
            result: *mut mlx_array,
            kernel: RawKernel,
            name: *const c_char,
            length: usize,
            inputs: *const mlx_array,
            count: usize,
            shape: *const c_int,
            rank: usize,
            dtype: mlx_dtype,
            placement: Placement,
            on: mlx_stream,
        ) -> c_int;
    }

    pub(super) fn add<K: Kernel>(
        name: &'static str,
        kernel: K,
        inputs: &[&Array],
        (shape, dtype): (&[i32], Dtype),
        placement: Placement,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let handles: SmallVec<[mlx_array; 4]> = inputs.iter().map(|array| array.as_ptr()).collect();
        let kernel = RawKernel {
            data: Box::into_raw(Box::new(kernel)).cast(),
            run: run::<K>,
            drop: drop_kernel::<K>,
        };
        // SAFETY: the handles are live, the name and the shape are followed by their lengths, C++ owns the kernel
        // from here on, and what MLX refuses comes back as a status.
        ffi::array(|result| unsafe {
            emily_add_kernel(
                result,
                kernel,
                name.as_ptr().cast(),
                name.len(),
                handles.as_ptr(),
                handles.len(),
                shape.as_ptr(),
                shape.len(),
                dtype.raw(),
                placement,
                stream.raw(),
            )
        })
    }

    unsafe extern "C" fn drop_kernel<K: Kernel>(data: *mut c_void) {
        // SAFETY: `add` made it from a box, and C++ drops it once.
        let kernel = unsafe { Box::from_raw(data.cast::<K>()) };
        // A panic must not reach C++.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(kernel)));
    }

    /// Whether the kernel succeeded; a panic is its failure, of which MLX tells the caller.
    unsafe extern "C" fn run<K: Kernel>(
        data: *const c_void,
        inputs: *const RawView,
        count: usize,
        output: *const RawView,
        taken: c_int,
        in_order: bool,
    ) -> bool {
        let run = || {
            // SAFETY: `add` made it from a box, which lives as long as the task that calls.
            let kernel = unsafe { &*data.cast::<K>() };
            // SAFETY: C++ passes `count` views and one that live through the call.
            let (inputs, output) = unsafe { (slice::from_raw_parts(inputs, count), &*output) };
            let inputs: SmallVec<[Input; 4]> = inputs
                .iter()
                .enumerate()
                .map(|(at, input)| match usize::try_from(taken) == Ok(at) {
                    true => Input::InOutput,
                    // SAFETY: MLX keeps what is to be read until the task has run, and nobody writes to it meanwhile:
                    // the output has memory of its own, or that of the input that was taken, which is no other's.
                    false => Input::Array(unsafe { view(input, in_order) }),
                })
                .collect();
            let elements = match in_order {
                true => output.data_size,
                // SAFETY: as above.
                false => unsafe { axes(output) }
                    .iter()
                    .map(|axis| axis.size)
                    .product(),
            };
            // SAFETY: the output has memory for its elements, which is this task's alone; what is not written yet
            // is only written to, or was the input's.
            let memory = unsafe { slice::from_raw_parts_mut(output.data, elements * output.width) };
            kernel.run(&inputs, memory);
        };
        catch_unwind(AssertUnwindSafe(run)).is_ok()
    }

    /// # Safety
    /// The sizes and strides are there.
    unsafe fn axes(raw: &RawView) -> Axes {
        if raw.rank == 0 {
            return Axes::new();
        }
        // SAFETY: so the caller says.
        let (shape, strides) = unsafe {
            (
                slice::from_raw_parts(raw.shape, raw.rank),
                slice::from_raw_parts(raw.strides, raw.rank),
            )
        };
        let axis = |(&size, &stride): (&i64, &i64)| Axis {
            size: size as usize,
            stride: stride as isize,
        };
        shape.iter().zip(strides).map(axis).collect()
    }

    /// # Safety
    /// The sizes, strides and elements are there as long as the view, and nobody writes to them.
    unsafe fn view<'a>(raw: &RawView, in_order: bool) -> View<'a> {
        // SAFETY: so the caller says.
        let axes = unsafe { axes(raw) };
        let is_scalar = axes.iter().all(|axis| axis.size == 1 || axis.stride == 0);
        if in_order && !is_scalar {
            // SAFETY: so the caller says; the elements lie without gaps.
            let memory = unsafe { slice::from_raw_parts(raw.data, raw.data_size * raw.width) };
            return View::row(memory, raw.width);
        }
        let (before, after) = extent(&axes, raw.width);
        // SAFETY: so the caller says; strides may lead below the first element.
        let memory = unsafe { slice::from_raw_parts(raw.data.sub(before), before + after) };
        View::new(memory, before, raw.width, axes)
    }
}

/// A build that knows no headers of MLX's: no level is ever chosen.
#[cfg(not(own_kernels))]
mod own {
    use mlx_rs::Array;

    use super::{Kernel, Placement};
    use crate::runtime::dtype::Dtype;
    use crate::runtime::error::{Error, Result};
    use crate::runtime::stream::StreamHandle;

    pub(super) fn add(
        name: &'static str,
        _kernel: impl Kernel,
        _inputs: &[&Array],
        _result: (&[i32], Dtype),
        _placement: Placement,
        _stream: &StreamHandle,
    ) -> Result<Array> {
        Err(Error::Mlx(format!("{name}: this build has no kernels")))
    }
}

#[cfg(all(test, own_kernels))]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::runtime::device::Device;
    use crate::runtime::error::Error;
    use crate::runtime::worker::Job;

    struct Panics;

    impl Kernel for Panics {
        fn run(&self, _inputs: &[Input], _output: &mut [u8]) {
            panic!("as a kernel with a fault would");
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_stream_goes_on() {
        let stream = StreamHandle::new(Device::Cpu).expect("every build of MLX has the CPU");
        let x = Array::from_slice(&[1.0f32, 2.0], &[2]);
        let evaluate = |array: Array| {
            let (answer, answered) = channel();
            let job = Job::Evaluate {
                arrays: vec![array],
                may_fail: true,
                wanted: Box::new(|| true),
                done: Box::new(move |result| answer.send(result).expect("the test waits")),
            };
            assert!(stream.worker().push(job).is_ok());
            answered.recv().expect("every job is answered")
        };
        let result = (&[2][..], Dtype::F32);
        let bad = add("bad", Panics, &[&x], result, Placement::Apart, &stream);
        let error = evaluate(bad.expect("nothing runs yet")).expect_err("the kernel panics");
        assert!(
            matches!(&error, Error::Mlx(message) if message.contains("[bad]")),
            "{error}"
        );
        assert!(evaluate(x.clone()).is_ok());
    }
}
