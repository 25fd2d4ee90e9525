//! Which name had which addresses last: a link for each name in a network's folder, `web -> 10.87.1.2,fd00::2`.
//!
//! A hint and nothing more. What cannot be read was never there, what cannot be written is forgotten, what is no such link is
//! left alone; no error comes out of here, nothing is locked, and nobody waits. The kernel alone says what is taken.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::hash::hex16;
use crate::layout::MEMORY;

/// How many names a network remembers, beside those whose containers are there: as many as a bridge has ports.
const NAMES_MOST: usize = 1024;
/// How many entries of a folder are read: more are not flatnet's doing.
const ENTRIES_MOST: usize = 4 * NAMES_MOST;
/// An address of each pool; a link that has more is not flatnet's.
const ADDRESSES_MOST: usize = 64;
/// A file's name has 255 bytes at most, and a new link one more than the one whose place it takes.
const FILE_NAME_MAX_BYTES: usize = 250;
/// A new link is there under its first name for some microseconds: one that is older was left by a process that was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// What a network remembers, as seen by one name.
pub(crate) struct Memory {
    folder: PathBuf,
    file: String,
    last: OnceCell<Vec<IpAddr>>,
    used: OnceCell<Used>,
}

/// When each address was last some name's.
pub(crate) type Used = BTreeMap<IpAddr, SystemTime>;

/// One name's link.
struct Entry {
    path: PathBuf,
    addresses: Vec<IpAddr>,
    time: SystemTime,
}

impl Memory {
    /// Of the network, as the container of that name needs it. Nothing is read yet.
    pub(crate) fn of(network: &str, name: &str) -> Self {
        Self::in_folder(Path::new(MEMORY).join(file_name(network)), name)
    }

    fn in_folder(folder: PathBuf, name: &str) -> Self {
        Self { folder, file: file_name(name), last: OnceCell::new(), used: OnceCell::new() }
    }

    /// The addresses that the name had last.
    pub(crate) fn last(&self) -> &[IpAddr] {
        self.last.get_or_init(|| read(&self.path()).unwrap_or_default())
    }

    /// The addresses that any name had last. What is too much to remember is forgotten on the way, but for what is `taken`.
    pub(crate) fn used(&self, taken: &BTreeSet<IpAddr>) -> &Used {
        self.used.get_or_init(|| {
            let entries = self.entries();
            let mut used = Used::new();
            for (address, time) in entries.iter().flat_map(|it| it.addresses.iter().map(|address| (*address, it.time)))
            {
                used.entry(address).and_modify(|known| *known = time.max(*known)).or_insert(time);
            }
            for entry in superfluous(&entries, &used, taken) {
                // Somebody else may have been faster.
                let _ = fs::remove_file(&entry.path);
            }
            used
        })
    }

    /// From now on these are what the name had last, and was just using.
    pub(crate) fn remember(&self, addresses: &[IpAddr]) {
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        // The next container of this name gets another address, and that is all.
        let _ = self.write(&texts.join(","));
    }

    /// The name's addresses were in use until now, if it has any.
    pub(crate) fn let_go(&self) {
        let _ = touch(&self.path());
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.file)
    }

    fn write(&self, target: &str) -> io::Result<()> {
        let path = self.path();
        match fs::read_link(&path) {
            Ok(former) if former == Path::new(target) => touch(&path),
            Ok(_) => {
                let new = self.folder.join(format!(".{}", self.file));
                make(target, &new)?;
                touch(&new)?;
                fs::rename(&new, &path)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                make(target, &path)?;
                touch(&path)
            }
            // Somebody else's file, or a folder.
            Err(e) => Err(e),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let Ok(folder) = fs::read_dir(&self.folder) else { return Vec::new() };
        folder.take(ENTRIES_MOST).flatten().filter_map(|entry| Entry::read(entry.path())).collect()
    }
}

impl Entry {
    fn read(path: PathBuf) -> Option<Self> {
        let addresses = read(&path)?;
        let time = fs::symlink_metadata(&path).and_then(|found| found.modified()).ok()?;
        Some(Self { path, addresses, time })
    }

    /// Not yet, or not any more, what a name had last.
    fn is_unfinished(&self) -> bool {
        self.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    }
}

/// Those whose every address is another name's since, those that a killed process left, and the longest unused beyond [`NAMES_MOST`].
fn superfluous<'a>(entries: &'a [Entry], used: &Used, taken: &BTreeSet<IpAddr>) -> Vec<&'a Entry> {
    let old = SystemTime::now().checked_sub(LEFT_BEHIND).unwrap_or(UNIX_EPOCH);
    let is_void = |entry: &&Entry| {
        let is_anothers = |address| used.get(address).is_some_and(|time| *time > entry.time);
        entry.addresses.iter().all(is_anothers) || (entry.is_unfinished() && entry.time < old)
    };
    let (mut gone, mut kept): (Vec<_>, Vec<_>) = entries.iter().partition(is_void);
    kept.retain(|entry| !entry.addresses.iter().any(|address| taken.contains(address)));
    kept.sort_by_key(|entry| entry.time);
    gone.extend(kept.iter().take(kept.len().saturating_sub(NAMES_MOST)));
    gone
}

/// The addresses that a link leads to; nothing where it is none of flatnet's.
fn read(path: &Path) -> Option<Vec<IpAddr>> {
    let target = fs::read_link(path).ok()?;
    let addresses: Vec<_> = target.to_str()?.split(',').take(ADDRESSES_MOST + 1).map(str::parse).collect();
    if addresses.len() > ADDRESSES_MOST {
        return None;
    }
    addresses.into_iter().collect::<Result<_, _>>().ok()
}

/// A new link. The folder is made by the first one.
fn make(target: &str, path: &Path) -> io::Result<()> {
    match symlink(target, path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let folder = path.parent().ok_or(e)?;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            symlink(target, path)
        }
        // Of a process that was killed, or that is at work for the same name at this very moment.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fs::read_link(path)?;
            fs::remove_file(path)?;
            symlink(target, path)
        }
        made => made,
    }
}

/// Exactly now: the kernel's own idea of now is that of its last tick.
fn touch(link: &Path) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(TimeSpec::UTIME_NOW, TimeSpec::from_duration);
    Ok(utimensat(AT_FDCWD, link, &now, &now, UtimensatFlags::NoFollowSymlink)?)
}

/// Letters, digits and `-_~` as they are, and dots but for the first; everything else as `%` and two digits. No two names have one file,
/// but for those that are too long for any.
fn file_name(name: &str) -> String {
    let mut file = String::new();
    for byte in name.bytes() {
        match byte {
            b'.' if !file.is_empty() => file.push('.'),
            b'-' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => file.push(byte.into()),
            _ => file.push_str(&format!("%{byte:02x}")),
        }
    }
    if file.is_empty() || file.len() > FILE_NAME_MAX_BYTES { format!("%{}", hex16(&[name])) } else { file }
}

#[cfg(test)]
mod tests;
