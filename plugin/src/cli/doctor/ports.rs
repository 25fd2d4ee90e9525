//! Published ports: whether rules lead each port to its container, and whether what makes them opens anything else.
//!
//! Of all networks together: the host's ports are shared. What flatnet publishes (netavark) its links claim; what the plugin `portmap`
//! publishes (CNI) is in the runtime's cache.

mod portmap;

use self::portmap::Publishing;
use super::finding::{Finding, PORTS};
use crate::call::{block_on, within_deadline};
use crate::cli::probe::Host;
use crate::error::Result;
use crate::firewall::{localnet, ports};
use crate::netlink::{Link, Netlink};

pub(super) fn check(host: &Host, links: &[Link]) -> Finding {
    let own = links.iter().filter(|link| ports::claimed(link).next().is_some()).count();
    if !host.root {
        return PORTS.skipped("needs root");
    }
    block_on(within_deadline(judge(own, &portmap::publishing(links), links)))
        .unwrap_or_else(|error| PORTS.failed(&error))
}

async fn judge(own: usize, by_portmap: &[Publishing<'_>], links: &[Link]) -> Result<Finding> {
    if own > 0 {
        let host = Netlink::open()?;
        if let Some(problem) = ports::problem(&host).await? {
            return Ok(PORTS.bad(
                format!("the rules are not as they should be: {problem}"),
                "`flatnet gateway` publishes them again by itself while it runs, and so does the next start of a container with ports",
            ));
        }
    }
    if let Some(finding) = portmap::judge(by_portmap).await? {
        return Ok(finding);
    }
    if let Some(bridge) = localnet::unguarded(links).await? {
        return Ok(PORTS.bad(
            format!("containers reach what listens on this host's 127.0.0.1: the plugin portmap has set route_localnet on {bridge}, and no rule guards it"),
            "let `flatnet gateway` run, which puts a guard there, or run `flatnet gc`, which does so too",
        ));
    }
    Ok(match own + by_portmap.len() {
        0 => PORTS.ok("none"),
        1 => PORTS.ok("1 container's, each with its rule"),
        publishing => PORTS.ok(format!("{publishing} containers', each with its rule")),
    })
}
