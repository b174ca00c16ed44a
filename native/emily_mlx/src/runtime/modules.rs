//! The kernels that MLX compiles at run time, for each card.
//!
//! MLX (0.32.4) loads what it compiled once, in the context of the card that uses it first, and another card's graph would run
//! it there. The library that loads MLX comes before CUDA's driver where the dynamic linker looks for a function, so
//! that MLX calls these: they keep the code of each module, where there are several cards, and put a kernel of another
//! card's own in the place of the first one's.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr, CString};
use std::ptr::null_mut;

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use crate::runtime::device::gpus;
use crate::runtime::library::functions;

type Pointer = *mut c_void;

/// `CUDA_KERNEL_NODE_PARAMS`, of which only the kernel is of interest.
#[repr(C)]
#[derive(Clone, Copy)]
struct Node {
    kernel: Pointer,
    rest: [u64; 8],
}

functions! {
    /// The driver's own functions.
    struct Driver {
        load = c"cuModuleLoadDataEx"(*mut Pointer, *const c_void, c_uint, *mut c_int, *mut Pointer);
        find = c"cuModuleGetFunction"(*mut Pointer, Pointer, *const c_char);
        set = c"cuFuncSetAttribute"(Pointer, c_int, c_int);
        add = c"cuGraphAddKernelNode_v2"(*mut Pointer, Pointer, *const Pointer, usize, *const Node);
        launch = c"cuLaunchKernelEx"(*const c_void, Pointer, *mut Pointer, *mut Pointer);
        card = c"cuCtxGetDevice"(*mut c_int);
    }
}

static DRIVER: Lazy<Option<Driver>> = Lazy::new(Driver::find);

/// What the driver answers where there is none.
const NOT_INITIALIZED: c_int = 3;

struct Module {
    code: Vec<u8>,
    card: c_int,
}

struct Kernel {
    module: usize,
    name: CString,
    attributes: Vec<(c_int, c_int)>,
}

/// Modules and kernels by their handles, and the handles of their like on other cards.
#[derive(Default)]
struct Known {
    modules: HashMap<usize, Module>,
    kernels: HashMap<usize, Kernel>,
    modules_on: HashMap<(usize, c_int), usize>,
    kernels_on: HashMap<(usize, c_int), usize>,
}

static KNOWN: Lazy<Mutex<Known>> = Lazy::new(Mutex::default);

fn are_several() -> bool {
    gpus() > 1
}

impl Driver {
    fn current(&self) -> Option<c_int> {
        let mut card = 0;
        // SAFETY: the number is written to a place that is live.
        (unsafe { (self.card)(&mut card) } == 0).then_some(card)
    }
}

impl Known {
    /// The kernel that the current card has in the place of one; the kernel itself where it is of that card, or where no
    /// other can be had.
    fn own(&mut self, driver: &Driver, kernel: Pointer) -> Pointer {
        self.found(driver, kernel.addr())
            .map_or(kernel, std::ptr::with_exposed_provenance_mut)
    }

    fn found(&mut self, driver: &Driver, handle: usize) -> Option<usize> {
        let kernel = self.kernels.get(&handle)?;
        let module = self.modules.get(&kernel.module)?;
        let card = driver.current().filter(|card| *card != module.card)?;
        if let Some(own) = self.kernels_on.get(&(handle, card)) {
            return Some(*own);
        }
        let loaded = match self.modules_on.get(&(kernel.module, card)) {
            Some(loaded) => *loaded,
            None => {
                let mut loaded = null_mut();
                let code = module.code.as_ptr().cast();
                // SAFETY: the code is a whole module, as the driver took it before, and there are no options.
                let status = unsafe { (driver.load)(&mut loaded, code, 0, null_mut(), null_mut()) };
                let loaded = (status == 0).then(|| loaded.expose_provenance())?;
                self.modules_on.insert((kernel.module, card), loaded);
                loaded
            }
        };
        let mut own = null_mut();
        // SAFETY: the module is the driver's, and is never unloaded; the name ends with NUL.
        let status = unsafe {
            let module = std::ptr::with_exposed_provenance_mut(loaded);
            (driver.find)(&mut own, module, kernel.name.as_ptr())
        };
        if status != 0 {
            return None;
        }
        for (attribute, value) in &kernel.attributes {
            // SAFETY: the kernel is the driver's. What the first card's took this one takes.
            unsafe { (driver.set)(own, *attribute, *value) };
        }
        self.kernels_on
            .insert((handle, card), own.expose_provenance());
        Some(own.expose_provenance())
    }
}

/// The bytes of a module's code: an ELF file, or text that ends with NUL.
///
/// # Safety
/// The driver has taken the code.
unsafe fn code(image: *const c_void) -> Vec<u8> {
    let bytes = image.cast::<u8>();
    // SAFETY: so says the caller: an ELF file has as many bytes as its header and its sections say, and text ends
    // with NUL.
    unsafe {
        let number = |at: usize, size: usize| {
            let bytes = std::slice::from_raw_parts(bytes.add(at), size);
            bytes
                .iter()
                .rev()
                .fold(0usize, |n, byte| n << 8 | usize::from(*byte))
        };
        if CStr::from_ptr(bytes.cast())
            .to_bytes()
            .starts_with(b"\x7fELF")
        {
            let (sections, each, count) = (number(40, 8), number(58, 2), number(60, 2));
            let (segments, of_each, segment_count) = (number(32, 8), number(54, 2), number(56, 2));
            let ends = (0..count).map(|section| {
                let at = sections + section * each;
                // A section without bytes in the file.
                let size = if number(at + 4, 4) == 8 {
                    0
                } else {
                    number(at + 32, 8)
                };
                number(at + 24, 8) + size
            });
            let tables = [
                sections + each * count,
                segments + of_each * segment_count,
                64,
            ];
            let size = ends.chain(tables).max().unwrap_or(0);
            return std::slice::from_raw_parts(bytes, size).to_vec();
        }
        CStr::from_ptr(bytes.cast()).to_bytes_with_nul().to_vec()
    }
}

#[export_name = "cuModuleLoadDataEx"]
unsafe extern "C" fn load(
    module: *mut Pointer,
    image: *const c_void,
    count: c_uint,
    options: *mut c_int,
    values: *mut Pointer,
) -> c_int {
    let Some(driver) = &*DRIVER else {
        return NOT_INITIALIZED;
    };
    // SAFETY: as the caller calls the driver, whose arguments these are.
    let status = unsafe { (driver.load)(module, image, count, options, values) };
    if status == 0 && are_several() {
        if let Some(card) = driver.current() {
            // SAFETY: the driver has taken the code, and written the module.
            let (code, module) = unsafe { (code(image), *module) };
            let known = Module { code, card };
            KNOWN
                .lock()
                .modules
                .insert(module.expose_provenance(), known);
        }
    }
    status
}

#[export_name = "cuModuleGetFunction"]
unsafe extern "C" fn find(kernel: *mut Pointer, module: Pointer, name: *const c_char) -> c_int {
    let Some(driver) = &*DRIVER else {
        return NOT_INITIALIZED;
    };
    // SAFETY: as the caller calls the driver.
    let status = unsafe { (driver.find)(kernel, module, name) };
    if status == 0 && are_several() {
        // SAFETY: the driver has read the name, and written the kernel.
        let (handle, name) = unsafe { ((*kernel).expose_provenance(), CStr::from_ptr(name)) };
        let kernel = Kernel {
            module: module.expose_provenance(),
            name: name.to_owned(),
            attributes: Vec::new(),
        };
        KNOWN.lock().kernels.insert(handle, kernel);
    }
    status
}

#[export_name = "cuFuncSetAttribute"]
unsafe extern "C" fn set(kernel: Pointer, attribute: c_int, value: c_int) -> c_int {
    let Some(driver) = &*DRIVER else {
        return NOT_INITIALIZED;
    };
    if are_several() {
        if let Some(known) = KNOWN.lock().kernels.get_mut(&kernel.addr()) {
            known.attributes.push((attribute, value));
        }
    }
    // SAFETY: as the caller calls the driver.
    unsafe { (driver.set)(kernel, attribute, value) }
}

#[export_name = "cuGraphAddKernelNode_v2"]
unsafe extern "C" fn add(
    made: *mut Pointer,
    graph: Pointer,
    before: *const Pointer,
    count: usize,
    node: *const Node,
) -> c_int {
    let Some(driver) = &*DRIVER else {
        return NOT_INITIALIZED;
    };
    if !are_several() || node.is_null() {
        // SAFETY: as the caller calls the driver.
        return unsafe { (driver.add)(made, graph, before, count, node) };
    }
    // SAFETY: the caller describes a node to the driver, which copies it.
    unsafe {
        let mut own = *node;
        own.kernel = KNOWN.lock().own(driver, own.kernel);
        (driver.add)(made, graph, before, count, &own)
    }
}

#[export_name = "cuLaunchKernelEx"]
unsafe extern "C" fn launch(
    config: *const c_void,
    kernel: Pointer,
    arguments: *mut Pointer,
    extra: *mut Pointer,
) -> c_int {
    let Some(driver) = &*DRIVER else {
        return NOT_INITIALIZED;
    };
    let kernel = match are_several() {
        true => KNOWN.lock().own(driver, kernel),
        false => kernel,
    };
    // SAFETY: as the caller calls the driver, with a kernel of the card that is current.
    unsafe { (driver.launch)(config, kernel, arguments, extra) }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    thread_local! {
        static CARD: Cell<c_int> = const { Cell::new(0) };
        static BROKEN: Cell<bool> = const { Cell::new(false) };
        static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    fn say(what: String) -> c_int {
        SAID.with_borrow_mut(|said| said.push(what));
        c_int::from(BROKEN.get())
    }

    fn card() -> usize {
        usize::try_from(CARD.get()).unwrap()
    }

    unsafe extern "C" fn load(
        module: *mut Pointer,
        image: *const c_void,
        _: c_uint,
        _: *mut c_int,
        _: *mut Pointer,
    ) -> c_int {
        // SAFETY: these tests have text for code, which ends with NUL.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_str().unwrap();
        // SAFETY: the caller's place is live.
        unsafe { *module = std::ptr::without_provenance_mut(100 + card()) };
        say(format!("load {text} on {}", card()))
    }

    unsafe extern "C" fn find(kernel: *mut Pointer, module: Pointer, name: *const c_char) -> c_int {
        // SAFETY: a kernel's name ends with NUL.
        let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
        // SAFETY: the caller's place is live.
        unsafe { *kernel = std::ptr::without_provenance_mut(module.addr() + 100) };
        say(format!("find {name} in {}", module.addr()))
    }

    unsafe extern "C" fn set(kernel: Pointer, attribute: c_int, value: c_int) -> c_int {
        say(format!("set {attribute} of {} to {value}", kernel.addr()))
    }

    unsafe extern "C" fn add(
        _: *mut Pointer,
        _: Pointer,
        _: *const Pointer,
        _: usize,
        _: *const Node,
    ) -> c_int {
        0
    }

    unsafe extern "C" fn launch(
        _: *const c_void,
        _: Pointer,
        _: *mut Pointer,
        _: *mut Pointer,
    ) -> c_int {
        0
    }

    unsafe extern "C" fn current(card: *mut c_int) -> c_int {
        // SAFETY: the caller's place is live.
        unsafe { *card = CARD.get() };
        0
    }

    const DRIVER: Driver = Driver {
        load,
        find,
        set,
        add,
        launch,
        card: current,
    };

    fn known() -> Known {
        let mut known = Known::default();
        let code = b"code\0".to_vec();
        known.modules.insert(1, Module { code, card: 0 });
        let kernel = |name: &CStr| Kernel {
            module: 1,
            name: name.to_owned(),
            attributes: vec![(8, 4096)],
        };
        known.kernels.insert(10, kernel(c"one"));
        known.kernels.insert(11, kernel(c"other"));
        known
    }

    fn own(known: &mut Known, handle: usize) -> usize {
        known
            .own(&DRIVER, std::ptr::without_provenance_mut(handle))
            .addr()
    }

    #[test]
    fn a_card_has_kernels_of_its_own() {
        let mut known = known();
        assert_eq!(own(&mut known, 10), 10);
        assert_eq!(own(&mut known, 77), 77);
        assert!(SAID.take().is_empty());
        CARD.set(1);
        assert_eq!(own(&mut known, 10), 201);
        let said = ["load code on 1", "find one in 101", "set 8 of 201 to 4096"];
        assert_eq!(SAID.take(), said);
        // Found again; and of a module that is there already.
        assert_eq!(own(&mut known, 10), 201);
        assert_eq!(own(&mut known, 11), 201);
        assert_eq!(SAID.take(), ["find other in 101", "set 8 of 201 to 4096"]);
        CARD.set(2);
        assert_eq!(own(&mut known, 10), 202);
        CARD.set(0);
        assert_eq!(own(&mut known, 10), 10);
    }

    #[test]
    fn where_none_can_be_had_the_first_one_stays() {
        let mut known = known();
        CARD.set(1);
        BROKEN.set(true);
        assert_eq!(own(&mut known, 10), 10);
        BROKEN.set(false);
        assert_eq!(own(&mut known, 10), 201);
    }

    #[test]
    fn code_is_text_or_a_whole_elf_file() {
        let text = c".version 8.0";
        // SAFETY: the text ends with NUL.
        let taken = unsafe { code(text.as_ptr().cast()) };
        assert_eq!(taken, b".version 8.0\0");

        // A header, 10 bytes of a section, and a table of two sections, of which the second has no bytes.
        let mut elf = vec![0u8; 64 + 10 + 128];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[40] = 74;
        elf[58] = 64;
        elf[60] = 2;
        let section = |elf: &mut Vec<u8>, at: usize, kind: u8, offset: u8, size: u8| {
            elf[at + 4] = kind;
            elf[at + 24] = offset;
            elf[at + 32] = size;
        };
        section(&mut elf, 74, 1, 64, 10);
        section(&mut elf, 138, 8, 74, 200);
        let whole = elf.clone();
        elf.extend([7; 50]);
        // SAFETY: the file is as long as its header says, and longer.
        let taken = unsafe { code(elf.as_ptr().cast()) };
        assert_eq!(taken, whole);
    }
}
