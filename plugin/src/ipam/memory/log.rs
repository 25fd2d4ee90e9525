//! A network's log: `given web 10.87.1.2,fd00::2` when the name got these addresses, `freed web 10.87.1.2,fd00::2` when they were free again.
//!
//! The last line about a name or an address is what counts. A line is added by one call of the kernel, so that no other process that does
//! the same is in the way; a log that has become long is replaced by one that says the same in fewer lines. A line that cannot be read, or
//! was cut short, was never written; what is no file is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

/// How its name ends; the network's comes first.
const EXTENSION: &str = "log";
/// How the name of one begins that is being written anew. No network's does.
const NEW: &str = ".";
/// A log that is longer is read, and shortened where most of it is past, also by an ADD that has no need to read all of it.
pub(super) const LONG_BYTES: u64 = 64 << 10;
/// No more is read, of its end: a longer one is not flatnet's doing.
const READ_MAX_BYTES: u64 = 8 * LONG_BYTES;
/// How many lines it may have beyond two for each that counts: so many are read in some microseconds.
const SPARE_LINES: usize = 512;
/// How many lines a shortened one may have: two for each port that a bridge may have.
const KEPT_MOST: usize = 2048;
/// An address of each pool; a link that has more is not flatnet's.
const ADDRESSES_MOST: usize = 64;

/// The addresses that have been used.
pub(crate) type Used = BTreeMap<IpAddr, Use>;

/// The latest that is known of an address. What was freed is less than what was given, which is still in use as a rule, and of either the
/// longest ago is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// Whether it was given, and not freed since: nobody frees it where a host goes down.
    pub(crate) given: bool,
    /// The larger the later.
    pub(crate) line: usize,
}

/// What becomes of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Given,
    Freed,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    event: Event,
    name: &'a str,
    addresses: Vec<IpAddr>,
}

/// What a log says.
pub(super) struct Contents<'a> {
    pub(super) used: Used,
    /// The lines that say the same as all of it.
    kept: Vec<&'a str>,
    lines: usize,
}

/// A network's log, which may not be there.
pub(super) struct Log {
    path: PathBuf,
}

impl Event {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Freed => "freed",
        }
    }
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let event = match words.next()? {
            "given" => Event::Given,
            "freed" => Event::Freed,
            _ => return None,
        };
        let (name, addresses) = (words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let addresses: Vec<_> =
            addresses.split(',').take(ADDRESSES_MOST + 1).map(str::parse).collect::<Result<_, _>>().ok()?;
        (addresses.len() <= ADDRESSES_MOST).then_some(Self { event, name, addresses })
    }
}

impl<'a> Contents<'a> {
    /// The latest comes first: what was said before of the same name or address is past.
    pub(super) fn read(text: &'a str) -> Self {
        let lines: Vec<_> = text.lines().collect();
        let (mut used, mut names, mut kept) = (Used::new(), BTreeSet::new(), Vec::new());
        for (number, text) in lines.iter().enumerate().rev() {
            let Some(Line { event, name, addresses }) = Line::read(text) else { continue };
            let given = event == Event::Given;
            let mut counts = given && names.insert(name);
            for address in addresses {
                used.entry(address).or_insert_with(|| {
                    counts = true;
                    Use { given, line: number }
                });
            }
            if counts && kept.len() < KEPT_MOST {
                kept.push(*text);
            }
        }
        kept.reverse();
        Self { used, kept, lines: lines.len() }
    }

    pub(super) fn is_mostly_past(&self) -> bool {
        self.lines > 2 * self.kept.len() + SPARE_LINES
    }
}

/// The addresses that the name was given last.
pub(super) fn last(log: &str, name: &str) -> Option<Vec<IpAddr>> {
    let is_its = |line: &&str| line.split(' ').nth(1) == Some(name);
    let mut lines = log.lines().rev().filter(is_its).filter_map(Line::read);
    lines.find(|line| line.event == Event::Given).map(|line| line.addresses)
}

/// Whether that is the name of a log, also of one that is being written anew.
pub(super) fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

impl Log {
    /// `network` begins with no dot.
    pub(super) fn in_folder(folder: &Path, network: &str) -> Self {
        Self { path: folder.join(format!("{network}.{EXTENSION}")) }
    }

    /// All whole lines.
    pub(super) fn read(&self) -> io::Result<String> {
        let (file, length) = open(&self.path, OpenOptions::new().read(true))?;
        let start = length.saturating_sub(READ_MAX_BYTES);
        let mut bytes = vec![0; usize::try_from(length - start).unwrap_or_default()];
        let read = file.read_at(&mut bytes, start)?;
        bytes.truncate(read);
        // The last line may have been cut in two, as the first where this is not the start.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// Adds a line; gives the log's length. The first that is given makes the log.
    pub(super) fn add(&self, event: Event, name: &str, addresses: &[IpAddr]) -> io::Result<u64> {
        let mut line = format!("{} {name} ", event.as_str());
        for (n, address) in addresses.iter().enumerate() {
            // Writing to a text cannot fail.
            let _ = write!(line, "{}{address}", if n == 0 { "" } else { "," });
        }
        line.push('\n');
        let mut how = OpenOptions::new();
        // Where nothing was remembered, the addresses are not flatnet's to remember.
        how.append(true).create(event == Event::Given);
        let opened = match open(&self.path, &mut how) {
            Err(e) if e.kind() == ErrorKind::NotFound && event == Event::Given => {
                let folder = self.path.parent().ok_or(e)?;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                open(&self.path, &mut how)
            }
            opened => opened,
        };
        let (mut file, length) = opened?;
        // One call, whatever it takes: the rest of a line would come behind another process's.
        let written = file.write(line.as_bytes())?;
        Ok(length + written as u64)
    }

    /// Says the same, or of the latest of it, in fewer lines, where that is worth while.
    pub(super) fn shorten(&self) -> io::Result<()> {
        // One at a time: of two, the one would empty what the other is about to put in the log's place. Who only reads or adds waits for nobody.
        let (file, _) = open(&self.path, OpenOptions::new().read(true))?;
        if file.try_lock().is_err() || file.metadata()?.ino() != fs::symlink_metadata(&self.path)?.ino() {
            return Ok(());
        }
        let is_cut = fs::symlink_metadata(&self.path)?.len() > READ_MAX_BYTES;
        let text = self.read()?;
        let contents = Contents::read(&text);
        if !is_cut && !contents.is_mostly_past() {
            return Ok(());
        }
        let mut lines = String::with_capacity(text.len());
        for line in contents.kept {
            lines.push_str(line);
            lines.push('\n');
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let new = self.path.with_file_name(format!("{NEW}{name}"));
        let (mut file, _) = open(&new, OpenOptions::new().write(true).create(true).truncate(true))?;
        file.write_all(lines.as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

/// The file with its length. Nothing that is no file, or that a link leads to, is flatnet's; and nothing is waited for.
fn open(path: &Path, how: &mut OpenOptions) -> io::Result<(File, u64)> {
    let file = how.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).mode(0o600).open(path)?;
    let found = file.metadata()?;
    if found.is_file() { Ok((file, found.len())) } else { Err(ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one("given web 10.87.1.2", Some((Event::Given, "web", 1)))]
    #[case::of_both_families("freed web 10.87.1.2,fd00::2", Some((Event::Freed, "web", 2)))]
    #[case::cut("given web", None)]
    #[case::cut_before("en web 10.87.1.2", None)]
    #[case::cut_behind("given web 10.87.1.2,10.87.1", None)]
    #[case::behind_one_that_was_cut("given web 10.87.1.2given db 10.87.1.3", None)]
    #[case::more("given web 10.87.1.2 10.87.1.3", None)]
    #[case::nothing("", None)]
    #[case::nobody("given  ", None)]
    #[case::another_word("lent web 10.87.1.2", None)]
    fn lines(#[case] text: &str, #[case] expected: Option<(Event, &str, usize)>) {
        let line = Line::read(text);
        assert_eq!(line.map(|line| (line.event, line.name, line.addresses.len())), expected);
    }

    #[test]
    fn a_line_of_too_many_addresses_is_none() {
        let addresses = |count| format!("given web {}", vec!["10.87.1.2"; count].join(","));
        assert!(Line::read(&addresses(ADDRESSES_MOST)).is_some());
        assert!(Line::read(&addresses(ADDRESSES_MOST + 1)).is_none());
    }

    #[test]
    fn what_counts_is_the_last_line_of_each_name_and_address() {
        let log = "given web 10.87.1.2\ngiven db 10.87.1.3\nfreed web 10.87.1.2\ngiven web 10.87.1.2\nnonsense\nfreed db 10.87.1.3\n";
        let contents = Contents::read(log);
        assert_eq!(contents.kept, ["given db 10.87.1.3", "given web 10.87.1.2", "freed db 10.87.1.3"]);
        assert_eq!(contents.lines, 6);
        let of = |address: &str| contents.used[&address.parse::<IpAddr>().expect("an address")];
        assert_eq!((of("10.87.1.2"), of("10.87.1.3")), (Use { given: true, line: 3 }, Use { given: false, line: 5 }));
        assert_eq!(last(log, "db"), Some(vec!["10.87.1.3".parse().expect("an address")]));
        assert_eq!(last(log, "d"), None);
    }
}
