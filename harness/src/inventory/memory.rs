//! What flatnet remembers of which name had which addresses: a folder for each network, and in it links that lead to addresses.
//!
//! Invariant: it may stay where everything else must go, so nothing but this passes for it.

use std::net::IpAddr;
use std::path::Path;

/// Where it is.
const FOLDER: &str = "/var/lib/cni/flatnet";

/// Whether a line of an inventory tells of it.
pub(super) fn is_line(line: &str) -> bool {
    match line.split_once(' ') {
        Some(("folder", folder)) => depth(Path::new(folder)).is_some_and(|depth| depth < 2),
        Some(("file", file)) => file
            .split_once(" -> ")
            .is_some_and(|(file, target)| depth(Path::new(file)) == Some(2) && leads_to_addresses(target)),
        _ => false,
    }
}

/// Whether `link`, which stands in for that file, is part of it.
pub(crate) fn is_link(file: &Path, link: &Path) -> bool {
    let target = std::fs::read_link(link).unwrap_or_default();
    depth(file) == Some(2) && target.to_str().is_some_and(leads_to_addresses)
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
