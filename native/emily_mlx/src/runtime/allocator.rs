//! What MLX asks before it takes memory. Its own allocator (0.32.4) does not look at what the C library answers, and the
//! kernel promises more than it has and ends the process when that is touched: so what is not there is refused
//! here, as an error of whoever asked for the work.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::runtime::graph::{is_scheduling, try_graph};
use crate::runtime::limits::Bound;
use crate::runtime::queue::finish_all;
use crate::runtime::room;
use crate::runtime::shelf;

/// Up to so many bytes are never refused: what little an error needs on its way must be there.
const SMALL: usize = 4096;

/// From this size on arrays ask for large pages, and how large these mostly are.
#[cfg(own_kernels)]
const LARGE: usize = 1 << 20;
#[cfg(all(own_kernels, target_os = "linux"))]
const LARGE_PAGE: usize = 2 << 20;

/// How many bytes are taken before the system is asked again what is left.
const LOOK_EVERY: usize = 32 << 20;

/// What may be taken before the next look.
static ALLOWANCE: AtomicUsize = AtomicUsize::new(0);

/// What was admitted and is about to be taken.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// Who looks at what is left counts what it admits before anybody else looks.
static LOOKING: Mutex<()> = Mutex::new(());

/// Admits memory, which is pending then, or says why not.
fn admit(bytes: usize) -> Result<(), String> {
    let left = |left: usize| left.checked_sub(bytes);
    // Newer Rust deprecates the name; the oldest that Emily is built with has no other.
    #[allow(deprecated)]
    let taken = ALLOWANCE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    if bytes <= SMALL || taken.is_ok() {
        PENDING.fetch_add(bytes, Ordering::Relaxed);
        return Ok(());
    }
    if look(bytes).is_ok() {
        return Ok(());
    }
    shelf::clear();
    if look(bytes).is_ok() {
        return Ok(());
    }
    free_more();
    look(bytes).map_err(|bound| {
        format!(
            "no memory for {bytes} bytes: {} bytes are left of the {}'s {}",
            bound.room(),
            bound.whose,
            bound.limit
        )
    })
}

/// Gives back what can be. Both wait for the streams, and would take the failure of a job that is being scheduled: so
/// nobody else may be scheduling.
fn free_more() {
    let _graph = if is_scheduling() {
        finish_all();
        None
    } else {
        let Some(graph) = try_graph() else {
            return;
        };
        Some(graph)
    };
    // SAFETY: any thread may call it; nobody holds the allocator's lock here.
    unsafe { mlx_sys::mlx_clear_cache() };
}

/// Looks at what is left, and takes `bytes` of it; an error where that is less. What is refused is never pending, so that
/// nobody else is refused for it.
fn look(bytes: usize) -> Result<(), Bound> {
    let _alone = LOOKING.lock();
    let left = room::look(PENDING.load(Ordering::Relaxed), bytes);
    let allowance = left.as_ref().map_or(0, |left| *left).min(LOOK_EVERY);
    ALLOWANCE.store(allowance, Ordering::Relaxed);
    left?;
    PENDING.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

/// Whether the system gives memory of a size. MLX counts what it did not get as active for ever, so what is large is tried
/// first.
#[cfg(own_kernels)]
fn can_be_had(bytes: usize) -> bool {
    bytes < shelf::MAPPED
        || is_mapped(bytes)
        || shelf::kept() > 0 && {
            shelf::clear();
            is_mapped(bytes)
        }
}

/// Whether the system maps memory of a size, which is given back.
#[cfg(own_kernels)]
fn is_mapped(bytes: usize) -> bool {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: the kernel picks a place where nothing is, and what it maps there is nobody else's until it is unmapped.
    unsafe {
        let data = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
        data != libc::MAP_FAILED && libc::munmap(data, bytes) == 0
    }
}

/// Has the system take large pages for an array, where it has any: it clears fewer of them, and the processor finds them
/// sooner. The pages at both ends are others' too, mostly of arrays beside it.
#[cfg(all(own_kernels, target_os = "linux"))]
fn ask_for_large_pages(memory: *const std::ffi::c_void, bytes: usize) {
    let start = memory as usize & !(LARGE_PAGE - 1);
    let end = (memory as usize + bytes).next_multiple_of(LARGE_PAGE);
    // SAFETY: changes no memory; of what is not mapped the system says so.
    unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_HUGEPAGE) };
}

#[cfg(all(own_kernels, not(target_os = "linux")))]
fn ask_for_large_pages(_memory: *const std::ffi::c_void, _bytes: usize) {}

/// The hook in MLX's way to its allocator, which `cpp/allocator.cpp` is the other side of.
#[cfg(own_kernels)]
mod hook {
    use std::ffi::{c_char, c_void, CStr};
    use std::sync::atomic::Ordering;

    use once_cell::sync::Lazy;

    use super::{admit, ask_for_large_pages, can_be_had, LARGE, PENDING};
    use crate::runtime::cxx;
    use crate::runtime::device::Device;

    extern "C" {
        fn emily_asking_allocator(own: *mut c_void) -> *mut c_void;
    }

    const NAME: &CStr = c"_ZN3mlx4core9allocator9allocatorEv";

    const NO_GPU: &str = "MLX is built for CUDA, which sees no GPU, and without one it has no memory for the CPU's arrays either: give the \
                          process a GPU (NVIDIA's driver, CUDA_VISIBLE_DEVICES), or build Emily with EMILY_MLX=cpu";

    /// Whether MLX is one for CUDA, which sees no GPU. Its own allocator (0.32.4) ends the process then, and its events ask CUDA
    /// for memory on a CPU too.
    static IS_WITHOUT_GPU: Lazy<bool> =
        Lazy::new(|| is_for_cuda() && !Device::Gpu(0).is_available());

    #[cfg(target_os = "linux")]
    fn is_for_cuda() -> bool {
        let commit = c"_ZN3mlx4core2cu14CommandEncoder11commit_implEv";
        crate::runtime::library::next(commit).is_some()
    }

    #[cfg(not(target_os = "linux"))]
    fn is_for_cuda() -> bool {
        false
    }

    /// Stands for MLX's own where nothing is admitted, so that nobody looks at it.
    static NONE: usize = 0;

    /// The address of the allocator that MLX gets.
    static ALLOCATOR: Lazy<usize> = Lazy::new(|| {
        if *IS_WITHOUT_GPU {
            // SAFETY: it keeps the address alone.
            return unsafe { emily_asking_allocator((&raw const NONE).cast_mut().cast()) as usize };
        }
        // SAFETY: the name ends with a zero. The next library that has a function of it is MLX, whose function takes
        // nothing; what it and C++ give lives as long as the process.
        unsafe {
            let next = libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr());
            assert!(!next.is_null(), "MLX has no allocator");
            let own: extern "C" fn() -> *mut c_void = std::mem::transmute(next);
            emily_asking_allocator(own()) as usize
        }
    });

    /// `mlx::core::allocator::allocator()`. The library that loads MLX comes before MLX where the dynamic linker
    /// looks for a function, so that MLX calls this one.
    #[export_name = "_ZN3mlx4core9allocator9allocatorEv"]
    pub extern "C" fn allocator() -> *mut c_void {
        *ALLOCATOR as *mut c_void
    }

    /// Nothing where `bytes` may be taken, else why not.
    #[no_mangle]
    extern "C" fn emily_admit(bytes: usize) -> *const c_char {
        if *IS_WITHOUT_GPU {
            return cxx::failure(Err(NO_GPU.to_owned()));
        }
        let admitted = admit(bytes).and_then(|()| {
            if can_be_had(bytes) {
                return Ok(());
            }
            PENDING.fetch_sub(bytes, Ordering::Relaxed);
            Err(lacks(bytes))
        });
        cxx::failure(admitted.map_err(|reason| format!("[malloc] {reason}")))
    }

    /// What was admitted has been taken, or was not to be had.
    #[no_mangle]
    extern "C" fn emily_admitted(bytes: usize, memory: *const c_void) -> *const c_char {
        PENDING.fetch_sub(bytes, Ordering::Relaxed);
        if memory.is_null() {
            return cxx::failure(Err(format!("[malloc] {}", lacks(bytes))));
        }
        if bytes >= LARGE {
            ask_for_large_pages(memory, bytes);
        }
        cxx::failure(Ok(()))
    }

    fn lacks(bytes: usize) -> String {
        format!("the system has no memory for {bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::runtime::ffi;

    #[test]
    fn nobody_is_refused_for_what_another_asks_in_vain() {
        const ROUNDS: usize = 300;
        // MLX has been used, as wherever it asks for memory.
        assert!(ffi::status(|| 0).is_ok());
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    assert!(admit(1 << 50).is_err());
                }
            });
            for _ in 0..ROUNDS {
                // More than a look allows, so that each looks.
                let bytes = LOOK_EVERY + 1;
                assert_eq!(admit(bytes), Ok(()));
                PENDING.fetch_sub(bytes, Ordering::Relaxed);
            }
        });
    }
}
