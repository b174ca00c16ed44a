//! GPUs behind the first.
//!
//! MLX (0.32.4) has one cache for the freed buffers of all CUDA cards, and hands a kernel the buffers of any card, which
//! another card cannot read as they are. So before a second one is used, each card is let into the memory of the others, and
//! what is freed goes back to CUDA's own pools, of which each card has one, instead of MLX's cache.

use crate::runtime::device::{Device, Info, PerDevice};
use crate::runtime::error::Result;
use crate::runtime::memory;
#[cfg(target_os = "linux")]
use crate::runtime::pools;

static OPEN: PerDevice<()> = PerDevice::new();

/// To be called before a card behind the first is used.
pub(crate) fn open(card: Device) -> Result<()> {
    let open = || {
        // Elsewhere there is one GPU.
        #[cfg(target_os = "linux")]
        pools::share()?;
        memory::set_cache_limit(0)?;
        memory::clear_cache()?;
        // MLX knows the memory of the first alone.
        let more = size(card) / 20 * 19;
        memory::set_limit(memory::figures()?.limit.saturating_add(more)).map(drop)
    };
    OPEN.get_or_try_init(card, open).map(|_| ())
}

fn size(card: Device) -> usize {
    let facts = card.info().unwrap_or_default();
    let size = |(key, fact): (String, Info)| match fact {
        Info::Size(size) if matches!(&*key, "total_memory" | "memory_size") => Some(size),
        _ => None,
    };
    facts.into_iter().filter_map(size).max().unwrap_or(0)
}
