//! Devices and what they say of themselves.

use std::ffi::{c_int, CStr, CString};
use std::fmt;

use mlx_rs::DeviceType;
use once_cell::sync::OnceCell;

use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi;

/// The CPU, of which there is one, or a GPU by its number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    Cpu,
    Gpu(u16),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(0) => f.write_str("gpu"),
            Device::Gpu(index) => write!(f, "gpu {index}"),
        }
    }
}

/// One fact of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    Text(String),
    Size(usize),
}

impl Device {
    pub fn is_cpu(self) -> bool {
        self == Device::Cpu
    }

    pub fn is_gpu(self) -> bool {
        !self.is_cpu()
    }

    /// MLX's number of it among those of its kind.
    fn index(self) -> u16 {
        match self {
            Device::Cpu => 0,
            Device::Gpu(index) => index,
        }
    }

    pub(crate) fn mlx_rs(self) -> mlx_rs::Device {
        let kind = match self {
            Device::Cpu => DeviceType::Cpu,
            Device::Gpu(_) => DeviceType::Gpu,
        };
        mlx_rs::Device::new(kind, self.index().into())
    }

    pub(crate) fn raw(self) -> RawDevice {
        let kind = match self {
            Device::Cpu => mlx_sys::mlx_device_type__MLX_CPU,
            Device::Gpu(_) => mlx_sys::mlx_device_type__MLX_GPU,
        };
        // SAFETY: the handle made is owned by the `RawDevice`, which frees it.
        RawDevice(unsafe { mlx_sys::mlx_device_new_type(kind, self.index().into()) })
    }

    /// Whether this build of MLX and this machine have the device.
    pub fn is_available(self) -> bool {
        let device = self.raw();
        let mut available = false;
        // SAFETY: the handle is live and the result outlives the call.
        let status =
            ffi::status(|| unsafe { mlx_sys::mlx_device_is_available(&mut available, device.0) });
        status.is_ok() && available
    }

    /// What to say of a device that is not there.
    pub(crate) fn missing(self) -> String {
        let there: Vec<String> = devices().iter().map(Device::to_string).collect();
        format!(
            "there is no {self} here: this build of MLX and this machine have {}",
            there.join(", ")
        )
    }

    /// What the device says of itself, by MLX's own keys.
    pub fn info(self) -> Result<Vec<(String, Info)>> {
        if !self.is_available() {
            refuse!("device_info: {}", self.missing())
        }
        let device = self.raw();
        // SAFETY: every handle is freed once, at the end; the strings that MLX lends live as long
        // as the handle they come from and are copied at once.
        unsafe {
            let mut info = mlx_sys::mlx_device_info_new();
            let mut keys = mlx_sys::mlx_vector_string_new();
            let facts = ffi::status(|| mlx_sys::mlx_device_info_get(&mut info, device.0))
                .and_then(|()| ffi::status(|| mlx_sys::mlx_device_info_get_keys(&mut keys, info)))
                .and_then(|()| {
                    (0..mlx_sys::mlx_vector_string_size(keys))
                        .map(|i| fact(info, keys, i))
                        .collect()
                });
            mlx_sys::mlx_vector_string_free(keys);
            mlx_sys::mlx_device_info_free(info);
            facts
        }
    }
}

/// # Safety
/// `info` and `keys` must be live handles, and `i` below the number of keys.
unsafe fn fact(
    info: mlx_sys::mlx_device_info,
    keys: mlx_sys::mlx_vector_string,
    i: usize,
) -> Result<(String, Info)> {
    // SAFETY: the caller's promise; strings are copied before anything is freed.
    unsafe {
        let mut key = std::ptr::null_mut();
        ffi::status(|| mlx_sys::mlx_vector_string_get(&mut key, keys, i))?;
        let key = CStr::from_ptr(key).to_owned();
        let mut is_text = false;
        ffi::status(|| mlx_sys::mlx_device_info_is_string(&mut is_text, info, key.as_ptr()))?;
        let value = if is_text {
            let mut text = std::ptr::null();
            ffi::status(|| mlx_sys::mlx_device_info_get_string(&mut text, info, key.as_ptr()))?;
            Info::Text(CStr::from_ptr(text).to_string_lossy().into_owned())
        } else {
            let mut size = 0;
            ffi::status(|| mlx_sys::mlx_device_info_get_size(&mut size, info, key.as_ptr()))?;
            Info::Size(size)
        };
        Ok((key.to_string_lossy().into_owned(), value))
    }
}

/// MLX's own handle of a device.
pub(crate) struct RawDevice(pub(crate) mlx_sys::mlx_device);

impl Drop for RawDevice {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and freed once.
        unsafe { mlx_sys::mlx_device_free(self.0) };
    }
}

/// The devices that this build and this machine have: the CPU, then the GPUs by their numbers.
pub fn devices() -> Vec<Device> {
    let gpus = (0..gpus()).map(Device::Gpu);
    let all = [Device::Cpu].into_iter().chain(gpus);
    all.filter(|device| device.is_available()).collect()
}

/// How many GPUs MLX counts.
pub(crate) fn gpus() -> u16 {
    static COUNT: OnceCell<u16> = OnceCell::new();
    *COUNT.get_or_init(|| {
        let mut count: c_int = 0;
        let kind = mlx_sys::mlx_device_type__MLX_GPU;
        // SAFETY: the number is written to a place that is live.
        let counted = ffi::status(|| unsafe { mlx_sys::mlx_device_count(&mut count, kind) });
        counted.map_or(0, |()| count.try_into().unwrap_or(0))
    })
}

/// Something of each device, made when it is first asked for.
pub(crate) struct PerDevice<T> {
    cpu: OnceCell<T>,
    gpus: OnceCell<Box<[OnceCell<T>]>>,
}

impl<T> PerDevice<T> {
    pub(crate) const fn new() -> Self {
        PerDevice {
            cpu: OnceCell::new(),
            gpus: OnceCell::new(),
        }
    }

    fn cell(&self, device: Device) -> Option<&OnceCell<T>> {
        match device {
            Device::Cpu => Some(&self.cpu),
            Device::Gpu(index) => {
                let cells = || (0..gpus()).map(|_| OnceCell::new()).collect();
                self.gpus.get_or_init(cells).get(usize::from(index))
            }
        }
    }

    /// What is there already.
    pub(crate) fn get(&self, device: Device) -> Option<&T> {
        self.cell(device)?.get()
    }

    /// What is there, or is made now. Refuses a device that is not there.
    pub(crate) fn get_or_try_init(
        &self,
        device: Device,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<&T> {
        match self.cell(device) {
            Some(cell) => cell.get_or_try_init(make),
            None => refuse!("{}", device.missing()),
        }
    }
}

/// MLX's version.
pub fn version() -> Result<String> {
    // SAFETY: the string is owned here, read before it is freed, and freed once.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let version = ffi::status(|| mlx_sys::mlx_version(&mut text)).map(|()| {
            CString::from(CStr::from_ptr(mlx_sys::mlx_string_data(text)))
                .to_string_lossy()
                .into_owned()
        });
        mlx_sys::mlx_string_free(text);
        version
    }
}
