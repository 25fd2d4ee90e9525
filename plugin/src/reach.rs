//! Whether containers are reached: each leased address is tried with a packet, and the kernel is asked for a gateway's way to it.
//!
//! What a packet proves is never judged by conditions; they only explain what a packet did not prove. All addresses are tried at
//! the same time, so that the time it takes does not grow with those that do not answer; of hundreds, as many as the kernel has room for.

mod echo;
mod explain;
mod sample;
mod tcp;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::future::join;
use ipnetwork::IpNetwork;
use nix::errno::Errno;

use self::explain::{Explanation, Surroundings};
use crate::attachment;
use crate::config::Network;
use crate::error::Result;
use crate::ipam::lease;
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};

/// A leased address, and the link whose container has it.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) address: IpAddr,
    pub(crate) link: &'a Link,
}

/// Something that is wrong with one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) address: IpAddr,
    /// The container, as a person knows it.
    pub(crate) who: String,
    /// A sentence without its end.
    pub(crate) found: String,
    pub(crate) remedy: String,
}

/// What packets have shown of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It answers, by the way that a gateway's packets take.
    Reached,
    /// Something is in the way, which the fault names.
    Blocked,
    /// It does not answer, and nothing that this host shows is in the way.
    Silent,
}

/// What a look at one network came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many containers have an address in it.
    pub(crate) containers: usize,
    /// Those that are not reached.
    pub(crate) faults: Vec<Fault>,
    /// Those that packets reach, if not as they should.
    pub(crate) doubts: Vec<Fault>,
    /// Why no packet was sent, or not to all.
    pub(crate) untried: Option<String>,
    /// How many addresses were tried, where there are more than a look may try.
    pub(crate) sampled: Option<usize>,
    /// Each address that was tried.
    pub(crate) shown: BTreeMap<IpAddr, Shown>,
}

/// What the packets came to.
#[derive(Debug, Default)]
struct Tried {
    answered: BTreeSet<IpAddr>,
    /// The MAC that has answered for an address.
    macs: BTreeMap<IpAddr, Mac>,
    /// Those that have a MAC which another container has as well.
    shared: BTreeMap<IpAddr, String>,
}

/// Tries the network's containers, or those that `is_wanted` says. `links` are the host's; `gateway` is one beside those that the network
/// names, and the host's routers.
pub(crate) async fn look(
    host: &Netlink,
    network: &Network,
    links: &[Link],
    gateway: Option<IpAddr>,
    is_wanted: impl Fn(&Subject<'_>) -> bool,
) -> Result<Report> {
    let all = subjects(links, network);
    let wanted: Vec<_> = all.iter().filter(|subject| is_wanted(subject)).cloned().collect();
    let containers = wanted.iter().map(|subject| subject.link.index).collect::<BTreeSet<_>>().len();
    let mut report = Report { containers, ..Report::default() };
    let surroundings = Surroundings::of(network, links);
    if !network.options.is_gateway {
        report.untried = Some("isGateway is false: this host has no address to try containers from".into());
        return Ok(report);
    }
    let own_vlan = network.gateway_vlan().map(|(_, vlan)| vlan);
    let (same, other): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|subject| own_vlan.is_none() || lease::vlan(subject.link) == own_vlan);
    if !other.is_empty() {
        report.untried = Some(format!("{} not tried: in a VLAN that this host has no address in", other.len()));
    }
    let all_same = same.len();
    let way = surroundings.way.map(|way| way.index);
    let same = sample::of(same, |subject| !subject.link.up || (way.is_some() && subject.link.bridge != way));
    report.sampled = (same.len() < all_same).then_some(same.len());
    let tried = match send(host, &surroundings, &same).await {
        Ok(tried) => tried,
        Err(error) if error.is(Errno::EPERM) || error.is(Errno::EACCES) => {
            report.untried = Some("no packet was sent: that needs root (CAP_NET_RAW)".into());
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let single = |network: &IpNetwork| network.prefix() == if network.is_ipv4() { 32 } else { 128 };
    let named = network.gateways.iter().filter(|it| single(it)).map(IpNetwork::ip).chain(gateway);
    let arrivals = way::arrivals(host, named.collect()).await?;
    let mut ways = way::Ways::new(host, surroundings.way, &arrivals);
    for subject in &same {
        let shown = if !tried.answered.contains(&subject.address) {
            let blocked = ways.own(subject.address).await?;
            let Explanation { fault, certain, shown } = surroundings.explain(subject, &tried, blocked);
            if certain { &mut report.faults } else { &mut report.doubts }.push(fault);
            shown
        } else if let Some(blocked) = ways.of_gateways(subject.address).await? {
            report.faults.push(explain::fault(
                subject,
                format!("this host reaches it, but {}", blocked.found),
                blocked.remedy,
            ));
            Shown::Blocked
        } else {
            let doubt = tried.shared.get(&subject.address);
            let turns = |other: &String| explain::shared(subject, other, "it answers now, but they take turns");
            report.doubts.extend(doubt.map(turns));
            Shown::Reached
        };
        report.shown.insert(subject.address, shown);
    }
    Ok(report)
}

/// The addresses that the network's links lease.
pub(crate) fn subjects<'a>(links: &'a [Link], network: &Network) -> Vec<Subject<'a>> {
    let subnets = network.pools.subnets();
    let is_its = |link: &&Link| {
        let unmarked = link.alias.is_none();
        let leased = || lease::leases(link).any(|address| subnets.iter().any(|subnet| subnet.contains(address)));
        lease::is_host_end(link) && (lease::is_of_network(link, &network.name) || unmarked && leased())
    };
    let of_link = |link: &'a Link| lease::leases(link).map(move |address| Subject { address, link });
    // One whose ADD is at work answers a moment later.
    let is_at_work = |link: &Link| link.alias.is_some() && lease::record(link).is_none();
    let is_whole = |link: &&Link| lease::attachment_of(link).is_some() && !is_at_work(link);
    links.iter().filter(is_its).filter(is_whole).flat_map(of_link).collect()
}

/// The container, as a person knows it.
pub(crate) fn who(link: &Link) -> String {
    let part = |key| attachment::record_part(link.alias.as_deref().unwrap_or_default(), key);
    let name = part("name")
        .or_else(|| part("container"))
        .or_else(|| Some(attachment::parts_of(lease::attachment_of(link)?)?.0));
    name.unwrap_or("an unknown container").to_owned()
}

/// Echo to all; then TCP and echo to those that have not answered, the kernel's idea of where they are dropped before: so it asks anew by
/// ARP or neighbour discovery.
async fn send(host: &Netlink, surroundings: &Surroundings<'_>, subjects: &[Subject<'_>]) -> Result<Tried> {
    let addresses: BTreeSet<_> = subjects.iter().map(|subject| subject.address).collect();
    let mut tried = Tried { answered: echo::ask(&addresses).await?, ..Tried::default() };
    let silent = |tried: &Tried| addresses.difference(&tried.answered).copied().collect::<BTreeSet<_>>();
    let Some(way) = surroundings.way else { return Ok(tried) };
    if !silent(&tried).is_empty() {
        let missing = silent(&tried);
        for address in &missing {
            host.delete_neighbour(way, *address).await?;
        }
        let (by_tcp, by_echo) = join(tcp::ask(&missing), echo::ask(&missing)).await;
        tried.answered.extend(by_tcp.into_iter().chain(by_echo?));
    }
    for ipv4 in [true, false] {
        if addresses.iter().any(|address| address.is_ipv4() == ipv4) {
            let known = host.neighbours(way, ipv4).await?;
            tried.macs.extend(known.into_iter().filter_map(|it| Some((it.address, it.mac?))));
        }
    }
    tried.shared = shared(subjects, &tried.macs);
    if !tried.shared.is_empty() {
        // The bridge sends what is for that MAC to the one that spoke last: nobody asks where they are now.
        let contested: BTreeSet<_> = tried.shared.keys().copied().collect();
        let answered = echo::ask(&contested).await?;
        tried.answered.retain(|address| !contested.contains(address) || answered.contains(address));
    }
    Ok(tried)
}

/// The addresses of different containers that one MAC answers for, each with another one's name.
fn shared(subjects: &[Subject<'_>], macs: &BTreeMap<IpAddr, Mac>) -> BTreeMap<IpAddr, String> {
    let mut holders: BTreeMap<[u8; 6], Vec<&Subject<'_>>> = BTreeMap::new();
    for subject in subjects {
        if let Some(mac) = macs.get(&subject.address) {
            holders.entry(mac.0).or_default().push(subject);
        }
    }
    let mut shared = BTreeMap::new();
    for holders in holders.values() {
        for subject in holders {
            if let Some(other) = holders.iter().find(|other| other.link.index != subject.link.index) {
                shared.insert(subject.address, who(other.link));
            }
        }
    }
    shared
}

impl Report {
    /// What is known of the address beside whether it is reached.
    pub(crate) fn remark(&self, address: IpAddr) -> Option<&Fault> {
        self.faults.iter().chain(&self.doubts).find(|fault| fault.address == address)
    }

    /// What is wrong, in a line; nothing where nothing is.
    pub(crate) fn problem(&self) -> Option<String> {
        let first = self.faults.first()?;
        let rest = match self.faults.len() - 1 {
            0 => String::new(),
            more => format!("; so it is with {more} more: {}", names(&self.faults[1..])),
        };
        Some(format!("{} ({}) is not reached: {}{rest}", first.address, first.who, first.found))
    }
}

/// Some of them, as a list.
pub(crate) fn names(faults: &[Fault]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = faults.iter().take(SHOWN).map(|it| format!("{} ({})", it.address, it.who)).collect();
    let more = if faults.len() > SHOWN { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests;
