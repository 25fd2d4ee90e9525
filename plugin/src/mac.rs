//! Hardware addresses, and the one that belongs to an IP address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::hash::bytes4;

/// An Ethernet (EUI-48) address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// The address that flatnet gives the holder of `address`: a re-used address then never meets a stale ARP entry. (It can
    /// where one of its holders asked for a MAC of its own: other containers then send to the old one until their entry ages.)
    /// The first byte has the "locally administered" bit (IEEE 802, section 8.4) and not the group bit.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self([0x0a, 0x57, a, b, c, d])
            }
            IpAddr::V6(address) => {
                // Within one subnet the last 32 bits, and so the MACs, differ; the rest keeps subnets apart.
                let [.., a, b, c, d] = address.octets();
                let rest = Ipv6Addr::from_bits(address.to_bits() >> 32);
                let mix = bytes4(&[&rest.to_string()]);
                Self([0x0a, 0x58, a ^ mix[0], b ^ mix[1], c ^ mix[2], d ^ mix[3]])
            }
        }
    }

    /// The address that an interface of this MAC has on its link by itself (RFC 4291, appendix A).
    pub(crate) fn link_local(self) -> Ipv6Addr {
        let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        address[8..11].copy_from_slice(&self.0[..3]);
        address[13..].copy_from_slice(&self.0[3..]);
        // The bit that says that the address is unique everywhere is turned round.
        address[8] ^= 2;
        address.into()
    }

    /// The address of what has no address to go by, such as a container on a network of layer 2: by its names.
    pub(crate) fn named(parts: &[&str]) -> Self {
        let [a, b, c, d] = bytes4(parts);
        Self([0x0a, 0x59, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

impl FromStr for Mac {
    type Err = &'static str;

    /// Reads the forms that Go's `net.ParseMAC` does: pairs of hex digits with colons or dashes between them, or fours with dots. The
    /// error follows a name: "which ...".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = bytes(text).ok_or("is not a MAC address such as 0a:57:0a:57:01:02")?;
        match bytes {
            [first, ..] if first & 1 == 1 => Err("is a multicast address, which no interface can have"),
            [0, 0, 0, 0, 0, 0] => Err("is all zeros, which no interface can have"),
            bytes => Ok(Self(bytes)),
        }
    }
}

fn bytes(text: &str) -> Option<[u8; 6]> {
    let separator = text.chars().find(|c| !c.is_ascii_hexdigit())?;
    let (groups, digits) = match separator {
        ':' | '-' => (6, 2),
        '.' => (3, 4),
        _ => return None,
    };
    let is_group = |group: &str| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<_> = text.split(separator).collect();
    if parts.len() != groups || !parts.iter().all(|part| is_group(part)) {
        return None;
    }
    let [_, _, bytes @ ..] = u64::from_str_radix(&parts.concat(), 16).ok()?.to_be_bytes();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn follows_the_address() {
        let of = |text: &str| Mac::of(text.parse().expect("an address"));
        assert_eq!(of("10.87.1.2").to_string(), "0a:57:0a:57:01:02");
        assert_eq!(of("fd00::2").0[..2], [0x0a, 0x58]);
        assert_ne!(of("fd00::2"), of("fd00::3"));
        assert_ne!(of("fd00::2"), of("fd01::2"));
        let own: std::collections::HashSet<_> = (0..=0xffff).map(|n| of(&format!("fd00::{n:x}:0")).0).collect();
        assert_eq!(own.len(), 0x1_0000);
    }

    #[test]
    fn has_an_address_on_its_link() {
        let mac: Mac = "0a:57:0a:57:01:02".parse().expect("a MAC");
        assert_eq!(mac.link_local().to_string(), "fe80::857:aff:fe57:102");
    }

    #[rstest]
    #[case::colons("0a:57:0a:57:01:02", true)]
    #[case::dashes("0A-57-0A-57-01-02", true)]
    #[case::dots("0a57.0A57.0102", true)]
    #[case::nothing("", false)]
    #[case::digits("0a570a570102", false)]
    #[case::mixed("0a:57:0a-57-01-02", false)]
    #[case::pairs_with_dots("0a.57.0a.57.01.02", false)]
    #[case::fours_with_colons("0a57:0a57:0102", false)]
    #[case::three_fours_and_a_dot("0a57.0a57.0102.", false)]
    #[case::eight_bytes("0a57.0a57.0102.0304", false)]
    #[case::other_digits("0\u{e9}:57:0a:57:01:02", false)]
    #[case::short("0a:57:0a:57:01", false)]
    #[case::long("0a:57:0a:57:01:02:03", false)]
    #[case::sign("+a:57:0a:57:01:02", false)]
    #[case::multicast("01:00:5e:00:00:01", false)]
    #[case::zero("00:00:00:00:00:00", false)]
    fn parses(#[case] text: &str, #[case] valid: bool) {
        let found = text.parse::<Mac>().map(|mac| mac.to_string());
        assert_eq!(found.as_deref().ok(), valid.then_some("0a:57:0a:57:01:02"));
    }
}
