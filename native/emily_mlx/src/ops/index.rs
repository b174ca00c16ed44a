//! Operations that take indices. MLX 0.32.4 checks none of them (#206); here every index is clamped into its
//! axis, so that no input reads or writes stray memory.

use emily_kernels::dispatch::Level;
use emily_kernels::index::{self as kernels, Indices};
use emily_kernels::input::Input;
use emily_kernels::integer;
use emily_kernels::view::View;
use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_stream, mlx_vector_array};
use once_cell::sync::OnceCell;
use smallvec::SmallVec;

use crate::ops::args::{Args, Number};
use crate::ops::checks::Ints;
use crate::ops::create::{scalar, vector};
use crate::ops::map::{map, Mapping};
use crate::ops::op::Op;
use crate::ops::{cast, checks, scatter};
use crate::runtime::cuda::{self, Launch, Source};
use crate::runtime::dtype::{by_type, Dtype};
use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi::{self, call, mlx, Arrays};
use crate::runtime::kernel::{self, copy_into, level, row, view, Kernel, Placement};
use crate::runtime::stream::StreamHandle;

type ScatterFn = unsafe extern "C" fn(
    *mut mlx_array,
    mlx_array,
    mlx_vector_array,
    mlx_array,
    *const i32,
    usize,
    mlx_stream,
) -> i32;

/// Clamps integer `indices` to `0..=limits`, where `limits` broadcasts against them.
pub(super) fn clamp(
    op: &str,
    indices: &Array,
    limits: &[i64],
    stream: &StreamHandle,
) -> Result<Array> {
    let s = stream.raw();
    let dtype = Dtype::of(indices);
    let Some((_, greatest)) = dtype.integer_range() else {
        refuse!("{op}: indices must be integers, got {}", dtype.name())
    };
    // No index of a narrow type can reach a limit that the type cannot hold.
    let within = |limit: &i64| i128::from(*limit).min(greatest) as i64;
    let limits: Vec<i64> = limits.iter().map(within).collect();
    let map = map!(dtype, integers, integer::clamp);
    if let ([limit], Some(map), Some(level)) = (&limits[..], map, level(stream)) {
        let op = Op::Clip;
        return Mapping { op, map, level }.apply_with(&[indices], dtype, *limit as f64, stream);
    }
    let number = |number: i64| scalar(op, Number::Int(number.into()), dtype);
    let low = number(0)?;
    let high = match limits[..] {
        [limit] => number(limit)?,
        _ => vector(op, &limits, dtype)?,
    };
    mlx!(mlx_clip, indices.as_ptr(), low.as_ptr(), high.as_ptr(), s)
}

fn clamp_to_axis(
    op: &str,
    indices: &Array,
    x: &Array,
    axis: i32,
    stream: &StreamHandle,
) -> Result<Array> {
    clamp(op, indices, &[i64::from(x.dim(axis)) - 1], stream)
}

/// Whether the axis is the first that has several entries, so that its entries are rows.
fn leads(x: &Array, axis: i32) -> bool {
    x.shape()[..axis as usize].iter().all(|size| *size == 1)
}

pub(crate) fn take(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, indices) = (args.array()?, args.array()?);
    let axis = args.axis(x)?;
    let kernel = IndexKernel::of(Op::Take, x, indices, stream);
    if let Some(kernel) = kernel.filter(|_| leads(x, axis)) {
        let (before, from) = x.shape().split_at(axis as usize);
        let shape = [before, indices.shape(), &from[1..]].concat();
        return kernel.take(x, indices, axis as usize, &shape, stream);
    }
    let indices = clamp_to_axis(args.op, indices, x, axis, stream)?;
    mlx!(
        mlx_take_axis,
        x.as_ptr(),
        indices.as_ptr(),
        axis,
        stream.raw()
    )
}

pub(crate) fn take_along_axis(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, indices) = (args.array()?, args.array()?);
    let axis = args.axis(x)?;
    if indices.ndim() != x.ndim() {
        refuse!(
            "take_along_axis: shapes {:?} and {:?} differ in rank",
            x.shape(),
            indices.shape()
        )
    }
    let inner = axis as usize;
    let rows = inner + 1 == x.ndim() && x.shape()[..inner] == indices.shape()[..inner];
    if let Some(kernel) = IndexKernel::of(Op::Take, x, indices, stream).filter(|_| rows) {
        return kernel.along(x, indices, stream);
    }
    let indices = clamp_to_axis(args.op, indices, x, axis, stream)?;
    mlx!(
        mlx_take_along_axis,
        x.as_ptr(),
        indices.as_ptr(),
        axis,
        stream.raw()
    )
}

/// One array of indices for each axis named, clamped.
fn clamp_all(
    op: &str,
    x: &Array,
    indices: &[Array],
    axes: &[i32],
    stream: &StreamHandle,
) -> Result<Arrays> {
    checks::same_length(op, axes.len(), &[("indices", indices.len())])?;
    if axes.is_empty() {
        refuse!("{op}: needs indices for at least one axis")
    }
    let clamped = |(indices, axis): (&Array, &i32)| clamp_to_axis(op, indices, x, *axis, stream);
    let clamped: Vec<Array> = indices
        .iter()
        .zip(axes)
        .map(clamped)
        .collect::<Result<_>>()?;
    Arrays::new(&clamped)
}

/// Refuses slices that would leave `x`: one entry on an axis with indices, the size elsewhere.
fn slices_fit(op: &str, x: &Array, sizes: &[i32], axes: &[i32]) -> Result<()> {
    checks::same_length(op, x.ndim(), &[("the slices' shape", sizes.len())])?;
    for (axis, (size, full)) in sizes.iter().zip(x.shape()).enumerate() {
        let most = if axes.contains(&(axis as i32)) {
            1
        } else {
            *full
        };
        if *size > most {
            refuse!("{op}: a slice of {size} entries on axis {axis}, where {most} is the most")
        }
    }
    Ok(())
}

pub(crate) fn gather(args: &Args, stream: &StreamHandle) -> Result<Array> {
    let (x, indices) = (args.array()?, args.arrays()?);
    let (axes, sizes) = (args.axes(x.ndim())?, args.shape()?);
    slices_fit(args.op, x, &sizes, &axes)?;
    let indices = clamp_all(args.op, x, indices, &axes, stream)?;
    mlx!(
        mlx_gather,
        x.as_ptr(),
        indices.as_ptr(),
        axes.as_ptr(),
        axes.len(),
        sizes.as_ptr(),
        sizes.len(),
        stream.raw()
    )
}

/// `{:scatter, x, [indices], updates, axes}`, and likewise what takes several updates of one entry together.
pub(crate) fn scatter(
    op: Op,
    function: ScatterFn,
    args: &Args,
    stream: &StreamHandle,
) -> Result<Array> {
    let (x, indices, updates) = (args.array()?, args.arrays()?, args.array()?);
    let axes = args.axes(x.ndim())?;
    let scatter = Scatter {
        op,
        function,
        name: args.op,
        indices,
        axes: &axes,
    };
    if !matches!(op, Op::ScatterAdd | Op::ScatterProd) || !Dtype::of(x).is_half() {
        return scatter.apply(x, updates, stream);
    }
    let updates = cast::cast(updates, Dtype::F32, stream.raw())?;
    cast::in_f32(x, stream.raw(), |x| scatter.apply(x, &updates, stream))
}

struct Scatter<'a> {
    op: Op,
    function: ScatterFn,
    name: &'a str,
    indices: &'a [Array],
    axes: &'a [i32],
}

impl Scatter<'_> {
    fn apply(&self, x: &Array, updates: &Array, stream: &StreamHandle) -> Result<Array> {
        let (name, axes) = (self.name, self.axes);
        let index_rank = self.indices.iter().map(Array::ndim).max().unwrap_or(0);
        let Some(slices) = updates.shape().get(index_rank..) else {
            refuse!(
                "{name}: updates of shape {:?} lack the indices' axes",
                updates.shape()
            )
        };
        slices_fit(name, x, slices, axes)?;
        if let ([axis], [indices]) = (axes, self.indices) {
            let whole = |(at, size): (usize, &i32)| at as i32 == *axis || *size == x.dim(at as i32);
            let rows = leads(x, *axis)
                && slices.iter().enumerate().all(whole)
                && Dtype::of(updates) == Dtype::of(x)
                && updates.shape()[..index_rank] == *indices.shape();
            if let Some(kernel) = IndexKernel::of(self.op, x, indices, stream).filter(|_| rows) {
                return kernel.update([x, indices, updates], *axis as usize, stream);
            }
        }
        if cuda::is_cuda(stream) && updates.size() > 0 {
            let wide = Dtype::of(x).size() == 8;
            // Of several updates of one element MLX keeps any.
            let several = updates.shape()[..index_rank].iter().any(|size| *size > 1);
            match self.op {
                Op::Scatter if wide || several => {
                    return scatter::last(x, &self.places(x, slices, stream)?, updates, stream)
                }
                Op::ScatterAdd if wide && Dtype::of(x).is_integer() => {
                    return scatter::add(x, &self.places(x, slices, stream)?, updates, stream)
                }
                _ => (),
            }
        }
        let indices = clamp_all(name, x, self.indices, axes, stream)?;
        // SAFETY: the handles are live, the axes are within the rank and outlive the call, and no
        // index or slice leaves the array.
        ffi::array(|result| unsafe {
            (self.function)(
                result,
                x.as_ptr(),
                indices.as_ptr(),
                updates.as_ptr(),
                axes.as_ptr(),
                axes.len(),
                stream.raw(),
            )
        })
    }
}

impl Scatter<'_> {
    /// The place of each update in the row-major elements of `x`, in a row.
    fn places(&self, x: &Array, slices: &[i32], stream: &StreamHandle) -> Result<Array> {
        let s = stream.raw();
        let stride = |axis: usize| {
            x.shape()[axis + 1..]
                .iter()
                .map(|size| i64::from(*size))
                .product::<i64>()
        };
        let times = |places: &Array, stride: i64| {
            let stride = scalar(self.name, Number::Int(stride.into()), Dtype::S64)?;
            call(mlx_sys::mlx_multiply, places, &stride, s)
        };
        let add = |sum: Option<Array>, places: Array| match sum {
            Some(sum) => call(mlx_sys::mlx_add, &sum, &places, s),
            None => Ok(places),
        };
        let mut places = None;
        for (axis, indices) in self.axes.iter().zip(self.indices) {
            let indices = clamp_to_axis(self.name, indices, x, *axis, stream)?;
            let indices = cast::cast(&indices, Dtype::S64, s)?;
            places = Some(add(places, times(&indices, stride(*axis as usize))?)?);
        }
        let Some(mut places) = places else {
            refuse!("{}: needs indices for at least one axis", self.name)
        };
        // The slices' axes follow those of the indices.
        let rank = places.ndim();
        let mut shape = [places.shape(), &vec![1; slices.len()]].concat();
        places = ffi::reshape(&places, &shape, s)?;
        for (axis, size) in slices.iter().enumerate() {
            if *size > 1 {
                let along = mlx!(mlx_arange, 0.0, f64::from(*size), 1.0, Dtype::S64.raw(), s)?;
                let mut own = vec![1; shape.len()];
                own[rank + axis] = *size;
                let along = times(&ffi::reshape(&along, &own, s)?, stride(axis))?;
                places = call(mlx_sys::mlx_add, &places, &along, s)?;
                shape[rank + axis] = *size;
            }
        }
        mlx!(mlx_flatten, places.as_ptr(), 0, -1, s)
    }
}

static UPDATE: Source = Source {
    name: "slice_update",
    inputs: &[c"x", c"update", c"starts"],
    header: c"",
    ahead: "",
    text: include_str!("slice.cu.h"),
    in_rows: true,
    made: OnceCell::new(),
};

/// `{:slice_dynamic, x, starts, axes, sizes}` or `{:slice_update_dynamic, x, update, starts, axes}`.
pub(crate) struct Dynamic<'a> {
    op: &'static str,
    x: &'a Array,
    update: Option<&'a Array>,
    starts: &'a Array,
    axes: Ints,
    sizes: Ints,
}

impl<'a> Dynamic<'a> {
    pub(crate) fn read(op: Op, args: &'a Args) -> Result<Self> {
        let x = args.array()?;
        let update = match op {
            Op::SliceUpdateDynamic => Some(args.array()?),
            _ => None,
        };
        let (starts, axes) = (args.array()?, args.axes(x.ndim())?);
        let op = args.op;
        let sizes = match update {
            Some(update) if update.ndim() != x.ndim() => refuse!(
                "{op}: shapes {:?} and {:?} differ in rank",
                x.shape(),
                update.shape()
            ),
            Some(update) => Ints::from_slice(update.shape()),
            None => args.shape()?,
        };
        checks::same_length(op, x.ndim(), &[("sizes", sizes.len())])?;
        for (axis, (size, full)) in sizes.iter().zip(x.shape()).enumerate() {
            if size > full {
                refuse!(
                    "{op}: size {size} leaves axis {axis} of shape {:?}",
                    x.shape()
                )
            }
        }
        if starts.ndim() != 1 || starts.dim(0) as usize != axes.len() {
            refuse!(
                "{op}: starts must have shape [{}], got {:?}",
                axes.len(),
                starts.shape()
            )
        }
        Ok(Dynamic {
            op,
            x,
            update,
            starts,
            axes,
            sizes,
        })
    }

    /// The greatest starts that leave room for what is read or written.
    pub(crate) fn limits(&self) -> SmallVec<[i64; 4]> {
        let room = |axis: &i32| self.x.dim(*axis) - self.sizes[*axis as usize];
        self.axes.iter().map(|axis| room(axis).into()).collect()
    }

    /// The starts within their limits, where Nx moves them.
    pub(crate) fn within(&self, limits: &[i64], stream: &StreamHandle) -> Result<Array> {
        clamp(self.op, self.starts, limits, stream)
    }

    /// Whether an entry of one axis is replaced, as a token's in a cache, on CUDA: there MLX's (0.32.4) update of a slice takes
    /// a thread for each element of `x`, behind another kernel for the place, and its scatter one for each of the entry.
    /// That does not take 64-bit elements.
    fn is_entry(&self, stream: &StreamHandle) -> bool {
        let is_one = |axis: usize| self.sizes[axis] == 1;
        cuda::is_cuda(stream) && Dtype::of(self.x).size() < 8 && self.entries().is_some_and(is_one)
    }

    /// The axis of which entries are read or replaced as a whole.
    fn entries(&self) -> Option<usize> {
        let [axis] = self.axes[..] else {
            return None;
        };
        let whole = |(at, (size, full)): (usize, (&i32, &i32))| at as i32 == axis || size == full;
        let all = self.sizes.iter().zip(self.x.shape()).enumerate().all(whole);
        usize::try_from(axis).ok().filter(|_| all)
    }

    /// With an update of so many entries of one axis that writing the others too takes less than MLX's (0.32.4) three kernels,
    /// on CUDA: a kernel of Emily's own.
    fn of_many(
        &self,
        update: &Array,
        starts: &Array,
        stream: &StreamHandle,
    ) -> Option<Result<Array>> {
        let (x, dtype) = (self.x, Dtype::of(self.x));
        let axis = self.entries()?;
        let fits = cuda::is_cuda(stream)
            && Dtype::of(update) == dtype
            && dtype != Dtype::C64
            && x.ndim() <= 8
            && update.size() > 0
            && update.size() >= x.size() / 2;
        let pieces = x.nbytes() / 16;
        let launch = Launch {
            inputs: &[x, update, starts],
            output: (x.shape(), dtype),
            threads: pieces.clamp(1, 1 << 22) as i32,
            in_block: 256,
            dtype: Some((c"T", dtype)),
            numbers: &[(c"along", axis as i32)],
            zeroed: false,
        };
        fits.then(|| cuda::launch(&UPDATE, &launch, stream))
    }

    /// The slice at `starts`, which are within their limits, or `x` with the update there.
    pub(crate) fn at(&self, starts: &Array, stream: &StreamHandle) -> Result<Array> {
        let (x, axes, sizes) = (self.x, &self.axes, &self.sizes);
        match self.update {
            Some(update) if self.is_entry(stream) => {
                let entry = mlx!(mlx_expand_dims, update.as_ptr(), 0, stream.raw())?;
                mlx!(
                    mlx_scatter_single,
                    x.as_ptr(),
                    starts.as_ptr(),
                    entry.as_ptr(),
                    axes[0],
                    stream.raw()
                )
            }
            Some(update) => {
                if let Some(updated) = self.of_many(update, starts, stream) {
                    return updated;
                }
                mlx!(
                    mlx_slice_update_dynamic,
                    x.as_ptr(),
                    update.as_ptr(),
                    starts.as_ptr(),
                    axes.as_ptr(),
                    axes.len(),
                    stream.raw()
                )
            }
            None => mlx!(
                mlx_slice_dynamic,
                x.as_ptr(),
                starts.as_ptr(),
                axes.as_ptr(),
                axes.len(),
                sizes.as_ptr(),
                sizes.len(),
                stream.raw()
            ),
        }
    }
}

pub(crate) fn dynamic(op: Op, args: &Args, stream: &StreamHandle) -> Result<Array> {
    let slice = Dynamic::read(op, args)?;
    slice.at(&slice.within(&slice.limits(), stream)?, stream)
}

type Take = fn(&View, usize, Indices, &mut [u8]);
type Along = fn(&[u8], usize, Indices, usize, &mut [u8]);
type Update = fn(Level, &[u8], usize, Indices, &mut [u8]);
/// Bytes as indices of a type.
type Read = fn(Level, &[u8]) -> Indices<'_>;

/// A kernel of one operation.
#[derive(Clone, Copy)]
struct IndexKernel {
    op: Op,
    dtype: Dtype,
    read: Read,
    level: Level,
}

struct Taken {
    take: Take,
    axis: usize,
    read: Read,
    level: Level,
}

impl Kernel for Taken {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let indices = row(&inputs[1]);
        let indices = (self.read)(self.level, indices.bytes());
        (self.take)(view(&inputs[0]), self.axis, indices, output);
    }
}

struct TakenAlong {
    along: Along,
    columns: usize,
    count: usize,
    read: Read,
    level: Level,
}

impl Kernel for TakenAlong {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        let (x, indices) = (row(&inputs[0]), row(&inputs[1]));
        let indices = (self.read)(self.level, indices.bytes());
        (self.along)(x.bytes(), self.columns, indices, self.count, output);
    }
}

struct Updated {
    update: Update,
    columns: usize,
    read: Read,
    level: Level,
}

impl Kernel for Updated {
    fn run(&self, inputs: &[Input], output: &mut [u8]) {
        copy_into(&inputs[0], output);
        let (indices, updates) = (row(&inputs[1]), row(&inputs[2]));
        let indices = (self.read)(self.level, indices.bytes());
        (self.update)(self.level, updates.bytes(), self.columns, indices, output);
    }
}

fn taking(width: usize) -> Take {
    match width {
        1 => kernels::take::<u8>,
        2 => kernels::take::<u16>,
        4 => kernels::take::<u32>,
        _ => kernels::take::<u64>,
    }
}

fn taking_along(width: usize) -> Along {
    match width {
        1 => kernels::take_along::<u8>,
        2 => kernels::take_along::<u16>,
        4 => kernels::take_along::<u32>,
        _ => kernels::take_along::<u64>,
    }
}

/// Half-precision floats and complex numbers are not added here.
fn updating(op: Op, dtype: Dtype) -> Option<Update> {
    match (op, dtype.size()) {
        (Op::Scatter, 1) => Some(kernels::scatter::<u8>),
        (Op::Scatter, 2) => Some(kernels::scatter::<u16>),
        (Op::Scatter, 4) => Some(kernels::scatter::<u32>),
        (Op::Scatter, _) => Some(kernels::scatter::<u64>),
        (Op::ScatterAdd, _) => by_type!(dtype, numbers, T => Some(kernels::scatter_add::<T>)),
        _ => None,
    }
}

impl IndexKernel {
    /// The kernel that takes rows of `x` by `indices`, which it clamps, or updates them.
    fn of(op: Op, x: &Array, indices: &Array, stream: &StreamHandle) -> Option<IndexKernel> {
        let (dtype, index, level) = (Dtype::of(x), Dtype::of(indices), level(stream)?);
        let read: Option<Read> = by_type!(index, integers, I => Some(Indices::new::<I>));
        let read = read?;
        let found = match op {
            Op::Take => true,
            _ => updating(op, dtype).is_some(),
        };
        found.then_some(IndexKernel {
            op,
            dtype,
            read,
            level,
        })
    }

    /// Rows of `x` along `axis`, before which all sizes are 1; the result has `shape`.
    fn take(
        self,
        x: &Array,
        indices: &Array,
        axis: usize,
        shape: &[i32],
        stream: &StreamHandle,
    ) -> Result<Array> {
        let kernel = Taken {
            take: taking(self.dtype.size()),
            axis,
            read: self.read,
            level: self.level,
        };
        let indices = kernel::in_rows(indices, stream)?;
        let result = (shape, self.dtype);
        kernel::add(
            self.op.name(),
            kernel,
            &[x, &indices],
            result,
            Placement::Apart,
            stream,
        )
    }

    /// Elements along the last axis, by indices whose other axes have the sizes of the array's.
    fn along(self, x: &Array, indices: &Array, stream: &StreamHandle) -> Result<Array> {
        let kernel = TakenAlong {
            along: taking_along(self.dtype.size()),
            columns: x.dim(-1) as usize,
            count: indices.dim(-1) as usize,
            read: self.read,
            level: self.level,
        };
        let result = (indices.shape(), self.dtype);
        let (x, rows) = (
            kernel::in_rows(x, stream)?,
            kernel::in_rows(indices, stream)?,
        );
        kernel::add(
            self.op.name(),
            kernel,
            &[&x, &rows],
            result,
            Placement::Apart,
            stream,
        )
    }

    /// The rows of `x` along `axis`, before which all sizes are 1, with updates that fit them.
    fn update(
        self,
        [x, indices, updates]: [&Array; 3],
        axis: usize,
        stream: &StreamHandle,
    ) -> Result<Array> {
        let Some(update) = updating(self.op, self.dtype) else {
            unreachable!("`of` has found it")
        };
        let kernel = Updated {
            update,
            columns: x.shape()[axis + 1..]
                .iter()
                .map(|size| *size as usize)
                .product(),
            read: self.read,
            level: self.level,
        };
        let result = (x.shape(), self.dtype);
        let (indices, updates) = (
            kernel::in_rows(indices, stream)?,
            kernel::in_rows(updates, stream)?,
        );
        kernel::add(
            self.op.name(),
            kernel,
            &[x, &indices, &updates],
            result,
            Placement::InFirst,
            stream,
        )
    }
}
