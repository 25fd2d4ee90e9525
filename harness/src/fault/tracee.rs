//! A stopped thread of another process: its memory and its registers.
//!
//! Invariant: the only module that knows how an architecture numbers a call and gives its answer.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// The longest path that is read; what is longer is cut.
const PATH_MAX_BYTES: usize = 256;
/// Memory is readable by the page, whatever the page's size.
const SMALLEST_PAGE_BYTES: usize = 4096;

/// A stop at a system call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// It is about to be made.
    Entry { number: u64, arguments: [u64; 6] },
    /// It has been made.
    Exit { result: i64 },
    /// Something else.
    Other,
}

/// What a thread that stopped at a system call is about.
pub(super) fn stop(thread: Pid) -> Result<Stop, Errno> {
    let info = ptrace::syscall_info(thread)?;
    match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: the kernel has filled in the member that `op` names.
            let entry = unsafe { info.u.entry };
            Ok(Stop::Entry { number: entry.nr, arguments: entry.args })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: the kernel has filled in the member that `op` names.
            let exit = unsafe { info.u.exit };
            Ok(Stop::Exit { result: exit.sval })
        }
        _ => Ok(Stop::Other),
    }
}

/// Has a thread that stopped before a system call not make it.
#[cfg(target_arch = "x86_64")]
pub(super) fn skip(thread: Pid) -> Result<(), Errno> {
    let mut registers = ptrace::getregs(thread)?;
    registers.orig_rax = u64::MAX;
    ptrace::setregs(thread, registers)
}

/// Has a thread that stopped before a system call not make it.
#[cfg(target_arch = "aarch64")]
pub(super) fn skip(thread: Pid) -> Result<(), Errno> {
    /// `NT_ARM_SYSTEM_CALL` of linux/elf.h: the number alone is a register set of its own.
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut none: libc::c_int = -1;
    let mut set = libc::iovec { iov_base: (&raw mut none).cast(), iov_len: size_of::<libc::c_int>() };
    // SAFETY: the kernel reads the number through the vector; both outlive the call.
    let done = unsafe { libc::ptrace(libc::PTRACE_SETREGSET, thread.as_raw(), NT_ARM_SYSTEM_CALL, &raw mut set) };
    Errno::result(done).map(drop)
}

/// Has a thread that stopped after a system call take `value` for its answer.
#[cfg(target_arch = "x86_64")]
pub(super) fn answer(thread: Pid, value: i64) -> Result<(), Errno> {
    let mut registers = ptrace::getregs(thread)?;
    registers.rax = value.cast_unsigned();
    ptrace::setregs(thread, registers)
}

/// Has a thread that stopped after a system call take `value` for its answer.
#[cfg(target_arch = "aarch64")]
pub(super) fn answer(thread: Pid, value: i64) -> Result<(), Errno> {
    let mut registers = ptrace::getregs(thread)?;
    registers.regs[0] = value.cast_unsigned();
    ptrace::setregs(thread, registers)
}

/// Up to `length` bytes of its memory; fewer where it has no more there.
pub(super) fn memory(thread: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let Ok(base) = usize::try_from(address) else { return Vec::new() };
    let read = process_vm_readv(thread, &mut [IoSliceMut::new(&mut bytes)], &[RemoteIoVec { base, len: length }]);
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// The text at an address, to its NUL.
pub(super) fn text(thread: Pid, address: u64) -> String {
    let mut bytes = Vec::new();
    let mut at = address;
    while bytes.len() < PATH_MAX_BYTES {
        // Not over the end of a page: the next may not be there.
        let left = SMALLEST_PAGE_BYTES - usize::try_from(at).unwrap_or(0) % SMALLEST_PAGE_BYTES;
        let piece = memory(thread, at, left.min(PATH_MAX_BYTES));
        let end = piece.iter().position(|byte| *byte == 0);
        bytes.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
        if end.is_some() || piece.is_empty() {
            break;
        }
        at += piece.len() as u64;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
