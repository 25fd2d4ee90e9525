//! Packets of IPv6, and the messages by which hosts on a link find each other.
//!
//! Invariant: lengths and checksums are right, so that only what a packet says of its sender can be why it does not arrive.

use std::net::Ipv6Addr;

use super::{Envelope, HOPS, IPV6, Mac, UDP, sum, wrap};

/// Numbers of headers (IANA, "Protocol Numbers").
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const NOTHING: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
/// Neighbour discovery is of the same link: nobody has passed it on (RFC 4861, section 7.1).
const HOPS_ON_LINK: u8 = 255;
/// Options that say nothing fill eight bytes (RFC 8200, `PadN`); an alert to routers does (RFC 2711).
const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];
const ROUTER_ALERT: [u8; 6] = [5, 2, 0, 0, 1, 0];

/// The group of all on the link, and its Ethernet address.
pub const ALL_NODES: (Ipv6Addr, Mac) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), [0x33, 0x33, 0, 0, 0, 1]);

/// For how long a router is to be used by default, in seconds: half an hour (RFC 4861, section 6.2.1).
pub const ROUTER_LIFETIME_S: u16 = 1800;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From whom.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// The flow's number, 20 bits, which no receiver looks at: packets are told apart by it.
    pub flow: u32,
    /// What stands between the header and the message.
    pub behind: Option<Extension>,
}

/// An extension header of eight bytes, which does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extension {
    /// Options for whoever it passes.
    HopByHop,
    /// Options for its receiver.
    Destination,
    /// A way without any stop.
    Routing,
    /// A piece that is the whole.
    Fragment,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// Nothing that its receiver would look at.
    Nothing(&'a [u8]),
    /// A datagram to a port.
    Udp([u16; 2], &'a [u8]),
    /// "Who has it?", with the asker's hardware address unless it has none of IPv6 yet.
    Solicitation(Ipv6Addr, Option<Mac>),
    /// "I have it, there."
    Advertisement(Ipv6Addr, Option<Mac>),
    /// "Are there routers?"
    RouterSolicitation(Option<Mac>),
    /// "I am a router, there, for so many seconds."
    RouterAdvertisement(Mac, u16),
    /// "For this address take that way, by its hardware address."
    Redirect(Ipv6Addr, Mac),
    /// "I am in this group", as it must be said: behind an alert to routers.
    Report(Ipv6Addr),
    /// "Are you there?"
    Echo(&'a [u8]),
}

/// The frame.
pub fn packet(envelope: Envelope, header: &Header, message: Message<'_>) -> Vec<u8> {
    let (next, content) = message.write(header);
    let (next, content) = match (header.behind, message) {
        (Some(extension), _) => (extension.number(), [extension.write(next).as_slice(), &content].concat()),
        (None, Message::Report(_)) => (HOP_BY_HOP, [[next, 0].as_slice(), &ROUTER_ALERT, &content].concat()),
        (None, _) => (next, content),
    };
    let mut packet = header.beginning().to_vec();
    packet.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([next, if message.is_on_link() { HOPS_ON_LINK } else { HOPS }]);
    packet.extend(header.source.octets());
    packet.extend(header.destination.octets());
    packet.extend(content);
    wrap(envelope, IPV6, &packet)
}

/// What is in the frame, and in no other: also once a kernel has put the pieces of the packet together.
pub fn signs(header: &Header, message: Message<'_>) -> Vec<Vec<u8>> {
    vec![header.beginning().to_vec(), message.write(header).1]
}

impl Header {
    /// The version, and the flow's number.
    fn beginning(&self) -> [u8; 4] {
        (6 << 28 | (self.flow & 0xf_ffff)).to_be_bytes()
    }
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop => HOP_BY_HOP,
            Self::Destination => DESTINATION_OPTIONS,
            Self::Routing => ROUTING,
            Self::Fragment => FRAGMENT,
        }
    }

    fn write(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop | Self::Destination => [[next, 0].as_slice(), &PADDING].concat(),
            // Of type 4 (RFC 8754), with no segment left.
            Self::Routing => vec![next, 0, 4, 0, 0, 0, 0, 0],
            Self::Fragment => vec![next, 0, 0, 0, 0, 0, 0, 1],
        }
    }
}

impl Message<'_> {
    fn is_on_link(self) -> bool {
        !matches!(self, Self::Nothing(_) | Self::Udp(..) | Self::Echo(_))
    }

    /// The number of its header, and its bytes.
    fn write(self, header: &Header) -> (u8, Vec<u8>) {
        let option =
            |kind: u8, mac: Option<Mac>| mac.map_or_else(Vec::new, |mac| [[kind, 1].as_slice(), &mac].concat());
        let of_icmp = |kind: u8, rest: &[&[u8]]| {
            let message = [[kind, 0, 0, 0].as_slice(), &rest.concat()].concat();
            (ICMPV6, with_checksum(header, ICMPV6, message, 2))
        };
        match self {
            Self::Nothing(data) => (NOTHING, data.to_vec()),
            Self::Udp([from, to], data) => {
                let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
                let fields = [from, to, length, 0].map(u16::to_be_bytes).concat();
                (UDP, with_checksum(header, UDP, [fields.as_slice(), data].concat(), 6))
            }
            Self::Solicitation(target, mac) => of_icmp(135, &[&[0; 4], &target.octets(), &option(1, mac)]),
            // It overrides what was known.
            Self::Advertisement(target, mac) => of_icmp(136, &[&[0x20, 0, 0, 0], &target.octets(), &option(2, mac)]),
            Self::RouterSolicitation(mac) => of_icmp(133, &[&[0; 4], &option(1, mac)]),
            Self::RouterAdvertisement(mac, lifetime_s) => {
                of_icmp(134, &[&[HOPS, 0], &lifetime_s.to_be_bytes(), &[0; 8], &option(1, Some(mac))])
            }
            Self::Redirect(target, mac) => {
                let way = header.source.octets();
                of_icmp(137, &[&[0; 4], &way, &target.octets(), &option(2, Some(mac))])
            }
            // One record: from now on from everybody (RFC 3810, section 5.2.12).
            Self::Report(group) => of_icmp(143, &[&[0, 0, 0, 1], &[4, 0, 0, 0], &group.octets()]),
            Self::Echo(data) => of_icmp(128, &[&[0, 1, 0, 1], data]),
        }
    }
}

/// Fills in the two bytes at `at` (RFC 8200, section 8.1).
fn with_checksum(header: &Header, next: u8, mut message: Vec<u8>, at: usize) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let before = [header.source.octets().as_slice(), &header.destination.octets(), &length, &[0, 0, 0, next]].concat();
    let checksum = match sum(&[before.as_slice(), &message].concat()) {
        // Zero would say that there is none.
        0 => u16::MAX,
        checksum => checksum,
    };
    message[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Envelope = Envelope { source: [1; 6], destination: [2; 6], vlan: None };
    const HEADER: Header =
        Header { source: Ipv6Addr::LOCALHOST, destination: Ipv6Addr::LOCALHOST, flow: 0x1_2345, behind: None };

    #[test]
    fn a_message_with_its_checksum_sums_up_to_nothing() {
        let frame = packet(PLAIN, &HEADER, Message::Advertisement(Ipv6Addr::LOCALHOST, Some([3; 6])));
        let (header, message) = (&frame[14..54], &frame[54..]);
        assert_eq!(header[..8], [0x60, 1, 0x23, 0x45, 0, 32, 58, 255]);
        let before = [&header[8..], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(sum(&[before.as_slice(), message].concat()), 0);
        assert_eq!((message[0], &message[24..]), (136, [2, 1, 3, 3, 3, 3, 3, 3].as_slice()));
    }

    #[test]
    fn an_extension_stands_between() {
        let header = Header { behind: Some(Extension::Destination), ..HEADER };
        let frame = packet(PLAIN, &header, Message::RouterSolicitation(None));
        assert_eq!((frame[20], &frame[54..57], frame[62]), (60, [58, 0, 1].as_slice(), 133));
        for sign in signs(&header, Message::RouterSolicitation(None)) {
            assert!(frame.windows(sign.len()).any(|part| part == sign));
        }
        let report = packet(PLAIN, &HEADER, Message::Report(Ipv6Addr::LOCALHOST));
        assert_eq!((report[20], &report[54..57], report[62]), (0, [58, 0, 5].as_slice(), 143));
    }

    #[test]
    fn an_odd_byte_counts() {
        let frame = packet(PLAIN, &HEADER, Message::Udp([9, 7], b"odd"));
        let before = [&frame[22..54], &[0, 0, 0, 11, 0, 0, 0, 17]].concat();
        assert_eq!(sum(&[before.as_slice(), &frame[54..]].concat()), 0);
    }
}
