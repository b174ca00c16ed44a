//! Arrays from addresses of this process.

use std::io::{pipe, ErrorKind};
use std::os::fd::AsRawFd;

use mlx_rs::Array;

use crate::ops::create;
use crate::runtime::dtype::Dtype;
use crate::runtime::error::{refuse, Error, Result};

/// What an empty pipe holds on Linux and macOS.
const CHUNK: usize = 65_536;

/// An array from its bytes in row-major order, which lie at an address of this process. They are
/// copied.
///
/// The kernel reads them, through a pipe: where nothing is mapped, or becomes unmapped meanwhile, it
/// says so, and the process gets no signal. Unlike process_vm_readv a pipe needs no right to trace,
/// reads memory that a GPU's driver pages in, and is there on macOS.
pub fn from_address(address: u64, shape: &[i64], dtype: Dtype) -> Result<Array> {
    let op = "from_address";
    let (shape, bytes) = create::sized(op, shape, dtype)?;
    if address.checked_add(bytes as u64).is_none() {
        refuse!("{op}: {bytes} bytes at {address:#x} reach beyond the last address")
    }
    let failed = |problem: std::io::Error| Error::Argument(format!("{op}: {problem}"));
    let (reader, writer) = pipe().map_err(failed)?;
    let fd = writer.as_raw_fd();
    // SAFETY: the descriptor is open, and setting its flags touches no memory. A pipe that is
    // smaller than a chunk then takes a part of it rather than wait for the reader.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) } == -1 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    create::filled(op, &shape, dtype, |mut data| {
        let mut at = address;
        while !data.is_empty() {
            let size = CHUNK.min(data.len());
            // SAFETY: only the kernel reads from this pointer, and it checks what it reads: for an
            // address that is not readable it returns EFAULT.
            let written = unsafe { libc::write(fd, at as *const libc::c_void, size) };
            let written = match usize::try_from(written) {
                Ok(0) => refuse!("{op}: the pipe took nothing of {bytes} bytes at {address:#x}"),
                Ok(written) => written,
                Err(_) => match std::io::Error::last_os_error() {
                    problem if problem.kind() == ErrorKind::Interrupted => continue,
                    problem => refuse!(
                        "{op}: {bytes} bytes at {address:#x} cannot be read: {problem} at {at:#x}"
                    ),
                },
            };
            let (chunk, rest) = data.split_at_mut(written);
            create::read(&reader, chunk).map_err(failed)?;
            (data, at) = (rest, at + written as u64);
        }
        Ok(())
    })
}
