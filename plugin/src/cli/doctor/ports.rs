//! Published ports: whether the rules lead each port that a container's link claims to that container.

use super::finding::{Finding, PORTS};
use crate::cli::probe::Host;
use crate::command::{block_on, within_deadline};
use crate::error::{Doing, Result};
use crate::firewall::ports;
use crate::netlink::{Link, Netlink};

/// Of all networks together: the host's ports are shared.
pub(super) fn check(host: &Host, links: &[Link]) -> Finding {
    let publishing = links.iter().filter(|link| ports::claimed(link).next().is_some()).count();
    match publishing {
        0 => PORTS.ok("flatnet publishes none (with Podman 4, the plugin portmap does: not looked at)"),
        _ if !host.root => PORTS.skipped("needs root"),
        publishing => block_on(within_deadline(judge(publishing))).unwrap_or_else(|error| PORTS.failed(&error)),
    }
}

async fn judge(publishing: usize) -> Result<Finding> {
    let host = Netlink::open().doing(|| "open a netlink socket".into())?;
    Ok(match ports::problem(&host).await? {
        Some(problem) => PORTS.bad(
            format!("the rules are not as they should be: {problem}"),
            "`flatnet gateway` publishes them again by itself while it runs, and so does the next start of a container with ports",
        ),
        None if publishing == 1 => PORTS.ok("1 container's, each with its rule"),
        None => PORTS.ok(format!("{publishing} containers', each with its rule")),
    })
}
