//! The functions of f32 in C++, by the names of operations.

use std::ffi::{c_char, c_int, c_void, CString};

use emily_kernels::chain::Map;
use emily_kernels::dispatch::Level;
use once_cell::sync::Lazy;
use smallvec::SmallVec;
use strum::IntoEnumIterator;

use crate::dtype::Dtype;
use crate::op::Op;

extern "C" {
    fn emily_find_map(name: *const c_char) -> Option<ForeignMap>;
}

/// As in `cpp/vector.h`: inputs, output, and how many elements of f32 each has.
type ForeignMap = unsafe extern "C" fn(*const *const c_void, *mut c_void, usize);

struct VectorMap(ForeignMap);

impl Map for VectorMap {
    fn run(&self, _level: Level, inputs: &[&[u8]], output: &mut [u8], _option: f64) {
        assert!(inputs.iter().all(|input| input.len() == output.len()));
        let data: SmallVec<[*const c_void; 4]> =
            inputs.iter().map(|input| input.as_ptr().cast()).collect();
        // SAFETY: inputs and output have as many elements of f32; a map of the table takes as many inputs as the
        // operation of its name has operands.
        unsafe {
            (self.0)(
                data.as_ptr(),
                output.as_mut_ptr().cast(),
                output.len() / Dtype::F32.size(),
            )
        }
    }
}

/// What C++ asks to know for which version of x86-64 kernels are wanted; 0 means for none.
#[no_mangle]
extern "C" fn emily_level() -> c_int {
    match Level::chosen().ok().flatten().map(Level::name) {
        Some("avx512") => 4,
        Some("avx2") => 3,
        _ => 0,
    }
}

/// By the number of the operation.
static MAPS: Lazy<Vec<Option<VectorMap>>> = Lazy::new(|| {
    let map = |op: Op| {
        let name = CString::new(op.name()).ok()?;
        // SAFETY: the name ends with a zero and lives through the call.
        unsafe { emily_find_map(name.as_ptr()) }.map(VectorMap)
    };
    Op::iter().map(map).collect()
});

/// The map of an operation on f32.
pub(super) fn map(op: Op) -> Option<&'static dyn Map> {
    let map: &'static VectorMap = MAPS[op as usize].as_ref()?;
    Some(map)
}
