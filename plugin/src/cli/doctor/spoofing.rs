//! Whether containers are kept from speaking for others, where the network wants that: rules of flatnet's, for each port.

use super::finding::{Finding, SPOOFING};
use crate::call::{block_on, within_deadline};
use crate::cli::probe::Host;
use crate::config::Network;
use crate::error::Result;
use crate::firewall::spoofing;
use crate::ipam::lease;
use crate::netlink::Netlink;

pub(super) fn check(host: &Host, network: &Network) -> Finding {
    if !network.macspoofchk {
        return SPOOFING.ok("not checked, as configured: a container with NET_RAW can speak for others");
    }
    if !host.root {
        return SPOOFING.skipped("needs root");
    }
    block_on(within_deadline(judge(network))).unwrap_or_else(|error| SPOOFING.failed(&error))
}

async fn judge(network: &Network) -> Result<Finding> {
    spoofing::refuse_lacking().await?;
    let host = Netlink::open()?;
    let links: Vec<_> = lease::of_network(&host, &network.name).await?.into_iter().map(|(_, link)| link).collect();
    if let Some(link) = links.iter().find(|link| lease::record(link).is_some() && lease::guarded_mac(link).is_none()) {
        return Ok(SPOOFING.bad(
            format!("host link {} was made before macspoofchk was set", link.name),
            "recreate its container (`flatnet ls` names it)",
        ));
    }
    Ok(match spoofing::problem(&links).await? {
        Some(found) => {
            SPOOFING.bad(found, "run `systemctl restart flatnet`, or start a container: either writes the rules anew")
        }
        None => SPOOFING.ok(match links.len() {
            1 => "1 container, which speaks for itself only".to_owned(),
            count => format!("{count} containers, each of which speaks for itself only"),
        }),
    })
}
