//! The links by which others reach the flat network: the host's uplinks, and its other flat networks.
//!
//! A link that a default route or the route to one of `gateways` leaves by counts always. Any other link with a route counts unless it is of
//! a kind that container and VM networks are made of: what other programs keep apart there stays apart.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::plan::Outside;
use crate::config::Network;
use crate::error::Result;
use crate::family::IpFamily;
use crate::layout::{ELSEWHERE, LINK_GROUP};
use crate::netlink::{Link, Netlink, Route};

/// Kinds of links that other programs' networks of containers and virtual machines are behind (Docker, Podman, libvirt, LXD, Kubernetes).
const KINDS_OF_OTHERS: [&str; 6] = ["bridge", "veth", "vxlan", "geneve", "openvswitch", "netkit"];

/// Who is behind a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Uplink,
    /// Another of the host's flat networks.
    Flat,
    /// Other programs' containers or virtual machines.
    Others,
}

/// Those of a family's routes.
pub(super) async fn links(host: &Netlink, network: &Network, family: IpFamily) -> Result<Outside> {
    let mut routes = match family {
        IpFamily::V4 => host.ipv4_routes().await?,
        IpFamily::V6 => host.ipv6_routes().await?,
    };
    // Each link has these, of other programs' containers, too.
    routes.retain(|route| !is_link_local(route.destination));
    let mut chosen = of(routes.iter().filter(|route| route.is_default()));
    let gateways = network.gateways.iter().map(IpNetwork::network);
    for address in ELSEWHERE.into_iter().chain(gateways).filter(|address| IpFamily::of(*address) == family) {
        // There may be no route.
        chosen.extend(host.way_to(address).await.ok().and_then(|route| route.link));
    }
    let all = of(&routes).union(&chosen).copied().collect::<BTreeSet<_>>();
    let mut outside = Outside::default();
    for index in all {
        let Some(link) = host.link_by_index(index).await? else { continue };
        let is_own = link.name == network.gateway_link() || link.name == network.bridge;
        match side_of(&link, chosen.contains(&index)) {
            _ if is_own || link.name == "lo" => {}
            Side::Uplink => outside.uplinks.push(link.name),
            Side::Flat => outside.flat.push(link.name),
            Side::Others => {}
        }
    }
    outside.uplinks.sort_unstable();
    outside.flat.sort_unstable();
    Ok(outside)
}

fn of<'a>(routes: impl IntoIterator<Item = &'a Route>) -> BTreeSet<u32> {
    routes.into_iter().filter_map(|route| route.link).collect()
}

/// `is_chosen`: a default route leaves by it, or the route to a gateway.
fn side_of(link: &Link, is_chosen: bool) -> Side {
    match link.kind.as_deref() {
        _ if link.group == LINK_GROUP => Side::Flat,
        _ if is_chosen => Side::Uplink,
        Some(kind) if KINDS_OF_OTHERS.contains(&kind) => Side::Others,
        _ => Side::Uplink,
    }
}

fn is_link_local(destination: IpNetwork) -> bool {
    match destination {
        IpNetwork::V4(_) => false,
        IpNetwork::V6(network) => network.ip().is_unicast_link_local() || network.ip().is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_device(None, 0, false, Side::Uplink)]
    #[case::a_tunnel(Some("wireguard"), 0, false, Side::Uplink)]
    #[case::a_vlan_of_the_lan(Some("vlan"), 0, false, Side::Uplink)]
    #[case::docker(Some("bridge"), 0, false, Side::Others)]
    #[case::a_bridge_with_the_default_route(Some("bridge"), 0, true, Side::Uplink)]
    #[case::a_pod(Some("veth"), 0, false, Side::Others)]
    #[case::pods_of_other_nodes(Some("vxlan"), 0, false, Side::Others)]
    #[case::a_flat_network(Some("bridge"), LINK_GROUP, false, Side::Flat)]
    #[case::a_flat_network_with_a_gateway(Some("bridge"), LINK_GROUP, true, Side::Flat)]
    #[case::a_vlan_of_a_flat_network(Some("vlan"), LINK_GROUP, false, Side::Flat)]
    #[case::of_another_group(Some("bridge"), 7, false, Side::Others)]
    fn whose_networks_are_where(
        #[case] kind: Option<&str>,
        #[case] group: u32,
        #[case] is_chosen: bool,
        #[case] expected: Side,
    ) {
        let link = Link { kind: kind.map(str::to_owned), group, ..Link::default() };
        assert_eq!(side_of(&link, is_chosen), expected);
    }
}
