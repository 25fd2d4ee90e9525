//! What a delegated plugin gives: its result, lowered to what ADD builds with.
//!
//! Nothing of it is passed over in silence: what flatnet cannot honour is refused by name.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::shown;
use crate::config::{Draft, Network};
use crate::error::{Error, Result};
use crate::ipam::pool::Range;
use crate::netlink;
use crate::reply::Dns;
use crate::request::Command;
use crate::spec::SpecVersion;

/// What the specification (1.1.0) lets a route have that flatnet's have not.
const ROUTE_ATTRIBUTES: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// One address, and what goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) address: Ipv4Addr,
    /// The address's subnet, of which nothing is flatnet's to give.
    range: Range,
    routes: Vec<netlink::Route>,
    dns: Dns,
}

/// A result of any version (section "Success"; before 0.3.0 `ip4` and `ip6`).
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "cniVersion", default)]
    version: String,
    interfaces: Option<Vec<Value>>,
    ips: Option<Vec<Ip>>,
    routes: Option<Vec<Route>>,
    ip4: Option<OfFamily>,
    ip6: Option<OfFamily>,
    dns: Option<Dns>,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNetwork,
    gateway: Option<IpAddr>,
    interface: Option<Value>,
}

#[derive(Deserialize)]
struct OfFamily {
    ip: IpNetwork,
    gateway: Option<IpAddr>,
    routes: Option<Vec<Route>>,
}

#[derive(Deserialize)]
struct Route {
    dst: IpNetwork,
    gw: Option<IpAddr>,
    #[serde(flatten)]
    attributes: Map<String, Value>,
}

impl Given {
    /// Errors: 2 for what flatnet cannot honour, 110 for what cannot be.
    pub(super) fn parse(plugin: &str, said: &[u8], version: SpecVersion) -> Result<Self> {
        let wrong = |problem: String| wrong(plugin, problem);
        if said.trim_ascii().is_empty() {
            return Err(wrong("it ended well and said nothing".into()));
        }
        let mut answer: Answer = serde_json::from_slice(said)
            .map_err(|e| wrong(format!("its answer is not a result of CNI ({e}): {}", shown(said))))?;
        if !is_of_version(&answer.version, version) {
            return Err(wrong(format!("it answers in CNI version {:?}, and {version} was asked for", answer.version)));
        }
        if version < SpecVersion::V0_3_0 {
            answer.renew();
        }
        let Answer { interfaces, ips, routes, dns, .. } = answer;
        let (interfaces, ips) = (interfaces.unwrap_or_default(), ips.unwrap_or_default());
        if !interfaces.is_empty() || ips.iter().any(|ip| ip.interface.is_some()) {
            return Err(wrong("its answer has interfaces, which no IPAM plugin may make".into()));
        }
        let (own, gateway) = one_address(plugin, &ips)?;
        let subnet = masked(own);
        let range = Range::new(subnet.into(), Some(gateway.into()), None, None)
            .map_err(|(key, problem)| wrong(format!("the {key} of its address {own} {problem}")))?;
        if let Some(problem) = range.refusal(own.ip().into()) {
            return Err(wrong(format!("its address {own} {problem}")));
        }
        let routes = routes.iter().flatten().map(|route| route.lower(plugin, gateway)).collect::<Result<_>>()?;
        Ok(Self { address: own.ip(), range, routes, dns: dns.unwrap_or_default() })
    }

    /// The network with all that was given. The configuration's own `dns` comes first, where it has any.
    pub(crate) fn complete(self, draft: Draft) -> Network {
        let mut network = draft.with(self.range);
        network.routes = self.routes;
        if network.dns.is_empty() {
            network.dns = self.dns;
        }
        network
    }
}

impl Answer {
    /// Says in the newer keys what the older ones have.
    fn renew(&mut self) {
        let (mut ips, mut routes) = (Vec::new(), Vec::new());
        for family in [self.ip4.take(), self.ip6.take()].into_iter().flatten() {
            ips.push(Ip { address: family.ip, gateway: family.gateway, interface: None });
            routes.extend(family.routes.into_iter().flatten());
        }
        (self.ips, self.routes) = (Some(ips), Some(routes));
    }
}

impl Route {
    /// Destination and next hop, which is the gateway where none is said.
    fn lower(&self, plugin: &str, gateway: Ipv4Addr) -> Result<netlink::Route> {
        let unsupported = |what: String, remedy: &str| Error::Unsupported {
            key: format!("a route of {plugin}"),
            value: what,
            remedy: remedy.into(),
        };
        let is_said = |key: &&str| self.attributes.get(*key).is_some_and(|it| !it.is_null() && *it != json!(0));
        if let Some(key) = ROUTE_ATTRIBUTES.into_iter().find(is_said) {
            let remedy =
                "leave it out of the routes in the network's ipam: flatnet's routes have a next hop, and no more";
            return Err(unsupported(format!("{} with {key}", self.dst), remedy));
        }
        match (self.dst, self.gw.unwrap_or(IpAddr::V4(gateway))) {
            (IpNetwork::V4(destination), IpAddr::V4(by)) => {
                Ok(netlink::Route::by(masked(destination).into(), by.into()))
            }
            (destination, _) => Err(unsupported(
                self.gw.map_or_else(|| destination.to_string(), |by| format!("{destination} by {by}")),
                "leave it out of the routes in the network's ipam: flatnet cannot do IPv6 yet",
            )),
        }
    }
}

/// The one address that flatnet can use, and its gateway.
fn one_address(plugin: &str, ips: &[Ip]) -> Result<(Ipv4Network, Ipv4Addr)> {
    match ips {
        [] => Err(wrong(plugin, "its answer has no address".into())),
        [Ip { address: IpNetwork::V4(own), gateway, .. }] => match gateway {
            Some(IpAddr::V4(gateway)) => Ok((*own, *gateway)),
            Some(IpAddr::V6(gateway)) => {
                Err(wrong(plugin, format!("the gateway of its address {own} is {gateway}, not an IPv4 address")))
            }
            None => Err(wrong(plugin, format!("its address {own} has no gateway, which the bridge is to have"))),
        },
        several => {
            let list: Vec<_> = several.iter().map(|ip| ip.address.to_string()).collect();
            Err(Error::Unsupported {
                key: format!("the addresses of {plugin}"),
                value: list.join(", "),
                remedy: "have it give one IPv4 address: flatnet cannot do IPv6, nor several addresses, yet".into(),
            })
        }
    }
}

/// None in the answer means that of the configuration, and before 0.3.0 there is no difference between the two versions.
fn is_of_version(said: &str, asked: SpecVersion) -> bool {
    let is_old = |version: SpecVersion| version < SpecVersion::V0_3_0;
    said.is_empty() || SpecVersion::parse(said).is_some_and(|said| said == asked || (is_old(said) && is_old(asked)))
}

fn masked(network: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(network.network(), network.prefix()).expect("a prefix length that came out of a network")
}

fn wrong(plugin: &str, problem: String) -> Error {
    Error::Delegate {
        plugin: plugin.to_owned(),
        command: Command::Add,
        problem,
        remedy: format!(
            "correct `ipam` of the network's configuration, which {plugin} reads, or take another IPAM plugin"
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const V1: SpecVersion = SpecVersion::V1_1_0;

    fn parse(answer: &Value, version: SpecVersion) -> Result<Given> {
        Given::parse("other", answer.to_string().as_bytes(), version)
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    #[rstest]
    #[case::newest(json!({"cniVersion": "1.1.0", "ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.1.7/16", "gw": "10.87.1.7", "mtu": 0, "table": null}], "dns": {"domain": "lan", "odd": 1}}), V1)]
    #[case::with_version_of_address(json!({"cniVersion": "0.4.0", "interfaces": [], "ips": [{"version": "4", "address": "10.87.1.9/24", "gateway": "10.87.1.1", "interface": null}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.7"}], "dns": {"domain": "lan"}}), SpecVersion::V0_4_0)]
    #[case::old(json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.87.1.9/24", "gateway": "10.87.1.1",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.7"}]}, "dns": {"domain": "lan"}}), SpecVersion::V0_2_0)]
    fn every_shape_says_the_same(#[case] answer: Value, #[case] version: SpecVersion) {
        let default = netlink::Route::default_by(ip("10.87.1.1").into());
        let given = parse(&answer, version).expect("an address");
        assert_eq!(given.address, ip("10.87.1.9"));
        assert_eq!(given.range.gateway_network(), "10.87.1.1/24".parse().expect("a network"));
        assert_eq!(
            given.routes,
            [default, netlink::Route::by("10.9.0.0/16".parse().expect("a network"), ip("10.87.1.7").into())]
        );
        assert_eq!(given.dns, Dns { domain: "lan".into(), ..Dns::default() });
    }

    #[rstest]
    #[case::nothing(json!({}), 110, "no address")]
    #[case::no_object(json!([]), 110, "not a result of CNI")]
    #[case::error_object(json!({"code": 7, "msg": "no"}), 110, "no address")]
    #[case::other_version(json!({"cniVersion": "0.4.0", "ips": []}), 110, "CNI version \"0.4.0\", and 1.1.0")]
    #[case::old_shape(json!({"ip4": {"ip": "10.87.1.9/24", "gateway": "10.87.1.1"}}), 110, "no address")]
    #[case::interfaces(json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}]}), 110, "interfaces")]
    #[case::interface(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1", "interface": 0}]}), 110, "interfaces")]
    #[case::ipv6(json!({"ips": [{"address": "fd00::9/64", "gateway": "fd00::1"}]}), 2, "the addresses of other = fd00::9/64")]
    #[case::two(json!({"ips": [{"address": "10.87.1.9/24"}, {"address": "fd00::9/64"}]}), 2, "10.87.1.9/24, fd00::9/64")]
    #[case::no_gateway(json!({"ips": [{"address": "10.87.1.9/24"}]}), 110, "10.87.1.9/24 has no gateway")]
    #[case::gateway_v6(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "fd00::1"}]}), 110, "fd00::1, not an IPv4")]
    #[case::gateway_outside(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.88.1.1"}]}), 110, "the gateway of its address 10.87.1.9/24 is 10.88.1.1")]
    #[case::gateway_s_own(json!({"ips": [{"address": "10.87.1.1/24", "gateway": "10.87.1.1"}]}), 110, "10.87.1.1/24 is the gateway's own")]
    #[case::broadcast(json!({"ips": [{"address": "10.87.1.255/24", "gateway": "10.87.1.1"}]}), 110, "10.87.1.255/24 is not one of")]
    #[case::no_room(json!({"ips": [{"address": "10.87.1.9/32", "gateway": "10.87.1.1"}]}), 110, "no room")]
    #[case::reserved(json!({"ips": [{"address": "10.87.0.9/24", "gateway": "10.87.0.1"}]}), 110, "reserved for gateways")]
    #[case::not_an_address(json!({"ips": [{"address": "10.87.1/24", "gateway": "10.87.1.1"}]}), 110, "not a result of CNI")]
    #[case::route_v6(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}], "routes": [{"dst": "::/0"}]}), 2, "a route of other = ::/0")]
    #[case::route_table(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}], "routes": [{"dst": "10.9.0.0/16", "table": 100}]}), 2, "10.9.0.0/16 with table")]
    #[case::dns(json!({"ips": [{"address": "10.87.1.9/24", "gateway": "10.87.1.1"}], "dns": {"nameservers": "10.0.0.1"}}), 110, "not a result of CNI")]
    fn refused(#[case] answer: Value, #[case] code: u32, #[case] words: &str) {
        let error = parse(&answer, V1).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::silence(b" \n", "said nothing")]
    #[case::garbage(b"10.87.1.9\n", "\"10.87.1.9\"")]
    #[case::cut(b"{\"ips\": [", "not a result of CNI")]
    #[case::not_text(b"\xff\xfe", "not a result of CNI")]
    fn no_answer(#[case] said: &[u8], #[case] words: &str) {
        let error = Given::parse("other", said, V1).unwrap_err();
        assert_eq!(error.code(), 110);
        assert!(error.to_string().contains(words), "{error}");
    }
}
