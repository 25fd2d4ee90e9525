//! The folder where libcni, and so Podman 4, writes what each container was given: without it nothing starts.
//!
//! It is tried with a file that has no name, so that nothing is left behind.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access};

use super::finding::{CNI_CACHE, Finding};
use crate::cli::podman::Backend;
use crate::error::errno_of;
use crate::layout;

pub(super) fn check(backend: Backend) -> Finding {
    if backend == Backend::Netavark {
        return CNI_CACHE.skipped("netavark keeps none");
    }
    if !nix::unistd::geteuid().is_root() {
        return CNI_CACHE.skipped("not root");
    }
    // The folder is made with the first container: what is there of the way to it decides.
    let mut there = Path::new(layout::CNI_RESULTS).ancestors().filter(|folder| folder.is_dir());
    let folder = there.next().unwrap_or(Path::new("/"));
    match try_to_write(folder) {
        Ok(()) => CNI_CACHE.ok(format!("{} can be written to", folder.display())),
        Err(e) => CNI_CACHE.bad(
            format!(
                "{} cannot be written to ({}): Podman 4 starts no container",
                folder.display(),
                errno_of(&e).desc()
            ),
            format!(
                "make it writable: `findmnt -T {0}` shows how it is mounted, `df -i {0}` and `df {0}` how full it is",
                folder.display()
            ),
        ),
    }
}

fn try_to_write(folder: &Path) -> io::Result<()> {
    let unnamed = OpenOptions::new().write(true).custom_flags(OFlag::O_TMPFILE.bits()).mode(0o600).open(folder);
    match unnamed {
        Ok(mut file) => file.write_all(b"flatnet"),
        // Not every file system has files without a name.
        Err(e) if matches!(e.raw_os_error(), Some(code) if code == nix::libc::EOPNOTSUPP || code == nix::libc::EISDIR) => {
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        try_to_write(folder.path()).expect("it can be written to");
        assert_eq!(folder.path().read_dir().expect("a list").count(), 0);
        assert!(try_to_write(&folder.path().join("missing")).is_err());
    }
}
