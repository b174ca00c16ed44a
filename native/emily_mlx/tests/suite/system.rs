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
    let gpus = devices().len() as u16 - 1;
    assert!((0..gpus).all(|index| devices().contains(&Device::Gpu(index))));
    for missing in [gpus, gpus + 1, u16::MAX].map(Device::Gpu) {
        assert!(!missing.is_available());
        assert!(matches!(missing.info(), Err(Error::Argument(_))));
        let Err(Error::Argument(message)) = StreamHandle::new(missing) else {
            panic!("{missing} is there")
        };
        assert!(message.contains(&format!("no {missing} here")), "{message}");
        assert!(message.contains("cpu"), "{message}");
        assert!(StreamHandle::default_on(missing).is_err());
    }
}

#[test]
fn devices_have_names() {
    let names = [Device::Cpu, Device::Gpu(0), Device::Gpu(3)].map(|device| device.to_string());
    assert_eq!(names, ["cpu", "gpu", "gpu 3"]);
    assert!(Device::Cpu.is_cpu() && Device::Gpu(1).is_gpu() && !Device::Gpu(0).is_cpu());
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
