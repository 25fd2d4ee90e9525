//! Whether what containers send beyond the flat range gets this host's address: by flatnet's own rules, as the network wants them.

use super::finding::{Finding, MASQUERADE};
use crate::cli::probe::Host;
use crate::command::{block_on, within_deadline};
use crate::config::{Network, gateways};
use crate::error::Result;
use crate::firewall::masquerade;
use crate::layout::FLAT_RANGE;

/// `has_bridge`: the rules are made with it.
pub(super) fn check(host: &Host, network: &Network, has_bridge: bool) -> Finding {
    if !network.masquerade {
        return MASQUERADE.ok("off, as configured: containers reach what has a route back to them");
    }
    if !host.root {
        return MASQUERADE.skipped("needs root");
    }
    block_on(within_deadline(judge(network, has_bridge))).unwrap_or_else(|error| MASQUERADE.failed(&error))
}

async fn judge(network: &Network, has_bridge: bool) -> Result<Finding> {
    masquerade::try_out(network).await?;
    if !has_bridge {
        return Ok(MASQUERADE.ok("not yet: the first container's start writes the rules"));
    }
    Ok(match masquerade::problem(network).await? {
        Some(found) => {
            MASQUERADE.bad(found, "run `systemctl restart flatnet`, or start a container: either writes them anew")
        }
        None => MASQUERADE.ok(describe(network)),
    })
}

fn describe(network: &Network) -> String {
    let gateways: Vec<_> = network.gateways.iter().map(|gateway| gateways::text(*gateway)).collect();
    let but = if gateways.is_empty() { String::new() } else { format!(", and not to {}", gateways.join(", ")) };
    format!("{}, beyond {FLAT_RANGE}{but}", network.subnets_in_words())
}
