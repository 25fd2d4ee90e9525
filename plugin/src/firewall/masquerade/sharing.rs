//! Whom a bridge's rules are for: networks may share a bridge, and containers of one network may be of other subnets than its own.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::Found;
use super::rules::subnets_of;
use crate::config::Network;
use crate::error::Result;
use crate::family::IpFamily;
use crate::ipam::lease;
use crate::ipam::pool::subnet_of;
use crate::netlink::{Link, Netlink};

/// The subnets that the rules of a bridge may have to be for, beside those that are known of: those that they are for, and those that the
/// bridge is the gateway of.
pub(super) async fn candidates(
    host: &Netlink,
    bridge: &Link,
    family: IpFamily,
    found: Option<&Found>,
) -> Result<BTreeSet<IpNetwork>> {
    let addresses = host.addresses(bridge).await?;
    let gateways = addresses.into_iter().filter(|address| family.has(*address)).map(subnet_of);
    Ok(found.map(subnets_found).unwrap_or_default().into_iter().chain(gateways).collect())
}

/// Those of which a container on the bridge has an address.
pub(super) async fn in_need(
    host: &Netlink,
    network: &Network,
    bridge: &Link,
    subnets: &BTreeSet<IpNetwork>,
) -> Result<BTreeSet<IpNetwork>> {
    if subnets.is_empty() {
        return Ok(BTreeSet::new());
    }
    let links = host.links().await?;
    let vlan = network.gateway_vlan().map(|(_, vlan)| vlan);
    // One that has lost its bridge is put back. A gateway in a VLAN is another link than the bridge.
    let is_there = |link: &&Link| match vlan {
        None => link.bridge.is_none_or(|index| index == bridge.index),
        Some(_) => lease::record(link).is_none() || lease::vlan(link) == vlan,
    };
    let leases: Vec<_> = links.iter().filter(is_there).flat_map(lease::leases).collect();
    Ok(subnets.iter().copied().filter(|subnet| leases.iter().any(|lease| subnet.contains(*lease))).collect())
}

pub(super) fn own_subnets(network: &Network, family: IpFamily) -> BTreeSet<IpNetwork> {
    network.subnets_of(family).into_iter().collect()
}

pub(super) fn subnets_found((_, rules): &Found) -> BTreeSet<IpNetwork> {
    subnets_of(rules.iter().map(|placed| &placed.rule))
}
