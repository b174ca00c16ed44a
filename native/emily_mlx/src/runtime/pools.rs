//! The pools of memory of CUDA's cards.

use std::ffi::{c_int, c_void, CStr};
use std::ptr::null_mut;

use once_cell::sync::OnceCell;

use crate::runtime::device::{devices, Device};
use crate::runtime::error::{refuse, Error, Result};
use crate::runtime::library::next;

type Pointer = *mut c_void;

/// `CUmemAccessDesc`: who may do what with a pool.
#[repr(C)]
struct Access {
    kind: c_int,
    card: c_int,
    flags: c_int,
}

const OF_A_DEVICE: c_int = 1;
const READ_AND_WRITE: c_int = 3;
/// How many bytes a pool keeps when the host waits for the card.
const KEPT: c_int = 4;

/// The pools of the cards, by their numbers.
struct Pools(Vec<usize>);

static POOLS: OnceCell<Pools> = OnceCell::new();

/// A function of CUDA's driver.
fn function(name: &CStr) -> Result<Pointer> {
    next(name).ok_or_else(|| {
        Error::Mlx(format!(
            "CUDA's driver has no {name:?}, which several cards need"
        ))
    })
}

fn check(what: &str, status: c_int) -> Result<()> {
    match status {
        0 => Ok(()),
        status => Err(Error::Mlx(format!("{what} gave CUDA's error {status}"))),
    }
}

/// Lets each card into the memory of the others. Refuses where a card cannot reach it.
pub(crate) fn share() -> Result<()> {
    POOLS.get_or_try_init(shared).map(|_| ())
}

fn shared() -> Result<Pools> {
    let gpus = devices().into_iter().filter(|device| device.is_gpu());
    let cards: Vec<c_int> = (0..).zip(gpus).map(|(number, _)| number).collect();
    let pools = cards.iter().map(|card| pool(*card));
    let pools: Vec<Pointer> = pools.collect::<Result<_>>()?;
    for (pool, owner) in pools.iter().zip(&cards) {
        keep(*pool)?;
        for reader in cards.iter().filter(|card| *card != owner) {
            let_in(*pool, *owner, *reader)?;
        }
    }
    Ok(Pools(
        pools.iter().map(|pool| pool.expose_provenance()).collect(),
    ))
}

fn pool(card: c_int) -> Result<Pointer> {
    let mut pool = null_mut();
    let name = c"cuDeviceGetDefaultMemPool";
    // SAFETY: the driver's function of this name takes a place for a pool, which is live, and the number of a card,
    // which is what its handle is.
    let status = unsafe {
        let get: unsafe extern "C" fn(*mut Pointer, c_int) -> c_int =
            std::mem::transmute(function(name)?);
        get(&mut pool, card)
    };
    check("cuDeviceGetDefaultMemPool", status).map(|()| pool)
}

/// Has a pool keep what is freed, as MLX's cache would.
fn keep(pool: Pointer) -> Result<()> {
    let mut most = u64::MAX;
    // SAFETY: the driver's function of this name takes a pool, which CUDA's are for as long as the process lives, an
    // attribute and a pointer to its value, which for this one is 64 bits.
    let status = unsafe {
        let set: unsafe extern "C" fn(Pointer, c_int, Pointer) -> c_int =
            std::mem::transmute(function(c"cuMemPoolSetAttribute")?);
        set(pool, KEPT, (&raw mut most).cast())
    };
    check("cuMemPoolSetAttribute", status)
}

fn let_in(pool: Pointer, owner: c_int, reader: c_int) -> Result<()> {
    let mut can = 0;
    // SAFETY: the driver's function of this name takes a place for the answer, which is live, and two cards.
    let status = unsafe {
        let ask: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int =
            std::mem::transmute(function(c"cuDeviceCanAccessPeer")?);
        ask(&mut can, reader, owner)
    };
    check("cuDeviceCanAccessPeer", status)?;
    if can == 0 {
        refuse!(
            "{} cannot read the memory of {}: this machine has no way between them (NVLink, or PCI Express \
             with peer access), and one VM can use one of them",
            Device::Gpu(reader as u16),
            Device::Gpu(owner as u16)
        )
    }
    let access = Access {
        kind: OF_A_DEVICE,
        card: reader,
        flags: READ_AND_WRITE,
    };
    // SAFETY: the driver's function of this name takes a pool and as many descriptions as it is told, one, which is
    // live and laid out as the driver's own.
    let status = unsafe {
        let set: unsafe extern "C" fn(Pointer, *const Access, usize) -> c_int =
            std::mem::transmute(function(c"cuMemPoolSetAccess")?);
        set(pool, &access, 1)
    };
    check("cuMemPoolSetAccess", status)
}

/// Gives back what the pools keep, where they were shared.
pub(crate) fn trim() {
    let (Some(Pools(pools)), Ok(trim)) = (POOLS.get(), function(c"cuMemPoolTrimTo")) else {
        return;
    };
    for pool in pools {
        // SAFETY: the driver's function of this name takes a pool, which this is, and how much it may keep.
        unsafe {
            let trim: unsafe extern "C" fn(Pointer, usize) -> c_int = std::mem::transmute(trim);
            trim(std::ptr::with_exposed_provenance_mut(*pool), 0);
        }
    }
}
