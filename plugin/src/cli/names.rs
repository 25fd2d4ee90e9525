//! Which container a host name means. Pure: it knows the leases only from the links that it is given.
//!
//! Invariant: no name takes over what another container is reached by. The first label of a host name decides: `web`, or `web-8080` for port
//! 8080 of `web`. Only where no container is called that, names that hold more than a name count: with a dash and a number at the end,
//! and with dots, where a zone follows. Of several containers of one name the exact spelling wins, then the older one: the kernel
//! numbers links in the order in which they are made. A zone that begins with `ipv6` asks for the container's IPv6 address; otherwise
//! IPv4 is preferred.

mod double;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use serde::Serialize;

pub(super) use self::double::Double;
use crate::attachment;
use crate::ipam::lease;
use crate::netlink::Link;

/// The port of a name that has none.
const HTTP_PORT: u16 = 80;
/// The first label of a zone in which names mean IPv6 addresses.
const IPV6_ZONE: &str = "ipv6";
/// The zone of what a gateway itself answers.
const RESERVED_ZONE: &str = ".flatnet.invalid";
/// A name in the DNS is no longer (RFC 1035, 2.3.4).
const HOST_MAX_BYTES: usize = 253;

/// A container's name and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Entry {
    /// The container's name, or its id where the runtime passed no name.
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
    /// The oldest first.
    holders: Vec<Holder>,
    /// From the name in lower case to its holders, the oldest first.
    places: BTreeMap<String, Vec<usize>>,
    /// The entries as JSON, once somebody has asked for it.
    json: OnceCell<Bytes>,
}

/// A container that has a name.
#[derive(Debug)]
struct Holder {
    name: String,
    container: Option<String>,
    /// IPv4 first, and the lowest of each.
    addresses: Vec<IpAddr>,
}

/// Where a name leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// The container's name as it is spelled.
    pub(super) name: &'a str,
    /// The container's id.
    pub(super) container: Option<&'a str>,
    pub(super) upstream: SocketAddr,
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
    pub(super) fn of<'a>(links: impl IntoIterator<Item = &'a Link>) -> Self {
        let mut found: Vec<_> = links.into_iter().flat_map(entries_of).collect();
        // A container is as old as its oldest link.
        found.sort_by_key(|(since, _)| *since);
        let (mut holders, mut known) = (Vec::<Holder>::new(), BTreeMap::new());
        for (since, Entry { name, address, container, .. }) in &found {
            // A record without an id is a container of its own.
            let own = container.is_none().then_some(*since);
            let place = *known.entry((name, container, own)).or_insert_with(|| {
                let (name, container) = (name.clone(), container.clone());
                holders.push(Holder { name, container, addresses: Vec::new() });
                holders.len() - 1
            });
            holders[place].addresses.push(*address);
        }
        let mut places = BTreeMap::<_, Vec<_>>::new();
        for (place, holder) in holders.iter_mut().enumerate() {
            holder.addresses.sort();
            places.entry(holder.name.to_lowercase()).or_default().push(place);
        }
        let mut entries: Vec<_> = found.into_iter().map(|(_, entry)| entry).collect();
        entries.sort();
        Self { entries, holders, places, json: OnceCell::new() }
    }

    /// All of them.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All of them, for people and scripts.
    pub(super) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| format!("{:#}\n", serde_json::json!(self.entries)).into())
    }

    /// The container that `host` means, and where it is reached.
    pub(super) fn resolve(&self, host: &str) -> Result<Found<'_>, Unknown> {
        let host = normal(host).ok_or(Unknown::NotAName)?;
        let first = host.split('.').next().unwrap_or_default();
        if is_address(&first.to_ascii_lowercase()) {
            return Err(Unknown::Address);
        }
        let found = prefixes(host).find_map(|name| {
            let zone = &host[name.len()..];
            let (holder, port) = self.meant(name, zone)?;
            Some((holder, port, zone))
        });
        let (holder, port, zone) = found.ok_or_else(|| Unknown::NoContainer(first.to_ascii_lowercase()))?;
        let by_ipv6 = zone.split('.').nth(1).is_some_and(|label| label.eq_ignore_ascii_case(IPV6_ZONE));
        // Another container's address is no answer, whatever this one lacks.
        let address = holder.addresses.iter().find(|address| address.is_ipv6() || !by_ipv6);
        let address = address.ok_or_else(|| Unknown::NoIpv6(holder.name.clone()))?;
        let upstream = SocketAddr::new(*address, port);
        Ok(Found { name: &holder.name, container: holder.container.as_deref(), upstream })
    }

    /// The container and port that the beginning of a host name means, where a container is called that; `zone` follows.
    fn meant(&self, name: &str, zone: &str) -> Option<(&Holder, u16)> {
        // `web.flat` is a name and its zone, and never the container `web.flat` without one; 10.87.1.2 is no name at all.
        if name.contains('.') && (zone.is_empty() || name.parse::<Ipv4Addr>().is_ok()) {
            return None;
        }
        let with_port = split_port(name).and_then(|(name, port)| Some((self.holder(name)?, port)));
        with_port.or_else(|| Some((self.holder(name)?, HTTP_PORT)))
    }

    /// Of those that are called `name` whatever the case: the one that is spelled like it, or the oldest.
    fn holder(&self, name: &str) -> Option<&Holder> {
        let places = self.places.get(&name.to_lowercase())?;
        let exact = places.iter().find(|place| self.holders[**place].name == name);
        exact.or(places.first()).map(|place| &self.holders[*place])
    }
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

/// Each with the index of its link.
fn entries_of(link: &Link) -> impl Iterator<Item = (u32, Entry)> + '_ {
    let part = |key| attachment::record_part(link.alias.as_deref().unwrap_or_default(), key).map(str::to_owned);
    lease::leases(link).filter_map(move |address| {
        let container = part("container");
        let name = part("name").or_else(|| container.clone())?;
        Some((link.index, Entry { name, address, network: part("network"), container }))
    })
}

/// Without a port and without a dot at the end.
fn normal(host: &str) -> Option<&str> {
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fine =
        host.len() <= HOST_MAX_BYTES && host.split('.').all(|label| !label.is_empty() && label.bytes().all(fits));
    (fine && !host.to_ascii_lowercase().ends_with(RESERVED_ZONE)).then_some(host)
}

/// The first label, and then one more at a time.
fn prefixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(end, _)| &host[..end]).chain([host])
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
mod tests;
