//! In which order a network's addresses were used: a file with a line for each time that one was given or let go.
//!
//! An address's last line is what counts. Lines are only ever added, by one call each, so that nobody who does the same at that moment
//! is in the way; a file that has become long is replaced by one that says the same in fewer lines.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

/// No name's file is called that: what follows `%` there are digits.
const FILE: &str = "%order";
const NEW_FILE: &str = ".%order";
/// From here on it is written anew, whoever has no need to read it.
const LONG_BYTES: u64 = 64 << 10;
/// No more than that is read, of its end: a longer one is not flatnet's doing.
const READ_MOST_BYTES: u64 = 2 * LONG_BYTES;
/// How many lines it may have beyond two for each address: so many are read in some microseconds.
const SPARE_LINES: usize = 512;
/// How many addresses a shortened one may have: as many as a bridge has ports.
const KEPT_MOST: usize = 1024;

/// What follows an address that was given; one that was let go stands alone.
const GIVEN: &str = " given";

/// The addresses that have been used.
pub(crate) type Used = BTreeMap<IpAddr, Use>;

/// The latest that is known of an address. What was let go is less than what was given, which is still in use as a rule, and of either the
/// longest ago is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// Whether it was given, and not let go since: nobody lets go of it where a host goes down.
    pub(crate) given: bool,
    /// The larger the later.
    pub(crate) line: usize,
}

/// A network's file.
pub(super) struct Order {
    path: PathBuf,
}

/// Whether that is such a file, also one that is being written anew.
pub(super) fn is_one(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == FILE || name == NEW_FILE)
}

impl Order {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    pub(super) fn is_there(&self) -> bool {
        self.length().is_some()
    }

    /// Whether it should be shortened; `read` is what it said, if somebody has read it.
    pub(super) fn is_long(&self, read: Option<&Used>) -> bool {
        // The last line is its address's latest.
        let lines = |used: &Used| used.values().map(|latest| latest.line).max().map_or(0, |last| last + 1);
        let is_mostly_past = read.is_some_and(|used| lines(used) > 2 * used.len() + SPARE_LINES);
        is_mostly_past || self.length().is_some_and(|length| length > LONG_BYTES)
    }

    pub(super) fn read(&self) -> Used {
        let text = self.text().unwrap_or_default();
        // What is no address is passed over: the first line may have been cut in two.
        let read = |(line, text): (usize, &str)| {
            let address = text.strip_suffix(GIVEN);
            Some((address.unwrap_or(text).parse().ok()?, Use { given: address.is_some(), line }))
        };
        text.lines().enumerate().filter_map(read).collect()
    }

    /// These were given, or let go, last.
    pub(super) fn add(&self, addresses: &[IpAddr], given: bool) -> io::Result<()> {
        let mut file = open(&self.path, OpenOptions::new().append(true).create(true))?;
        let lines: String = addresses.iter().map(|address| line(*address, given)).collect();
        file.write_all(lines.as_bytes())
    }

    /// Says the same, or of the latest of them, in fewer lines; gives it.
    pub(super) fn shorten(&self) -> Used {
        let used = self.read();
        let mut latest: Vec<_> = used.iter().map(|(address, latest)| (latest.line, *address, latest.given)).collect();
        latest.sort_unstable();
        let kept = latest.split_off(latest.len().saturating_sub(KEPT_MOST));
        let lines: String = kept.into_iter().map(|(_, address, given)| line(address, given)).collect();
        let new = self.path.with_file_name(NEW_FILE);
        let written = open(&new, OpenOptions::new().write(true).create(true).truncate(true))
            .and_then(|mut file| file.write_all(lines.as_bytes()));
        // Else it stays as it is, and somebody else tries.
        let _ = written.and_then(|()| fs::rename(&new, &self.path));
        used
    }

    fn length(&self) -> Option<u64> {
        fs::symlink_metadata(&self.path).ok().filter(fs::Metadata::is_file).map(|found| found.len())
    }

    fn text(&self) -> io::Result<String> {
        let mut file = open(&self.path, OpenOptions::new().read(true))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(READ_MOST_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(READ_MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Nothing that is no file, or that a link leads to, is flatnet's; and nothing is waited for.
fn open(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    let file = how.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).mode(0o600).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn line(address: IpAddr, given: bool) -> String {
    format!("{address}{}\n", if given { GIVEN } else { "" })
}
