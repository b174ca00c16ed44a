//! Arrays from addresses.

use std::ptr::null_mut;

use emily_mlx::{from_address, Dtype, Error};

use crate::support::*;

#[test]
fn bytes_are_copied_from_an_address() {
    for size in [1usize, 65_535, 65_536, 65_537, 300_000] {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        let array = from_address(bytes.as_ptr() as u64, &[size as i64], Dtype::U8).unwrap();
        assert_eq!(bytes_on(cpu(), array).unwrap(), bytes);
    }
}

#[test]
fn what_ends_in_a_page_that_is_not_mapped_is_refused() {
    const PAGE: usize = 65_536;
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANON,
    );
    // SAFETY: new pages of this test's own; the last is closed before anybody has seen it.
    let start = unsafe {
        let start = libc::mmap(null_mut(), 3 * PAGE, access, kind, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        assert_eq!(
            libc::mprotect(start.add(2 * PAGE), PAGE, libc::PROT_NONE),
            0
        );
        start as u64
    };
    let whole = 2 * PAGE as i64;
    assert!(from_address(start, &[whole], Dtype::U8).is_ok());
    for (offset, size) in [(0, whole + 1), (10, whole), (2 * PAGE as u64, 1)] {
        match from_address(start + offset, &[size], Dtype::U8) {
            Err(Error::Argument(message)) => assert!(message.contains("cannot be read")),
            other => panic!("{other:?}"),
        }
    }
}
