//! What flatnet remembers of which name had which addresses: a folder, and in it a log for each network, whose lines say of names and
//! addresses that they were given or freed.
//!
//! Invariant: it may stay where everything else must go, so nothing but this passes for it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Where it is.
const FOLDER: &str = "/var/lib/cni/flatnet";
/// How a line begins.
const EVENTS: [&str; 2] = ["given", "freed"];

/// Whether a line of an inventory tells of it.
pub(super) fn is_line(line: &str) -> bool {
    match line.split_once(' ') {
        Some(("folder", folder)) => folder == FOLDER,
        Some(("file", file)) => is_log(Path::new(file)),
        _ => false,
    }
}

/// Whether what stands in for that file is part of it.
pub(crate) fn is_part(file: &Path, stand_in: &Path) -> bool {
    is_log(file) && !stand_in.is_symlink() && fs::read_to_string(stand_in).is_ok_and(|text| text.lines().all(is_event))
}

fn is_log(file: &Path) -> bool {
    file.parent() == Some(Path::new(FOLDER)) && file.extension().is_some_and(|extension| extension == "log")
}

/// Whether that is a line of a log.
fn is_event(line: &str) -> bool {
    let [event, _name, addresses] = line.split(' ').collect::<Vec<_>>()[..] else { return false };
    EVENTS.contains(&event) && addresses.split(',').all(|address| address.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_passes_for_it() {
        let lines = [
            ("folder /var/lib/cni/flatnet", true),
            ("folder /var/lib/cni/flatnet/flatnet", false),
            ("folder /var/lib/cni/flatnet-other", false),
            ("file /var/lib/cni/flatnet/flatnet.log", true),
            ("file /var/lib/cni/flatnet/.flatnet.log", true),
            ("file /var/lib/cni/flatnet/flatnet.log -> /etc/passwd", false),
            ("file /var/lib/cni/flatnet/flatnet", false),
            ("file /var/lib/cni/flatnet/deeper/flatnet.log", false),
            ("file /run/flatnet/flatnet.log", false),
            ("link eth0 (plain) up", false),
        ];
        for (line, expected) in lines {
            assert_eq!(is_line(line), expected, "{line}");
        }
    }

    #[test]
    fn a_log_has_lines_of_its_own_only() {
        let lines = [
            ("given web 10.87.1.2", true),
            ("freed web 10.87.1.2,fd00::2", true),
            ("given web", false),
            ("given web 10.87.1", false),
            ("lent web 10.87.1.2", false),
            ("given web 10.87.1.2 10.87.1.3", false),
            ("", false),
        ];
        for (line, expected) in lines {
            assert_eq!(is_event(line), expected, "{line}");
        }
    }
}
