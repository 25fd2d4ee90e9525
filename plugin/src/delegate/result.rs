//! What a delegated plugin gives: its result, lowered to what ADD builds with.
//!
//! Nothing of it is passed over in silence: what flatnet cannot honour is refused by name.

use std::net::IpAddr;

use serde_json::Value;

use super::shown;
use crate::config::{Draft, Network, routes};
use crate::error::{Error, Result};
use crate::ipam::pool::{Pool, Pools, Range, subnet_of};
use crate::netlink::{self, RouteAttributes};
use crate::reply::{Dns, Ip, Route, Success};
use crate::spec::{Command, SpecVersion};

/// Addresses, and what goes with them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IpamResult {
    /// In the plugin's order; at least one.
    pub(crate) addresses: Vec<IpAddr>,
    /// Of each address its subnet, of which nothing else is flatnet's to give.
    ranges: Vec<Range>,
    routes: Vec<netlink::Route>,
    dns: Dns,
}

impl IpamResult {
    /// Errors: 2 for what flatnet cannot honour, 110 for what cannot be.
    pub(super) fn parse(plugin: &str, said: &[u8], version: SpecVersion) -> Result<Self> {
        let wrong = |problem: String| wrong(plugin, problem);
        if said.trim_ascii().is_empty() {
            return Err(wrong("it succeeded, but printed no result".into()));
        }
        let json: Value = serde_json::from_slice(said)
            .map_err(|e| wrong(format!("its answer is not a CNI result ({e}): {}", shown(said))))?;
        let said_version = json.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
        if !is_of_version(said_version, version) {
            return Err(wrong(format!("its answer has CNI version {said_version:?}, not {version}")));
        }
        let answer =
            Success::read(&json, version).map_err(|problem| wrong(format!("its answer {problem}: {}", shown(said))))?;
        if !answer.interfaces.is_empty() || answer.ips.iter().any(|ip| ip.interface.is_some()) {
            return Err(wrong("its answer has interfaces, which an IPAM plugin must not create".into()));
        }
        if answer.ips.is_empty() {
            return Err(wrong("its answer has no address".into()));
        }
        let addresses: Vec<_> = answer.ips.iter().map(|ip| ip.address.ip()).collect();
        let ranges = answer.ips.iter().map(|ip| range_of(plugin, ip)).collect::<Result<Vec<_>>>()?;
        for (n, address) in addresses.iter().enumerate() {
            if addresses[..n].contains(address) {
                return Err(wrong(format!("it gives the address {address} twice")));
            }
            if ranges.iter().any(|range| range.gateway() == *address) {
                return Err(wrong(format!("its address {address} is the gateway of another of its addresses")));
            }
        }
        let routes = routes(plugin, &answer.routes, &addresses, &ranges)?;
        Ok(Self { addresses, ranges, routes, dns: answer.dns })
    }

    /// The network with all that was given. The configuration's own `dns` comes first, where it has any.
    pub(crate) fn complete(self, draft: Draft) -> Network {
        let mut network = draft.with(Pools::new(self.ranges.into_iter().map(Pool::from).collect()));
        network.routes = self.routes;
        if network.dns.is_empty() {
            network.dns = self.dns;
        }
        network
    }
}

/// The subnet of an address and its gateway, which is the subnet's first address where none is said, as in the reference plugins.
fn range_of(plugin: &str, ip: &Ip) -> Result<Range> {
    let own = ip.address;
    let range = |only: Option<IpAddr>| {
        Range::new(subnet_of(own), ip.gateway, only, only)
            .map_err(|(key, problem)| wrong(plugin, format!("the {key} of its address {own} {problem}")))
    };
    match Pools::from(range(None)?).refusal(own.ip()) {
        Some(problem) => Err(wrong(plugin, format!("its address {own} {problem}"))),
        None => range(Some(own.ip())),
    }
}

/// Its routes, as those of a network of flatnet's own are judged.
fn routes(plugin: &str, told: &[Route], addresses: &[IpAddr], ranges: &[Range]) -> Result<Vec<netlink::Route>> {
    let pools = Pools::new(ranges.iter().cloned().map(Pool::from).collect());
    let mut routes = Vec::new();
    for told in told {
        let refused = |key: &str, problem: String| wrong(plugin, format!("the {key} of its route {told} {problem}"));
        let route = lower(plugin, told, addresses)?;
        if let Some(problem) = route.gateway.and_then(|gateway| routes::own_address_problem(gateway, addresses)) {
            return Err(refused("gw", problem));
        }
        routes::take_in(&mut routes, route, &pools).map_err(|(key, problem)| refused(key, problem))?;
    }
    Ok(routes)
}

/// A route without a next hop gets the gateway of its family, so there must be one. Zero says nothing, but for the scope.
fn lower(plugin: &str, route: &Route, addresses: &[IpAddr]) -> Result<netlink::Route> {
    let Route { dst, gw, .. } = route;
    let unsupported = |value: String, remedy: &str| Error::Unsupported {
        key: format!("a route of {plugin}"),
        value,
        remedy: remedy.to_owned(),
    };
    let is_ipv4 = dst.is_ipv4();
    if gw.is_some_and(|gw| gw.is_ipv4() != is_ipv4) || !addresses.iter().any(|address| address.is_ipv4() == is_ipv4) {
        let value = gw.map_or_else(|| dst.to_string(), |gw| format!("{dst} via {gw}"));
        let remedy = "leave it out of the routes in the network's ipam: a route, its next hop and an address of the container must be of one family";
        return Err(unsupported(value, remedy));
    }
    let scope = route.scope.map(u8::try_from).transpose().map_err(|_| {
        unsupported(format!("{dst} with scope {}", route.scope.unwrap_or_default()), "give it a scope of 0 - 255")
    })?;
    let attributes = RouteAttributes {
        mtu: routes::said(route.mtu),
        advmss: routes::said(route.advmss),
        priority: routes::said(route.priority),
        table: routes::said(route.table),
        scope,
        ..RouteAttributes::default()
    };
    Ok(netlink::Route { destination: subnet_of(*dst), gateway: *gw, link: None, attributes })
}

/// None in the answer means that of the configuration, and before 0.3.0 there is no difference between the two versions.
fn is_of_version(said: &str, asked: SpecVersion) -> bool {
    let is_old = |version: SpecVersion| version < SpecVersion::V0_3_0;
    said.is_empty() || SpecVersion::parse(said).is_some_and(|said| said == asked || (is_old(said) && is_old(asked)))
}

fn wrong(plugin: &str, problem: String) -> Error {
    Error::Delegate {
        plugin: plugin.to_owned(),
        command: Command::Add,
        problem,
        remedy: format!(
            "correct `ipam` in the network's configuration, which {plugin} reads, or use another IPAM plugin"
        ),
    }
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const V1: SpecVersion = SpecVersion::V1_1_0;

    fn parse(answer: &Value, version: SpecVersion) -> Result<IpamResult> {
        IpamResult::parse("other", answer.to_string().as_bytes(), version)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().expect("a network")
    }

    #[rstest]
    #[case::newest(json!({"cniVersion": "1.1.0", "ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.1.7/16", "gw": "10.87.1.7", "mtu": 0, "table": null}], "dns": {"domain": "lan", "odd": 1}}), V1)]
    #[case::with_version_of_address(json!({"cniVersion": "0.4.0", "interfaces": [], "ips": [{"version": "4", "address": "10.87.1.9/24", "gateway": "10.87.1.1", "interface": null}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.7"}], "dns": {"domain": "lan"}}), SpecVersion::V0_4_0)]
    #[case::old(json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.87.1.9/24", "gateway": "10.87.1.1",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.7"}]}, "dns": {"domain": "lan"}}), SpecVersion::V0_2_0)]
    fn every_shape_says_the_same(#[case] answer: Value, #[case] version: SpecVersion) {
        let given = parse(&answer, version).expect("an address");
        assert_eq!(given.addresses, [ip("10.87.1.9")]);
        assert_eq!(given.ranges[0].gateway_network(), net("10.87.1.1/24"));
        let [default, other] = &given.routes[..] else { panic!("{:?}", given.routes) };
        assert_eq!(default.destination, net("0.0.0.0/0"));
        assert!(default.gateway.is_none_or(|by| by == ip("10.87.1.1")));
        assert_eq!(*other, netlink::Route::by(net("10.9.0.0/16"), ip("10.87.1.7")));
        assert_eq!(given.dns, Dns { domain: "lan".into(), ..Dns::default() });
    }

    #[test]
    fn several_addresses_of_both_families_are_each_a_pool_of_one() {
        let answer = json!({"ips": [{"address": "fd00:1::9/64"}, {"address": "10.87.1.9/24"}, {"address": "10.87.1.5/24", "gateway": "10.87.1.254"}],
            "routes": [{"dst": "fd00:2::7/64", "mtu": 1400, "advmss": 1340, "priority": 7, "table": 1000, "scope": 0}]});
        let given = parse(&answer, V1).expect("addresses");
        assert_eq!(given.addresses, ["fd00:1::9", "10.87.1.9", "10.87.1.5"].map(ip));
        let attributes = RouteAttributes {
            mtu: Some(1400),
            advmss: Some(1340),
            priority: Some(7),
            table: Some(1000),
            scope: Some(0),
            ..RouteAttributes::default()
        };
        assert_eq!(
            given.routes,
            [netlink::Route { destination: net("fd00:2::/64"), gateway: None, link: None, attributes }]
        );
        let pools = Pools::new(given.ranges.into_iter().map(Pool::from).collect());
        assert_eq!(pools.gateway_networks(), ["10.87.1.1/24", "10.87.1.254/24", "fd00:1::1/64"].map(net));
        for (pool, address) in pools.iter().zip(["fd00:1::9/64", "10.87.1.9/24", "10.87.1.5/24"].map(net)) {
            let free: Vec<_> = pool.free(&std::collections::BTreeSet::new()).map(|own| own.address).collect();
            assert_eq!(free, [address], "nothing else is flatnet's to give");
        }
    }

    #[rstest]
    #[case::nothing(json!({}), 110, "no address")]
    #[case::no_object(json!([]), 110, "not a CNI result")]
    #[case::error_object(json!({"code": 7, "msg": "no"}), 110, "no address")]
    #[case::other_version(json!({"cniVersion": "0.4.0", "ips": []}), 110, "CNI version \"0.4.0\", not 1.1.0")]
    #[case::old_shape(json!({"ip4": {"ip": "10.87.1.9/24", "gateway": "10.87.1.1"}}), 110, "no address")]
    #[case::interfaces(json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}]}), 110, "interfaces")]
    #[case::interface(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1", "interface": 0}]}), 110, "interfaces")]
    #[case::gateway_v6(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "fd00::1"}]}), 110, "the gateway of its address 10.87.1.9/24 is fd00::1")]
    #[case::gateway_outside(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.88.1.1"}]}), 110, "the gateway of its address 10.87.1.9/24 is 10.88.1.1")]
    #[case::gateway_s_own(json!({"ips": [{"address": "10.87.1.1/24", "gateway": "10.87.1.1"}]}), 110, "10.87.1.1/24 is the gateway's")]
    #[case::broadcast(json!({"ips": [{"address": "10.87.1.255/24", "gateway": "10.87.1.1"}]}), 110, "10.87.1.255/24 is outside")]
    #[case::second_is_the_gateway_s_own(json!({"ips": [{"address": "10.87.1.9/24"}, {"address": "fd00::1/64"}]}), 110, "fd00::1/64 is the gateway's")]
    #[case::gateway_of_another(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}, {"address": "10.87.1.1/24", "gateway": "10.87.1.254"}]}), 110, "10.87.1.1 is the gateway of another of its addresses")]
    #[case::gateway_of_a_later_one(json!({"ips": [{"address": "10.87.1.9/24"}, {"address": "10.87.1.5/24", "gateway": "10.87.1.9"}]}), 110, "10.87.1.9 is the gateway of another of its addresses")]
    #[case::twice(json!({"ips": [{"address": "10.87.1.9/24"}, {"address": "10.87.1.8/24"}, {"address": "10.87.1.9/16"}]}), 110, "the address 10.87.1.9 twice")]
    #[case::no_room(json!({"ips": [{"address": "10.87.1.9/32", "gateway": "10.87.1.1"}]}), 110, "no room")]
    #[case::reserved(json!({"ips": [{"address": "10.87.0.9/24", "gateway": "10.87.0.1"}]}), 110, "reserved for gateways")]
    #[case::not_an_address(json!({"ips": [{"address": "10.87.1/24", "gateway": "10.87.1.1"}]}), 110, "not a CNI result")]
    #[case::route_v6(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}], "routes": [{"dst": "::/0"}]}), 2, "a route of other: ::/0")]
    #[case::route_of_two_families(json!({"ips": [{"address": "10.87.1.9/24"}, {"address": "fd00::9/64"}], "routes": [{"dst": "::/0", "gw": "10.87.1.1"}]}), 2, "a route of other: ::/0 via 10.87.1.1")]
    #[case::route_scope(json!({"ips": [{"address": "10.87.1.9/24"}], "routes": [{"dst": "10.9.0.0/16", "scope": 256}]}), 2, "10.9.0.0/16 with scope 256")]
    #[case::route_elsewhere(json!({"ips": [{"address": "10.87.1.9/24"}], "routes": [{"dst": "10.9.0.0/16", "gw": "10.99.1.1"}]}), 110, "the gw of its route 10.9.0.0/16 via 10.99.1.1 is 10.99.1.1, which containers do not reach")]
    #[case::route_by_itself(json!({"ips": [{"address": "fd87:1::9/64"}], "routes": [{"dst": "fd99:7::/64", "gw": "fd87:1::9"}]}), 110, "is fd87:1::9, the container's own address")]
    #[case::route_twice(json!({"ips": [{"address": "10.87.1.9/24"}], "routes": [{"dst": "10.9.0.0/16"}, {"dst": "10.9.0.7/16", "priority": 0, "mtu": 1400}]}), 110, "the dst of its route 10.9.0.7/16, mtu 1400, priority 0 is 10.9.0.0/16 again")]
    #[case::dns(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}], "dns": {"nameservers": "10.0.0.1"}}), 110, "not a CNI result")]
    fn refused(#[case] answer: Value, #[case] code: u32, #[case] words: &str) {
        let error = parse(&answer, V1).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::silence(b" \n", "printed no result")]
    #[case::garbage(b"10.87.1.9\n", "\"10.87.1.9\"")]
    #[case::cut(b"{\"ips\": [", "not a CNI result")]
    #[case::not_text(b"\xff\xfe", "not a CNI result")]
    fn no_answer(#[case] said: &[u8], #[case] words: &str) {
        let error = IpamResult::parse("other", said, V1).unwrap_err();
        assert_eq!(error.code(), 110);
        assert!(error.to_string().contains(words), "{error}");
    }
}
