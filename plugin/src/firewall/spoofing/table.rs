//! The table: its one chain with its rules, which are always the same, and what is found of it.
//!
//! Written whole or not at all; what was found is right only if it is exactly what would be written.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Speaker;
use crate::mac::Mac;
use crate::netlink::nftables::{
    Base, BaseChain, Batch, Chain, Element, Expression, Family, Field, Hook, Meta, Nftables, Problem, Rule, Set, Slot,
    Verdict, key,
};

const TABLE: &str = "flatnet";
/// The chain where all frames arrive at.
const CHAIN: &str = "spoofing";
/// The ports under control, by number.
const PORTS: &str = "ports";
/// Who may speak there: port, MAC, and address. Each port is there with 0.0.0.0 as well, which only ARP may say.
const SPEAKERS: &str = "speakers";
/// Before whatever else looks at frames: `NF_BR_PRI_NAT_DST_BRIDGED` of `linux/netfilter_bridge.h`.
const PRIORITY: i32 = -300;
/// Ethertypes (IEEE 802).
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// How a message of ARP begins (RFC 826): hardware Ethernet, protocol IPv4, addresses of six and of four bytes.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// Where a frame has what is compared: base, offset and length.
type Place = (Base, u32, u32);
const ETHERTYPE: Place = (Base::Link, 12, 2);
const MAC: Place = (Base::Link, 6, 6);
const ADDRESS: Place = (Base::Network, 12, 4);
const ARP_BEGINNING: Place = (Base::Network, 0, 6);
const ARP_MAC: Place = (Base::Network, 8, 6);
const ARP_ADDRESS: Place = (Base::Network, 14, 4);

/// Lets the port's container speak for itself, in a table that is there. Nothing is deleted: the kernel would take its time for that.
pub(super) fn admit(speaker: &Speaker) -> Batch {
    let mut batch = Batch::new(Family::Bridge, TABLE);
    add_elements(&mut batch, std::slice::from_ref(speaker));
    batch
}

/// The whole table. `replaced` is said where there may be one already.
pub(super) fn whole(speakers: &[Speaker], replaced: bool) -> Batch {
    let mut batch = Batch::new(Family::Bridge, TABLE);
    batch.add_table();
    if replaced {
        batch.delete_table();
        batch.add_table();
    }
    let speakers_key = vec![Field::LinkIndex, Field::EthernetAddress, Field::Ipv4Address];
    batch.add_set(&Set { name: PORTS.into(), key: vec![Field::LinkIndex] });
    batch.add_set(&Set { name: SPEAKERS.into(), key: speakers_key });
    batch.add_chain(&chain());
    batch.flush_chain(CHAIN);
    for rule in rules() {
        batch.add_rule(CHAIN, &rule);
    }
    add_elements(&mut batch, speakers);
    batch
}

/// Takes away what is said of ports that are gone, and the table with the last; nothing where none is.
pub(super) fn without(found: &Found, is_gone: impl Fn(u32) -> bool) -> Option<Batch> {
    let mut batch = Batch::new(Family::Bridge, TABLE);
    if found.ports.iter().all(|port| is_gone(*port)) {
        batch.delete_table();
        return Some(batch);
    }
    let gone_ports: Vec<_> =
        found.ports.iter().filter(|port| is_gone(**port)).map(|port| port_element(*port)).collect();
    let gone_entries: Vec<_> = found.entries.iter().filter(|entry| is_gone(entry.port)).map(Entry::element).collect();
    if gone_ports.is_empty() && gone_entries.is_empty() {
        return None;
    }
    for (set, elements) in [(SPEAKERS, &gone_entries), (PORTS, &gone_ports)] {
        for element in elements {
            batch.delete_element(set, element);
        }
    }
    Some(batch)
}

/// What there is of the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    ports: BTreeSet<u32>,
    entries: BTreeSet<Entry>,
    /// The chain, with its rules in order; nothing where there is none, or nobody asked.
    chain: Option<(Chain, Vec<Rule>)>,
}

/// An element of the set of speakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    port: u32,
    mac: [u8; 6],
    address: Ipv4Addr,
}

impl Found {
    /// Whether there is something of the table.
    pub(super) async fn is_there(nftables: &mut Nftables) -> Result<bool, Problem> {
        Ok(nftables.elements(Family::Bridge, TABLE, PORTS).await?.is_some())
    }

    /// Whether the chain is as it should be, at one round trip.
    pub(super) async fn is_intact(nftables: &mut Nftables) -> Result<bool, Problem> {
        Ok(Self::chain(nftables).await? == Some((chain(), rules())))
    }

    /// What is in the sets; nothing where they are not there.
    pub(super) async fn elements(nftables: &mut Nftables) -> Result<Option<Self>, Problem> {
        let ports = nftables.elements(Family::Bridge, TABLE, PORTS).await?;
        let entries = nftables.elements(Family::Bridge, TABLE, SPEAKERS).await?;
        let (Some(ports), Some(entries)) = (ports, entries) else { return Ok(None) };
        Ok(Some(Self {
            ports: ports.iter().filter_map(|element| port(&element.key)).collect(),
            entries: entries.iter().filter_map(Entry::read).collect(),
            ..Self::default()
        }))
    }

    /// All of it.
    pub(super) async fn read(nftables: &mut Nftables) -> Result<Self, Problem> {
        let chain = Self::chain(nftables).await?;
        Ok(Self { chain, ..Self::elements(nftables).await?.unwrap_or_default() })
    }

    async fn chain(nftables: &mut Nftables) -> Result<Option<(Chain, Vec<Rule>)>, Problem> {
        let found = nftables.chain(Family::Bridge, TABLE, CHAIN).await?;
        Ok(found.map(|(chain, rules)| (chain, rules.into_iter().map(|placed| placed.rule).collect())))
    }

    pub(super) fn speakers(&self) -> impl Iterator<Item = Speaker> + '_ {
        let named = self.entries.iter().filter(|entry| !entry.address.is_unspecified());
        named.map(|entry| Speaker { port: entry.port, mac: Mac(entry.mac), address: entry.address })
    }

    /// Why the ports of these speakers are not under control, or under another.
    pub(super) fn problem(&self, speakers: &[Speaker]) -> Option<String> {
        match &self.chain {
            None => return Some(format!("nftables table bridge {TABLE} has no chain {CHAIN}")),
            Some(found) if *found == (chain(), rules()) => {}
            Some(_) => return Some(format!("chain {CHAIN} of nftables table bridge {TABLE} was changed")),
        }
        let ports: BTreeSet<_> = speakers.iter().map(|speaker| speaker.port).collect();
        if !ports.is_subset(&self.ports) {
            return Some(format!("set {PORTS} of nftables table bridge {TABLE} lacks an element"));
        }
        let wanted: BTreeSet<_> = speakers.iter().flat_map(entries).collect();
        let found: BTreeSet<_> = self.entries.iter().filter(|entry| ports.contains(&entry.port)).copied().collect();
        (found != wanted).then(|| format!("set {SPEAKERS} of nftables table bridge {TABLE} has other elements"))
    }
}

impl Entry {
    fn element(&self) -> Element {
        let parts: [(Field, &[u8]); 3] = [
            (Field::LinkIndex, &self.port.to_ne_bytes()),
            (Field::EthernetAddress, &self.mac),
            (Field::Ipv4Address, &self.address.octets()),
        ];
        Element { key: key(&parts), comment: None }
    }

    fn read(element: &Element) -> Option<Self> {
        let address: [u8; 4] = element.key.get(12..16)?.try_into().ok()?;
        Some(Self {
            port: port(element.key.get(..4)?)?,
            mac: element.key.get(4..10)?.try_into().ok()?,
            address: address.into(),
        })
    }
}

fn entries(speaker: &Speaker) -> [Entry; 2] {
    [speaker.address, Ipv4Addr::UNSPECIFIED].map(|address| Entry { port: speaker.port, mac: speaker.mac.0, address })
}

fn port(key: &[u8]) -> Option<u32> {
    key.try_into().ok().map(u32::from_ne_bytes)
}

fn port_element(port: u32) -> Element {
    Element { key: key(&[(Field::LinkIndex, &port.to_ne_bytes())]), comment: None }
}

fn add_elements(batch: &mut Batch, speakers: &[Speaker]) {
    let speaking: Vec<_> = speakers.iter().flat_map(entries).map(|entry| entry.element()).collect();
    let ports: Vec<_> = speakers.iter().map(|speaker| port_element(speaker.port)).collect();
    batch.add_elements(SPEAKERS, &speaking);
    batch.add_elements(PORTS, &ports);
}

fn chain() -> Chain {
    let base = BaseChain { kind: "filter".into(), hook: Hook::Prerouting as u32, priority: PRIORITY, accept: true };
    Chain { table: TABLE.into(), name: CHAIN.into(), base: Some(base) }
}

/// The ethertype is the frame's own bytes: of a frame with a tag it is the tag's, although the kernel may have set the tag aside.
fn rules() -> Vec<Rule> {
    vec![
        // Frames from other ports go on as if this table were not there.
        rule([
            vec![Expression::Meta { key: Meta::InLinkIndex, to: Slot(0) }, lookup(PORTS, false)],
            vec![Expression::Verdict(Verdict::Accept)],
        ]),
        rule([
            vec![load(ETHERTYPE, Slot(0)), compare(true, &IPV4)],
            vec![load(ADDRESS, Slot(0)), compare(false, &[0; 4])],
            speaks(MAC, ADDRESS),
            vec![Expression::Verdict(Verdict::Accept)],
        ]),
        rule([
            vec![load(ETHERTYPE, Slot(0)), compare(true, &ARP)],
            vec![load(ARP_BEGINNING, Slot(0)), compare(true, &ARP_OF_IPV4)],
            speaks(MAC, ARP_ADDRESS),
            speaks(ARP_MAC, ARP_ADDRESS),
            vec![Expression::Verdict(Verdict::Accept)],
        ]),
        rule([vec![Expression::Verdict(Verdict::Drop)]]),
    ]
}

/// Goes on only where the port may say this of itself.
fn speaks(mac: Place, address: Place) -> Vec<Expression> {
    let key = [Expression::Meta { key: Meta::InLinkIndex, to: Slot(0) }, load(mac, Slot(1)), load(address, Slot(3))];
    key.into_iter().chain([lookup(SPEAKERS, true)]).collect()
}

fn rule<const N: usize>(parts: [Vec<Expression>; N]) -> Rule {
    Rule { expressions: parts.into_iter().flatten().collect(), comment: None }
}

fn load((base, offset, length): Place, to: Slot) -> Expression {
    Expression::Payload { base, offset, length, to }
}

fn compare(equal: bool, value: &[u8]) -> Expression {
    Expression::Compare { slot: Slot(0), equal, value: value.to_vec() }
}

fn lookup(set: &str, present: bool) -> Expression {
    Expression::Lookup { set: set.into(), slot: Slot(0), present }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn speaker(port: u32, last: u8) -> Speaker {
        Speaker { port, mac: Mac([2, 0, 0, 0, 0, last]), address: Ipv4Addr::new(10, 87, 1, last) }
    }

    fn found(speakers: &[Speaker]) -> Found {
        Found {
            ports: speakers.iter().map(|speaker| speaker.port).collect(),
            entries: speakers.iter().flat_map(entries).collect(),
            chain: Some((chain(), rules())),
        }
    }

    #[test]
    fn what_is_written_is_found_right() {
        let speakers = [speaker(7, 2), speaker(8, 3)];
        assert_eq!(found(&speakers).problem(&speakers), None);
        assert_eq!(found(&speakers).problem(&speakers[..1]), None, "others do not matter");
        assert_eq!(found(&speakers).speakers().collect::<Vec<_>>(), speakers);
        let read: Vec<_> = entries(&speakers[0]).iter().map(|entry| Entry::read(&entry.element())).collect();
        assert_eq!(read, entries(&speakers[0]).map(Some));
    }

    #[rstest]
    #[case::flushed(Found::default(), "no chain spoofing")]
    #[case::rule_gone(Found { chain: Some((chain(), rules()[..3].to_vec())), ..found(&[speaker(7, 2)]) }, "was changed")]
    #[case::other_policy(Found { chain: Some((Chain { base: None, ..chain() }, rules())), ..found(&[speaker(7, 2)]) }, "was changed")]
    #[case::not_under_control(Found { ports: BTreeSet::new(), ..found(&[speaker(7, 2)]) }, "set ports")]
    #[case::cut_off(Found { entries: BTreeSet::new(), ..found(&[speaker(7, 2)]) }, "set speakers")]
    #[case::says_more(found(&[speaker(7, 2), speaker(7, 3)]), "set speakers")]
    fn what_was_changed_is_named(#[case] found: Found, #[case] words: &str) {
        let problem = found.problem(&[speaker(7, 2)]).expect("a problem");
        assert!(problem.contains(words), "{problem}");
    }

    #[test]
    fn only_what_is_gone_is_taken_away() {
        let all = found(&[speaker(7, 2), speaker(8, 3)]);
        assert!(without(&all, |_| false).is_none());
        assert!(without(&all, |port| port == 7).is_some());
        assert!(without(&Found::default(), |_| true).is_some(), "an empty table goes");
    }
}
