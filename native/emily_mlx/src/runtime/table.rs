//! The dynamic linker's table of what MLX calls, in which functions of Emily's can take the places of others. In that of
//! C's own functions a library that is loaded later is not asked first.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::Elf64_Sym;

use crate::runtime::library::next;

/// A function of MLX's alone, by which its library is found.
const OF_MLX: &CStr = c"_ZN3mlx4core17get_active_memoryEv";

/// What the linker's header calls `struct link_map`, as far as it is of use here.
#[repr(C)]
struct Library {
    base: usize,
    _name: usize,
    dynamic: *const Entry,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: usize,
    value: usize,
}

/// `Elf64_Rela`.
#[repr(C)]
struct Relocation {
    place: usize,
    info: u64,
    _addend: i64,
}

/// Tags of entries, as the format numbers them.
const END: usize = 0;
const CALLS_BYTES: usize = 2;
const NAMES: usize = 5;
const SYMBOLS: usize = 6;
const DATA: usize = 7;
const DATA_BYTES: usize = 8;
const CALLS: usize = 23;

/// `dladdr1`'s request for the linker's own entry.
const RTLD_DL_LINKMAP: c_int = 2;

/// Has MLX call another function in the place of the one of a name.
///
/// # Safety
/// The function takes and gives what the other does, and nobody uses MLX yet.
pub(crate) unsafe fn replace(name: &CStr, function: *mut c_void) {
    if let Some(library) = next(OF_MLX).and_then(library) {
        // SAFETY: the entry is the linker's; the rest is as the caller says.
        unsafe { library.replace(name, function) };
    }
}

/// The linker's entry for the library of a function.
fn library(function: *mut c_void) -> Option<&'static Library> {
    let mut found = null_mut();
    // SAFETY: both are written to, and the linker keeps an entry as long as its library is loaded, which MLX is for good.
    unsafe {
        let mut info = std::mem::zeroed();
        let status = libc::dladdr1(function, &mut info, &mut found, RTLD_DL_LINKMAP);
        found.cast::<Library>().as_ref().filter(|_| status != 0)
    }
}

impl Library {
    /// # Safety
    /// The linker made the entry; the rest is as for the other.
    unsafe fn replace(&self, name: &CStr, function: *mut c_void) -> Option<()> {
        // SAFETY: the linker has read the library's tables, of which each relocation has a symbol, 0 for none, and each
        // symbol a name, which may be empty.
        unsafe {
            let symbols = self.table(SYMBOLS)?.cast::<Elf64_Sym>();
            let names = self.table(NAMES)?.cast::<c_char>();
            for (table, bytes) in [(CALLS, CALLS_BYTES), (DATA, DATA_BYTES)] {
                let count = self.value(bytes).unwrap_or(0) / size_of::<Relocation>();
                for i in 0..count {
                    let relocation = &*self.table(table)?.cast::<Relocation>().add(i);
                    let symbol = &*symbols.add((relocation.info >> 32) as usize);
                    if CStr::from_ptr(names.add(symbol.st_name as usize)) == name {
                        put(self.at(relocation.place).cast(), function);
                    }
                }
            }
        }
        Some(())
    }

    /// # Safety
    /// The linker made the entry.
    unsafe fn value(&self, tag: usize) -> Option<usize> {
        let mut entry = self.dynamic;
        // SAFETY: the last entry has the tag of the end.
        unsafe {
            while (*entry).tag != END {
                if (*entry).tag == tag {
                    return Some((*entry).value);
                }
                entry = entry.add(1);
            }
        }
        None
    }

    /// # Safety
    /// The linker made the entry.
    unsafe fn table(&self, tag: usize) -> Option<*mut c_void> {
        // SAFETY: as the caller says.
        unsafe { self.value(tag) }.map(|address| self.at(address))
    }

    /// What lies at an address of the file's, which the linker may have made one of the memory's.
    fn at(&self, address: usize) -> *mut c_void {
        let offset = address.checked_sub(self.base).unwrap_or(address);
        std::ptr::with_exposed_provenance_mut(self.base + offset)
    }
}

/// # Safety
/// The linker keeps the address of a function at the place, which the new one can stand for.
unsafe fn put(place: *mut *mut c_void, function: *mut c_void) {
    // SAFETY: the page is the library's, and is written to if the system lets us; the place is aligned.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let first = place.map_addr(|address| address & !(page - 1)).cast();
        if libc::mprotect(first, page, libc::PROT_READ | libc::PROT_WRITE) == 0 {
            AtomicPtr::from_ptr(place).store(function, Ordering::Release);
        }
    }
}
