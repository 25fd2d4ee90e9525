//! Which container a host name means. Pure: it knows the leases only by being told.
//!
//! The longest part of the host name, from its beginning and up to a dot, that is a container's name decides; the rest is the zone. A zone
//! that begins with `ipv6` asks for the container's IPv6 address; otherwise IPv4 is preferred.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::ipam::lease;
use crate::netlink::Link;

/// The port of a name that has none.
const HTTP_PORT: u16 = 80;
/// The first label of a zone in which names mean IPv6 addresses.
const IPV6_ZONE: &str = "ipv6";
/// A name in the DNS is no longer (RFC 1035, 2.3.4).
const HOST_MAX_BYTES: usize = 253;

/// A container's name and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Entry {
    /// The container's name, or its id where the runtime told no name.
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) network: Option<String>,
    /// The container's id.
    pub(super) container: Option<String>,
}

/// All names of the host's containers.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By name and then by address.
    entries: Vec<Entry>,
    /// From the name in lower case to the entry with the lowest address, IPv4 before IPv6.
    places: BTreeMap<String, usize>,
    /// The same of IPv6 alone.
    ipv6_places: BTreeMap<String, usize>,
}

/// Why a host name leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// No container's name can look like this.
    NotAName,
    /// It has the form of an address, which the gateway reaches without asking.
    Address,
    /// None of its parts is a container's name; this is the first.
    NoContainer(String),
    /// The container of this name was asked for by IPv6, and has none.
    NoIpv6(String),
}

impl Names {
    /// The names in the records of `links`.
    pub(super) fn of(links: &[Link]) -> Self {
        let mut entries: Vec<_> = links.iter().flat_map(entries_of).collect();
        entries.sort();
        let (all, ipv6) = (places(&entries, |_| true), places(&entries, |entry| entry.address.is_ipv6()));
        Self { entries, places: all, ipv6_places: ipv6 }
    }

    /// All of them.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whom `host` means, and where that is. `web-8080.flat` is port 8080 of `web`, unless a container is called `web-8080`.
    pub(super) fn resolve(&self, host: &str) -> Result<(&Entry, SocketAddr), Unknown> {
        let host = normal(host).ok_or(Unknown::NotAName)?;
        let first = host.split('.').next().unwrap_or_default();
        if is_address(first) {
            return Err(Unknown::Address);
        }
        let found = prefixes(&host).find_map(|name| {
            let with_port = || self.place(split_port(name)?.0).zip(split_port(name).map(|(_, port)| port));
            let (place, port) = self.place(name).map(|place| (place, HTTP_PORT)).or_else(with_port)?;
            Some((place, port, &host[name.len()..]))
        });
        let (place, port, zone) = found.ok_or_else(|| Unknown::NoContainer(first.to_owned()))?;
        let name = &self.entries[place].name;
        let place = if zone.split('.').nth(1) == Some(IPV6_ZONE) {
            *self.ipv6_places.get(&name.to_lowercase()).ok_or_else(|| Unknown::NoIpv6(name.clone()))?
        } else {
            place
        };
        let entry = &self.entries[place];
        Ok((entry, SocketAddr::new(entry.address, port)))
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }
}

/// From each name, in lower case, to the entry with the lowest address of those that count.
fn places(entries: &[Entry], counts: impl Fn(&Entry) -> bool) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate().filter(|(_, entry)| counts(entry)) {
        let known = places.entry(entry.name.to_lowercase()).or_insert(place);
        if entries[*known].address > entry.address {
            *known = place;
        }
    }
    places
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAName => f.write_str("this cannot be the name of a container"),
            Self::Address => f.write_str("this is an address, which needs no name"),
            Self::NoContainer(name) => write!(f, "no running container is called {name}"),
            Self::NoIpv6(name) => write!(f, "{name} has no IPv6 address"),
        }
    }
}

fn entries_of(link: &Link) -> impl Iterator<Item = Entry> + '_ {
    let part = |key| lease::record_part(link.alias.as_deref().unwrap_or_default(), key).map(str::to_owned);
    lease::leases(link).filter_map(move |address| {
        let container = part("container");
        Some(Entry { name: part("name").or_else(|| container.clone())?, address, network: part("network"), container })
    })
}

/// In lower case, without a port and without a dot at the end.
fn normal(host: &str) -> Option<String> {
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fine =
        host.len() <= HOST_MAX_BYTES && host.split('.').all(|label| !label.is_empty() && label.bytes().all(fits));
    fine.then(|| host.to_ascii_lowercase())
}

/// The whole, and then what is left as a label at a time is taken off its end.
fn prefixes(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |rest| rest.rsplit_once('.').map(|(rest, _)| rest))
}

/// `web-8080` as `web` and 8080.
fn split_port(name: &str) -> Option<(&str, u16)> {
    let (name, port) = name.rsplit_once('-')?;
    Some((name, number(port).filter(|port| *port > 0)?))
}

/// Whether a label is an address and perhaps a port: `10-87-1-2-8080`, `fd87-1--2-p8080`.
fn is_address(label: &str) -> bool {
    is_ipv4(label) || is_ipv6(label)
}

/// Unique local or global ones (RFC 4193, RFC 4291): what else looks like one may be a name.
fn is_ipv6(label: &str) -> bool {
    let address = match label.split_once("-p") {
        Some((address, port)) => number(port).filter(|port| *port > 0).map(|_| address),
        None => Some(label),
    };
    let address = address.and_then(|address| address.replace('-', ":").parse::<Ipv6Addr>().ok());
    address.is_some_and(|address| address.is_unique_local() || matches!(address.segments()[0], 0x2000..=0x3fff))
}

fn is_ipv4(label: &str) -> bool {
    let numbers: Option<Vec<_>> = label.split('-').map(number).collect();
    match numbers.as_deref() {
        Some([octets @ .., port]) if octets.len() == 4 => octets.iter().all(|octet| *octet < 256) && *port > 0,
        Some(octets) => octets.len() == 4 && octets.iter().all(|octet| *octet < 256),
        None => false,
    }
}

/// A decimal number without leading zeros: one address has one name.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn link(address: &str, record: &str) -> Link {
        let names = vec!["flatnet-att-0123@eth0".to_owned(), format!("flatnet-ip-{address}")];
        Link { names, alias: Some(record.to_owned()), ..Link::default() }
    }

    fn named(address: &str, name: &str) -> Link {
        link(address, &format!("network=flatnet container=0123 interface=eth0 name={name}"))
    }

    fn names() -> Names {
        Names::of(&[
            named("10.87.1.2", "web"),
            named("10.87.1.3", "my"),
            named("10.87.1.4", "my.app"),
            named("10.87.2.5", "db"),
            named("10.87.1.5", "db"),
            named("10.87.1.6", "Shop_1"),
            named("10.87.1.7", "api-8080"),
            named("10.87.1.8", "api"),
            named("10.87.1.9", "10-87-1-2"),
            named("10.87.1.10", "10-87-1-999"),
            named("fd87:1::2", "web"),
            named("fd87:1::2:1", "web"),
            named("fd87:1::3", "only"),
            named("10.87.1.13", "my.ipv6"),
            named("10.87.1.14", "dead--beef"),
            link("10.87.1.11", "network=flatnet container=feedf00d interface=eth0"),
            Link { alias: Some("container=ghost name=ghost".into()), ..Link::default() },
            link("10.87.1.12", "somebody else's words"),
        ])
    }

    #[rstest]
    #[case::plain("web.flat", "10.87.1.2:80")]
    #[case::long_zone("web.192.168.50.1.sslip.io", "10.87.1.2:80")]
    #[case::no_zone("web", "10.87.1.2:80")]
    #[case::upper_case("WEB.Flat", "10.87.1.2:80")]
    #[case::stored_in_upper_case("shop_1.flat", "10.87.1.6:80")]
    #[case::root("web.flat.", "10.87.1.2:80")]
    #[case::gateways_port("web.flat:8000", "10.87.1.2:80")]
    #[case::longest("my.app.flat", "10.87.1.4:80")]
    #[case::shorter("my.other.flat", "10.87.1.3:80")]
    #[case::port("web-8080.flat", "10.87.1.2:8080")]
    #[case::highest_port("web-65535.flat", "10.87.1.2:65535")]
    #[case::port_of_the_longest("my.app-81.flat", "10.87.1.4:81")]
    #[case::port_like_name("api-8080.flat", "10.87.1.7:80")]
    #[case::port_of_a_port_like_name("api-8080-81.flat", "10.87.1.7:81")]
    #[case::other_port("api-81.flat", "10.87.1.8:81")]
    #[case::several_networks("db.flat", "10.87.1.5:80")]
    #[case::by_id("feedf00d.flat", "10.87.1.11:80")]
    #[case::no_address_at_all("10-87-1-999.flat", "10.87.1.10:80")]
    #[case::no_address_of_anybody("dead--beef.flat", "10.87.1.14:80")]
    #[case::by_ipv6("web.ipv6.flat", "[fd87:1::2]:80")]
    #[case::by_ipv6_with_port("web-8080.ipv6.flat", "[fd87:1::2]:8080")]
    #[case::by_ipv6_without_zone("web.ipv6", "[fd87:1::2]:80")]
    #[case::nothing_but_ipv6("only.flat", "[fd87:1::3]:80")]
    #[case::longer_than_the_zone("my.ipv6.flat", "10.87.1.13:80")]
    #[case::deeper_in_the_zone("web.flat.ipv6", "10.87.1.2:80")]
    fn known(#[case] host: &str, #[case] address: &str) {
        assert_eq!(names().resolve(host).map(|(_, found)| found.to_string()), Ok(address.to_owned()));
    }

    #[rstest]
    #[case::address("10-87-1-2.flat", Unknown::Address)]
    #[case::address_with_port("10-87-1-2-80.flat", Unknown::Address)]
    #[case::ipv6_address("fd87-1--2.flat", Unknown::Address)]
    #[case::whole_ipv6_address("2001-db8-0-0-0-0-0-1.flat", Unknown::Address)]
    #[case::ipv6_address_with_port("fd87-1--2-p80.flat", Unknown::Address)]
    #[case::no_ipv6("shop_1.ipv6.flat", Unknown::NoIpv6("Shop_1".into()))]
    #[case::other("nginx.flat", Unknown::NoContainer("nginx".into()))]
    #[case::in_the_zone("x.web.flat", Unknown::NoContainer("x".into()))]
    #[case::port_zero("web-0.flat", Unknown::NoContainer("web-0".into()))]
    #[case::port_padded("web-080.flat", Unknown::NoContainer("web-080".into()))]
    #[case::port_large("web-65536.flat", Unknown::NoContainer("web-65536".into()))]
    #[case::port_alone("-80.flat", Unknown::NoContainer("-80".into()))]
    #[case::literal("10.87.1.2", Unknown::NoContainer("10".into()))]
    #[case::no_lease("ghost.flat", Unknown::NoContainer("ghost".into()))]
    #[case::first_label_empty(".web.flat", Unknown::NotAName)]
    #[case::empty("", Unknown::NotAName)]
    #[case::dot(".", Unknown::NotAName)]
    #[case::ipv6("[::1]", Unknown::NotAName)]
    #[case::foreign("w\u{e9}b.flat", Unknown::NotAName)]
    #[case::header("web\r\nx: y", Unknown::NotAName)]
    #[case::long(&"a".repeat(254), Unknown::NotAName)]
    fn unknown(#[case] host: &str, #[case] why: Unknown) {
        assert_eq!(names().resolve(host).map(|(_, found)| found), Err(why));
    }

    #[test]
    fn a_long_host_of_many_labels_is_no_work() {
        let host = "a.".repeat(126) + "a";
        assert_eq!(Names::default().resolve(&host).err(), Some(Unknown::NoContainer("a".into())));
    }
}
