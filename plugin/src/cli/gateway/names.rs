//! Which container a host name means. Pure: it knows the leases only by being told.
//!
//! The longest part of the host name, from its beginning and up to a dot, that is a container's name decides; the rest is the zone.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::ipam::lease;
use crate::netlink::Link;

/// The port of a name that has none.
const HTTP_PORT: u16 = 80;
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
    /// From the name in lower case to the entry with the lowest address.
    places: BTreeMap<String, usize>,
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
}

impl Names {
    /// The names in the records of `links`.
    pub(super) fn of(links: &[Link]) -> Self {
        let mut entries: Vec<_> = links.iter().flat_map(entries_of).collect();
        entries.sort();
        let mut places = BTreeMap::new();
        for (place, entry) in entries.iter().enumerate() {
            let known = places.entry(entry.name.to_lowercase()).or_insert(place);
            if entries[*known].address > entry.address {
                *known = place;
            }
        }
        Self { entries, places }
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
            let with_port = || self.find(split_port(name)?.0).zip(split_port(name).map(|(_, port)| port));
            self.find(name).map(|entry| (entry, HTTP_PORT)).or_else(with_port)
        });
        let (entry, port) = found.ok_or_else(|| Unknown::NoContainer(first.to_owned()))?;
        Ok((entry, SocketAddr::new(entry.address, port)))
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.places.get(name).map(|place| &self.entries[*place])
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAName => f.write_str("this cannot be the name of a container"),
            Self::Address => f.write_str("this is an address, which needs no name"),
            Self::NoContainer(name) => write!(f, "no running container is called {name}"),
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

/// Whether a label is four octets and perhaps a port: `10-87-1-2-8080`.
fn is_address(label: &str) -> bool {
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
    fn known(#[case] host: &str, #[case] address: &str) {
        assert_eq!(names().resolve(host).map(|(_, found)| found.to_string()), Ok(address.to_owned()));
    }

    #[rstest]
    #[case::address("10-87-1-2.flat", Unknown::Address)]
    #[case::address_with_port("10-87-1-2-80.flat", Unknown::Address)]
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
