//! Ethernet frames, byte by byte: what a container can send that its own kernel would not.
//!
//! Invariant: nothing is filled in that the caller did not say; what it says may be a lie.

pub mod ipv6;

use std::net::{IpAddr, Ipv4Addr};

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
const HOPS: u8 = 64;
/// The port that datagrams come from unless the caller says another: "discard".
pub const SOURCE_PORT: u16 = 9;

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

/// A datagram over IPv4, from one port to another; a checksum of UDP's is not needed.
pub fn udp(envelope: Envelope, source: Ipv4Addr, destination: Ipv4Addr, ports: [u16; 2], data: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_length).to_be_bytes());
    header.extend([0, 0, 0, 0, HOPS, UDP, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let checksum = sum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    for field in [ports[0], ports[1], udp_length, 0] {
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

/// Reads `0a:57:0a:57:01:02`.
pub fn mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text} is not a MAC address"))
}

/// The addresses of a link, as a [`crate::lab::Link`] has them, without their prefix lengths.
pub fn addresses<'a>(addresses: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = IpAddr> {
    addresses.into_iter().filter_map(|address| Some(address.parse::<IpNetwork>().ok()?.ip()))
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

/// The checksum of all (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte)));
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
        let frame = udp(PLAIN, Ipv4Addr::new(10, 87, 1, 2), Ipv4Addr::new(10, 87, 1, 3), [SOURCE_PORT, 5000], b"data");
        assert_eq!(sum(&frame[14..34]), 0);
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
