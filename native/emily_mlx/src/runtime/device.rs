//! Devices and what they say of themselves.

use std::ffi::{CStr, CString};

use mlx_rs::DeviceType;
use strum::{EnumString, IntoStaticStr};

use crate::runtime::error::{refuse, Result};
use crate::runtime::ffi;

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Device {
    Cpu,
    Gpu,
}

/// One fact of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    Text(String),
    Size(usize),
}

impl Device {
    pub fn name(self) -> &'static str {
        self.into()
    }

    pub(crate) fn mlx_rs(self) -> mlx_rs::Device {
        let kind = match self {
            Device::Cpu => DeviceType::Cpu,
            Device::Gpu => DeviceType::Gpu,
        };
        mlx_rs::Device::new(kind, 0)
    }

    pub(crate) fn raw(self) -> RawDevice {
        let kind = match self {
            Device::Cpu => mlx_sys::mlx_device_type__MLX_CPU,
            Device::Gpu => mlx_sys::mlx_device_type__MLX_GPU,
        };
        // SAFETY: the handle made is owned by the `RawDevice`, which frees it.
        RawDevice(unsafe { mlx_sys::mlx_device_new_type(kind, 0) })
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

    /// What the device says of itself, by MLX's own keys.
    pub fn info(self) -> Result<Vec<(String, Info)>> {
        if !self.is_available() {
            refuse!("device_info: there is no {} here", self.name())
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

/// The devices that this build and this machine have.
pub fn devices() -> Vec<Device> {
    [Device::Cpu, Device::Gpu]
        .into_iter()
        .filter(|device| device.is_available())
        .collect()
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
