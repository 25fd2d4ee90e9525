//! What a rule means, as the kernel keeps it: registers that are loaded and compared, and a verdict.
//!
//! Pure. An expression that is not known here becomes a condition that cannot be judged, never one that is left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::rules::{About, Condition, Rule, Verdict};
use crate::family::IpFamily;
use crate::nft::{self, Base, Expression, Meta, PlacedRule, Slot};

/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// A link's name with its closing NULs (`IFNAMSIZ`).
const LINK_NAME_BYTES: usize = 16;
/// The bits of a connection's state (`NF_CT_STATE_BIT`): invalid, and those of `enum ip_conntrack_info`.
const STATES: [(u32, &str); 5] = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
/// The same as iptables' condition `conntrack` has them (`XT_CONNTRACK_STATE_BIT`).
const TRACKED_STATES: [(u32, &str); 7] =
    [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "snat"), (128, "dnat"), (256, "untracked")];
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const DNAT: u32 = 32;
/// Expressions that change or count something and let the rule go on.
const EFFECTS: [&str; 5] = ["log", "notrack", "dup", "ct_helper", "last"];
/// Targets of iptables that end a packet's way; any other lets the rule go on.
const DROPPING: [&str; 4] = ["DROP", "REJECT", "TARPIT", "STEAL"];

/// What is in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    Input,
    Output,
    Source { bytes: u32, mask: Option<IpAddr> },
    Destination { bytes: u32, mask: Option<IpAddr> },
    Family,
    EtherType,
    Protocol,
    State { mask: Option<u32> },
    Status { mask: Option<u32> },
    Other,
}

/// Where a family's header has its protocol and its addresses (RFC 791, RFC 8200), and how long those are.
struct Header {
    protocol: u32,
    source: u32,
    destination: u32,
    address_bytes: u32,
    /// `ETH_P_IP` or `ETH_P_IPV6`, as it is on the wire.
    ether_type: [u8; 2],
}

const fn header(family: IpFamily) -> Header {
    match family {
        IpFamily::V4 => Header { protocol: 9, source: 12, destination: 16, address_bytes: 4, ether_type: [0x08, 0x00] },
        IpFamily::V6 => Header { protocol: 6, source: 8, destination: 24, address_bytes: 16, ether_type: [0x86, 0xdd] },
    }
}

/// The rule as doctor and ADD judge it, for packets of that family.
pub(crate) fn of(family: IpFamily, placed: &PlacedRule) -> Rule {
    let mut rule = Rule { handle: Some(placed.handle), ..Rule::default() };
    rule.comment = placed.rule.comment.clone().unwrap_or_default();
    let mut registers: Vec<(Slot, Loaded)> = Vec::new();
    for expression in &placed.rule.expressions {
        let loaded = |slot: &Slot| {
            let found = registers.iter().rev().find(|(it, _)| it == slot);
            found.map_or(Loaded::Other, |(_, loaded)| *loaded)
        };
        match expression {
            Expression::Meta { key, to } => registers.push((*to, of_meta(*key))),
            Expression::Payload { base, offset, length, to } => {
                registers.push((*to, of_payload(family, *base, *offset, *length)));
            }
            Expression::State { to } => registers.push((*to, Loaded::State { mask: None })),
            Expression::Status { to } => registers.push((*to, Loaded::Status { mask: None })),
            Expression::Tracked { states } => {
                let about = About::State(names_of(&TRACKED_STATES, u32::from(*states)));
                rule.conditions.push(Condition { not: false, about });
            }
            Expression::Mask { slot, bits } => registers.push((*slot, masked(family, loaded(slot), bits))),
            Expression::Compare { slot, equal, value } => {
                rule.conditions.push(compared(family, loaded(slot), *equal, value));
            }
            Expression::Match { name, comment } if name == "comment" => {
                rule.comment = comment.clone().unwrap_or_default();
            }
            Expression::Target { name } if DROPPING.contains(&name.as_str()) => rule.verdict = Verdict::Drop,
            Expression::Unknown(name) if name == "reject" => rule.verdict = Verdict::Drop,
            Expression::Verdict(verdict) => rule.verdict = of_verdict(verdict),
            Expression::Counter | Expression::Target { .. } => {}
            Expression::Unknown(name) if EFFECTS.contains(&name.as_str()) => {}
            // A map of verdicts, which may accept anything, is no lookup in a set.
            Expression::Unknown(name) if name == "lookup" => {
                rule.conditions.push(unknown());
                rule.verdict = Verdict::Accept;
            }
            // It may load any register.
            Expression::Unknown(_) | Expression::Map { .. } => {
                registers.clear();
                rule.conditions.push(unknown());
            }
            Expression::Change { slot: to, .. } | Expression::DestinationType { to } => {
                registers.push((*to, Loaded::Other));
            }
            // Each may fill several registers.
            Expression::Value { .. } => registers.clear(),
            Expression::Lookup { .. }
            | Expression::Match { .. }
            | Expression::Masquerade
            | Expression::Translate { .. } => rule.conditions.push(unknown()),
        }
    }
    rule
}

fn names_of(states: &[(u32, &str)], bits: u32) -> Vec<String> {
    states.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

fn unknown() -> Condition {
    Condition { not: false, about: About::Unknown }
}

fn of_verdict(verdict: &nft::Verdict) -> Verdict {
    match verdict {
        nft::Verdict::Accept => Verdict::Accept,
        nft::Verdict::Drop => Verdict::Drop,
        nft::Verdict::Return => Verdict::Return,
        nft::Verdict::Jump(to) => Verdict::Jump(to.clone()),
        nft::Verdict::Goto(to) => Verdict::Goto(to.clone()),
    }
}

fn of_meta(key: Meta) -> Loaded {
    match key {
        Meta::InLink => Loaded::Input,
        Meta::OutLink => Loaded::Output,
        Meta::Family => Loaded::Family,
        Meta::Protocol => Loaded::EtherType,
        Meta::TransportProtocol => Loaded::Protocol,
        // The model knows links by their names.
        Meta::InLinkIndex | Meta::OutLinkGroup => Loaded::Other,
    }
}

fn of_payload(family: IpFamily, base: Base, offset: u32, length: u32) -> Loaded {
    let header = header(family);
    let is_address = length <= header.address_bytes;
    match base {
        Base::Network if offset == header.protocol && length == 1 => Loaded::Protocol,
        Base::Network if offset == header.source && is_address => Loaded::Source { bytes: length, mask: None },
        Base::Network if offset == header.destination && is_address => {
            Loaded::Destination { bytes: length, mask: None }
        }
        _ => Loaded::Other,
    }
}

fn masked(family: IpFamily, loaded: Loaded, bits: &[u8]) -> Loaded {
    let bytes = header(family).address_bytes;
    let mask = (bits.len() == bytes as usize).then(|| address(family, bits)).flatten();
    match loaded {
        Loaded::Source { bytes: all, mask: None } if all == bytes && mask.is_some() => Loaded::Source { bytes, mask },
        Loaded::Destination { bytes: all, mask: None } if all == bytes && mask.is_some() => {
            Loaded::Destination { bytes, mask }
        }
        // Registers hold numbers as the machine does.
        Loaded::State { mask: None } => number(bits).map_or(Loaded::Other, |mask| Loaded::State { mask: Some(mask) }),
        Loaded::Status { mask: None } => number(bits).map_or(Loaded::Other, |mask| Loaded::Status { mask: Some(mask) }),
        _ => Loaded::Other,
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn compared(family: IpFamily, loaded: Loaded, equal: bool, value: &[u8]) -> Condition {
    let plain = |about| Condition { not: !equal, about };
    let network = |bytes, mask| network(family, bytes, mask, value);
    match loaded {
        Loaded::Input => plain(About::Input(vec![link_name(value)])),
        Loaded::Output => plain(About::Output(vec![link_name(value)])),
        Loaded::Source { bytes, mask } => plain(network(bytes, mask).map_or(About::Unknown, About::Source)),
        Loaded::Destination { bytes, mask } => plain(network(bytes, mask).map_or(About::Unknown, About::Destination)),
        Loaded::Family => plain(About::Known(value == [family.number()])),
        Loaded::EtherType => plain(About::Known(value == header(family).ether_type)),
        Loaded::Protocol => plain(About::Known(value == [TCP])),
        // "Not none of these bits" is "one of these states".
        Loaded::State { mask: Some(mask) } if value.iter().all(|byte| *byte == 0) => {
            Condition { not: equal, about: About::State(names_of(&STATES, mask)) }
        }
        Loaded::Status { mask: Some(DNAT) } if value.iter().all(|byte| *byte == 0) => {
            Condition { not: equal, about: About::State(vec!["dnat".into()]) }
        }
        Loaded::State { .. } | Loaded::Status { .. } | Loaded::Other => unknown(),
    }
}

/// Of a name that ends without NUL, only the beginning is compared: any rest may follow.
fn link_name(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let name = String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned();
    if end.is_none() && value.len() < LINK_NAME_BYTES { format!("{name}*") } else { name }
}

/// The first bytes of an address, or all of it under a mask.
fn network(family: IpFamily, bytes: u32, mask: Option<IpAddr>, value: &[u8]) -> Option<Vec<IpNetwork>> {
    if value.len() != usize::try_from(bytes).ok()? {
        return None;
    }
    let address = address(family, value)?;
    let prefix = match mask {
        Some(mask) => ipnetwork::ip_mask_to_prefix(mask).ok()?,
        None => u8::try_from(bytes * 8).ok()?,
    };
    Some(vec![IpNetwork::new(address, prefix).ok()?])
}

/// The address that begins with these bytes.
fn address(family: IpFamily, bytes: &[u8]) -> Option<IpAddr> {
    fn filled<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        let mut whole = [0; N];
        whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(whole)
    }
    Some(match family {
        IpFamily::V4 => Ipv4Addr::from(filled::<4>(bytes)?).into(),
        IpFamily::V6 => Ipv6Addr::from(filled::<16>(bytes)?).into(),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::nft::{from_network, link, to_network};

    fn meaning(expressions: Vec<Expression>) -> Rule {
        meaning_for(IpFamily::V4, expressions)
    }

    fn meaning_for(family: IpFamily, expressions: Vec<Expression>) -> Rule {
        of(family, &PlacedRule { handle: 7, rule: nft::Rule { expressions, comment: None } })
    }

    fn compare(value: &[u8], equal: bool) -> Expression {
        Expression::Compare { slot: Slot::FIRST, equal, value: value.to_vec() }
    }

    fn loaded(load: Expression, rest: Vec<Expression>) -> Vec<Expression> {
        [vec![load], rest].concat()
    }

    const STATE: Expression = Expression::State { to: Slot::FIRST };
    const SOURCE_24: Expression = Expression::Payload { base: Base::Network, offset: 12, length: 3, to: Slot::FIRST };
    const SOURCE_64: Expression = Expression::Payload { base: Base::Network, offset: 8, length: 8, to: Slot::FIRST };
    const ETHER_TYPE: Expression = Expression::Meta { key: Meta::Protocol, to: Slot::FIRST };
    const SOURCE_PORT: Expression =
        Expression::Payload { base: Base::Transport, offset: 0, length: 2, to: Slot::FIRST };
    const INPUT: Expression = Expression::Meta { key: Meta::InLink, to: Slot::FIRST };
    const FAMILY: Expression = Expression::Meta { key: Meta::Family, to: Slot::FIRST };

    fn network(text: &str) -> Vec<IpNetwork> {
        vec![text.parse().expect("a network")]
    }

    #[rstest]
    #[case::link(link(Meta::OutLink, "eth0", true).to_vec(), false, About::Output(vec!["eth0".into()]))]
    #[case::not_that_link(link(Meta::InLink, "eth0", false).to_vec(), true, About::Input(vec!["eth0".into()]))]
    #[case::link_of_iptables(loaded(INPUT, vec![compare(b"eth0\0", true)]), false, About::Input(vec!["eth0".into()]))]
    #[case::links(loaded(INPUT, vec![compare(b"eth", true)]), false, About::Input(vec!["eth*".into()]))]
    #[case::source(from_network("10.87.0.0/22".parse().expect("a network"), true), false, About::Source(network("10.87.0.0/22")))]
    #[case::destination(to_network("10.87.1.2/32".parse().expect("a network"), false), true, About::Destination(network("10.87.1.2/32")))]
    #[case::three_bytes(loaded(SOURCE_24, vec![compare(&[10, 87, 1], true)]), false, About::Source(network("10.87.1.0/24")))]
    #[case::port(loaded(SOURCE_PORT, vec![compare(&[0, 80], true)]), false, About::Unknown)]
    #[case::ipv4(loaded(FAMILY, vec![compare(&[2], true)]), false, About::Known(true))]
    #[case::ipv6(loaded(FAMILY, vec![compare(&[10], true)]), false, About::Known(false))]
    #[case::states(loaded(STATE, vec![Expression::Mask { slot: Slot::FIRST, bits: 6_u32.to_ne_bytes().to_vec() }, compare(&[0; 4], false)]), false, About::State(vec!["established".into(), "related".into()]))]
    #[case::published(loaded(Expression::Status { to: Slot::FIRST }, vec![Expression::Mask { slot: Slot::FIRST, bits: 32_u32.to_ne_bytes().to_vec() }, compare(&[0; 4], false)]), false, About::State(vec!["dnat".into()]))]
    #[case::states_of_iptables(vec![Expression::Tracked { states: 134 }], false, About::State(vec!["established".into(), "related".into(), "dnat".into()]))]
    #[case::set(loaded(STATE, vec![Expression::Lookup { set: "__set0".into(), slot: Slot::FIRST, present: true }]), false, About::Unknown)]
    #[case::condition_of_iptables(vec![Expression::Match { name: "conntrack".into(), comment: None }], false, About::Unknown)]
    #[case::not_known(vec![Expression::Unknown("limit".into())], false, About::Unknown)]
    fn conditions(#[case] expressions: Vec<Expression>, #[case] not: bool, #[case] about: About) {
        let rule = meaning([expressions, vec![Expression::Counter]].concat());
        assert_eq!(rule.conditions, [Condition { not, about }]);
        assert_eq!((rule.verdict, rule.handle), (Verdict::Next, Some(7)));
    }

    #[rstest]
    #[case::source(from_network("fd00:87::/48".parse().expect("a network"), true), false, About::Source(network("fd00:87::/48")))]
    #[case::destination(to_network("fd00:87::2/128".parse().expect("a network"), false), true, About::Destination(network("fd00:87::2/128")))]
    #[case::eight_bytes(loaded(SOURCE_64, vec![compare(&[0xfd, 0, 0, 0x87, 0, 0, 0, 1], true)]), false, About::Source(network("fd00:87:0:1::/64")))]
    #[case::ipv4s_address(loaded(SOURCE_24, vec![compare(&[10, 87, 1], true)]), false, About::Unknown)]
    #[case::ipv6(loaded(FAMILY, vec![compare(&[10], true)]), false, About::Known(true))]
    #[case::ipv4(loaded(FAMILY, vec![compare(&[2], true)]), false, About::Known(false))]
    #[case::ether_type(loaded(ETHER_TYPE, vec![compare(&[0x86, 0xdd], true)]), false, About::Known(true))]
    #[case::states(loaded(STATE, vec![Expression::Mask { slot: Slot::FIRST, bits: 6_u32.to_ne_bytes().to_vec() }, compare(&[0; 4], false)]), false, About::State(vec!["established".into(), "related".into()]))]
    fn conditions_for_ipv6(#[case] expressions: Vec<Expression>, #[case] not: bool, #[case] about: About) {
        assert_eq!(meaning_for(IpFamily::V6, expressions).conditions, [Condition { not, about }]);
    }

    #[rstest]
    #[case::accept(Expression::Verdict(nft::Verdict::Accept), Verdict::Accept)]
    #[case::jump(Expression::Verdict(nft::Verdict::Jump("x".into())), Verdict::Jump("x".into()))]
    #[case::reject(Expression::Unknown("reject".into()), Verdict::Drop)]
    #[case::reject_of_iptables(Expression::Target { name: "REJECT".into() }, Verdict::Drop)]
    #[case::log_of_iptables(Expression::Target { name: "LOG".into() }, Verdict::Next)]
    #[case::log(Expression::Unknown("log".into()), Verdict::Next)]
    fn verdicts(#[case] expression: Expression, #[case] verdict: Verdict) {
        assert_eq!(
            meaning(vec![Expression::Counter, expression]),
            Rule { verdict, handle: Some(7), ..Rule::default() }
        );
    }

    #[test]
    fn a_map_of_verdicts_may_accept() {
        let rule = meaning(vec![STATE, Expression::Unknown("lookup".into())]);
        assert_eq!((rule.conditions, rule.verdict), (vec![unknown()], Verdict::Accept));
    }

    #[test]
    fn what_is_loaded_unknown_is_not_what_was_there_before() {
        let of_link = link(Meta::OutLink, "eth0", true).to_vec();
        let rule = meaning([of_link, vec![Expression::Unknown("meta".into()), compare(&[1], true)]].concat());
        let eth0 = Condition { not: false, about: About::Output(vec!["eth0".into()]) };
        assert_eq!(rule.conditions, [eth0, unknown(), unknown()]);
    }

    #[test]
    fn a_comment_may_be_iptables() {
        let rule = meaning(vec![Expression::Match { name: "comment".into(), comment: Some("why".into()) }]);
        assert_eq!((rule.comment.as_str(), rule.conditions.len()), ("why", 0));
    }
}
