//! Which name had which addresses last, and in which order addresses were used: a file for each network, to which a line is added whenever
//! addresses are given to a name, or freed ([`log`]).
//!
//! A hint and nothing more: without it a container may get another address, and that is all. No error comes out of here, nothing is locked,
//! and nobody waits. The kernel alone says what is taken.

mod log;

use std::cell::OnceCell;
use std::fmt::Write;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::Path;

#[cfg(test)]
pub(crate) use self::log::Use;
pub(crate) use self::log::Used;
use self::log::{Event, Log};
use crate::hash::hex16;
use crate::layout::MEMORY;

/// A file's name has 255 bytes at most, and that of a log is longer than its network's.
const NAME_MAX_BYTES: usize = 250;

/// What a network remembers, as seen by one name.
pub(crate) struct Memory {
    log: Log,
    name: String,
    text: OnceCell<String>,
    last: OnceCell<Vec<IpAddr>>,
    used: OnceCell<Known>,
}

/// What reading all of a log has shown.
struct Known {
    used: Used,
    /// Most of its lines say nothing that a later one does not.
    is_mostly_past: bool,
}

impl Memory {
    /// Of the network, as the container of that name needs it. Nothing is read yet.
    pub(crate) fn of(network: &str, name: &str) -> Self {
        Self::in_folder(Path::new(MEMORY), network, name)
    }

    fn in_folder(folder: &Path, network: &str, name: &str) -> Self {
        let log = Log::in_folder(folder, &plain(network));
        Self { log, name: plain(name), text: OnceCell::new(), last: OnceCell::new(), used: OnceCell::new() }
    }

    /// The addresses that the name had last.
    pub(crate) fn last(&self) -> &[IpAddr] {
        self.last.get_or_init(|| log::last(self.text(), &self.name).unwrap_or_default())
    }

    /// The addresses that any name has had.
    pub(crate) fn used(&self) -> &Used {
        &self.known().used
    }

    /// From now on these are what the name had last.
    pub(crate) fn remember(&self, addresses: &[IpAddr]) {
        let Ok(length) = self.log.add(Event::Given, &self.name, addresses) else { return };
        self.shorten(length);
    }

    /// They were in use until now.
    pub(crate) fn mark_freed(&self, addresses: &[IpAddr]) {
        // One of a network without addresses had none.
        if addresses.is_empty() {
            return;
        }
        // A network whose addresses another plugin gives by now remembers nothing else any more.
        let Ok(length) = self.log.add(Event::Freed, &self.name, addresses) else { return };
        self.shorten(length);
    }

    fn shorten(&self, length: u64) {
        if self.used.get().map_or(length > log::LONG_BYTES, |known| known.is_mostly_past) {
            // Where that fails it stays as it is, and another process tries.
            let _ = self.log.shorten();
        }
    }

    fn known(&self) -> &Known {
        self.used.get_or_init(|| {
            let contents = log::Contents::read(self.text());
            Known { is_mostly_past: contents.is_mostly_past(), used: contents.used }
        })
    }

    fn text(&self) -> &str {
        self.text.get_or_init(|| self.log.read().unwrap_or_default())
    }
}

/// Whether any network remembers anything.
pub(crate) fn is_there() -> bool {
    Path::new(MEMORY).is_dir()
}

/// What all networks remember goes, with its folder; whatever else somebody has put there stays.
pub(crate) fn forget_all() -> io::Result<()> {
    forget_in(Path::new(MEMORY))
}

fn forget_in(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && log::is_one(&entry.path()) {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        done => done,
    }
}

/// Letters, digits and `-_~` as they are, and dots but for the first; everything else as `%` and two digits: a word of a line, and the
/// beginning of a file's name. No two names have one word, but for those that are too long for any.
fn plain(name: &str) -> String {
    let mut word = String::new();
    for byte in name.bytes() {
        match byte {
            b'.' if !word.is_empty() => word.push('.'),
            b'-' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => word.push(byte.into()),
            // Writing to a text cannot fail.
            _ => drop(write!(word, "%{byte:02x}")),
        }
    }
    if word.is_empty() || word.len() > NAME_MAX_BYTES { format!("%{}", hex16(&[name])) } else { word }
}

#[cfg(test)]
mod tests;
