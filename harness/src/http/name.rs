//! Names that carry an address: `10-87-1-2.<zone>` is 10.87.1.2 port 80, `10-87-1-2-8080.<zone>` port 8080.
//!
//! Invariant: only addresses of containers come out, so whoever forwards by these names is no open proxy.

use std::net::{Ipv4Addr, SocketAddrV4};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A container's address.
    Container(SocketAddrV4),
    /// An address, but not a container's.
    Forbidden,
    /// No address at all.
    Unknown,
}

/// The name of `address` in the zone `flat`.
pub fn of(address: SocketAddrV4) -> String {
    let [a, b, c, d] = address.ip().octets();
    match address.port() {
        80 => format!("{a}-{b}-{c}-{d}.flat"),
        port => format!("{a}-{b}-{c}-{d}-{port}.flat"),
    }
}

/// What the `Host` header `host` stands for.
pub fn target(host: &str) -> Target {
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some((label, zone)) = host.split_once('.') else {
        return Target::Unknown;
    };
    let in_zone = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let numbers: Option<Vec<u16>> = label.split('-').map(number).collect();
    let (octets, port) = match numbers.as_deref() {
        Some([octets @ .., port]) if octets.len() == 4 && *port > 0 => (octets, *port),
        Some(octets) if octets.len() == 4 => (octets, 80),
        _ => return Target::Unknown,
    };
    let octets: Option<Vec<u8>> = octets.iter().map(|octet| u8::try_from(*octet).ok()).collect();
    match octets.as_deref() {
        _ if zone.is_empty() || !zone.chars().all(in_zone) => Target::Unknown,
        Some([10, 87, third @ 1..=255, fourth]) => {
            Target::Container(SocketAddrV4::new(Ipv4Addr::new(10, 87, *third, *fourth), port))
        }
        Some(_) => Target::Forbidden,
        None => Target::Unknown,
    }
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
    fn containers(#[case] host: &str, #[case] address: &str) {
        assert_eq!(target(host), Target::Container(address.parse().unwrap()));
    }

    #[rstest]
    #[case("10-87-0-1.flat")]
    #[case("10-88-1-2.flat")]
    #[case("127-0-0-1.flat")]
    #[case("192-168-50-1-22.flat")]
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
    #[case("web.flat")]
    fn the_rest_is_unknown(#[case] host: &str) {
        assert_eq!(target(host), Target::Unknown);
    }

    #[rstest]
    #[case("10.87.1.2:80", "10-87-1-2.flat")]
    #[case("10.87.1.2:8080", "10-87-1-2-8080.flat")]
    fn names_of_addresses(#[case] address: &str, #[case] name: &str) {
        assert_eq!(of(address.parse().unwrap()), name);
        assert_eq!(target(name), Target::Container(address.parse().unwrap()));
    }
}
