//! The rules of a network that masquerades: a pure function of its configuration.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::super::TABLE;
use crate::config::Network;
use crate::family::IpFamily;
use crate::layout::{FLAT_RANGES, LINK_GROUP};
use crate::nft::{
    Base, BaseChain, Chain, Expression, Hook, Meta, Rule, Slot, Verdict, from_network, link, networks, to_network,
};

/// What a chain is called: this and the bridge's name.
const CHAIN_PREFIX: &str = "masquerade-";
/// `NF_IP_PRI_NAT_SRC` of Linux: where all translate source addresses.
const PRIORITY: i32 = 100;
/// `224.0.0.0/4` and `ff00::/8`: nobody answers to it.
const MULTICAST: [IpNetwork; 2] =
    [v4(Ipv4Addr::new(224, 0, 0, 0), 4), v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)];
/// `fe80::/10`: such an address means something on its link only, and so does whoever speaks to it.
const LINK_LOCAL: IpNetwork = v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
/// The number of the protocol, and of its header the byte with the flags, those that matter here, and SYN (RFC 9293).
const TCP: u8 = 6;
const TCP_FLAGS_OFFSET_BYTES: u32 = 13;
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;

const fn v4(address: Ipv4Addr, prefix: u8) -> IpNetwork {
    match Ipv4Network::new_checked(address, prefix) {
        Some(network) => IpNetwork::V4(network),
        None => unreachable!(),
    }
}

const fn v6(address: Ipv6Addr, prefix: u8) -> IpNetwork {
    match Ipv6Network::new_checked(address, prefix) {
        Some(network) => IpNetwork::V6(network),
        None => unreachable!(),
    }
}

/// The families for which the network has rules.
pub(crate) fn families(network: &Network) -> impl Iterator<Item = IpFamily> {
    IpFamily::BOTH.into_iter().filter(|family| network.masquerade && network.has(*family))
}

/// The chain, and what has to be in it for `subnets` of that family, the network's own among them: exactly this, in this order. Nothing of it
/// is the network's alone, such as its name: several may share the bridge, on WSL also those of two distributions.
pub(super) fn wanted(network: &Network, family: IpFamily, subnets: &BTreeSet<IpNetwork>) -> (Chain, Vec<Rule>) {
    let base = BaseChain { kind: "nat".into(), hook: Hook::Postrouting as u32, priority: PRIORITY, accept: true };
    let chain = Chain { table: TABLE.into(), name: chain_name(network.gateway_link()), base: Some(base) };
    let of_others = subnets.iter().flat_map(|subnet| from_network(*subnet, false)).collect();
    let mut rules = vec![
        pass(of_others, "of others"),
        pass(link(Meta::OutLink, network.gateway_link(), true).to_vec(), "among the bridge's own"),
        pass(towards_flat_networks(), "to another flat network of the host"),
    ];
    let mut keep = |networks: &[IpNetwork], comment| {
        let of_family = networks.iter().filter(|network| family.has(**network));
        rules.extend(of_family.map(|network| pass(to_network(*network, true), comment)));
    };
    keep(&FLAT_RANGES, "the flat range");
    let is_flat = |subnet: &IpNetwork| FLAT_RANGES.iter().any(|range| is_within(*subnet, *range));
    keep(&subnets.iter().copied().filter(|subnet| !is_flat(subnet)).collect::<Vec<_>>(), "the subnet");
    keep(&MULTICAST, "multicast");
    keep(&[LINK_LOCAL], "link-local");
    keep(&network.gateways, "a gateway");
    rules.push(pass(begun_before(), "connections from before these rules"));
    let masquerade = vec![Expression::Masquerade];
    rules.push(Rule { expressions: masquerade, comment: Some("the rest".into()) });
    (chain, rules)
}

/// The subnets that such rules are for.
pub(super) fn subnets_of<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> BTreeSet<IpNetwork> {
    rules
        .into_iter()
        .next()
        .map_or_else(BTreeSet::new, |of_others| networks(&of_others.expressions).into_iter().collect())
}

pub(super) fn chain_name(bridge: &str) -> String {
    format!("{CHAIN_PREFIX}{bridge}")
}

/// The bridge whose rules a chain of that name holds.
pub(super) fn bridge_of(chain: &str) -> Option<&str> {
    chain.strip_prefix(CHAIN_PREFIX)
}

fn pass(mut expressions: Vec<Expression>, comment: &str) -> Rule {
    expressions.push(Expression::Verdict(Verdict::Return));
    Rule { expressions, comment: Some(comment.into()) }
}

/// What leaves by the gateway's link of any flat network: each is in the group.
fn towards_flat_networks() -> Vec<Expression> {
    let group = Expression::Meta { key: Meta::OutLinkGroup, to: Slot::FIRST };
    vec![group, Expression::Compare { slot: Slot::FIRST, equal: true, value: LINK_GROUP.to_ne_bytes().to_vec() }]
}

fn is_within(subnet: IpNetwork, range: IpNetwork) -> bool {
    subnet.prefix() >= range.prefix() && range.contains(subnet.network())
}

/// Packets of a TCP connection that does not begin with them. Where the host begins to track connections only with these rules, those
/// that a gateway has open to containers look new, and must go on as they are.
fn begun_before() -> Vec<Expression> {
    let slot = Slot::FIRST;
    let transport = |offset| Expression::Payload { base: Base::Transport, offset, length: 1, to: slot };
    vec![
        Expression::Meta { key: Meta::TransportProtocol, to: slot },
        Expression::Compare { slot, equal: true, value: vec![TCP] },
        transport(TCP_FLAGS_OFFSET_BYTES),
        Expression::Mask { slot, bits: vec![FIN_SYN_RST_ACK] },
        Expression::Compare { slot, equal: false, value: vec![SYN] },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(change: &Value) -> Vec<Rule> {
        rules_of(IpFamily::V4, change)
    }

    fn rules_of(family: IpFamily, change: &Value) -> Vec<Rule> {
        let mut config = json!({"name": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
        config.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let network = Network::parse(config.as_object().expect("an object")).expect("a network");
        wanted(&network, family, &network.subnets_of(family).into_iter().collect()).1
    }

    fn comments(rules: &[Rule]) -> Vec<&str> {
        rules.iter().filter_map(|rule| rule.comment.as_deref()).collect()
    }

    #[test]
    fn everything_passes_that_keeps_its_address_and_the_rest_is_masqueraded() {
        let rules = rules(&json!({"gateways": ["172.30.0.1", "192.168.50.0/24"]}));
        assert_eq!(
            comments(&rules),
            [
                "of others",
                "among the bridge's own",
                "to another flat network of the host",
                "the flat range",
                "multicast",
                "a gateway",
                "a gateway",
                "connections from before these rules",
                "the rest"
            ]
        );
        let (last, others) = rules.split_last().expect("rules");
        assert_eq!(last.expressions, [Expression::Masquerade]);
        let passes = |rule: &Rule| rule.expressions.last() == Some(&Expression::Verdict(Verdict::Return));
        assert!(others.iter().all(passes), "{others:?}");
    }

    #[test]
    fn a_subnet_outside_the_flat_range_passes_too() {
        assert!(!comments(&rules(&json!({}))).contains(&"the subnet"));
        assert!(comments(&rules(&json!({"ipam": {"subnet": "192.168.7.0/24"}}))).contains(&"the subnet"));
    }

    /// Of both families, two subnets of each.
    fn both() -> Value {
        let range = |subnet: &str| json!({"subnet": subnet});
        let outer = [["10.87.1.0/24", "192.168.7.0/24"], ["fd87:1::/64", "fd87:2::/64"]];
        let ranges: Vec<_> = outer.iter().map(|inner| inner.map(range)).collect();
        json!({"ipam": {"ranges": ranges}, "gateways": ["172.30.0.1", "fd30::1"]})
    }

    #[test]
    fn each_family_has_rules_about_its_own_networks() {
        let comments_of =
            |family| rules_of(family, &both()).into_iter().filter_map(|it| it.comment).collect::<Vec<_>>();
        let rest = ["connections from before these rules", "the rest"];
        let first = ["of others", "among the bridge's own", "to another flat network of the host", "the flat range"];
        let v4 = ["the subnet", "multicast", "a gateway"];
        assert_eq!(comments_of(IpFamily::V4), [&first[..], &v4, &rest].concat());
        let v6 = ["multicast", "link-local", "a gateway"];
        assert_eq!(comments_of(IpFamily::V6), [&first[..], &v6, &rest].concat());
        // Whoever is of none of the subnets.
        let others = &rules_of(IpFamily::V6, &both())[0].expressions;
        let not_in =
            |it: &&Expression| matches!(it, Expression::Compare { equal: false, value, .. } if value.len() == 16);
        assert_eq!(others.iter().filter(not_in).count(), 2, "{others:?}");
    }

    #[test]
    fn a_network_has_rules_of_its_families() {
        let of = |change: &Value| {
            let mut config = json!({"name": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
            config.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            let network = Network::parse(config.as_object().expect("an object")).expect("a network");
            families(&network).collect::<Vec<_>>()
        };
        assert_eq!(of(&both()), IpFamily::BOTH);
        assert_eq!(of(&json!({})), [IpFamily::V4]);
        assert_eq!(of(&json!({"ipam": {"subnet": "fd87:1::/64"}})), [IpFamily::V6]);
        assert_eq!(of(&json!({"ipMasq": false})), []);
    }

    #[test]
    fn rules_tell_whom_they_are_for() {
        let change = json!({"ipam": {"ranges": [[{"subnet": "10.87.1.0/24"}, {"subnet": "10.87.2.8/30"}, {"subnet": "192.168.0.0/17"}], [{"subnet": "fd87:1::/64"}]]}});
        let of = |family| subnets_of(&rules_of(family, &change)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(IpFamily::V4), ["10.87.1.0/24", "10.87.2.8/30", "192.168.0.0/17"]);
        assert_eq!(of(IpFamily::V6), ["fd87:1::/64"]);
        assert!(subnets_of(&rules_of(IpFamily::V4, &change)[1..]).is_empty());
        assert!(subnets_of([]).is_empty());
    }

    #[test]
    fn a_chain_tells_its_bridge() {
        assert_eq!(bridge_of(&chain_name("flatnet-br0")), Some("flatnet-br0"));
        assert_eq!(bridge_of("guard"), None);
    }
}
