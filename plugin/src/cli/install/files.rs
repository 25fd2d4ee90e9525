//! Files as they are and as they shall be: looked at whole, put in place in one step, and put back.
//!
//! A path has the old content or the new one and nothing in between, also where the machine stops midway.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;
use nix::libc::O_NOFOLLOW;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::hash;

/// A file or symbolic link, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Saved {
    pub(in crate::cli) content: Content,
    /// The permission bits.
    pub(in crate::cli) mode: u32,
    /// Numbers of user and group; new files are root's, who installs.
    pub(in crate::cli) owner: (u32, u32),
    /// Time of the last change, in seconds and nanoseconds; nothing for "now".
    pub(in crate::cli) changed: Option<(i64, i64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Content {
    Bytes(Vec<u8>),
    /// A symbolic link to there.
    Link(PathBuf),
}

impl Saved {
    /// A file of ours.
    pub(super) fn new(bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self { content: Content::Bytes(bytes.into()), mode, owner: (0, 0), changed: None }
    }

    /// A symbolic link of ours; its mode means nothing, and is what the kernel shows.
    pub(super) fn link(target: &str) -> Self {
        Self { content: Content::Link(target.into()), mode: 0o777, owner: (0, 0), changed: None }
    }

    /// Whether the other is the same to whoever reads or runs it.
    pub(super) fn serves_as(&self, other: &Self) -> bool {
        self.content == other.content && self.mode == other.mode
    }

    /// Whether somebody may have written this by hand: it is neither a program nor a link.
    pub(super) fn is_by_hand(&self) -> bool {
        matches!(&self.content, Content::Bytes(bytes) if !bytes.starts_with(b"\x7fELF"))
    }

    /// What tells this content from another.
    pub(in crate::cli) fn hash(&self) -> String {
        match &self.content {
            Content::Bytes(bytes) => hash::of_bytes(bytes),
            Content::Link(target) => hash::hex16(&["link", &target.to_string_lossy()]),
        }
    }
}

/// What is at `path`, if anything. Errors where it is neither a file nor a symbolic link.
pub(in crate::cli) fn look(path: &Path) -> Result<Option<Saved>> {
    let looked = || format!("failed to read {}", path.display());
    let data = match fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(looked),
    };
    let content = if data.is_symlink() {
        Content::Link(fs::read_link(path).with_context(looked)?)
    } else if data.is_file() {
        Content::Bytes(fs::read(path).with_context(looked)?)
    } else {
        bail!("{} is neither a file nor a link: move it away, and try again", path.display());
    };
    let (mode, owner) = (data.mode() & 0o7777, (data.uid(), data.gid()));
    Ok(Some(Saved { content, mode, owner, changed: Some((data.mtime(), data.mtime_nsec())) }))
}

/// Where somebody's changes to a file of ours are kept: a name that nobody takes for a configuration.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".flatnet-saved");
    path.with_file_name(name)
}

/// Makes `path` be what is asked for: a file, a link, or nothing.
pub(super) fn put(path: &Path, wanted: Option<&Saved>) -> Result<()> {
    let Some(wanted) = wanted else {
        return fs::remove_file(path).with_context(|| format!("failed to remove {}", path.display()));
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.flatnet-{}", std::process::id()));
    let made = write(&beside, wanted).and_then(|()| fs::rename(&beside, path)).and_then(|()| sync_folder(path));
    if made.is_err() {
        // It may not even be there; what went wrong before is what has to be told.
        drop(fs::remove_file(&beside));
    }
    made.with_context(|| format!("failed to write {}", path.display()))
}

fn write(path: &Path, wanted: &Saved) -> io::Result<()> {
    let (user, group) = wanted.owner;
    let is_owned = |data: &fs::Metadata| (data.uid(), data.gid()) == wanted.owner;
    match &wanted.content {
        Content::Link(target) => {
            symlink(target, path)?;
            if !is_owned(&fs::symlink_metadata(path)?) {
                lchown(path, Some(user), Some(group))?;
            }
        }
        Content::Bytes(bytes) => {
            let mut file = create(path)?;
            file.write_all(bytes)?;
            if !is_owned(&file.metadata()?) {
                fchown(&file, Some(user), Some(group))?;
            }
            // Last: a change of owner takes the set-user-ID bit away.
            file.set_permissions(Permissions::from_mode(wanted.mode))?;
            file.sync_all()?;
        }
    }
    if let Some((seconds, nanoseconds)) = wanted.changed {
        let time = TimeSpec::new(seconds, nanoseconds);
        utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    }
    Ok(())
}

/// A new file that nobody else can open, whatever the umask is: it gets its mode when it has its content and its owner.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW).open(path)
}

/// The file's name is on the disk as well.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The folders that have to be made before a file can be at `path`, outermost first.
pub(super) fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> =
        path.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{Mode, umask};

    use super::*;

    #[test]
    fn what_was_there_comes_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "theirs").expect("a file");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("its mode");
        symlink("file", &link).expect("a link");
        for path in [&file, &link] {
            let before = look(path).expect("a look").expect("something");
            let mut ours = Saved::new("ours", 0o755);
            ours.owner = before.owner;
            put(path, Some(&ours)).expect("ours");
            let now = look(path).expect("a look").expect("something");
            assert!(now.serves_as(&ours) && !now.serves_as(&before), "{now:?}");
            put(path, Some(&before)).expect("theirs");
            assert_eq!(look(path).expect("a look"), Some(before));
        }
        put(&file, None).expect("nothing");
        assert_eq!(look(&file).expect("a look"), None);
        // Nothing of the steps between is left.
        assert_eq!(fs::read_dir(folder.path()).expect("a list").count(), 1);
    }

    #[test]
    fn a_file_is_nobody_elses_before_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        // The process's, and so that of other tests for a moment: none looks at a mode that it has not set itself.
        let former = umask(Mode::empty());
        let made = create(&path);
        umask(former);
        assert_eq!(made.expect("a file").metadata().expect("its mode").mode() & 0o777, 0o600);
        assert_eq!(create(&path).expect_err("it is there").kind(), io::ErrorKind::AlreadyExists);
        let elsewhere = folder.path().join("link");
        symlink(folder.path().join("nowhere"), &elsewhere).expect("a link");
        create(&elsewhere).expect_err("a link is in the way");
        assert!(!folder.path().join("nowhere").exists());
    }

    #[test]
    fn a_folder_in_the_way_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(look(folder.path()).unwrap_err().to_string().contains("neither a file nor a link"));
    }

    #[test]
    fn missing_folders_come_outermost_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outer, inner) = (folder.path().join("a"), folder.path().join("a/b"));
        assert_eq!(missing_folders(&inner.join("file")), [outer, inner]);
        assert_eq!(missing_folders(&folder.path().join("file")), [] as [PathBuf; 0]);
    }
}
