//! Who asks the name service, by the address that a connection comes from: it decides how much of the service is theirs, and what
//! they may read.
//!
//! An address cannot be lied about: a connection is there only when answers to it have arrived.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use crate::config::Network;
use crate::layout;

/// A kind of visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Visitor {
    /// This host itself.
    Node,
    /// A host of some network's `gateways`.
    Gateway,
    /// A container, of this host or another one.
    Container,
    /// Any other host; where `gateways` is not set, the gateway is one of them.
    Other,
}

impl Visitor {
    /// Who is at `peer`, and has come to this host's address `own` if that is known.
    pub(super) fn of<'a>(
        peer: SocketAddr,
        own: Option<SocketAddr>,
        networks: impl Iterator<Item = &'a Network>,
    ) -> Self {
        let peer = peer.ip().to_canonical();
        if peer.is_loopback() || own.is_some_and(|own| own.ip().to_canonical() == peer) {
            return Self::Node;
        }
        let mut found = if is_flat(peer) { Self::Container } else { Self::Other };
        for network in networks {
            if network.gateway_networks().iter().any(|gateway| gateway.ip() == peer) {
                return Self::Node;
            }
            if network.gateways.iter().any(|gateway| gateway.contains(peer)) {
                found = Self::Gateway;
            } else if found == Self::Other && network.pools.subnets().iter().any(|subnet| subnet.contains(peer)) {
                found = Self::Container;
            }
        }
        found
    }

    /// Whether it may read everybody's names, and what is wrong with this host.
    pub(super) fn may_read_all(self) -> bool {
        matches!(self, Self::Node | Self::Gateway)
    }
}

/// Whether containers have such addresses: those of the flat ranges that are not reserved for gateways.
fn is_flat(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => layout::FLAT_RANGE.contains(address) && address.octets()[2] != 0,
        IpAddr::V6(address) => matches!(address.segments(), [0xfd87, host, ..] if host != 0),
    }
}

/// Whose share a connection from `peer` counts for: a host's own address, or the network of IPv6 that it has to itself.
pub(super) fn origin(visitor: Visitor, peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    match (visitor, IpNetwork::new(peer, 64)) {
        // Containers of one network share theirs.
        (Visitor::Container, _) | (_, Err(_)) => peer,
        (_, Ok(network)) => {
            if peer.is_ipv6() {
                network.network()
            } else {
                peer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn network() -> Network {
        let config = json!({
            "name": "outside", "gateways": ["172.30.0.1", "fd30::/64"],
            "ipam": { "ranges": [[{ "subnet": "10.99.1.0/24" }], [{ "subnet": "fd99::/64" }]] }
        });
        Network::parse(config.as_object().expect("an object")).expect("a network")
    }

    #[rstest]
    #[case::loopback("127.0.0.1:1", Visitor::Node)]
    #[case::same("10.87.1.1:1", Visitor::Node)]
    #[case::mapped("[::ffff:10.87.1.1]:1", Visitor::Node)]
    #[case::another_bridge("10.99.1.1:1", Visitor::Node)]
    #[case::another_bridge_ipv6("[fd99::1]:1", Visitor::Node)]
    #[case::gateway("172.30.0.1:1", Visitor::Gateway)]
    #[case::mapped_gateway("[::ffff:172.30.0.1]:1", Visitor::Gateway)]
    #[case::gateway_ipv6("[fd30::7]:1", Visitor::Gateway)]
    #[case::container("10.87.1.2:1", Visitor::Container)]
    #[case::another_hosts("10.87.9.2:1", Visitor::Container)]
    #[case::outside("10.99.1.2:1", Visitor::Container)]
    #[case::container_ipv6("[fd87:1::2]:1", Visitor::Container)]
    #[case::outside_ipv6("[fd99::2]:1", Visitor::Container)]
    #[case::reserved("10.87.0.9:1", Visitor::Other)]
    #[case::reserved_ipv6("[fd87::9]:1", Visitor::Other)]
    #[case::lan("192.168.50.9:1", Visitor::Other)]
    fn visitors(#[case] peer: &str, #[case] expected: Visitor) {
        let own = "10.87.1.1:8053".parse().expect("an address");
        assert_eq!(Visitor::of(peer.parse().expect("an address"), Some(own), [&network()].into_iter()), expected);
    }

    #[rstest]
    #[case::container(Visitor::Container, "fd87:1::2", "fd87:1::2")]
    #[case::other(Visitor::Other, "2001:db8::2", "2001:db8::")]
    #[case::ipv4(Visitor::Other, "192.168.50.9", "192.168.50.9")]
    fn origins(#[case] visitor: Visitor, #[case] peer: &str, #[case] expected: &str) {
        assert_eq!(origin(visitor, peer.parse().expect("an address")).to_string(), expected);
    }
}
