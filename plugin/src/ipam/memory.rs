//! Which name had which addresses last: a link for each name in a network's folder, `web -> 10.87.1.2,fd00::2`; and in which order
//! addresses were used ([`order`]).
//!
//! A hint and nothing more. What cannot be read was never there, what cannot be written is forgotten, what is not flatnet's is
//! left alone; no error comes out of here, nothing is locked, and nobody waits. The kernel alone says what is taken.

mod order;

use std::cell::OnceCell;
use std::fmt::Write;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::order::Order;
#[cfg(test)]
pub(crate) use self::order::Use;
pub(crate) use self::order::Used;
use crate::hash::hex16;
use crate::layout::MEMORY;

/// How many names a network remembers: as many as a bridge has ports.
const NAMES_MOST: usize = 1024;
/// How many entries of a folder are looked at: more are not flatnet's doing.
const ENTRIES_MOST: usize = 4 * NAMES_MOST;
/// An address of each pool; a link that has more is not flatnet's.
const ADDRESSES_MOST: usize = 64;
/// A file's name has 255 bytes at most, and a new link one more than the one whose place it takes.
const FILE_NAME_MAX_BYTES: usize = 250;
/// A new link is there under its first name for some microseconds: one that is older was left by a process that was killed.
const LEFT_BEHIND: Duration = Duration::from_mins(1);

/// What a network remembers, as seen by one name.
pub(crate) struct Memory {
    folder: PathBuf,
    file: String,
    last: OnceCell<Vec<IpAddr>>,
    used: OnceCell<Used>,
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
        self.last.get_or_init(|| read(&self.folder.join(&self.file)).unwrap_or_default())
    }

    /// The addresses that any name has had.
    pub(crate) fn used(&self) -> &Used {
        self.used.get_or_init(|| self.order().read())
    }

    /// From now on these are what the name had last.
    pub(crate) fn remember(&self, addresses: &[IpAddr]) {
        let order = self.order();
        // The next container of this name gets another address, and that is all.
        let _ = self.write(addresses).and_then(|()| order.add(addresses, true));
        if order.is_long(self.used.get()) {
            let used = order.shorten();
            self.forget_the_longest_unused(&used);
        }
    }

    /// They were in use until now.
    pub(crate) fn let_go(&self, addresses: &[IpAddr]) {
        let order = self.order();
        // Where nothing was remembered, the addresses are not flatnet's to remember.
        if order.is_there() {
            let _ = order.add(addresses, false);
        }
    }

    fn order(&self) -> Order {
        Order::in_folder(&self.folder)
    }

    fn write(&self, addresses: &[IpAddr]) -> io::Result<()> {
        let (path, target) = (self.folder.join(&self.file), text(addresses));
        match fs::read_link(&path) {
            Ok(former) if former == Path::new(&target) => Ok(()),
            Ok(_) => {
                let new = self.folder.join(format!(".{}", self.file));
                make(&target, &new)?;
                fs::rename(&new, &path)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => make(&target, &path),
            // Somebody else's file, or a folder.
            Err(e) => Err(e),
        }
    }

    /// Only now and then: it looks at every name.
    fn forget_the_longest_unused(&self, used: &Used) {
        let Ok(folder) = fs::read_dir(&self.folder) else { return };
        let old = SystemTime::now().checked_sub(LEFT_BEHIND).unwrap_or(UNIX_EPOCH);
        let mut names = Vec::new();
        for path in folder.take(ENTRIES_MOST).flatten().map(|entry| entry.path()) {
            let Some(addresses) = read(&path) else { continue };
            let changed = fs::symlink_metadata(&path).and_then(|found| found.modified()).unwrap_or(UNIX_EPOCH);
            if !is_unfinished(&path) {
                let lines = addresses.iter().filter_map(|address| used.get(address)).map(|latest| latest.line);
                names.push((lines.max(), changed, path));
            } else if changed < old {
                let _ = fs::remove_file(path);
            }
        }
        names.sort();
        let too_many = names.len().saturating_sub(NAMES_MOST);
        for (.., path) in names.into_iter().take(too_many) {
            // Somebody else may have been faster.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether any network remembers anything.
pub(crate) fn is_there() -> bool {
    Path::new(MEMORY).is_dir()
}

/// What all networks remember goes, with its folders; whatever else somebody has put there stays.
pub(crate) fn forget_all() -> io::Result<()> {
    forget_in(Path::new(MEMORY))
}

fn forget_in(memory: &Path) -> io::Result<()> {
    for network in fs::read_dir(memory)? {
        let folder = network?.path();
        // A link is none of flatnet's, wherever it leads.
        if !fs::symlink_metadata(&folder)?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if read(&path).is_some() || order::is_one(&path) {
                fs::remove_file(path)?;
            }
        }
        remove_empty(&folder)?;
    }
    remove_empty(memory)
}

fn remove_empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        done => done,
    }
}

fn text(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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

/// Not yet, or never any more, what a name had last.
fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
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

/// Letters, digits and `-_~` as they are, and dots but for the first; everything else as `%` and two digits. No two names have one file,
/// but for those that are too long for any.
fn file_name(name: &str) -> String {
    let mut file = String::new();
    for byte in name.bytes() {
        match byte {
            b'.' if !file.is_empty() => file.push('.'),
            b'-' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => file.push(byte.into()),
            // Writing to a text cannot fail.
            _ => drop(write!(file, "%{byte:02x}")),
        }
    }
    if file.is_empty() || file.len() > FILE_NAME_MAX_BYTES { format!("%{}", hex16(&[name])) } else { file }
}

#[cfg(test)]
mod tests;
