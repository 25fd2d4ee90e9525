//! A system call in words: its name, what it is about, and the group by which faults are aimed at it.
//!
//! Invariant: nothing here depends on which calls a plugin makes, or in which order.

use std::collections::BTreeMap;
use std::fmt;

use nix::libc;
use nix::unistd::Pid;
use syscalls::Sysno;

use super::{netlink, tracee};
use crate::pattern::Pattern;

/// What is read of a message: a transaction of netfilter's is some kilobytes.
const MESSAGE_MAX_BYTES: usize = 16 * 1024;
/// As an argument of `socket`.
const NETLINK_FAMILY: u64 = libc::AF_NETLINK.cast_unsigned() as u64;

/// A system call that was made, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// 0 is the plugin, 1 the first process that it started, and so on.
    pub process: usize,
    /// Among those of its process; the first is 1.
    pub number: usize,
    /// `sendto`, ..
    pub name: String,
    /// The messages that are sent, or the file; empty where there is neither.
    pub about: String,
    /// Whether it changes something that others can see, or starts a process.
    pub changes: bool,
    /// What the kernel answered, once it has; errors are negative.
    pub result: Option<i64>,
    group: Group,
}

/// Which part of the kernel it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Netlink,
    File,
    Standard,
    Other,
}

/// The system calls that a fault is aimed at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// All.
    #[default]
    All,
    /// Those that change something that others can see, or start a process.
    Changes,
    /// Those that one of these words fits: a name (`sendto`), a name with what it is about (`sendto NEWLINK*`), or a group:
    /// `netlink` (everything on such sockets), `file` (everything on paths and open files), `descriptor` (whatever makes one).
    Named(Vec<String>),
}

/// The groups among the words of [`Calls`].
pub const GROUPS: [&str; 3] = ["netlink", "file", "descriptor"];

impl Calls {
    /// Whether a word of [`Self::Named`] can fit anything.
    pub fn has(word: &str) -> bool {
        let name = word.split(' ').next().unwrap_or_default();
        GROUPS.contains(&word) || name.contains(['*', '?']) || name.parse::<Sysno>().is_ok()
    }

    /// Whether it is one of them.
    pub fn include(&self, call: &SystemCall) -> bool {
        match self {
            Self::All => true,
            Self::Changes => call.changes,
            Self::Named(words) => words.iter().any(|word| call.is(word)),
        }
    }
}

impl SystemCall {
    fn is(&self, word: &str) -> bool {
        match word {
            "netlink" => self.group == Group::Netlink,
            "file" => self.group == Group::File,
            "descriptor" => makes_descriptor(&self.name),
            name => self.name == name || Pattern::new(name).matches(&self.to_string()),
        }
    }

    #[cfg(test)]
    pub(super) fn made_up(name: &str, process: usize, number: usize, changes: bool) -> Self {
        let (name, about, group) = (name.to_owned(), String::new(), Group::Other);
        Self { process, number, name, about, changes, result: None, group }
    }

    /// Where it was: which call of which process.
    pub fn place(&self) -> String {
        match self.process {
            0 => format!("call {}", self.number),
            process => format!("call {} of child {process}", self.number),
        }
    }
}

impl fmt::Display for SystemCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.about.is_empty() { Ok(()) } else { write!(f, " {}", self.about) }
    }
}

/// What the descriptors of a process stand for; what is not here was there before.
#[derive(Clone, Debug, Default)]
pub(super) struct Descriptors(BTreeMap<u64, Target>);

#[derive(Clone, Debug)]
enum Target {
    Netlink(i32),
    File(String),
    Other,
}

impl Descriptors {
    /// A program that is executed keeps none but the standard streams: all others are closed by it, as a rule.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes note of a call that has been made.
    pub(super) fn learn(&mut self, call: &SystemCall, arguments: &[u64; 6]) {
        let Some(result) = call.result.and_then(|result| u64::try_from(result).ok()) else { return };
        let first = arguments[0];
        match call.name.as_str() {
            "socket" if first == NETLINK_FAMILY => {
                let protocol = i32::try_from(arguments[2]).unwrap_or(-1);
                drop(self.0.insert(result, Target::Netlink(protocol)));
            }
            "open" | "openat" | "openat2" | "creat" => drop(self.0.insert(result, Target::File(call.about.clone()))),
            "close" => drop(self.0.remove(&first)),
            "dup" | "dup2" | "dup3" | "fcntl" if makes_descriptor(&call.name) && is_duplicate(call, arguments) => {
                let same = self.0.get(&first).cloned().unwrap_or(Target::Other);
                drop(self.0.insert(result, same));
            }
            "socket" | "epoll_create1" | "eventfd2" => drop(self.0.insert(result, Target::Other)),
            _ => {}
        }
    }

    fn file(&self, descriptor: u64) -> (Group, String) {
        match self.0.get(&descriptor) {
            Some(Target::Netlink(_)) => (Group::Netlink, String::new()),
            Some(Target::File(path)) => (Group::File, path.clone()),
            None if descriptor <= 2 => {
                (Group::Standard, ["stdin", "stdout", "stderr"][usize::try_from(descriptor).unwrap_or(0)].to_owned())
            }
            Some(Target::Other) | None => (Group::Other, String::new()),
        }
    }

    /// What a thread is about to do; `process` and `number` are the caller's to fill in.
    pub(super) fn describe(&self, thread: Pid, number: u64, arguments: &[u64; 6]) -> SystemCall {
        let known = usize::try_from(number).ok().and_then(Sysno::new);
        let name = known.map_or_else(|| format!("call-{number}"), |known| known.name().to_owned());
        let (group, about) = self.about(thread, &name, arguments);
        let mut call = SystemCall { process: 0, number: 0, changes: false, result: None, name, about, group };
        call.changes = match call.name.as_str() {
            "sendto" | "sendmsg" if group == Group::Netlink => {
                let messages = self.messages(thread, &call.name, arguments);
                call.about = messages.names.join(" ");
                messages.change
            }
            name => changes(name, group, arguments),
        };
        call
    }

    fn about(&self, thread: Pid, name: &str, arguments: &[u64; 6]) -> (Group, String) {
        let path = |argument: usize| (Group::File, tracee::text(thread, arguments[argument]));
        match name {
            "socket" if arguments[0] == NETLINK_FAMILY => (Group::Netlink, String::new()),
            "open" | "creat" | "stat" | "lstat" | "statfs" | "access" | "readlink" | "mkdir" | "rmdir" | "unlink"
            | "chmod" | "chown" | "lchown" | "rename" | "link" | "truncate" | "mknod" | "getxattr" | "execve"
            | "chdir" => path(0),
            "openat" | "openat2" | "mkdirat" | "unlinkat" | "readlinkat" | "faccessat" | "faccessat2" | "renameat"
            | "renameat2" | "linkat" | "fchmodat" | "fchownat" | "mknodat" | "utimensat" | "symlink" => path(1),
            "newfstatat" | "statx" => match path(1) {
                (_, empty) if empty.is_empty() => self.file(arguments[0]),
                named => named,
            },
            "symlinkat" => path(2),
            "read" | "write" | "pread64" | "pwrite64" | "readv" | "writev" | "fstat" | "fstatfs" | "lseek"
            | "fsync" | "fdatasync" | "ftruncate" | "fchmod" | "fchown" | "flock" | "getdents64" | "ioctl"
            | "sendto" | "sendmsg" | "recvfrom" | "recvmsg" | "bind" | "setsockopt" | "getsockopt" | "getsockname"
            | "setns" => self.file(arguments[0]),
            _ => (Group::Other, String::new()),
        }
    }

    fn messages(&self, thread: Pid, name: &str, arguments: &[u64; 6]) -> netlink::Messages {
        let protocol = match self.0.get(&arguments[0]) {
            Some(Target::Netlink(protocol)) => *protocol,
            _ => -1,
        };
        let (address, length) =
            if name == "sendto" { (arguments[1], arguments[2]) } else { first_piece(thread, arguments[1]) };
        let length = usize::try_from(length).unwrap_or(0).min(MESSAGE_MAX_BYTES);
        netlink::read(protocol, &tracee::memory(thread, address, length))
    }
}

/// Address and length of the first piece that a `struct msghdr` gathers: netlink's are in one.
fn first_piece(thread: Pid, header: u64) -> (u64, u64) {
    let words = |address, count: usize| -> Vec<u64> {
        let bytes = tracee::memory(thread, address, count * 8);
        bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    };
    // msg_name, msg_namelen and its padding, msg_iov.
    match words(header, 3).get(2).map(|pieces| words(*pieces, 2)).as_deref() {
        Some([address, length]) => (*address, *length),
        _ => (0, 0),
    }
}

/// How many bytes it says it would send, for a call that is to be swallowed.
pub(super) fn sent(thread: Pid, call: &SystemCall, arguments: &[u64; 6]) -> u64 {
    match call.name.as_str() {
        "sendmsg" => first_piece(thread, arguments[1]).1,
        _ => arguments[2],
    }
}

fn changes(name: &str, group: Group, arguments: &[u64; 6]) -> bool {
    let writing = u64::from((libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).cast_unsigned());
    let writes = |flags: u64| flags & writing != 0;
    match name {
        "open" => writes(arguments[1]),
        "openat" => writes(arguments[2]),
        "write" | "pwrite64" | "writev" => matches!(group, Group::File | Group::Standard),
        "ioctl" => group == Group::File,
        "creat" | "mkdir" | "mkdirat" | "rmdir" | "unlink" | "unlinkat" | "rename" | "renameat" | "renameat2"
        | "link" | "linkat" | "symlink" | "symlinkat" | "truncate" | "ftruncate" | "chmod" | "fchmod" | "fchmodat"
        | "chown" | "fchown" | "fchownat" | "mknod" | "mknodat" | "utimensat" | "flock" | "setns" | "clone"
        | "clone3" | "fork" | "vfork" => true,
        _ => false,
    }
}

fn makes_descriptor(name: &str) -> bool {
    matches!(
        name,
        "open"
            | "openat"
            | "openat2"
            | "creat"
            | "socket"
            | "socketpair"
            | "pipe"
            | "pipe2"
            | "epoll_create1"
            | "eventfd2"
            | "timerfd_create"
            | "dup"
            | "dup2"
            | "dup3"
            | "fcntl"
            | "accept4"
    )
}

fn is_duplicate(call: &SystemCall, arguments: &[u64; 6]) -> bool {
    let wanted = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].map(|command| command.cast_unsigned().into());
    call.name != "fcntl" || wanted.contains(&arguments[1])
}
