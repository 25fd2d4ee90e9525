//! Whether what containers send beyond the flat range gets this host's address: by flatnet's own rules, as the network wants them.

use ipnetwork::IpNetwork;

use super::finding::{Finding, MASQUERADE};
use crate::call::{block_on, within_deadline};
use crate::cli::probe::Host;
use crate::config::{Network, gateways};
use crate::error::Result;
use crate::family::IpFamily;
use crate::firewall::masquerade;
use crate::layout::{FLAT_RANGE, FLAT_RANGE_IPV6};

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
    let of_family = IpFamily::BOTH.into_iter().filter_map(|family| {
        let subnets: Vec<_> = network.subnets_of(family).iter().map(IpNetwork::to_string).collect();
        let beyond = match family {
            IpFamily::V4 => format!("beyond {FLAT_RANGE}"),
            IpFamily::V6 => format!("beyond {FLAT_RANGE_IPV6}"),
        };
        (!subnets.is_empty()).then(|| format!("{}, {beyond}", subnets.join(", ")))
    });
    format!("{}{but}", of_family.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::ipv4(json!({"subnet": "10.87.1.0/24"}), json!([]), "10.87.1.0/24, beyond 10.87.0.0/16")]
    #[case::both(
        json!({"ranges": [[{"subnet": "10.87.1.0/24"}], [{"subnet": "fd87:1::/64"}]]}),
        json!(["fd30::1", "172.30.0.0/24"]),
        "10.87.1.0/24, beyond 10.87.0.0/16; fd87:1::/64, beyond fd87::/16, and not to 172.30.0.0/24, fd30::1"
    )]
    fn in_words(#[case] ipam: Value, #[case] gateways: Value, #[case] expected: &str) {
        let config = json!({"name": "flatnet", "ipam": ipam, "gateways": gateways});
        let network = Network::parse(config.as_object().expect("an object")).expect("a network");
        assert_eq!(describe(&network), expected);
    }
}
