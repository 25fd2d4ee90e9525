//! What a link needs for IPv6 beside its addresses, and what IPv6 needs of the host.
//!
//! Nothing here waits for duplicate address detection unless the network says so: the lease is the proof that an address is nobody
//! else's. Networks without IPv6 come here for nothing.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv6Network};
use nix::errno::Errno;

use crate::config::Network;
use crate::deadline::waiting_for;
use crate::error::{Doing, Error, Result, errno_of, unless_there};
use crate::mac::Mac;
use crate::netlink::{Address, AddressState, Link, Netlink};
use crate::netns::Netns;
use crate::sysctl;

/// A folder for each link (ip-sysctl.rst, `conf/interface`).
const CONF: &str = "/proc/sys/net/ipv6/conf";
const LOOPBACK_SWITCH: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
/// The groups that this thread's namespace listens to.
const GROUPS: &str = "/proc/thread-self/net/igmp6";
/// Below this a link carries no IPv6 (RFC 8200, section 5).
pub(crate) const MTU_MIN_BYTES: u32 = 1280;
/// The kernel joins an address's group from a work queue, some microseconds after it has taken the address.
const GROUP_INTERVAL: Duration = Duration::from_millis(1);
/// A tentative address stays so for one to two seconds (RFC 4862, sections 5.1 and 5.4.2).
const TENTATIVE_INTERVAL: Duration = Duration::from_millis(20);

/// A link that gets addresses, and where it is.
pub(crate) struct Place<'a> {
    pub(crate) netlink: &'a Netlink,
    /// None for the host's own.
    pub(crate) netns: Option<&'a Netns>,
    pub(crate) link: &'a Link,
}

/// Errors: 7 and 100 where a network with IPv6 cannot be on this host.
pub(crate) fn refuse_lacking(network: &Network) -> Result<()> {
    if !network.has_ipv6() {
        return Ok(());
    }
    if let Some(mtu) = network.mtu.filter(|mtu| *mtu < MTU_MIN_BYTES) {
        let problem = format!("is {mtu}, but IPv6 needs {MTU_MIN_BYTES} bytes");
        return Err(Error::Config { key: "mtu".into(), problem });
    }
    match fs::metadata(CONF).map_err(|e| errno_of(&e)) {
        Err(Errno::ENOENT) => Err(Errno::EAFNOSUPPORT).doing(|| format!("use IPv6 for network {}", network.name)),
        found => found.map(drop).doing(|| format!("look at {CONF}")),
    }
}

/// Makes the bridge ready for IPv6: it has an address of its own link, by which it asks for containers (RFC 4861, section 7.2.2) when it
/// forwards what others send to them.
pub(crate) async fn prepare_bridge(host: &Netlink, bridge: &Link, link_local: IpNetwork) -> Result<()> {
    if bridge.mtu < MTU_MIN_BYTES {
        host.set_mtu(bridge, MTU_MIN_BYTES).await?;
    }
    let place = Place { netlink: host, netns: None, link: bridge };
    if !unless_there(place.give(link_local, false).await)? && !can_ask(&place.addresses().await?) {
        // The kernel's own, which may be tentative for as long as the bridge has no port.
        host.delete_address(bridge, link_local).await?;
        // Another first ADD may be faster.
        unless_there(place.give(link_local, false).await)?;
    }
    Ok(())
}

/// The address by which a link of that MAC speaks within its own segment, with its prefix.
pub(crate) fn link_local(mac: Mac) -> IpNetwork {
    Ipv6Network::new(mac.link_local(), 64).expect("64 < 128").into()
}

/// Whether a bridge's addresses have one by which it can ask for containers.
pub(crate) fn can_ask(addresses: &[Address]) -> bool {
    addresses.iter().any(|address| address.is_link_local() && address.state == AddressState::Usable)
}

/// Keeps the host's own IPv6 when forwarding goes on: links that live on router advertisements listen to them from now on all the same
/// (ip-sysctl.rst, `accept_ra`). Those to which somebody else listens are left alone, and bridges of containers listen to nobody.
pub(crate) async fn preserve_accept_ra(host: &Netlink) -> Result<()> {
    for index in host.links_with_routers().await? {
        let link = host.link_by_index(index).await?;
        let Some(Link { name, .. }) = link else { continue };
        let file = format!("{CONF}/{name}/accept_ra");
        if read(&file)? == "1" {
            sysctl::write(&file, "2").doing(|| format!("write {file}"))?;
        }
    }
    Ok(())
}

impl Place<'_> {
    /// Gives the link an address; `asks` has the kernel ask first whether somebody else has it. Where IPv6 is switched off on the link, as
    /// it may be by default, it is switched on, in a container for lo as well. Errors: `EEXIST`.
    pub(crate) async fn give(&self, address: IpNetwork, asks: bool) -> Result<()> {
        match self.add(address, asks).await {
            // What the kernel says of `disable_ipv6`.
            Err(error) if error.is(Errno::EACCES) && address.is_ipv6() => {
                let file = format!("{CONF}/{}/disable_ipv6", self.link.name);
                let switched = match self.netns {
                    // By lo the container reaches its own address.
                    Some(netns) => {
                        netns.visit(|| sysctl::set(&file, "0").and_then(|()| sysctl::set(LOOPBACK_SWITCH, "0")))
                    }
                    None => sysctl::write(&file, "0"),
                };
                switched.doing(|| format!("write {file}"))?;
                self.add(address, asks).await
            }
            done => done,
        }
    }

    /// Has the link listen to no router: whoever is on its segment could make itself the default route by an advertisement (CVE-2020-10749).
    /// A kernel without IPv6 listens to none. Settings that cannot be written are no reason to have no containers.
    pub(crate) fn ignores_routers(&self) -> Result<()> {
        let file = format!("{CONF}/{}/accept_ra", self.link.name);
        let done = match self.netns {
            Some(netns) => netns.visit(|| ignore_routers(&file)),
            None => ignore_routers(&file).map_err(|e| errno_of(&e)),
        };
        match done.doing(|| format!("write {file}")) {
            Err(error @ Error::Kernel { errno: Errno::EROFS, .. }) => {
                let setting = sysctl::ipv6_of(&self.link.name, "accept_ra");
                eprintln!("flatnet: warning: {error} (run `sysctl -w {setting}=0` where it can be written)");
                Ok(())
            }
            done => done,
        }
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        self.netlink.addresses_of_any_scope(self.link).await
    }

    async fn add(&self, address: IpNetwork, asks: bool) -> Result<()> {
        if asks {
            self.netlink.add_tentative_address(self.link, address).await
        } else {
            self.netlink.add_address(self.link, address).await
        }
    }

    /// Waits until the link has joined the solicited-node multicast groups of `addresses`. A neighbour solicitation that is sent earlier is
    /// lost, and retried only after a second. Errors: 100 where the link is gone.
    pub(crate) async fn wait_for_mld_join(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<()> {
        let wanted: Vec<_> = addresses.filter_map(group_of).map(|group| (self.link.index, group)).collect();
        let opened = match self.netns {
            // Once it is open, it shows that namespace to whoever reads it.
            Some(netns) => netns.visit(|| File::open(GROUPS)),
            None => File::open(GROUPS).map_err(|e| errno_of(&e)),
        };
        let mut file = opened.doing(|| format!("open {GROUPS}"))?;
        loop {
            let mut groups = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut groups));
            read.map_err(|e| errno_of(&e)).doing(|| format!("read {GROUPS}"))?;
            let joined: Vec<_> = groups.lines().filter_map(joined).collect();
            if wanted.iter().all(|group| joined.contains(group)) {
                return Ok(());
            }
            // As long as it is there it listens to all nodes at least.
            if !joined.iter().any(|(link, _)| *link == self.link.index) {
                let doing = || format!("wait for {} to join its multicast groups", self.link.name);
                self.netlink.link_by_index(self.link.index).await?.ok_or(Errno::ENODEV).doing(doing)?;
            }
            let what = format!("{} to join the multicast groups of its addresses", self.link.name);
            waiting_for(what, tokio::time::sleep(GROUP_INTERVAL)).await;
        }
    }

    /// Waits until no address is tentative any more. Errors: 102 where another host has one.
    pub(crate) async fn wait_for_dad(&self) -> Result<()> {
        loop {
            let found = self.addresses().await?;
            if let Some(taken) = found.iter().find(|address| address.state == AddressState::Duplicate) {
                let address = taken.network.ip();
                let holder = "another machine on the bridge, which answered duplicate address detection".to_owned();
                return Err(Error::AddressTaken { address, holder });
            }
            if found.iter().all(|address| address.state == AddressState::Usable) {
                return Ok(());
            }
            let what = format!("duplicate address detection on {}", self.link.name);
            waiting_for(what, tokio::time::sleep(TENTATIVE_INTERVAL)).await;
        }
    }
}

/// In the namespace of the calling thread.
fn ignore_routers(accept_ra: &str) -> io::Result<()> {
    match sysctl::set(accept_ra, "0") {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The group in which an address is asked for (RFC 4291, section 2.7.1).
fn group_of(address: IpAddr) -> Option<Ipv6Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [.., high, low] = address.segments();
    Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low))
}

/// The link, by its index, and the group of a line of the list.
fn joined(text: &str) -> Option<(u32, Ipv6Addr)> {
    let mut words = text.split_whitespace();
    let (link, group) = (words.next()?.parse().ok()?, u128::from_str_radix(words.nth(1)?, 16).ok()?);
    Some((link, Ipv6Addr::from_bits(group)))
}

fn read(file: &str) -> Result<String> {
    let text = fs::read_to_string(file).map_err(|e| errno_of(&e)).doing(|| format!("read {file}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_groups_is_read() {
        let line = "2    eth0            ff0200000000000000000001ff000102     1 00000004 0";
        let group = group_of("fd87:1::ab00:102".parse().expect("an address"));
        assert_eq!(joined(line), group.map(|group| (2, group)));
        assert_eq!(joined(""), None);
        assert_eq!(group_of("10.87.1.2".parse().expect("an address")), None);
    }
}
