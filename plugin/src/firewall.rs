//! flatnet's table in the packet filter, `ip flatnet`: masquerade, and published ports for runtimes that leave them to the network's
//! driver (netavark). Neither touches what is the other's, and whoever takes away the last of it takes the table along.
//!
//! The chains of ports never change; what is published are entries of two maps, each with its attachment's name as comment. An entry
//! whose attachment has no link any more is stale: the next container that is set up takes it away, so nothing has to be recovered
//! after a crash. Only what is addressed to a published port of the host is translated, and only its destination: the container sees
//! who speaks to it. Two callers could not be answered that way and are masqueraded as the bridge's address: the host itself by a
//! loopback address, and a container of the same bridge. The chains go with the last entry; without ports there are none.

pub(crate) mod family;
pub(crate) mod forward;
pub(crate) mod iptables;
pub(crate) mod masquerade;
mod meaning;
mod nft;
mod program;
pub(crate) mod rules;
mod script;
pub(crate) mod spoofing;
mod table;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::Ipv4Network;

use self::table::{Entry, Table};
use crate::error::{Doing, Error, Result, both, errno_of};
use crate::ipam::lease::{self, Attachment};
use crate::netlink::{Link, Netlink, forget_udp};

/// How long to wait before the lock is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);
/// What is locked: the network namespace, whose table it is. Not the program's file, of
/// which a host may have several: netavark's driver, and the command of a package.
const LOCKED: &str = "/proc/self/ns/net";

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// One address of the host, or none for all.
    pub(crate) address: Option<Ipv4Addr>,
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
    /// The container's, with its subnet's prefix length.
    pub(crate) address: Ipv4Network,
    /// The bridge's name.
    pub(crate) bridge: &'a str,
    /// Becomes true when something may have been published, whatever cuts that short.
    pub(crate) begun: &'a Cell<bool>,
}

impl HostPort {
    /// Two sockets could not be bound to both.
    fn collides(self, other: Self) -> bool {
        let same_address = self.address.is_none() || other.address.is_none() || self.address == other.address;
        same_address && self.protocol == other.protocol && self.number == other.number
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}/{}", self.number, self.protocol.as_str())
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
    let table = nft::read().await?;
    let links = host.links().await.doing(|| "list the host's links".into())?;
    let own = door.attachment.name();
    let (stale, held) = table.split(|entry| entry.holder == own || is_stale(entry, &links));
    let mut wanted = Vec::new();
    for port in ports {
        match held.iter().find(|entry| entry.host.collides(port.host)) {
            // A container on two networks is told of its ports twice: the first network has them.
            Some(entry) if lease::is_of_container(&entry.holder, &door.attachment.target.container) => {}
            Some(entry) => {
                return Err(Error::PortTaken { port: port.host.to_string(), holder: holder(entry, &links) });
            }
            None => wanted.push(*port),
        }
    }
    if wanted.is_empty() {
        return remove(host, &table, &stale, door.bridge).await;
    }
    door.begun.set(true);
    nft::change(&script::publish(door, &wanted, &stale)).await?;
    let changed = wanted.iter().map(|port| port.host).chain(stale.iter().map(|entry| entry.host));
    forget_flows(host, changed).await?;
    // After the rules, which keep the bridge's containers from the host's loopback addresses.
    set_route_localnet(door.bridge, true)
}

/// Takes away the ports of the attachment of that name, and what is stale. Nothing to take away is no error.
pub(crate) async fn withdraw(host: &Netlink, attachment: &str, bridge: &str) -> Result<()> {
    let _lock = lock().await?;
    let table = nft::read().await?;
    let links = host.links().await.doing(|| "list the host's links".into())?;
    let (gone, _) = table.split(|entry| entry.holder == attachment || is_stale(entry, &links));
    remove(host, &table, &gone, bridge).await
}

/// Takes away the rules of networks whose bridge has gone, flatnet's own and those in other firewalls' chains, and those of containers that
/// ended with their links.
pub(crate) async fn sweep(host: &Netlink) -> Result<()> {
    let swept = both(masquerade::sweep(host).await, forward::sweep(host).await);
    both(swept, spoofing::forget_gone(host).await)
}

/// Whether ports of containers on `bridge` may be published: a look at one file, where nftables would take a process.
pub(crate) fn is_in_use(bridge: &str) -> bool {
    fs::read_to_string(route_localnet(bridge)).is_ok_and(|text| text.trim() == "1")
}

/// Removes `gone` of the table's entries, and the table with the last.
async fn remove(host: &Netlink, table: &Table, gone: &[&Entry], bridge: &str) -> Result<()> {
    if !table.exists {
        // Somebody flushed it, and with it the rules that guard this.
        return set_route_localnet(bridge, false);
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
        set_route_localnet(bridge, false)?;
    }
    nft::change(&script::delete_all(table.is_shared)).await?;
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
    match link {
        Some(Link { name, alias: Some(alias), .. }) => format!("link {name} ({alias})"),
        _ => entry.holder.clone(),
    }
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

/// Held until it is dropped.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Said, as a child process may have the file too. Where it fails, closing does it.
        drop(self.0.unlock());
    }
}

/// One process at a time reads and then changes flatnet's tables; the lock leaves nothing behind.
async fn lock() -> Result<Lock> {
    let failed = || "lock the network namespace's nftables tables".to_owned();
    let file = File::open(LOCKED).map_err(|e| errno_of(&e)).doing(failed)?;
    loop {
        // Not nix's `Flock`, which panics where unlocking fails.
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(errno_of(&e)).doing(failed),
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
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
    use rstest::rstest;

    use super::*;

    fn port(address: Option<[u8; 4]>, protocol: Protocol, number: u16) -> HostPort {
        HostPort { address: address.map(Ipv4Addr::from), protocol, number }
    }

    #[rstest]
    #[case::same(port(None, Protocol::Tcp, 80), true)]
    #[case::one_address_of_all(port(Some([127, 0, 0, 1]), Protocol::Tcp, 80), true)]
    #[case::other_protocol(port(None, Protocol::Udp, 80), false)]
    #[case::other_number(port(None, Protocol::Tcp, 81), false)]
    fn collisions_with_all_addresses(#[case] other: HostPort, #[case] collides: bool) {
        assert_eq!(port(None, Protocol::Tcp, 80).collides(other), collides);
        assert_eq!(other.collides(port(None, Protocol::Tcp, 80)), collides);
    }

    #[test]
    fn whatever_program_it_is_one_at_a_time_changes_the_table() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ours = runtime.block_on(lock()).expect("the lock");
        let other = File::open("/proc/thread-self/ns/net").expect("the same namespace");
        let tried = other.try_lock();
        assert!(matches!(tried, Err(TryLockError::WouldBlock)), "{tried:?}");
        drop(ours);
        other.try_lock().expect("the lock, once nobody has it");
    }

    #[test]
    fn two_addresses_have_ports_of_their_own() {
        let (one, other) =
            (port(Some([127, 0, 0, 1]), Protocol::Tcp, 80), port(Some([172, 30, 0, 2]), Protocol::Tcp, 80));
        assert!(!one.collides(other));
        assert_eq!(one.to_string(), "127.0.0.1:80/tcp");
    }
}
