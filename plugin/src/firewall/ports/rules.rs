//! The chains of published ports and their rules: a pure function of the bridges that have containers with ports.
//!
//! Only what is addressed to a published port of the host is translated, and only its destination: the container sees who speaks to
//! it. Two callers could not be answered that way and are masqueraded as the bridge's address: the host itself by a loopback address
//! (of IPv4; the kernel lets nothing back to `::1`), and a container of the same bridge.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::loopback::{INNER, LOOPBACK, MIRROR, OUTER, SPEAKER};
use crate::family::IpFamily;
use crate::firewall::TABLE;
use crate::nft::{Base, BaseChain, Chain, Expression, Hook, Meta, Rule, Slot, Verdict, from_network, link, to_network};

/// The map of what is published at all addresses of the host, and that of what is at one.
pub(super) const PUBLISHED: &str = "published";
pub(super) const PUBLISHED_AT: &str = "published_at";
/// The host's own addresses, where the kernel cannot say whether one is (`fib`).
pub(super) const ADDRESSES: &str = "addresses";

const GUARD: &str = "guard";
const LEAD: &str = "lead";
const TO_LOOPBACK: &str = "to_loopback";
const FROM_LOOPBACK: &str = "from_loopback";
const FROM_ELSEWHERE: &str = "from_elsewhere";
const FROM_HERE: &str = "from_here";
const TOWARDS_CONTAINERS: &str = "towards_containers";
/// Each after what leads there, so that they can be deleted in this order.
pub(super) const CHAINS: [&str; 7] =
    [GUARD, FROM_ELSEWHERE, FROM_HERE, TOWARDS_CONTAINERS, LEAD, TO_LOOPBACK, FROM_LOOPBACK];

/// `NF_IP_PRI_RAW` and `NF_IP_PRI_NAT_DST` and `_SRC` of Linux.
const BEFORE_ALL: i32 = -300;
const DESTINATION: i32 = -100;
const SOURCE: i32 = 100;
/// `RTN_LOCAL` of linux/rtnetlink.h.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// Where a packet's destination port is (RFC 768, RFC 9293).
const PORT_OFFSET_BYTES: u32 = 2;
/// Of a loopback address only this is kept in its mirror.
const HOST_BITS: [u8; 4] = [0, 255, 255, 255];

/// How a rule finds out whether an address is the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// It asks the kernel.
    Asked,
    /// By a set of addresses, which has to be kept.
    Listed,
}

/// A bridge, or the VLAN on it, by which the host reaches containers, and a subnet that it has there.
pub(super) type Gateway = (String, IpNetwork);

/// All chains of the family, each with its rules in order; what a rule leads to comes first.
pub(super) fn wanted(family: IpFamily, own: Own, gateways: &BTreeSet<Gateway>) -> Vec<(Chain, Vec<Rule>)> {
    let mut chains = vec![(chain(LEAD, None), vec![at_one(family), at_all(family)])];
    match family {
        IpFamily::V4 => {
            chains.push((chain(GUARD, Some(("filter", Hook::Prerouting, BEFORE_ALL))), guard()));
            chains.push((chain(TO_LOOPBACK, None), to_loopback()));
            chains.push((chain(FROM_LOOPBACK, None), from_loopback()));
            let elsewhere = vec![
                rule(&[link(Meta::InLink, INNER, true).to_vec(), vec![goto(FROM_LOOPBACK)]]),
                // A frame from outside with such a destination is nobody's.
                rule(&[to_network(LOOPBACK.into(), true), vec![Expression::Verdict(Verdict::Return)]]),
                rule(&[own_address(family, own), vec![jump(LEAD)]]),
            ];
            let here = vec![
                rule(&[to_network(LOOPBACK.into(), true), vec![goto(TO_LOOPBACK)]]),
                rule(&[own_address(family, own), vec![jump(LEAD)]]),
            ];
            chains.push((chain(FROM_ELSEWHERE, Some(("nat", Hook::Prerouting, DESTINATION))), elsewhere));
            chains.push((chain(FROM_HERE, Some(("nat", Hook::Output, DESTINATION))), here));
        }
        IpFamily::V6 => {
            // Who speaks to an address of a link's own stays on the link; nothing comes back to ::1 from outside.
            let link_local = to_network(v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), false);
            let elsewhere = rule(&[link_local.clone(), own_address(family, own), vec![jump(LEAD)]]);
            let loopback = to_network(v6(Ipv6Addr::LOCALHOST, 128), false);
            let here = rule(&[loopback, link_local, own_address(family, own), vec![jump(LEAD)]]);
            chains.push((chain(FROM_ELSEWHERE, Some(("nat", Hook::Prerouting, DESTINATION))), vec![elsewhere]));
            chains.push((chain(FROM_HERE, Some(("nat", Hook::Output, DESTINATION))), vec![here]));
        }
    }
    let towards = towards_containers(family, gateways);
    chains.push((chain(TOWARDS_CONTAINERS, Some(("nat", Hook::Postrouting, SOURCE))), towards));
    chains
}

fn v6(address: Ipv6Addr, prefix: u8) -> IpNetwork {
    Ipv6Network::new(address, prefix).expect("a prefix length of IPv6").into()
}

fn chain(name: &str, base: Option<(&str, Hook, i32)>) -> Chain {
    let base =
        base.map(|(kind, hook, priority)| BaseChain { kind: kind.into(), hook: hook as u32, priority, accept: true });
    Chain { table: TABLE.into(), name: name.into(), base }
}

fn rule<const N: usize>(steps: &[Vec<Expression>; N]) -> Rule {
    Rule { expressions: steps.concat(), comment: None }
}

fn jump(chain: &str) -> Expression {
    Expression::Verdict(Verdict::Jump(chain.into()))
}

fn goto(chain: &str) -> Expression {
    Expression::Verdict(Verdict::Goto(chain.into()))
}

/// No address that means something on this host alone comes from, or leads, outside.
fn guard() -> Vec<Rule> {
    let own = ["lo", OUTER, INNER];
    let pass =
        own.map(|name| rule(&[link(Meta::InLink, name, true).to_vec(), vec![Expression::Verdict(Verdict::Return)]]));
    let networks = [LOOPBACK, MIRROR].map(IpNetwork::from);
    let dropped = |steps| rule(&[steps, vec![Expression::Verdict(Verdict::Drop)]]);
    let to = networks.map(|network| dropped(to_network(network, true)));
    pass.into_iter().chain(to).chain(networks.map(|network| dropped(from_network(network, true)))).collect()
}

/// Goes on only where the destination is an address of the host.
fn own_address(family: IpFamily, own: Own) -> Vec<Expression> {
    let slot = Slot::FIRST;
    match own {
        Own::Asked => vec![
            Expression::DestinationType { to: slot },
            Expression::Compare { slot, equal: true, value: LOCAL.to_ne_bytes().to_vec() },
        ],
        Own::Listed => {
            vec![destination(family, slot), Expression::Lookup { set: ADDRESSES.into(), slot, present: true }]
        }
    }
}

fn destination(family: IpFamily, to: Slot) -> Expression {
    let (offset, length) = match family {
        IpFamily::V4 => (16, 4),
        IpFamily::V6 => (24, 16),
    };
    Expression::Payload { base: Base::Network, offset, length, to }
}

/// Protocol and destination port, one register each.
fn port(at: u8) -> [Expression; 2] {
    [
        Expression::Meta { key: Meta::TransportProtocol, to: Slot(at) },
        Expression::Payload { base: Base::Transport, offset: PORT_OFFSET_BYTES, length: 2, to: Slot(at + 1) },
    ]
}

/// How many registers an address takes.
const fn slots(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 1,
        IpFamily::V6 => 4,
    }
}

/// Behind the longest key, in which a map's answer does not fit.
const ANSWER: u8 = 8;

fn map(name: &str) -> Expression {
    Expression::Map { map: name.into(), slot: Slot::FIRST, to: Slot(ANSWER) }
}

/// Leads to the container that a map has named.
fn lead(family: IpFamily) -> Expression {
    let port = Some(Slot(ANSWER + slots(family)));
    Expression::Translate { source: false, family: family.tables(), address: Slot(ANSWER), port }
}

fn at_one(family: IpFamily) -> Rule {
    let key = [vec![destination(family, Slot::FIRST)], port(slots(family)).to_vec()].concat();
    rule(&[key, vec![map(PUBLISHED_AT), lead(family)]])
}

fn at_all(family: IpFamily) -> Rule {
    rule(&[port(0).to_vec(), vec![map(PUBLISHED), lead(family)]])
}

/// What the host sends to a loopback address whose port is published goes to its mirror.
fn to_loopback() -> Vec<Rule> {
    let slot = Slot(ANSWER + 4);
    let mirrored = || {
        vec![
            destination(IpFamily::V4, slot),
            Expression::Change { slot, keep: HOST_BITS.to_vec(), invert: MIRROR.ip().octets().to_vec() },
            Expression::Translate { source: false, family: IpFamily::V4.tables(), address: slot, port: None },
        ]
    };
    let at_one = [vec![destination(IpFamily::V4, Slot::FIRST)], port(1).to_vec()].concat();
    vec![
        rule(&[at_one, vec![map(PUBLISHED_AT)], mirrored()]),
        rule(&[port(0).to_vec(), vec![map(PUBLISHED)], mirrored()]),
    ]
}

/// And from there to the container, by the address that was meant.
fn from_loopback() -> Vec<Rule> {
    let slot = Slot::FIRST;
    let meant = vec![
        destination(IpFamily::V4, slot),
        Expression::Change { slot, keep: HOST_BITS.to_vec(), invert: LOOPBACK.ip().octets().to_vec() },
    ];
    let at_one = rule(&[meant, port(1).to_vec(), vec![map(PUBLISHED_AT), lead(IpFamily::V4)]]);
    vec![at_one, at_all(IpFamily::V4)]
}

fn towards_containers(family: IpFamily, gateways: &BTreeSet<Gateway>) -> Vec<Rule> {
    let slot = Slot::FIRST;
    let led = || {
        vec![
            Expression::Status { to: slot },
            Expression::Mask { slot, bits: DESTINATION_TRANSLATED.to_ne_bytes().to_vec() },
            Expression::Compare { slot, equal: false, value: vec![0; 4] },
        ]
    };
    let leaves =
        |name: &str, from| [link(Meta::OutLink, name, true).to_vec(), from_network(from, true), led()].concat();
    let mut rules = Vec::new();
    if family == IpFamily::V4 {
        let speak = vec![
            Expression::Value { bytes: SPEAKER.octets().to_vec(), to: slot },
            Expression::Translate { source: true, family: family.tables(), address: slot, port: None },
        ];
        rules.push(rule(&[leaves(OUTER, LOOPBACK.into()), speak]));
    }
    let speaker = (family == IpFamily::V4).then(|| IpNetwork::V4(Ipv4Network::from(SPEAKER)));
    let names: BTreeSet<_> = gateways.iter().map(|(name, _)| name).collect();
    for name in names {
        let subnets = gateways.iter().filter(|(it, _)| it == name).map(|(_, subnet)| *subnet);
        for from in subnets.chain(speaker) {
            rules.push(rule(&[leaves(name, from), vec![Expression::Masquerade]]));
        }
    }
    rules
}

/// All addresses of a family, as one.
pub(super) const fn all_of(family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
