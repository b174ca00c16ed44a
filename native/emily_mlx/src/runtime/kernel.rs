//! Kernels of `emily_kernels` as nodes of MLX's graph, on a CPU.

use emily_kernels::dispatch::Level;
use emily_kernels::input::Input;
use emily_kernels::view::{Row, View, Walk};
use mlx_rs::Array;

use crate::runtime::contiguous::contiguous;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::Result;
use crate::runtime::inspect;
use crate::runtime::stream::StreamHandle;

/// The level of the processor that kernels are taken for, if any are.
pub(crate) fn level(stream: &StreamHandle) -> Option<Level> {
    chosen().filter(|_| stream.is_cpu())
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

/// Where an output's elements go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// How many steps each element takes, where they are quick enough for whoever asks; 0 where they may not be.
    fn steps(&self) -> usize {
        0
    }
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

/// So many elements `row` may put into order itself.
const FEW: usize = 1 << 16;

/// An array for `row` to read: where many elements are in another order MLX copies them, in memory that is asked for.
pub(crate) fn in_rows(x: &Array, stream: &StreamHandle) -> Result<Array> {
    let lies_so = || inspect::memory(x).is_some_and(|memory| memory.row_contiguous);
    if x.size() <= FEW || lies_so() {
        return Ok(x.clone());
    }
    contiguous(x, stream)
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
    use std::any::Any;
    use std::ffi::{c_char, c_int, c_void, CStr};
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::slice;

    use emily_kernels::input::Input;
    use emily_kernels::view::{extent, Axes, Axis, View};
    use mlx_rs::Array;
    use mlx_sys::mlx_dtype;
    use smallvec::SmallVec;

    use super::{Kernel, Placement};
    use crate::runtime::cxx;
    use crate::runtime::dtype::Dtype;
    use crate::runtime::error::Result;
    use crate::runtime::ffi::{self, Arrays};
    use crate::runtime::inspect::Memory;
    use crate::runtime::stream::StreamHandle;

    /// A kernel in the graph, behind what is there of each: one piece of memory. C++ has a pointer to it and drops it with
    /// the last that needs it.
    #[repr(C)]
    struct Owned<K> {
        head: Head,
        kernel: K,
    }

    struct Head {
        run: unsafe fn(*const Head, &[Input], &mut [u8]),
        drop: unsafe fn(*mut Head),
        steps: c_int,
        placement: Placement,
        /// For C, in place but for long ones.
        name: SmallVec<[u8; 24]>,
    }

    impl<K: Kernel> Owned<K> {
        fn boxed(name: &str, placement: Placement, kernel: K) -> *mut Head {
            let mut name = SmallVec::from_slice(name.as_bytes());
            name.push(0);
            let head = Head {
                run: Self::run,
                drop: Self::drop,
                steps: kernel.steps().try_into().unwrap_or(c_int::MAX),
                placement,
                name,
            };
            Box::into_raw(Box::new(Owned { head, kernel })).cast()
        }

        /// # Safety
        /// `boxed` made the head, which is live, so that the kernel lies behind it.
        unsafe fn run(head: *const Head, inputs: &[Input], output: &mut [u8]) {
            // SAFETY: so says the caller.
            unsafe { (*head.cast::<Owned<K>>()).kernel.run(inputs, output) }
        }

        /// # Safety
        /// `boxed` made the head, and this drops it, once.
        unsafe fn drop(head: *mut Head) {
            // SAFETY: so says the caller.
            drop(unsafe { Box::from_raw(head.cast::<Owned<K>>()) });
        }
    }

    /// The inputs whose memory and whose order the output has, or less than none. As in `cpp/node.cpp`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Place {
        taken: c_int,
        like: c_int,
    }

    /// What is left to do once the arrays are known.
    struct Task {
        inputs: SmallVec<[Operand; 4]>,
        output: Operand,
        taken: Option<usize>,
        /// Whether the elements of all that are more than a scalar lie in one order without gaps.
        in_order: bool,
    }

    /// An array as it lies in memory.
    struct Operand {
        data: *mut u8,
        axes: Axes,
        width: usize,
        data_size: usize,
    }

    extern "C" {
        fn emily_add_kernel(
            result: *mut *mut c_void,
            kernel: *mut c_void,
            inputs: *const *mut c_void,
            count: usize,
            shape: *const c_int,
            rank: usize,
            dtype: mlx_dtype,
            width: usize,
            stream: *const c_void,
        ) -> c_int;
    }

    pub(super) fn add(
        name: &'static str,
        kernel: impl Kernel,
        inputs: &[&Array],
        (shape, dtype): (&[i32], Dtype),
        placement: Placement,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let shape = match placement {
            Placement::Elementwise => inputs[0].shape(),
            Placement::Apart | Placement::InFirst => shape,
        };
        let is_other = |array: &&Array| array.shape() != shape;
        if placement == Placement::Elementwise && inputs[1..].iter().any(is_other) {
            let inputs = to_one_shape(inputs, stream)?;
            let inputs: SmallVec<[&Array; 4]> = inputs.iter().collect();
            return add(name, kernel, &inputs, (shape, dtype), placement, stream);
        }
        let arrays: SmallVec<[*mut c_void; 4]> =
            inputs.iter().map(|array| array.as_ptr().ctx).collect();
        let kernel = Owned::boxed(name, placement, kernel);
        // SAFETY: the arrays are live, they and the shape are followed by their lengths, C++ owns the kernel from here
        // on, and what MLX refuses comes back as a status.
        ffi::array(|result| unsafe {
            emily_add_kernel(
                &mut (*result).ctx,
                kernel.cast(),
                arrays.as_ptr(),
                arrays.len(),
                shape.as_ptr(),
                shape.len(),
                dtype.raw(),
                dtype.size(),
                stream.raw().ctx,
            )
        })
    }

    fn to_one_shape(arrays: &[&Array], stream: &StreamHandle) -> Result<Vec<Array>> {
        let arrays = Arrays::new(arrays.iter().copied())?;
        // SAFETY: the vector and the stream are live.
        ffi::arrays(|result| unsafe {
            mlx_sys::mlx_broadcast_arrays(result, arrays.as_ptr(), stream.raw())
        })
    }

    #[no_mangle]
    extern "C" fn emily_kernel_name(head: &Head) -> *const c_char {
        head.name.as_ptr().cast()
    }

    #[no_mangle]
    extern "C" fn emily_kernel_steps(head: &Head) -> c_int {
        head.steps
    }

    #[no_mangle]
    unsafe extern "C" fn emily_kernel_drop(head: *mut Head) {
        // A panic must not reach C++.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `Owned::boxed` made it, and C++ drops it once.
            unsafe { ((*head).drop)(head) }
        }));
    }

    /// Where the output goes, which has `bytes` in elements of `width`.
    #[no_mangle]
    unsafe extern "C" fn emily_kernel_place(
        head: &Head,
        inputs: *const Memory,
        count: usize,
        width: usize,
        bytes: usize,
    ) -> Place {
        // SAFETY: C++ passes so many, of arrays that live through the call.
        let inputs = unsafe { slice::from_raw_parts(inputs, count) };
        let like = match head.placement {
            Placement::Elementwise => in_order(inputs),
            _ => None,
        };
        // Where orders differ the output lies in rows.
        let fits = |at: usize, input: &Memory| match (like, head.placement) {
            (Some(_), _) => !is_scalar(input),
            (None, Placement::Elementwise) => input.row_contiguous && !is_scalar(input),
            (None, Placement::InFirst) => input.row_contiguous && at == 0,
            (None, Placement::Apart) => false,
        };
        let taken = inputs
            .iter()
            .enumerate()
            .position(|(at, input)| fits(at, input) && can_be_taken(input, width, bytes));
        let number = |at: Option<usize>| at.map_or(-1, |at| at as c_int);
        Place {
            taken: number(taken),
            like: number(like),
        }
    }

    fn is_scalar(input: &Memory) -> bool {
        // SAFETY: the arrays live through the call of `emily_kernel_place`.
        let (shape, strides) = unsafe { input.axes() };
        let mut axes = shape.iter().zip(strides);
        axes.all(|(&size, &stride)| size == 1 || stride == 0)
    }

    /// Whether the output may lie in an input's memory. As in MLX, what is much larger than the output stays free for
    /// others.
    fn can_be_taken(input: &Memory, width: usize, bytes: usize) -> bool {
        const SPARE: usize = 16_384;
        input.donatable
            && input.item == width
            && input.buffer <= bytes + SPARE
            && (input.data as usize).is_multiple_of(width)
    }

    /// An input in whose order the elements of all lie that are more than a scalar.
    fn in_order(inputs: &[Memory]) -> Option<usize> {
        // SAFETY: the arrays live through the call of `emily_kernel_place`.
        let strides = |input: &Memory| unsafe { input.axes() }.1;
        let mut like: Option<usize> = None;
        for (at, input) in inputs.iter().enumerate() {
            if is_scalar(input) {
                continue;
            }
            let first = &inputs[*like.get_or_insert(at)];
            let same =
                (input.row_contiguous && first.row_contiguous) || strides(input) == strides(first);
            if !input.contiguous || !same || input.data_size != first.data_size {
                return None;
            }
        }
        let single = || inputs.first().filter(|x| x.contiguous && x.data_size == 1);
        like.or_else(|| single().map(|_| 0))
    }

    #[no_mangle]
    unsafe extern "C" fn emily_kernel_task(
        inputs: *const Memory,
        count: usize,
        output: &Memory,
        place: Place,
    ) -> *mut Task {
        // SAFETY: C++ passes so many, of arrays that live through the call.
        let inputs = unsafe { slice::from_raw_parts(inputs, count) };
        Box::into_raw(Box::new(Task {
            inputs: inputs.iter().map(operand).collect(),
            output: operand(output),
            taken: usize::try_from(place.taken).ok(),
            in_order: place.like >= 0,
        }))
    }

    fn operand(memory: &Memory) -> Operand {
        // SAFETY: the arrays live through the call of `emily_kernel_task`.
        let (shape, strides) = unsafe { memory.axes() };
        let axis = |(&size, &stride): (&i32, &i64)| Axis {
            size: size as usize,
            stride: stride as isize,
        };
        Operand {
            data: memory.data,
            axes: shape.iter().zip(strides).map(axis).collect(),
            width: memory.item,
            data_size: memory.data_size,
        }
    }

    #[no_mangle]
    unsafe extern "C" fn emily_kernel_drop_task(task: *mut Task) {
        // SAFETY: `emily_kernel_task` made it from a box, and C++ drops it once.
        drop(unsafe { Box::from_raw(task) });
    }

    /// What a panic says, which is text unless somebody made it otherwise.
    fn text(panic: &(dyn Any + Send)) -> &str {
        match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text,
            (None, Some(text)) => text,
            (None, None) => "the kernel failed",
        }
    }

    /// Nothing, or why the kernel failed: a panic is its failure, of which MLX tells the caller.
    #[no_mangle]
    unsafe extern "C" fn emily_kernel_run(head: *const Head, task: &Task) -> *const c_char {
        let run = || {
            let input = |(at, input)| match task.taken == Some(at) {
                true => Input::InOutput,
                // SAFETY: MLX keeps what is to be read until the task has run, and nobody writes to it meanwhile: the
                // output has memory of its own, or that of the input that was taken, which is no other's.
                false => Input::Array(unsafe { view(input, task.in_order) }),
            };
            let inputs: SmallVec<[Input; 4]> = task.inputs.iter().enumerate().map(input).collect();
            let output = &task.output;
            let elements = match task.in_order {
                true => output.data_size,
                false => output.axes.iter().map(|axis| axis.size).product(),
            };
            // SAFETY: the output has memory for its elements, which is this task's alone; what is not written yet is only
            // written to, or was the input's.
            let memory = unsafe { slice::from_raw_parts_mut(output.data, elements * output.width) };
            // SAFETY: `Owned::boxed` made the head, which C++ has not dropped.
            unsafe { ((*head).run)(head, &inputs, memory) };
        };
        let ran = catch_unwind(AssertUnwindSafe(run));
        cxx::failure(ran.map_err(|panic| {
            // SAFETY: as above; the name ends with a zero.
            let name = unsafe { CStr::from_ptr(emily_kernel_name(&*head)) };
            format!("[{}] {}.", name.to_string_lossy(), text(&*panic))
        }))
    }

    /// # Safety
    /// The elements are there as long as the view, and nobody writes to them.
    unsafe fn view<'a>(operand: &Operand, in_order: bool) -> View<'a> {
        let &Operand {
            data,
            ref axes,
            width,
            data_size,
        } = operand;
        let is_scalar = axes.iter().all(|axis| axis.size == 1 || axis.stride == 0);
        if in_order && !is_scalar {
            // SAFETY: so the caller says; the elements lie without gaps.
            let memory = unsafe { slice::from_raw_parts(data, data_size * width) };
            return View::row(memory, width);
        }
        let (before, after) = extent(axes, width);
        // SAFETY: so the caller says; strides may lead below the first element.
        let memory = unsafe { slice::from_raw_parts(data.sub(before), before + after) };
        View::new(memory, before, width, axes.clone())
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
    use crate::runtime::job::Job;

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
                fetched: None,
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
