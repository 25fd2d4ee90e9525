//! Published ports: maps and chains of flatnet's tables, for runtimes that leave ports to the network's driver.
//!
//! The chains never change; what is published are entries of two maps in the table of each family, each with its attachment's name as
//! comment. An entry whose attachment has no link any more is stale: the next container that is set up takes it away, so nothing has to be
//! recovered after a crash. Only what is addressed to a published port of the host is translated, and only its destination: the container
//! sees who speaks to it. Two callers could not be answered that way and are masqueraded as the bridge's address: the host itself by a
//! loopback address (of IPv4; the kernel lets nothing back to `::1`), and a container of the same bridge. The chains go with the last entry;
//! without ports there are none.

mod nft;
mod script;
mod table;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use self::table::{Entry, Table};
use super::family::IpFamily;
use super::{TABLE, lock};
use crate::error::{Doing, Error, Result, errno_of};
use crate::ipam::lease::{self, Attachment};
use crate::netlink::nftables::Nftables;
use crate::netlink::{Link, Netlink, forget_udp};

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host, for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// One address of the host, or the unspecified one for all of its family.
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// A port of the host, and the container's port that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) host: HostPort,
    pub(crate) container: u16,
}

/// Where published ports lead.
pub(crate) struct Door<'a> {
    pub(crate) attachment: &'a Attachment<'a>,
    /// The container's, with their subnets' prefix lengths: one of each family that it has.
    pub(crate) addresses: &'a [IpNetwork],
    /// The name of the bridge, or of the VLAN on it by which the host reaches containers.
    pub(crate) bridge: &'a str,
    /// Becomes true when something may have been published, whatever cuts that short.
    pub(crate) begun: &'a Cell<bool>,
}

impl HostPort {
    /// Two sockets could not be bound to both.
    fn collides(self, other: Self) -> bool {
        let any = self.address.is_unspecified() || other.address.is_unspecified();
        let same_address = self.family() == other.family() && (any || self.address == other.address);
        same_address && self.protocol == other.protocol && self.number == other.number
    }

    fn family(self) -> IpFamily {
        IpFamily::of(self.address)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, protocol) = (self.number, self.protocol.as_str());
        match self.address {
            IpAddr::V4(address) if address.is_unspecified() => write!(f, "{number}/{protocol}"),
            address => write!(f, "{}/{protocol}", SocketAddr::new(address, number)),
        }
    }
}

impl Protocol {
    /// As nftables and runtimes call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Publishes `ports`, all or none, and takes away what is stale. Errors: 108 where another container has one of them; 109.
pub(crate) async fn publish(host: &Netlink, door: &Door<'_>, ports: &[Port]) -> Result<()> {
    refuse_odd_names(door, ports)?;
    let _lock = lock().await?;
    let own = door.attachment.name();
    let mut tables = Vec::new();
    for address in door.addresses {
        let family = IpFamily::of(address.ip());
        tables.push((family, *address, nft::read(family).await?));
    }
    let links = host.links().await.doing(|| "list the host's links".into())?;
    let mut looked = Vec::new();
    for (family, address, table) in &tables {
        let (stale, held) = table.split(|entry| entry.holder == own || is_stale(entry, &links));
        let of_family = ports.iter().filter(|port| port.host.family() == *family);
        looked.push((*family, *address, table, stale, free(of_family, &held, door, &links)?));
    }
    let (mut scripts, mut changed) = (String::new(), Vec::new());
    for (family, address, table, stale, wanted) in &looked {
        if wanted.is_empty() {
            remove(host, *family, table, stale, door.bridge).await?;
            continue;
        }
        scripts.push_str(&script::publish(door, *address, wanted, stale));
        changed.extend(wanted.iter().map(|port| port.host).chain(stale.iter().map(|entry| entry.host)));
    }
    if scripts.is_empty() {
        return Ok(());
    }
    door.begun.set(true);
    nft::change(&scripts).await?;
    let has_ipv4 = changed.iter().any(|port| port.family() == IpFamily::V4);
    forget_flows(host, changed.into_iter()).await?;
    // After the rules, which keep the bridge's containers from the host's loopback addresses.
    if has_ipv4 { set_route_localnet(door.bridge, true) } else { Ok(()) }
}

/// Those of `ports` that are to be written. Errors: 108 where another container has one of them.
fn free<'a>(
    ports: impl Iterator<Item = &'a Port>,
    held: &[&Entry],
    door: &Door<'_>,
    links: &[Link],
) -> Result<Vec<Port>> {
    let mut wanted = Vec::new();
    for port in ports {
        match held.iter().find(|entry| entry.host.collides(port.host)) {
            // A container on two networks is told of its ports twice: the first network has them.
            Some(entry) if lease::is_of_container(&entry.holder, &door.attachment.target.container) => {}
            Some(entry) => {
                return Err(Error::PortTaken { port: port.host.to_string(), holder: holder(entry, links) });
            }
            None => wanted.push(*port),
        }
    }
    Ok(wanted)
}

/// Takes away the ports of the attachment of that name, and what is stale. Nothing to take away is no error.
pub(crate) async fn withdraw(host: &Netlink, attachment: &str, bridge: &str) -> Result<()> {
    let _lock = lock().await?;
    for family in IpFamily::BOTH {
        if family == IpFamily::V6 && !has_table_of_ipv6().await {
            continue;
        }
        let table = nft::read(family).await?;
        let links = host.links().await.doing(|| "list the host's links".into())?;
        let (gone, _) = table.split(|entry| entry.holder == attachment || is_stale(entry, &links));
        remove(host, family, &table, &gone, bridge).await?;
    }
    Ok(())
}

/// Whether ports of containers on `bridge` may be published. For IPv4 that is a look at one file, where nftables would take a process; for
/// IPv6, which only those are asked about that have it, a question over netlink.
pub(crate) async fn is_in_use(bridge: &str, with_ipv6: bool) -> bool {
    fs::read_to_string(route_localnet(bridge)).is_ok_and(|text| text.trim() == "1")
        || (with_ipv6 && has_table_of_ipv6().await)
}

/// A kernel that cannot be asked has none.
async fn has_table_of_ipv6() -> bool {
    let Ok(mut nftables) = Nftables::open() else { return false };
    let found = nftables.elements(IpFamily::V6.tables(), TABLE, script::PUBLISHED).await;
    found.is_ok_and(|found| found.is_some())
}

/// Removes `gone` of the table's entries, and the table with the last.
async fn remove(host: &Netlink, family: IpFamily, table: &Table, gone: &[&Entry], bridge: &str) -> Result<()> {
    let close = |bridge: &str| match family {
        IpFamily::V4 => set_route_localnet(bridge, false),
        IpFamily::V6 => Ok(()),
    };
    if !table.exists {
        // Somebody flushed it, and with it the rules that guard this.
        return close(bridge);
    }
    if gone.is_empty() && !table.entries.is_empty() {
        return Ok(());
    }
    if gone.len() < table.entries.len() {
        nft::change(&script::remove(gone)).await?;
        return forget_flows(host, gone.iter().map(|entry| entry.host)).await;
    }
    // Before the rules that guard it.
    for bridge in &table.bridges {
        close(bridge)?;
    }
    nft::change(&script::delete_all(family, table.is_shared)).await?;
    forget_flows(host, gone.iter().map(|entry| entry.host)).await
}

/// Whoever goes on sending to a UDP port would otherwise go on being led where it led before.
async fn forget_flows(host: &Netlink, ports: impl Iterator<Item = HostPort>) -> Result<()> {
    let ports: BTreeSet<_> = ports.filter(|port| port.protocol == Protocol::Udp).map(|port| port.number).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let addresses = host.all_addresses().await.doing(|| "list the host's addresses".into())?;
    let own = |address| addresses.iter().any(|(_, own)| own.ip() == address);
    forget_udp(|address, port| ports.contains(&port) && own(address)).doing(|| "forget UDP flows".into())
}

/// An entry whose attachment's link is gone: its container crashed, or nobody tore it down.
fn is_stale(entry: &Entry, links: &[Link]) -> bool {
    !links.iter().any(|link| link.names.contains(&entry.holder))
}

/// Who has the port, in words.
fn holder(entry: &Entry, links: &[Link]) -> String {
    let link = links.iter().find(|link| link.names.contains(&entry.holder));
    link.map_or_else(|| entry.holder.clone(), lease::in_words)
}

/// nftables has no way to quote a quotation mark.
fn refuse_odd_names(door: &Door<'_>, ports: &[Port]) -> Result<()> {
    let interface = &door.attachment.target.interface;
    let is_odd = |name: &&str| name.contains(['"', '\\', '*']);
    match [door.bridge, interface.as_str()].into_iter().find(is_odd) {
        Some(name) if !ports.is_empty() => Err(Error::Unsupported {
            key: "published ports".into(),
            value: format!("of an interface called {name}"),
            remedy: "give it a name of letters, digits, dot, dash and underscore".into(),
        }),
        _ => Ok(()),
    }
}

/// Lets what the host sends from 127.0.0.1 leave by the bridge (ip-sysctl.rst, `route_localnet`).
fn route_localnet(bridge: &str) -> PathBuf {
    ["/proc/sys/net/ipv4/conf", bridge, "route_localnet"].iter().collect()
}

fn set_route_localnet(bridge: &str, on: bool) -> Result<()> {
    let file = route_localnet(bridge);
    match fs::write(&file, if on { "1" } else { "0" }) {
        // The bridge was deleted, and the setting with it.
        Err(e) if !on && e.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(|e| errno_of(&e)).doing(|| format!("write {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rstest::rstest;

    use super::*;

    const ALL: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ALL_OF_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANOTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 2));
    const ONE_OF_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 2));

    fn port(address: IpAddr, protocol: Protocol, number: u16) -> HostPort {
        HostPort { address, protocol, number }
    }

    #[rstest]
    #[case::same(ALL, port(ALL, Protocol::Tcp, 80), true)]
    #[case::one_address_of_all(ALL, port(ONE, Protocol::Tcp, 80), true)]
    #[case::two_addresses(ANOTHER, port(ONE, Protocol::Tcp, 80), false)]
    #[case::other_protocol(ALL, port(ALL, Protocol::Udp, 80), false)]
    #[case::other_number(ALL, port(ALL, Protocol::Tcp, 81), false)]
    #[case::other_family(ALL, port(ALL_OF_IPV6, Protocol::Tcp, 80), false)]
    #[case::one_address_of_ipv6(ALL_OF_IPV6, port(ONE_OF_IPV6, Protocol::Tcp, 80), true)]
    fn collisions(#[case] address: IpAddr, #[case] other: HostPort, #[case] collides: bool) {
        assert_eq!(port(address, Protocol::Tcp, 80).collides(other), collides);
        assert_eq!(other.collides(port(address, Protocol::Tcp, 80)), collides);
    }

    #[rstest]
    #[case::all(ALL, "80/tcp")]
    #[case::one(ONE, "127.0.0.1:80/tcp")]
    #[case::all_of_ipv6(ALL_OF_IPV6, "[::]:80/tcp")]
    #[case::one_of_ipv6(ONE_OF_IPV6, "[fd30::2]:80/tcp")]
    fn in_words(#[case] address: IpAddr, #[case] words: &str) {
        assert_eq!(port(address, Protocol::Tcp, 80).to_string(), words);
    }
}
