//! The addresses of a gateway's link: whether they are the network's, and which are in its way.
//!
//! What another has given the link is taken from it only where the network says so (`forceAddress`).

use ipnetwork::IpNetwork;

use super::left::is_left;
use super::{find, mark_of};
use crate::config::Network;
use crate::error::{Error, Result};
use crate::link::{ipv6, vlan};
use crate::netlink::{Link, Netlink};

/// Whether the bridge is in use: the gateway's link has the gateways' addresses; where it is no gateway, the bridge is up and marked.
/// Errors: 105 where the link has none of a family's, but others that are in their way and may not be taken from it.
pub(crate) async fn has_gateways(host: &Netlink, network: &Network, bridge: &Link) -> Result<bool> {
    let gateways = network.gateway_networks();
    if gateways.is_empty() {
        return Ok(bridge.up && bridge.names.contains(&mark_of(&network.name)));
    }
    let Some(link) = vlan::find(host, network, bridge).await? else { return Ok(false) };
    let name = &link.name;
    let found = host.addresses_of_any_scope(&link).await?;
    let can_ask = !network.has_ipv6() || ipv6::can_ask(&found);
    let addresses: Vec<_> = found.iter().filter(|found| !found.is_link_local()).map(|found| found.network).collect();
    match conflict(&gateways, &addresses) {
        Some((gateway, other)) if !network.options.force_address => Err(Error::BridgeConflict {
            bridge: name.clone(),
            found: format!("it has address {other}, but network {} needs {gateway}", network.name),
            remedy: format!(
                "give the network another bridge (`bridge` in its .conflist, `--interface-name` with Podman 5), or free this one: `ip address del {other} dev {name}`"
            ),
        }),
        // The network may have grown.
        _ => Ok(can_ask && gateways.iter().all(|gateway| addresses.contains(gateway))),
    }
}

/// Errors: 105 where the host's bridge or addresses are in the way of a network that is to be set up.
pub(crate) async fn refuse_conflict(host: &Netlink, network: &Network) -> Result<()> {
    match find(host, &network.bridge).await? {
        Some(found) if has_gateways(host, network, &found).await? => Ok(()),
        _ => refuse_overlap(host, network).await,
    }
}

/// Errors: 105 where the host has an address of this subnet elsewhere: one of the two places could not be reached.
pub(crate) async fn refuse_overlap(host: &Netlink, network: &Network) -> Result<()> {
    let gateways = network.gateway_networks();
    let addresses = host.all_addresses().await?;
    let overlapping = |other: IpNetwork| gateways.iter().find(move |gateway| overlap(other, **gateway));
    for (index, other) in &addresses {
        let Some(gateway) = overlapping(*other) else { continue };
        // On the bridge itself it is the gateway's own: another first ADD was faster.
        let link = host.link_by_index(*index).await?;
        let Some(link) = link.filter(|link| link.name != network.gateway_link()) else { continue };
        let (name, bridge) = (&link.name, &network.bridge);
        let rename = if is_left(host, &link).await? {
            "delete that bridge if its network was removed (`sudo flatnet gc`), or ".to_owned()
        } else if other == gateway && link.kind.as_deref() == Some("bridge") {
            format!(
                "rename it back if it is {bridge} (`ip link set {name} down`, `ip link set {name} name {bridge}`), or "
            )
        } else {
            String::new()
        };
        return Err(Error::BridgeConflict {
            bridge: bridge.clone(),
            found: format!("{name} already has {other}, which overlaps network {}'s {gateway}", network.name),
            remedy: format!(
                "{rename}give the network another subnet (`--subnet` of `flatnet install` and `podman network create`, `ipam.subnet` in a .conflist)"
            ),
        });
    }
    Ok(())
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}

/// Takes the addresses away that `forceAddress` is about.
pub(super) async fn clear_the_way(host: &Netlink, network: &Network, link: &Link) -> Result<()> {
    let gateways = network.gateway_networks();
    let is_in_the_way = |other: &IpNetwork| obstructed(&gateways, *other).is_some();
    let addresses = host.addresses(link).await?;
    for other in addresses.into_iter().filter(is_in_the_way) {
        host.delete_address(link, other).await?;
    }
    Ok(())
}

/// A gateway, and the address that is in its way: a link that has any other of the family's gateways is the network's already.
pub(crate) fn conflict(gateways: &[IpNetwork], addresses: &[IpNetwork]) -> Option<(IpNetwork, IpNetwork)> {
    let is_new = |gateway: &IpNetwork| {
        let mut present = gateways.iter().filter(|other| addresses.contains(other));
        !present.any(|other| other.is_ipv4() == gateway.is_ipv4())
    };
    let in_the_way = |other: &IpNetwork| Some((obstructed(gateways, *other).filter(is_new)?, *other));
    addresses.iter().find_map(in_the_way)
}

/// The gateway in whose way another address of its link is: of IPv4 any is, of IPv6 one that overlaps, as in the reference.
fn obstructed(gateways: &[IpNetwork], other: IpNetwork) -> Option<IpNetwork> {
    let is_obstructed = |gateway: &IpNetwork| (gateway.is_ipv4() && other.is_ipv4()) || overlap(*gateway, other);
    gateways.iter().copied().find(|gateway| is_obstructed(gateway) && !gateways.contains(&other))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty("10.87.1.1/24", "", None)]
    #[case::its_own("10.87.1.1/24", "10.87.1.1/24 10.99.0.1/24", None)]
    #[case::anothers("10.87.1.1/24", "10.99.0.1/24", Some("10.87.1.1/24 10.99.0.1/24"))]
    #[case::of_the_other_family("10.87.1.1/24", "fd66::1/64", None)]
    #[case::of_the_other_family_too("10.87.1.1/24", "fd66::1/64 10.99.0.1/24", Some("10.87.1.1/24 10.99.0.1/24"))]
    #[case::ipv6_elsewhere("fd87:1::1/64", "fd66::1/64 10.99.0.1/24", None)]
    #[case::ipv6_overlapping("fd87:1::1/64", "fd87:1::9/64", Some("fd87:1::1/64 fd87:1::9/64"))]
    #[case::grown("10.87.1.1/24 10.87.2.1/24", "10.87.2.1/24", None)]
    #[case::one_family_there(
        "10.87.1.1/24 fd87:1::1/64",
        "10.87.1.1/24 fd87:1::9/64",
        Some("fd87:1::1/64 fd87:1::9/64")
    )]
    fn what_is_in_the_way(#[case] gateways: &str, #[case] addresses: &str, #[case] expected: Option<&str>) {
        let read = |text: &str| text.split_whitespace().map(|it| it.parse().expect("a network")).collect::<Vec<_>>();
        let found = conflict(&read(gateways), &read(addresses)).map(|(gateway, other)| format!("{gateway} {other}"));
        assert_eq!(found.as_deref(), expected);
    }
}
