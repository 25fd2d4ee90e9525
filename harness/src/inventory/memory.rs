//! What flatnet remembers of which name had which addresses: a folder for each network, and in it links that lead to addresses, and
//! a file that lists addresses.
//!
//! Invariant: it may stay where everything else must go, so nothing but this passes for it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Where it is.
const FOLDER: &str = "/var/lib/cni/flatnet";
/// The list, and the one that takes its place.
const LISTS: [&str; 2] = ["%order", ".%order"];

/// Whether a line of an inventory tells of it.
pub(super) fn is_line(line: &str) -> bool {
    match line.split_once(' ') {
        Some(("folder", folder)) => depth(Path::new(folder)).is_some_and(|depth| depth < 2),
        Some(("file", file)) => match file.split_once(" -> ") {
            Some((file, target)) => depth(Path::new(file)) == Some(2) && leads_to_addresses(target),
            None => is_list(Path::new(file)),
        },
        _ => false,
    }
}

/// Whether what stands in for that file is part of it.
pub(crate) fn is_part(file: &Path, stand_in: &Path) -> bool {
    if let Ok(target) = fs::read_link(stand_in) {
        return depth(file) == Some(2) && target.to_str().is_some_and(leads_to_addresses);
    }
    let text = fs::read_to_string(stand_in).unwrap_or_default();
    is_list(file) && text.lines().all(|line| line.strip_suffix(" given").unwrap_or(line).parse::<IpAddr>().is_ok())
}

fn is_list(file: &Path) -> bool {
    depth(file) == Some(2) && LISTS.iter().any(|list| file.ends_with(list))
}

/// How far below its folder a path is.
fn depth(path: &Path) -> Option<usize> {
    Some(path.strip_prefix(FOLDER).ok()?.components().count())
}

fn leads_to_addresses(target: &str) -> bool {
    target.split(',').all(|address| address.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_passes_for_it() {
        let lines = [
            ("folder /var/lib/cni/flatnet", true),
            ("folder /var/lib/cni/flatnet/flatnet", true),
            ("folder /var/lib/cni/flatnet/flatnet/deeper", false),
            ("folder /var/lib/cni/flatnet-other", false),
            ("file /var/lib/cni/flatnet/flatnet/web -> 10.87.1.2", true),
            ("file /var/lib/cni/flatnet/flatnet/.web -> 10.87.1.2,fd00::2", true),
            ("file /var/lib/cni/flatnet/flatnet/web -> /etc/passwd", false),
            ("file /var/lib/cni/flatnet/flatnet/%order", true),
            ("file /var/lib/cni/flatnet/%order", false),
            ("file /var/lib/cni/flatnet/flatnet/web", false),
            ("file /var/lib/cni/flatnet/web -> 10.87.1.2", false),
            ("file /var/lib/cni/flatnet/flatnet/deeper/web -> 10.87.1.2", false),
            ("file /run/flatnet/flatnet/web -> 10.87.1.2", false),
            ("link eth0 (plain) up", false),
        ];
        for (line, expected) in lines {
            assert_eq!(is_line(line), expected, "{line}");
        }
    }
}
