//! A container's network namespace, by its path.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, statfs};

use crate::error::{Doing, Error, Result, errno_of};

/// `NSFS_MAGIC` of linux/magic.h: the file system that namespaces live in.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// The namespace of the main thread, which is the one that calls.
const OWN: &str = "/proc/self/ns/net";
/// How often the way back is tried: the kernel may be short of memory for a moment.
const RETURNS_MAX: usize = 8;

/// An open network namespace: it lives at least as long as this.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    /// The namespace that flatnet runs in.
    own: File,
    path: PathBuf,
}

/// The main thread is in another namespace. Dropped, it is back in this one.
struct Away<'a>(&'a File);

impl Netns {
    /// Opens `CNI_NETNS`. Errors: 4 where it is no network namespace, 8 where it is the caller's own, 100 where that is not the
    /// path's fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let problem = |problem: String| Error::Environment {
            problems: vec![("CNI_NETNS", format!("is {}, which {problem}", path.display()))],
        };
        // Looking at the file system first, by path, opens nothing: a FIFO would block, and a device might act.
        let cannot_be_opened = |errno: Errno| match errno {
            _ if says_something_of_path(errno) => problem(format!("cannot be opened: {}", errno.desc())),
            _ => Error::Kernel { doing: format!("open CNI_NETNS {}", path.display()), errno },
        };
        match statfs(path) {
            Err(errno) => return Err(cannot_be_opened(errno)),
            Ok(found) if found.filesystem_type() != NSFS_MAGIC => {
                return Err(problem("is not a network namespace".into()));
            }
            Ok(_) => {}
        }
        let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|e| cannot_be_opened(errno_of(&e)))?;
        if namespace_kind(&file).doing(|| format!("ask what kind of namespace {} is", path.display()))?
            != libc::CLONE_NEWNET
        {
            return Err(problem("is a namespace of another kind than network".into()));
        }
        let compared = File::open(OWN).and_then(|own| Ok((is_same(&file, &own)?, own)));
        match compared {
            Ok((false, own)) => Ok(Self { file, own, path: path.to_owned() }),
            Ok((true, _)) => Err(Error::OwnNamespace { path: path.display().to_string() }),
            Err(e) => Err(errno_of(&e)).doing(|| format!("compare CNI_NETNS {} with {OWN}", path.display())),
        }
    }

    /// As `CNI_NETNS` gave it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does `work` in the namespace, on the main thread, which is back when this returns: nothing can be awaited meanwhile. A process that the
    /// kernel does not let back is aborted, as all that it did from then on would happen in the container.
    pub(crate) fn visit<T>(&self, work: impl FnOnce() -> io::Result<T>) -> Result<T, Errno> {
        // A process without the right to come back does not leave.
        enter(&self.own)?;
        enter(&self.file)?;
        let _away = Away(&self.own);
        work().map_err(|e| errno_of(&e))
    }

    /// For netlink's `IFLA_NET_NS_FD`; valid as long as `self` is.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let mut refused = Errno::UnknownErrno;
        for _ in 0..RETURNS_MAX {
            match enter(self.0) {
                Ok(()) => return,
                Err(errno) => refused = errno,
            }
        }
        eprintln!("flatnet: failed to come back from the container's network namespace: {}", refused.desc());
        process::abort();
    }
}

fn enter(namespace: &File) -> Result<(), Errno> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
}

/// Two files are one namespace when device and inode agree (namespaces(7)).
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

mod ioctl {
    // NS_GET_NSTYPE of linux/nsfs.h (Linux 4.11): the CLONE_NEW* flag of an open namespace.
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
}

/// Whether another path would fare better; other errors are the host's.
fn says_something_of_path(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ELOOP
            | Errno::ENAMETOOLONG
            | Errno::EACCES
            | Errno::EINVAL
            | Errno::ENODEV
            | Errno::ENXIO
    )
}

fn namespace_kind(file: &File) -> Result<libc::c_int, Errno> {
    // SAFETY: the descriptor is open for the whole call, and this request takes no argument that could be misread.
    unsafe { ioctl::ns_get_nstype(file.as_raw_fd()) }
}
