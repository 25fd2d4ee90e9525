//! The filter under which a program sends, and the thread that looks at what it sends.
//!
//! Invariant: each call goes on in the kernel, whatever was read of it; the thread ends with the last process under the filter.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_uint, sock_filter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::{Piece, message};

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of linux/audit.h.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
/// The calls by which messages go to netlink. `write` and `writev` could do it too; no program is known to.
const CALLS: [c_long; 3] = [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg];
/// Where `struct seccomp_data` has the call's number and the architecture.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// `struct msghdr` and `struct mmsghdr` of 64 bits, and where the former has its pieces and their number.
const MSGHDR_BYTES: u64 = 56;
const MMSGHDR_BYTES: u64 = 64;
const PIECES_AT: usize = 16;
const COUNT_AT: usize = 24;
const PIECE_BYTES: usize = 16;
/// The most that is read of one piece, and the most pieces: the kernel takes no more pieces (`UIO_MAXIOV`).
const PIECE_MAX_BYTES: usize = 1 << 20;
const PIECES_MAX: u64 = 1024;

/// Puts the calling process under the filter and hands its other end over, by its number here; goes on when that has arrived.
pub(super) fn install(socket: &UnixStream) -> io::Result<()> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let is = |value, then, other| jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, then, other);
    let answer = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    let numbers = CALLS.map(|call| u32::try_from(call).unwrap_or(u32::MAX));
    let mut program = [
        load(ARCHITECTURE_AT),
        is(ARCHITECTURE, 0, 4),
        load(NUMBER_AT),
        is(numbers[0], 3, 0),
        is(numbers[1], 2, 0),
        is(numbers[2], 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog { len: program.len().try_into().unwrap_or(0), filter: program.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel reads the program, which outlives the call.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    let listener = c_int::try_from(Errno::result(listener)?).unwrap_or(-1);
    // SAFETY: it has no arguments and cannot fail.
    let own = unsafe { libc::getpid() };
    // Not by `send`, which nobody would answer yet.
    nix::unistd::write(socket, &Handed { process: own, listener }.bytes())?;
    match nix::unistd::read(socket, &mut [0])? {
        0 => Err(Errno::EPIPE.into()),
        _ => Ok(()),
    }
}

/// Takes the filter's other end and looks at each call until nobody is left to make one.
pub(super) fn serve(mut socket: UnixStream, lacks: &BTreeSet<Piece>) -> io::Result<()> {
    let mut bytes = [0; 8];
    socket.read_exact(&mut bytes)?;
    let Handed { process, listener } = Handed::read(bytes);
    let listener = descriptor_of(process, listener)?;
    socket.write_all(&[1])?;
    drop(socket);
    loop {
        let mut ends = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ends, PollTimeout::NONE) {
            Ok(_) if ends[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN)) => {}
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        // SAFETY: plain numbers; the kernel wants them zero, and fills them in.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is a filter's, and the structure outlives the call.
        if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            // The caller was killed, or a signal came.
            continue;
        }
        look(&call, lacks);
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(0);
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags };
        // SAFETY: as above. Who was killed meanwhile needs no answer.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    }
}

struct Handed {
    process: i32,
    listener: c_int,
}

impl Handed {
    fn bytes(&self) -> [u8; 8] {
        (u64::from(self.process.cast_unsigned()) << 32 | u64::from(self.listener.cast_unsigned())).to_ne_bytes()
    }

    fn read(bytes: [u8; 8]) -> Self {
        let both = u64::from_ne_bytes(bytes);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0).cast_signed();
        Self { process: half(both >> 32), listener: half(both) }
    }
}

fn statement(code: c_uint, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: c_uint, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k }
}

/// Has what a thread is about to send name no piece that is missing.
fn look(call: &libc::seccomp_notif, lacks: &BTreeSet<Piece>) {
    let thread = Pid::from_raw(call.pid.cast_signed());
    let [socket, first, second, ..] = call.data.args;
    let pieces = match c_long::from(call.data.nr) {
        libc::SYS_sendto => vec![(first, second)],
        libc::SYS_sendmsg => pieces(thread, first),
        _ => (0..second.min(PIECES_MAX)).flat_map(|nth| pieces(thread, first + nth * MMSGHDR_BYTES)).collect(),
    };
    for (address, length) in pieces {
        let Ok(length) = usize::try_from(length) else { continue };
        let sent = memory(thread, address, length.min(PIECE_MAX_BYTES));
        for protocol in [message::ROUTE, message::NETFILTER] {
            let mut bytes = sent.clone();
            // The socket is asked only where it matters: most calls are not netlink's.
            if message::rewrite(protocol, &mut bytes, lacks) && protocol_of(thread, socket) == Some(protocol) {
                let base = usize::try_from(address).unwrap_or(0);
                let place = [RemoteIoVec { base, len: bytes.len() }];
                // A caller that was killed meanwhile has no memory, and sends nothing.
                process_vm_writev(thread, &[IoSlice::new(&bytes)], &place).ok();
            }
        }
    }
}

/// Address and length of each piece that a `struct msghdr` gathers.
fn pieces(thread: Pid, header: u64) -> Vec<(u64, u64)> {
    let header = memory(thread, header, usize::try_from(MSGHDR_BYTES).unwrap_or(0));
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    };
    let count = usize::try_from(word(&header, COUNT_AT).min(PIECES_MAX)).unwrap_or(0);
    let list = memory(thread, word(&header, PIECES_AT), count * PIECE_BYTES);
    list.chunks_exact(PIECE_BYTES).map(|piece| (word(piece, 0), word(piece, 8))).collect()
}

fn memory(thread: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let Ok(base) = usize::try_from(address) else { return Vec::new() };
    let read = process_vm_readv(thread, &mut [IoSliceMut::new(&mut bytes)], &[RemoteIoVec { base, len: length }]);
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// Which protocol of netlink a thread's socket speaks, if it is of netlink.
fn protocol_of(thread: Pid, socket: u64) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())?;
    let socket = descriptor_of(process, c_int::try_from(socket).ok()?).ok()?;
    let is_netlink = option_of(&socket, libc::SO_DOMAIN)? == libc::AF_NETLINK;
    option_of(&socket, libc::SO_PROTOCOL).filter(|_| is_netlink)
}

fn option_of(socket: &OwnedFd, option: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<c_int>()).ok()?;
    // SAFETY: value and length outlive the call, and the length is the value's.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length)
    };
    (done == 0).then_some(value)
}

/// A descriptor of another process, as one of this.
fn descriptor_of(process: i32, descriptor: c_int) -> io::Result<OwnedFd> {
    let owned = |opened: c_long| -> io::Result<OwnedFd> {
        let opened = c_int::try_from(Errno::result(opened)?).map_err(io::Error::other)?;
        // SAFETY: it was just opened, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(opened) })
    };
    // SAFETY: it takes a number and flags, and gives a new descriptor.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: it takes two descriptors' numbers and flags, and gives a new descriptor.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}
