//! Names that carry an address: `10-87-1-2.<zone>` is 10.87.1.2 port 80, `10-87-1-2-8080.<zone>` port 8080; `fd87-1--2.<zone>` is
//! `fd87:1::2` port 80, `fd87-1--2-p8080.<zone>` port 8080.
//!
//! Invariant: only addresses of containers come out, so whoever forwards by these names is no open proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A container's address.
    Container(SocketAddr),
    /// An address, but not a container's.
    Forbidden,
    /// No address at all.
    Unknown,
}

/// The name of `address` in the zone `flat`.
pub fn of(address: SocketAddr) -> String {
    let (port, mark) = (address.port(), if address.is_ipv6() { "p" } else { "" });
    let label = address.ip().to_string().replace(['.', ':'], "-");
    if port == 80 { format!("{label}.flat") } else { format!("{label}-{mark}{port}.flat") }
}

/// What the `Host` header `host` stands for.
pub fn target(host: &str) -> Target {
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some((label, zone)) = host.split_once('.') else {
        return Target::Unknown;
    };
    let in_zone = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let known = ipv4(label).map(|(ip, port)| (IpAddr::V4(ip), port));
    match known.or_else(|| ipv6(label).map(|(ip, port)| (IpAddr::V6(ip), port))) {
        Some((ip, port)) if !zone.is_empty() && zone.chars().all(in_zone) => {
            if is_containers(ip) {
                Target::Container(SocketAddr::from((ip, port)))
            } else {
                Target::Forbidden
            }
        }
        _ => Target::Unknown,
    }
}

fn is_containers(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => matches!(v4.octets(), [10, 87, 1..=255, _]),
        IpAddr::V6(v6) => v6.segments()[0] == 0xfd87,
    }
}

fn ipv4(label: &str) -> Option<(Ipv4Addr, u16)> {
    let numbers: Vec<u16> = label.split('-').map(number).collect::<Option<_>>()?;
    let (octets, port) = match numbers.as_slice() {
        [octets @ .., port] if octets.len() == 4 && *port > 0 => (octets, *port),
        octets => (octets, 80),
    };
    let octets: Vec<u8> = octets.iter().map(|octet| u8::try_from(*octet).ok()).collect::<Option<_>>()?;
    Some((Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?), port))
}

fn ipv6(label: &str) -> Option<(Ipv6Addr, u16)> {
    let (address, port) = match label.split_once("-p") {
        Some((address, port)) => (address, number(port).filter(|port| *port > 0)?),
        None => (label, 80),
    };
    Some((address.replace('-', ":").parse().ok()?, port))
}

/// A decimal number without leading zeros: one address has one name.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::{Target, of, target};
    use rstest::rstest;

    #[rstest]
    #[case("10-87-1-2.flat", "10.87.1.2:80")]
    #[case("10-87-1-2-8080.flat", "10.87.1.2:8080")]
    #[case("10-87-255-0.a.b-c.example", "10.87.255.0:80")]
    #[case("10-87-1-2.flat:8080", "10.87.1.2:80")]
    #[case("10-87-1-2.flat.", "10.87.1.2:80")]
    #[case("10-87-1-2-65535.flat", "10.87.1.2:65535")]
    #[case("fd87-1--2.flat", "[fd87:1::2]:80")]
    #[case("fd87-1--2-8080.flat", "[fd87:1::2:8080]:80")]
    #[case("fd87-1--2-p8080.flat", "[fd87:1::2]:8080")]
    #[case("fd87-1-0-0-0-0-0-ff.flat", "[fd87:1::ff]:80")]
    fn containers(#[case] host: &str, #[case] address: &str) {
        assert_eq!(target(host), Target::Container(address.parse().unwrap()));
    }

    #[rstest]
    #[case("10-87-0-1.flat")]
    #[case("10-88-1-2.flat")]
    #[case("127-0-0-1.flat")]
    #[case("192-168-50-1-22.flat")]
    #[case("fd30--1.flat")]
    #[case("--1.flat")]
    fn others_are_forbidden(#[case] host: &str) {
        assert_eq!(target(host), Target::Forbidden);
    }

    #[rstest]
    #[case("")]
    #[case("10-87-1-2")]
    #[case("10-87-1-2.")]
    #[case("10.87.1.2")]
    #[case("10-87-1.flat")]
    #[case("10-87-1-999.flat")]
    #[case("10-87-01-2.flat")]
    #[case("10-87-1-2-0.flat")]
    #[case("10-87-1-2-080.flat")]
    #[case("10-87-1-2-99999.flat")]
    #[case("10-87-1-2-80-80.flat")]
    #[case("10-87-1-+2.flat")]
    #[case("10-87-1-2.evil@host")]
    #[case("fd87-1--2--3.flat")]
    #[case("fd87-1-2.flat")]
    #[case("fd87-1--2-p0.flat")]
    #[case("web.flat")]
    fn the_rest_is_unknown(#[case] host: &str) {
        assert_eq!(target(host), Target::Unknown);
    }

    #[rstest]
    #[case("10.87.1.2:80", "10-87-1-2.flat")]
    #[case("10.87.1.2:8080", "10-87-1-2-8080.flat")]
    #[case("[fd87:1::2]:80", "fd87-1--2.flat")]
    #[case("[fd87:1::2]:8080", "fd87-1--2-p8080.flat")]
    fn names_of_addresses(#[case] address: &str, #[case] name: &str) {
        assert_eq!(of(address.parse().unwrap()), name);
        assert_eq!(target(name), Target::Container(address.parse().unwrap()));
    }
}
