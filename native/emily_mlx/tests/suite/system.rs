//! Devices, memory and the version.

use emily_mlx::{devices, memory, version, Device, Error, Info, StreamHandle};

use crate::support::*;

#[test]
fn the_version_is_a_number() {
    let version = version().unwrap();
    let parts: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(parts >= vec![0, 32, 1], "{version}");
}

#[test]
fn the_cpu_is_there_and_what_is_not_is_refused() {
    assert!(devices().contains(&Device::Cpu));
    let info = Device::Cpu.info().unwrap();
    assert!(info
        .iter()
        .any(|(_, fact)| matches!(fact, Info::Text(text) if !text.is_empty())));
    if !Device::Gpu.is_available() {
        assert_eq!(devices(), [Device::Cpu]);
        assert!(matches!(Device::Gpu.info(), Err(Error::Argument(_))));
        assert!(matches!(
            StreamHandle::new(Device::Gpu),
            Err(Error::Argument(_))
        ));
        assert!(StreamHandle::default_on(Device::Gpu).is_err());
    }
}

#[test]
fn devices_have_names() {
    assert_eq!((Device::Cpu.name(), Device::Gpu.name()), ("cpu", "gpu"));
    assert_eq!("gpu".parse(), Ok(Device::Gpu));
    assert!("tpu".parse::<Device>().is_err());
}

#[test]
fn figures_and_limits() {
    let held = numbers_held();
    let figures = memory::figures().unwrap();
    assert!(figures.active >= held.1 && figures.peak >= held.1 && figures.limit > 0);
    let limit = memory::set_limit(figures.limit).unwrap();
    assert_eq!(limit, figures.limit);
    let cache = memory::set_cache_limit(0).unwrap();
    assert_eq!(memory::set_cache_limit(cache).unwrap(), 0);
    memory::clear_cache().unwrap();
    memory::reset_peak().unwrap();
    drop(held);
}

/// An array of a megabyte and its size.
fn numbers_held() -> (mlx_rs::Array, usize) {
    let array = vector(&vec![1.0; 1 << 18]);
    (array, 1 << 20)
}
