//! How many addresses one look may try: to try more than the kernel can know neighbours would cut containers off.
//!
//! The kernel keeps so many neighbours of a family for all namespaces together (`gc_thresh3`, 1,024 unless somebody has set it), drops what needs
//! another, and keeps one that has answered for half a minute. Each address that is tried takes two: the host's and the container's.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Subject;

/// What the kernel has unless it is set; only the first network namespace shows it.
const NEIGHBOURS: usize = 1024;
/// All are tried where they take half of the neighbours at most, two for each address.
const SHARE: usize = 4;
/// Of more than those half as many are, and the same ones within a minute: by doctor, and by the service again and again.
const MINUTE_S: u64 = 60;

/// Those to try: all, or of each family as many as there is room for. Those that `is_odd` come first, and which of the others do changes
/// with the time.
pub(super) fn of(subjects: Vec<Subject<'_>>, is_odd: impl Fn(&Subject<'_>) -> bool) -> Vec<Subject<'_>> {
    let minute = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / MINUTE_S);
    let mut families = BTreeMap::<bool, Vec<_>>::new();
    for subject in subjects {
        families.entry(subject.address.is_ipv4()).or_default().push(subject);
    }
    let chosen = families.into_iter().map(|(ipv4, subjects)| choose(subjects, room(ipv4), minute, &is_odd));
    chosen.flatten().collect()
}

fn room(ipv4: bool) -> usize {
    let family = if ipv4 { "ipv4" } else { "ipv6" };
    let set = fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3"));
    set.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(NEIGHBOURS) / SHARE
}

fn choose<T>(mut all: Vec<T>, room: usize, minute: u64, is_odd: impl Fn(&T) -> bool) -> Vec<T> {
    if all.len() <= room {
        return all;
    }
    let room = room / 2;
    // The window moves on each minute, so that all have their turn.
    let start = usize::try_from(minute).unwrap_or_default().wrapping_mul(room) % all.len();
    all.rotate_left(start);
    all.sort_by_key(|it| !is_odd(it));
    all.truncate(room);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn few_are_all_tried() {
        assert_eq!(choose((0..256).collect(), 256, 7, |_| false), (0..256).collect::<Vec<_>>());
    }

    #[test]
    fn of_many_all_have_their_turn_and_odd_ones_always() {
        let mut seen = BTreeSet::new();
        for minute in 0..8 {
            let chosen = choose((0..1000).collect(), 256, minute, |it| *it == 999);
            assert_eq!(chosen.len(), 128);
            assert!(chosen.contains(&999), "{minute}");
            seen.extend(chosen);
        }
        assert!(seen.len() > 990, "{}", seen.len());
    }
}
