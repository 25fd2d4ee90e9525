//! Whether each container is reached by its own name: a name means one container, and others of it go without.

use super::finding::{Finding, NAMES};
use crate::cli::names::Names;
use crate::netlink::Link;

/// How many are named: the others look the same.
const SHOWN_MAX: usize = 3;

/// Of all networks together: names know none.
pub(super) fn check(links: &[Link]) -> Finding {
    let names = Names::of(links);
    let doubles = names.doubles();
    if doubles.is_empty() {
        return NAMES.ok("each container is reached by its own name");
    }
    let mut words: Vec<_> = doubles.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if doubles.len() > SHOWN_MAX {
        words.push(format!("and {} more", doubles.len() - SHOWN_MAX));
    }
    NAMES.warning(words.join("; "), "recreate each under another name, or reach it by its address (`flatnet ls`)")
}
