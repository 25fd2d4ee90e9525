//! Ethernet frames, byte by byte: what a container can send that its own kernel would not.
//!
//! Invariant: nothing is filled in that the caller did not say; what it says may be a lie.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// To everybody on the wire.
pub const BROADCAST: Mac = [0xff; 6];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
/// IPv6 has this where nothing follows its header.
const NOTHING: u8 = 59;
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const HOPS: u8 = 64;
/// What no router has passed on still has all of them (RFC 4861, section 6.1.2).
const HOPS_OF_NEIGHBOURS: u8 = 255;
/// The group of all on the wire.
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// The port that datagrams come from: "discard".
const SOURCE_PORT: u16 = 9;

/// From whom, to whom, and in which VLAN, if its tag says one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who sends it.
    pub source: Mac,
    /// Who is to take it.
    pub destination: Mac,
    /// The number in its tag; 0 is a tag too.
    pub vlan: Option<u16>,
}

/// What the sender of an ARP message says of itself, and whom it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The sender's hardware address.
    pub mac: Mac,
    /// The sender's protocol address.
    pub address: Ipv4Addr,
    /// The target's; the same as the sender's where it announces itself.
    pub target: Ipv4Addr,
}

/// A datagram over IPv4; a checksum of UDP's is not needed.
pub fn udp(envelope: Envelope, source: Ipv4Addr, destination: Ipv4Addr, port: u16, data: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_length).to_be_bytes());
    header.extend([0, 0, 0, 0, HOPS, UDP, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    for field in [SOURCE_PORT, port, udp_length, 0] {
        header.extend(field.to_be_bytes());
    }
    wrap(envelope, IPV4, &[header.as_slice(), data].concat())
}

/// A request of ARP; `padding` follows it, as in short frames.
pub fn arp(envelope: Envelope, claim: Claim, padding: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1];
    message.extend(claim.mac);
    message.extend(claim.address.octets());
    message.extend([0; 6]);
    message.extend(claim.target.octets());
    message.extend(padding);
    wrap(envelope, ARP, &message)
}

/// A packet of IPv6 with nothing in it that its receiver would look at.
pub fn ipv6(envelope: Envelope, source: Ipv6Addr, destination: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([NOTHING, HOPS]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(data);
    wrap(envelope, IPV6, &packet)
}

/// To all on the wire that somebody is a router, for `lifetime_s` from now on (RFC 4861, section 4.2).
pub fn router_advertisement(source: Mac, address: Ipv6Addr, lifetime_s: u16) -> Vec<u8> {
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let envelope = Envelope { source, destination: ALL_NODES, vlan: None };
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0];
    message.extend(lifetime_s.to_be_bytes());
    // Neither how long a neighbour is reachable nor when to ask again.
    message.extend([0; 8]);
    // The option that tells the sender's hardware address, in units of eight bytes.
    message.extend([1, 1]);
    message.extend(source);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut pseudo = [address.octets(), everybody.octets()].concat();
    pseudo.extend(u32::from(length).to_be_bytes());
    pseudo.extend([0, 0, 0, ICMPV6]);
    pseudo.extend(&message);
    let sum = checksum(&pseudo).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, HOPS_OF_NEIGHBOURS]);
    packet.extend(address.octets());
    packet.extend(everybody.octets());
    packet.extend(message);
    wrap(envelope, IPV6, &packet)
}

/// Reads `0a:57:0a:57:01:02`.
pub fn mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text} is not a MAC address"))
}

/// The first IPv4 address of a link, as a [`crate::lab::Link`] has them.
pub fn first_ipv4<'a>(addresses: impl IntoIterator<Item = &'a String>) -> Option<Ipv4Addr> {
    addresses.into_iter().find_map(|address| match address.parse() {
        Ok(IpNetwork::V4(network)) => Some(network.ip()),
        _ => None,
    })
}

fn wrap(envelope: Envelope, ethertype: u16, content: &[u8]) -> Vec<u8> {
    let mut frame = [envelope.destination, envelope.source].concat();
    if let Some(vlan) = envelope.vlan {
        frame.extend(VLAN.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(content);
    frame
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Envelope = Envelope { source: [1; 6], destination: [2; 6], vlan: None };

    #[test]
    fn a_header_with_its_checksum_sums_up_to_nothing() {
        let frame = udp(PLAIN, Ipv4Addr::new(10, 87, 1, 2), Ipv4Addr::new(10, 87, 1, 3), 5000, b"data");
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!((frame.len(), &frame[12..14]), (14 + 20 + 8 + 4, [8, 0].as_slice()));
    }

    #[test]
    fn a_tag_is_between_addresses_and_content() {
        let claim = Claim { mac: [3; 6], address: Ipv4Addr::LOCALHOST, target: Ipv4Addr::LOCALHOST };
        let frame = arp(Envelope { vlan: Some(5), ..PLAIN }, claim, b"end");
        assert_eq!(&frame[..18], [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0x81, 0, 0, 5, 8, 6]);
        assert_eq!((&frame[26..32], &frame[46..]), ([3; 6].as_slice(), b"end".as_slice()));
    }

    #[test]
    fn macs() {
        assert_eq!(mac("0a:57:0a:57:01:02"), Ok([0x0a, 0x57, 0x0a, 0x57, 1, 2]));
        assert!(mac("0a:57").is_err());
    }
}
