//! The chains, maps and sets of one family: as they should be, as they are, and the transaction between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;

use super::rules::{self, ADDRESSES, CHAINS, Gateway, Own, PUBLISHED, PUBLISHED_AT, all_of};
use super::{HostPort, Protocol};
use crate::family::IpFamily;
use crate::firewall::TABLE;
use crate::nft::{Batch, Chain, Element, FIB, Field, Map, Mapping, Nftables, Problem, Rule, Set, key};

/// Sets of flatnet 0.1, which had other rules in the chains of these names.
const FORMER_SETS: [&str; 2] = ["bridges", "masqueraded"];
/// How often a transaction is tried anew because somebody else changed the rules at the same moment.
const ATTEMPTS: u32 = 8;

/// What one family's tables should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) family: IpFamily,
    /// Each published port, and the container's address and port that it leads to.
    pub(super) ports: BTreeMap<HostPort, (IpAddr, u16)>,
    pub(super) gateways: BTreeSet<Gateway>,
    /// The host's own addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// The elements of a map.
type Mappings = BTreeSet<Mapping>;

/// What they have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    chains: BTreeMap<&'static str, (Chain, Vec<Rule>)>,
    published: Option<Mappings>,
    published_at: Option<Mappings>,
    addresses: Option<BTreeSet<Vec<u8>>>,
}

impl Found {
    pub(super) async fn read(nftables: &mut Nftables, family: IpFamily) -> Result<Self, Problem> {
        let mut chains = BTreeMap::new();
        for name in CHAINS {
            if let Some((chain, rules)) = nftables.chain(family.tables(), TABLE, name).await? {
                chains.insert(name, (chain, rules.into_iter().map(|placed| placed.rule).collect()));
            }
        }
        let published = nftables.mappings(family.tables(), TABLE, PUBLISHED).await?;
        let published_at = nftables.mappings(family.tables(), TABLE, PUBLISHED_AT).await?;
        let addresses = nftables.elements(family.tables(), TABLE, ADDRESSES).await?;
        Ok(Self {
            chains,
            published: published.map(|found| found.into_iter().collect()),
            published_at: published_at.map(|found| found.into_iter().collect()),
            addresses: addresses.map(|found| found.into_iter().map(|element| element.key).collect()),
        })
    }

    /// Whether nothing is there for ports.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What flatnet 0.1 has published, which said for whom in comments: the attachment's name, and the ports.
    pub(super) fn former(&self, family: IpFamily) -> Vec<(String, HostPort, u16)> {
        let maps = [&self.published, &self.published_at].into_iter().flatten().flatten();
        maps.filter_map(|mapping| {
            let (host, (_, container)) = read(family, mapping)?;
            Some((mapping.comment.clone()?, host, container))
        })
        .collect()
    }

    /// What is not as it should be.
    pub(super) fn problem(&self, wanted: &Wanted) -> Option<String> {
        let of = wanted.family.tables().as_str();
        let own = self.own(wanted);
        for (chain, rules) in rules::wanted(wanted.family, own, &wanted.gateways) {
            match self.chains.get(chain.name.as_str()) {
                None => return Some(format!("nftables table {of} {TABLE} has no chain {}", chain.name)),
                Some(found) if *found == (chain.clone(), rules) => {}
                Some(_) => return Some(format!("chain {} of nftables table {of} {TABLE} was changed", chain.name)),
            }
        }
        for (name, found, wanted) in self.maps(wanted) {
            if found.as_ref().is_none_or(|found| bare(found) != wanted) {
                return Some(format!("map {name} of nftables table {of} {TABLE} has other elements"));
            }
        }
        let listed = || self.addresses.as_ref() == Some(&keys(&wanted.addresses));
        (own == Own::Listed && !listed())
            .then(|| format!("set {ADDRESSES} of nftables table {of} {TABLE} does not list the host's addresses"))
    }

    /// The ports that are there and should not be, or the other way round, or lead elsewhere.
    pub(super) fn changed(&self, wanted: &Wanted) -> BTreeSet<HostPort> {
        let maps = [&self.published, &self.published_at].into_iter().flatten().flatten();
        let found: BTreeMap<_, _> = maps.filter_map(|mapping| read(wanted.family, mapping)).collect();
        let differs = |host: &&HostPort| found.get(host) != wanted.ports.get(host);
        found.keys().chain(wanted.ports.keys()).filter(differs).copied().collect()
    }

    /// How the rules that are there know the host's own addresses.
    fn own(&self, wanted: &Wanted) -> Own {
        let listed = rules::wanted(wanted.family, Own::Listed, &wanted.gateways);
        let is_there = |(chain, rules): &(Chain, Vec<Rule>)| {
            self.chains.get(chain.name.as_str()).is_some_and(|(_, found)| found == rules)
        };
        let asked = rules::wanted(wanted.family, Own::Asked, &wanted.gateways);
        if listed.iter().all(is_there) && !asked.iter().all(is_there) { Own::Listed } else { Own::Asked }
    }

    /// Each map's name, what is in it, and what should be.
    fn maps(&self, wanted: &Wanted) -> [(&'static str, &Option<Mappings>, Mappings); 2] {
        let (all, one): (BTreeMap<_, _>, BTreeMap<_, _>) =
            wanted.ports.iter().partition(|(host, _)| host.address.is_unspecified());
        let write = |ports: BTreeMap<&HostPort, &(IpAddr, u16)>| {
            ports.into_iter().map(|(host, (address, port))| mapping(*host, *address, *port)).collect()
        };
        [(PUBLISHED, &self.published, write(all)), (PUBLISHED_AT, &self.published_at, write(one))]
    }

    /// The transaction that makes it what it should be.
    fn change(&self, wanted: &Wanted, own: Own, former: &[&str]) -> Batch {
        let family = wanted.family;
        let mut batch = Batch::new(family.tables(), TABLE);
        batch.add_table();
        let chains = rules::wanted(family, own, &wanted.gateways);
        let is_right = |(chain, rules): &(Chain, Vec<Rule>)| {
            self.chains.get(chain.name.as_str()) == Some(&(chain.clone(), rules.clone()))
        };
        let rewritten = self.chains.len() != chains.len() || !chains.iter().all(is_right);
        if rewritten {
            self.delete_chains(&mut batch);
            delete_sets(&mut batch, former);
        }
        for (name, found, wanted) in self.maps(wanted) {
            batch.add_map(&map_of(family, name));
            let found = found.clone().unwrap_or_default();
            let (known, wanted_keys) = (bare(&found), &wanted);
            let stale: Vec<_> =
                known.difference(wanted_keys).map(|it| Element { key: it.key.clone(), comment: None }).collect();
            batch.delete_elements(name, &stale);
            batch.add_mappings(name, &wanted.difference(&known).cloned().collect::<Vec<_>>());
        }
        match own {
            Own::Listed => {
                batch.add_set(&Set { name: ADDRESSES.into(), key: vec![address_field(family)] });
                let (found, wanted) = (self.addresses.clone().unwrap_or_default(), keys(&wanted.addresses));
                let element = |key: &Vec<u8>| Element { key: key.clone(), comment: None };
                batch.delete_elements(ADDRESSES, &found.difference(&wanted).map(element).collect::<Vec<_>>());
                batch.add_elements(ADDRESSES, &wanted.difference(&found).map(element).collect::<Vec<_>>());
            }
            Own::Asked if self.addresses.is_some() => batch.delete_set(ADDRESSES),
            Own::Asked => {}
        }
        if rewritten {
            for (chain, rules) in &chains {
                batch.add_chain(chain);
                for rule in rules {
                    batch.add_rule(&chain.name, rule);
                }
            }
        }
        batch
    }

    /// The transaction that takes all of it away.
    fn removal(&self, family: IpFamily, former: &[&str]) -> Batch {
        let mut batch = Batch::new(family.tables(), TABLE);
        self.delete_chains(&mut batch);
        delete_sets(&mut batch, former);
        let sets = [
            (PUBLISHED, self.published.is_some()),
            (PUBLISHED_AT, self.published_at.is_some()),
            (ADDRESSES, self.addresses.is_some()),
        ];
        let sets: Vec<_> = sets.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
        delete_sets(&mut batch, &sets);
        batch
    }

    fn delete_chains(&self, batch: &mut Batch) {
        self.chains.keys().for_each(|chain| batch.flush_chain(chain));
        self.chains.keys().for_each(|chain| batch.delete_chain(chain));
    }
}

fn delete_sets(batch: &mut Batch, sets: &[&str]) {
    for set in sets {
        batch.delete_set(set);
    }
}

/// Makes the tables of a family what they should be.
pub(super) async fn bring(nftables: &mut Nftables, wanted: &Wanted) -> Result<(), Problem> {
    for _ in 1..ATTEMPTS {
        match attempt(nftables, wanted).await {
            // What was read a moment ago is no longer so: under the lock only strangers can.
            Err(problem) if matches!(problem.errno(), Some(Errno::ENOENT | Errno::EEXIST)) => {}
            done => return done,
        }
    }
    attempt(nftables, wanted).await
}

async fn attempt(nftables: &mut Nftables, wanted: &Wanted) -> Result<(), Problem> {
    let found = Found::read(nftables, wanted.family).await?;
    if wanted.ports.is_empty() {
        return if found.is_nothing() { Ok(()) } else { remove(nftables, &found, wanted.family).await };
    }
    if found.problem(wanted).is_none() {
        return Ok(());
    }
    let former = former_sets(nftables, wanted.family).await?;
    match found.own(wanted) {
        Own::Asked => match nftables.apply(&found.change(wanted, Own::Asked, &former)).await {
            Err(Problem::Lacking { piece: FIB }) => nftables.apply(&found.change(wanted, Own::Listed, &former)).await,
            done => done,
        },
        Own::Listed => nftables.apply(&found.change(wanted, Own::Listed, &former)).await,
    }
}

async fn remove(nftables: &mut Nftables, found: &Found, family: IpFamily) -> Result<(), Problem> {
    let former = former_sets(nftables, family).await?;
    nftables.take_away(&found.removal(family, &former)).await
}

async fn former_sets(nftables: &mut Nftables, family: IpFamily) -> Result<Vec<&'static str>, Problem> {
    let mut former = Vec::new();
    for set in FORMER_SETS {
        if nftables.elements(family.tables(), TABLE, set).await?.is_some() {
            former.push(set);
        }
    }
    Ok(former)
}

fn address_field(family: IpFamily) -> Field {
    match family {
        IpFamily::V4 => Field::Ipv4Address,
        IpFamily::V6 => Field::Ipv6Address,
    }
}

fn map_of(family: IpFamily, name: &str) -> Map {
    let (address, port) = (address_field(family), [Field::Protocol, Field::Service]);
    let key = if name == PUBLISHED { port.to_vec() } else { [&[address][..], &port].concat() };
    Map { name: name.into(), key, data: vec![address, Field::Service] }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn keys(addresses: &BTreeSet<IpAddr>) -> BTreeSet<Vec<u8>> {
    addresses.iter().map(|address| octets(*address)).collect()
}

/// Without comments, which flatnet 0.1 wrote.
fn bare(mappings: &Mappings) -> Mappings {
    mappings.iter().map(|mapping| Mapping { comment: None, ..mapping.clone() }).collect()
}

fn mapping(host: HostPort, address: IpAddr, port: u16) -> Mapping {
    let protocol = [host.protocol.number()];
    let (number, at, to) = (host.number.to_be_bytes(), octets(host.address), octets(address));
    let field = address_field(host.family());
    let mut parts: Vec<(Field, &[u8])> = vec![(Field::Protocol, &protocol), (Field::Service, &number)];
    if !host.address.is_unspecified() {
        parts.insert(0, (field, &at));
    }
    let data = key(&[(field, &to), (Field::Service, &port.to_be_bytes())]);
    Mapping { key: key(&parts), data, comment: None }
}

/// The reverse of `mapping`.
fn read(family: IpFamily, mapping: &Mapping) -> Option<(HostPort, (IpAddr, u16))> {
    let length = address_field(family).slots() * 4;
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let number = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    let (at, port) = match mapping.key.len() {
        8 => (all_of(family), mapping.key.as_slice()),
        _ => (address(mapping.key.get(..length)?)?, mapping.key.get(length..)?),
    };
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|it| port.first() == Some(&it.number()))?;
    let host = HostPort { address: at, protocol, number: number(port.get(4..)?)? };
    Some((host, (address(mapping.data.get(..length)?)?, number(mapping.data.get(length..)?)?)))
}

#[cfg(test)]
mod tests;
