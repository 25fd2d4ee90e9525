//! The table: its chains with their rules, which are always the same, its sets, and what is found of it.
//!
//! Written whole or not at all; what was found is right only if it is exactly what would be written. No element of IPv6 is read where no port
//! has any: the elements of those that do say so.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rules::{self, CHAIN, CHAIN_IPV6, PORTS, SPEAKERS, SPEAKERS_IPV6, TABLE};
use super::{AllowedSource, Guarded, Way};
use crate::mac::Mac;
use crate::nft::{Batch, Chain, Element, Field, Nftables, Problem, Rule, Set, key};

/// The comment of a port's element where there are elements of IPv6 for it.
const WITH_IPV6: &str = "with IPv6";

/// Lets a port's container speak for itself, in a table that is there. Nothing is deleted: the kernel would take its time for that.
pub(super) fn admit(way: Way, guarded: &[Guarded]) -> Batch {
    let mut batch = Batch::new(way.family(), TABLE);
    add_elements(&mut batch, guarded);
    add_chains(&mut batch, way, guarded);
    batch
}

/// What takes back exactly what [`admit`] wrote for one port, by either way: one of them finds all of it. The kernel may have taken a link's
/// own chain away with the link. None where nothing was allowed.
pub(super) fn dismissals(allowed: &[AllowedSource]) -> Vec<(Way, Batch)> {
    let Some(first) = allowed.first() else { return Vec::new() };
    let chain = rules::of_port(first.port).0.name;
    let dismissal = |way: Way, chain: Option<&str>| {
        let mut batch = Batch::new(way.family(), TABLE);
        if let Some(chain) = chain {
            batch.delete_chain(chain);
        }
        for entry in allowed.iter().flat_map(entries).collect::<BTreeSet<_>>() {
            batch.delete_element(entry.set(), &entry.element());
        }
        batch.delete_element(PORTS, &port_element(first.port, false));
        (way, batch)
    };
    vec![dismissal(Way::Bridge, None), dismissal(Way::Links, Some(&chain)), dismissal(Way::Links, None)]
}

/// The ports that are under control.
pub(super) async fn ports(nftables: &mut Nftables, way: Way) -> Result<BTreeSet<u32>, Problem> {
    let elements = nftables.elements(way.family(), TABLE, PORTS).await?.unwrap_or_default();
    Ok(elements.iter().filter_map(|element| port(&element.key)).collect())
}

/// The whole table. `replaced` is said where there may be one already.
pub(super) fn whole(way: Way, guarded: &[Guarded], replaced: bool) -> Batch {
    let mut batch = Batch::new(way.family(), TABLE);
    batch.add_table();
    if replaced {
        batch.delete_table();
        batch.add_table();
    }
    let speakers_key = |address| vec![Field::LinkIndex, Field::EthernetAddress, address];
    batch.add_set(&Set { name: PORTS.into(), key: vec![Field::LinkIndex] });
    batch.add_set(&Set { name: SPEAKERS.into(), key: speakers_key(Field::Ipv4Address) });
    batch.add_set(&Set { name: SPEAKERS_IPV6.into(), key: speakers_key(Field::Ipv6Address) });
    // What a rule leads to must be there.
    for (chain, rules) in [rules::ipv6(), rules::first(way)] {
        batch.add_chain(&chain);
        batch.flush_chain(&chain.name);
        for rule in rules {
            batch.add_rule(&chain.name, &rule);
        }
    }
    add_elements(&mut batch, guarded);
    add_chains(&mut batch, way, guarded);
    batch
}

/// What shows whether the kernel has that way; never carried out.
pub(super) fn trial(way: Way) -> Batch {
    let mut batch = whole(way, &[], true);
    if way == Way::Links {
        batch.try_chain_of_links(&rules::of_port(0).0);
    }
    batch
}

/// Takes away what is said of ports that are gone, and the table with the last; nothing where none is.
pub(super) fn without(way: Way, found: &Found, is_gone: impl Fn(u32) -> bool) -> Option<Batch> {
    let mut batch = Batch::new(way.family(), TABLE);
    if found.ports.iter().all(|port| is_gone(*port)) {
        batch.delete_table();
        return Some(batch);
    }
    let gone_ports: Vec<_> =
        found.ports.iter().filter(|port| is_gone(**port)).map(|port| port_element(*port, false)).collect();
    let gone_entries: Vec<_> = found.entries.iter().filter(|entry| is_gone(entry.port)).collect();
    let gone_chains: Vec<_> = found.chains.iter().filter(|port| is_gone(**port)).collect();
    if gone_ports.is_empty() && gone_entries.is_empty() && gone_chains.is_empty() {
        return None;
    }
    for port in gone_chains {
        batch.delete_chain(&rules::of_port(*port).0.name);
    }
    for entry in gone_entries {
        batch.delete_element(entry.set(), &entry.element());
    }
    for element in gone_ports {
        batch.delete_element(PORTS, &element);
    }
    Some(batch)
}

/// What there is of the table's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none that sees frames.
    Missing,
    /// Somebody made them others.
    Changed,
    Intact,
}

/// What there is of the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    ports: BTreeSet<u32>,
    entries: BTreeSet<Entry>,
    /// The ports that have a chain of their own, and those of them where it leads where it should.
    chains: BTreeSet<u32>,
    led: BTreeSet<u32>,
    /// The chains, with their rules in order; nothing where there is none, or nobody asked.
    first: Option<(Chain, Vec<Rule>)>,
    ipv6: Option<(Chain, Vec<Rule>)>,
}

/// An element of a set of allowed sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    port: u32,
    mac: [u8; 6],
    address: IpAddr,
}

impl Found {
    /// Whether there is something of the table.
    pub(super) async fn is_there(nftables: &mut Nftables, way: Way) -> Result<bool, Problem> {
        match nftables.elements(way.family(), TABLE, PORTS).await {
            // A kernel without the family has no table of it.
            Err(Problem::Lacking { .. }) => Ok(false),
            found => Ok(found?.is_some()),
        }
    }

    /// How it is with both chains: a container without IPv6 may send it all the same. Two questions, however many ports there are.
    pub(super) async fn standing(nftables: &mut Nftables, way: Way) -> Result<Standing, Problem> {
        match Self::chain(nftables, way, CHAIN).await {
            // A kernel without the family has no table of it.
            Ok(None) | Err(Problem::Lacking { .. }) => Ok(Standing::Missing),
            Ok(Some(first)) if first != rules::first(way) => Ok(Standing::Changed),
            Ok(Some(_)) if Self::chain(nftables, way, CHAIN_IPV6).await? == Some(rules::ipv6()) => Ok(Standing::Intact),
            Ok(Some(_)) => Ok(Standing::Changed),
            Err(problem) => Err(problem),
        }
    }

    /// What is in the sets; nothing where they are not there.
    pub(super) async fn elements(nftables: &mut Nftables, way: Way) -> Result<Option<Self>, Problem> {
        let family = way.family();
        let ports = nftables.elements(family, TABLE, PORTS).await?;
        let entries = nftables.elements(family, TABLE, SPEAKERS).await?;
        let (Some(ports), Some(mut entries)) = (ports, entries) else { return Ok(None) };
        if ports.iter().any(|port| port.comment.is_some()) {
            entries.extend(nftables.elements(family, TABLE, SPEAKERS_IPV6).await?.unwrap_or_default());
        }
        let chains = if way == Way::Links { Self::chains_of_ports(nftables).await? } else { BTreeSet::new() };
        Ok(Some(Self {
            chains,
            ports: ports.iter().filter_map(|element| port(&element.key)).collect(),
            entries: entries.iter().filter_map(Entry::read).collect(),
            ..Self::default()
        }))
    }

    /// All of it.
    pub(super) async fn read(nftables: &mut Nftables, way: Way) -> Result<Self, Problem> {
        let first = Self::chain(nftables, way, CHAIN).await?;
        let ipv6 = Self::chain(nftables, way, CHAIN_IPV6).await?;
        let found = Self::elements(nftables, way).await?.unwrap_or_default();
        let mut led = BTreeSet::new();
        if !found.chains.is_empty() {
            let rules = nftables.rules(way.family(), TABLE).await?;
            let of_port = |port: u32| {
                let (chain, wanted) = rules::of_port(port);
                let found = rules.iter().filter(|(name, _)| *name == chain.name).map(|(_, placed)| &placed.rule);
                found.eq(&wanted)
            };
            led = found.chains.iter().copied().filter(|port| of_port(*port)).collect();
        }
        Ok(Self { led, first, ipv6, ..found })
    }

    async fn chain(nftables: &mut Nftables, way: Way, name: &str) -> Result<Option<(Chain, Vec<Rule>)>, Problem> {
        let found = nftables.chain(way.family(), TABLE, name).await?;
        Ok(found.map(|(chain, rules)| (chain, rules.into_iter().map(|placed| placed.rule).collect())))
    }

    /// The ports that have a chain of their own which sees their frames.
    async fn chains_of_ports(nftables: &mut Nftables) -> Result<BTreeSet<u32>, Problem> {
        let family = Way::Links.family() as u8;
        let chains = nftables.all_chains().await?.into_iter().filter(|(of, _)| *of == family);
        let port = |chain: Chain| rules::port_of(&chain.name).filter(|port| rules::of_port(*port).0 == chain);
        Ok(chains.filter_map(|(_, chain)| port(chain)).collect())
    }

    pub(super) fn allowed_sources(&self) -> impl Iterator<Item = AllowedSource> + '_ {
        let named = self.entries.iter().filter(|entry| !entry.address.is_unspecified());
        named.map(|entry| AllowedSource { port: entry.port, mac: Mac(entry.mac), address: entry.address })
    }

    /// Why the ports of these allowed sources are not under control, or under another.
    pub(super) fn problem(&self, way: Way, allowed_sources: &[AllowedSource]) -> Option<String> {
        let table = format!("nftables table {} {TABLE}", way.family().as_str());
        for (found, wanted) in [(&self.first, rules::first(way)), (&self.ipv6, rules::ipv6())] {
            let name = &wanted.0.name;
            match found {
                None => return Some(format!("{table} has no chain {name}")),
                Some(found) if *found == wanted => {}
                Some(_) => return Some(format!("chain {name} of {table} was changed")),
            }
        }
        let ports: BTreeSet<_> = allowed_sources.iter().map(|source| source.port).collect();
        if !ports.is_subset(&self.ports) {
            return Some(format!("set {PORTS} of {table} lacks an element"));
        }
        if let Some(port) = ports.iter().find(|port| way == Way::Links && !self.led.contains(port)) {
            return Some(format!("chain {} of {table} is missing or was changed", rules::of_port(*port).0.name));
        }
        let wanted: BTreeSet<_> = allowed_sources.iter().flat_map(entries).collect();
        let found: BTreeSet<_> = self.entries.iter().filter(|entry| ports.contains(&entry.port)).copied().collect();
        let other = found.symmetric_difference(&wanted).next()?;
        Some(format!("set {} of {table} has other elements", other.set()))
    }
}

impl Entry {
    /// The set that it is in.
    fn set(&self) -> &'static str {
        if self.address.is_ipv4() { SPEAKERS } else { SPEAKERS_IPV6 }
    }

    fn element(&self) -> Element {
        let of_key = |field, address: &[u8]| {
            let parts: [(Field, &[u8]); 3] =
                [(Field::LinkIndex, &self.port.to_ne_bytes()), (Field::EthernetAddress, &self.mac), (field, address)];
            key(&parts)
        };
        let key = match self.address {
            IpAddr::V4(address) => of_key(Field::Ipv4Address, &address.octets()),
            IpAddr::V6(address) => of_key(Field::Ipv6Address, &address.octets()),
        };
        Element { key, comment: None }
    }

    fn read(element: &Element) -> Option<Self> {
        let address = element.key.get(12..)?;
        let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
        Some(Self {
            port: port(element.key.get(..4)?)?,
            mac: element.key.get(4..10)?.try_into().ok()?,
            address: v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok()?,
        })
    }
}

/// What it may say of itself: with IPv6 also the address that its link has by itself.
fn entries(source: &AllowedSource) -> Vec<Entry> {
    let entry = |address| Entry { port: source.port, mac: source.mac.0, address };
    match source.address {
        IpAddr::V4(_) => vec![entry(source.address), entry(Ipv4Addr::UNSPECIFIED.into())],
        IpAddr::V6(_) => {
            let by_itself = source.mac.link_local();
            vec![entry(source.address), entry(Ipv6Addr::UNSPECIFIED.into()), entry(by_itself.into())]
        }
    }
}

fn port(key: &[u8]) -> Option<u32> {
    key.try_into().ok().map(u32::from_ne_bytes)
}

fn port_element(port: u32, with_ipv6: bool) -> Element {
    let key = key(&[(Field::LinkIndex, &port.to_ne_bytes())]);
    Element { key, comment: with_ipv6.then(|| WITH_IPV6.to_owned()) }
}

fn add_elements(batch: &mut Batch, guarded: &[Guarded]) {
    let allowed_sources = || guarded.iter().flat_map(|guarded| &guarded.allowed_sources);
    let entries: BTreeSet<_> = allowed_sources().flat_map(entries).collect();
    for set in [SPEAKERS, SPEAKERS_IPV6] {
        let elements: Vec<_> = entries.iter().filter(|entry| entry.set() == set).map(Entry::element).collect();
        batch.add_elements(set, &elements);
    }
    let ports: BTreeSet<_> = allowed_sources().map(|source| source.port).collect();
    let with_ipv6 = |port| allowed_sources().any(|source| source.port == port && source.address.is_ipv6());
    let ports: Vec<_> = ports.into_iter().map(|port| port_element(port, with_ipv6(port))).collect();
    batch.add_elements(PORTS, &ports);
}

/// Where no chain sees the frames of all ports, each has one that leads to the first.
fn add_chains(batch: &mut Batch, way: Way, guarded: &[Guarded]) {
    for guarded in guarded.iter().filter(|_| way == Way::Links) {
        let Some(port) = guarded.allowed_sources.first().map(|source| source.port) else { continue };
        let (chain, rules) = rules::of_port(port);
        batch.add_chain_of_link(&chain, &guarded.link);
        batch.flush_chain(&chain.name);
        for rule in rules {
            batch.add_rule(&chain.name, &rule);
        }
    }
}

#[cfg(test)]
mod tests;
