//! flatnet's table of one family as `nft` lists it, in JSON. What flatnet cannot have written is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::script::{CHAINS, PUBLISHED};
use super::{HostPort, Protocol};
use crate::firewall::family::IpFamily;

/// What is published.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Whether anything is there for ports; the table may be there for masquerade.
    pub(super) exists: bool,
    /// Whether there are chains that are not for ports.
    pub(super) is_shared: bool,
    /// The bridges of containers with published ports.
    pub(super) bridges: Vec<String>,
    pub(super) entries: Vec<Entry>,
}

/// One published port, and the name of the attachment that it was published for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) host: HostPort,
    pub(super) holder: String,
}

impl Table {
    /// Reads the output of `nft -j list table`.
    pub(super) fn parse(family: IpFamily, listing: &Value) -> Self {
        let mut table = Self::default();
        for object in listing["nftables"].as_array().into_iter().flatten() {
            let elements = |kind: &str| object[kind]["elem"].as_array().into_iter().flatten();
            table.exists |= object["map"]["name"] == PUBLISHED;
            table.is_shared |= object["chain"]["name"].as_str().is_some_and(|name| !CHAINS.contains(&name));
            if object["set"]["name"] == "bridges" {
                table.bridges.extend(elements("set").filter_map(Value::as_str).map(str::to_owned));
            }
            // An element of a map is a pair: the key, and where it leads.
            table.entries.extend(elements("map").filter_map(|pair| Entry::parse(family, pair.get(0)?)));
        }
        table
    }

    /// Those of which `chosen` is true, and the others.
    pub(super) fn split(&self, chosen: impl Fn(&Entry) -> bool) -> (Vec<&Entry>, Vec<&Entry>) {
        self.entries.iter().partition(|entry| chosen(entry))
    }
}

impl Entry {
    fn parse(family: IpFamily, key: &Value) -> Option<Self> {
        // Without a comment it is the key alone; then nobody holds it.
        let holder = key["elem"]["comment"].as_str().unwrap_or_default().to_owned();
        let parts = key["elem"].get("val").unwrap_or(key)["concat"].as_array()?;
        let (address, protocol, number) = match parts.as_slice() {
            [protocol, number] => (all_of(family), protocol, number),
            [address, protocol, number] => (address.as_str()?.parse().ok()?, protocol, number),
            _ => return None,
        };
        let number = u16::try_from(number.as_u64()?).ok()?;
        Some(Self { host: HostPort { address, protocol: protocol_of(protocol)?, number }, holder })
    }
}

const fn all_of(family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// By name where the system has /etc/protocols, else by number.
fn protocol_of(value: &Value) -> Option<Protocol> {
    match (value.as_str(), value.as_u64()) {
        (Some("tcp"), _) | (_, Some(6)) => Some(Protocol::Tcp),
        (Some("udp"), _) | (_, Some(17)) => Some(Protocol::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_nft_lists() {
        let listing = json!({ "nftables": [
            { "metainfo": { "version": "1.1.3" } },
            { "table": { "family": "ip", "name": "flatnet", "handle": 1 } },
            { "map": { "name": "published", "elem": [
                [{ "elem": { "val": { "concat": [6, 8080] }, "comment": "flatnet-att-web@eth0" } }, { "concat": ["10.87.1.2", 80] }],
                [{ "concat": ["sctp", 8081] }, { "concat": ["10.87.1.2", 80] }],
            ] } },
            { "map": { "name": "published_at", "elem": [
                [{ "concat": ["127.0.0.1", "udp", 53] }, { "concat": ["10.87.1.2", 53] }],
            ] } },
            { "set": { "name": "bridges", "elem": ["flatnet-br0"] } },
            { "set": { "name": "masqueraded", "elem": [{ "concat": ["flatnet-br0", { "prefix": { "addr": "127.0.0.0", "len": 8 } }] }] } },
        ] });
        let host = |address, protocol, number| HostPort { address, protocol, number };
        let expected = Table {
            exists: true,
            is_shared: false,
            bridges: vec!["flatnet-br0".into()],
            entries: vec![
                Entry { host: host(all_of(IpFamily::V4), Protocol::Tcp, 8080), holder: "flatnet-att-web@eth0".into() },
                Entry { host: host(Ipv4Addr::LOCALHOST.into(), Protocol::Udp, 53), holder: String::new() },
            ],
        };
        assert_eq!(Table::parse(IpFamily::V4, &listing), expected);
    }

    #[test]
    fn reads_what_nft_lists_of_ipv6() {
        let listing = json!({ "nftables": [
            { "map": { "name": "published", "elem": [[{ "concat": ["tcp", 8080] }, { "concat": ["fd87:1::2", 80] }]] } },
            { "map": { "name": "published_at", "elem": [[{ "concat": ["fd30::2", "udp", 53] }, { "concat": ["fd87:1::2", 53] }]] } },
        ] });
        let hosts: Vec<_> = Table::parse(IpFamily::V6, &listing).entries.iter().map(|it| it.host.to_string()).collect();
        assert_eq!(hosts, ["[::]:8080/tcp", "[fd30::2]:53/udp"]);
    }

    #[test]
    fn what_masquerades_makes_the_table_a_shared_one() {
        let chains = |names: &[&str]| {
            let chains: Vec<_> =
                names.iter().map(|name| json!({ "chain": { "table": "flatnet", "name": name } })).collect();
            Table::parse(IpFamily::V4, &json!({ "nftables": chains }))
        };
        assert!(!chains(&CHAINS).is_shared);
        let table = chains(&["guard", "masquerade-flatnet-br0"]);
        assert!(table.is_shared && !table.exists);
    }
}
