//! Packets by the network of an address, or by the link: as the steps of a rule, and read back from them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::expression::Expression;
use super::packet::{Base, Meta, Slot};

/// `IFNAMSIZ`: nftables compares the names of links with all of their bytes.
const LINK_NAME_BYTES: usize = 16;

/// Packets that leave (or came) by that link, or by any other.
pub(crate) fn link(key: Meta, name: &str, equal: bool) -> [Expression; 2] {
    let mut value = name.as_bytes().to_vec();
    value.resize(LINK_NAME_BYTES, 0);
    [Expression::Meta { key, to: Slot::FIRST }, Expression::Compare { slot: Slot::FIRST, equal, value }]
}

/// Packets from an address of `network`, or from any other of its family.
pub(crate) fn from_network(network: IpNetwork, equal: bool) -> Vec<Expression> {
    address(if network.is_ipv4() { 12 } else { 8 }, network, equal)
}

/// Packets to an address of `network`, or to any other of its family.
pub(crate) fn to_network(network: IpNetwork, equal: bool) -> Vec<Expression> {
    address(if network.is_ipv4() { 16 } else { 24 }, network, equal)
}

/// `offset` is that of the address in the header (RFC 791, RFC 8200).
fn address(offset: u32, network: IpNetwork, equal: bool) -> Vec<Expression> {
    let value = octets(network.network());
    let length = u32::try_from(value.len()).expect("an address's length");
    let mut steps = vec![Expression::Payload { base: Base::Network, offset, length, to: Slot::FIRST }];
    let bits = octets(network.mask());
    if bits.iter().any(|byte| *byte != u8::MAX) {
        steps.push(Expression::Mask { slot: Slot::FIRST, bits });
    }
    steps.push(Expression::Compare { slot: Slot::FIRST, equal, value });
    steps
}

/// The networks that an address is compared with, as `from_network` and `to_network` say it.
pub(crate) fn networks(expressions: &[Expression]) -> Vec<IpNetwork> {
    let compared = |steps: &[Expression]| match steps {
        [Expression::Payload { .. }, Expression::Mask { bits, .. }, Expression::Compare { value, .. }, ..] => {
            IpNetwork::with_netmask(from_octets(value)?, from_octets(bits)?).ok()
        }
        [Expression::Payload { .. }, Expression::Compare { value, .. }, ..] => from_octets(value).map(IpNetwork::from),
        _ => None,
    };
    (0..expressions.len()).filter_map(|at| compared(&expressions[at..])).collect()
}

fn from_octets(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
