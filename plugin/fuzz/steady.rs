//! Random numbers that are the same in each run, so that a seed of libFuzzer decides all that a target does.
//!
//! The standard library seeds its hash maps by `getrandom` of libc: the order of their buckets shows in the coverage, by which libFuzzer
//! chooses what it tries next.

use std::ffi::{c_uint, c_void};

/// In the place of libc's: constant bytes.
///
/// # Safety
///
/// `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller's promise, which is that of libc's function.
    unsafe { buffer.cast::<u8>().write_bytes(7, length) };
    isize::try_from(length).expect("no buffer is larger than half of all addresses")
}
