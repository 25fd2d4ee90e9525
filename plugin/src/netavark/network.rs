//! A network as Podman describes it, lowered to the meaning that a CNI configuration has too.
//!
//! A key that flatnet does not know passes (Podman keeps more there than a driver needs); one that it knows and cannot honour
//! is refused by name.

use serde_json::{Map, Value};

use super::options::Options;
use super::subnets;
use crate::config::metric::{self, DefaultMetric};
use crate::config::section::Section;
use crate::config::{self, DEFAULT_BRIDGE, Network};
use crate::error::{Error, Result};
use crate::names::interface_name_problem;
use crate::reply::Dns;

/// Who picks addresses, in Podman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocator {
    /// `none`: Podman does not, so flatnet does.
    Flatnet,
    /// `host-local`: Podman does, and asks for what it picked.
    Podman,
}

impl Allocator {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Flatnet => "none",
            Self::Podman => "host-local",
        }
    }
}

/// Checks and lowers the network; what it leaves open is filled in. `path` is where it stands in the request, if not alone.
/// Errors: 2 and 7.
pub(crate) fn parse(path: &str, config: &Map<String, Value>) -> Result<(Network, Allocator)> {
    let mut section = Section::new(path, config);
    let name = config::name_of(config)?;
    refuse_unsupported(&mut section, config)?;
    let bridge = bridge(&mut section)?;
    let none = Map::new();
    let options = section.optional_section("options")?.unwrap_or_else(|| Section::new("options", &none));
    let Options { mtu, macspoofchk, masquerade, gateways, dad, metric, bridge: options } =
        Options::parse(options, &bridge)?;
    let allocator = allocator(section.optional_section("ipam_options")?)?;
    let pools = subnets::parse(&mut section, config)?;
    let routes = subnets::routes(&section, config, &pools)?;
    let default_metric = DefaultMetric { base: metric.unwrap_or(metric::DEFAULT), is_said: metric.is_some() };
    Ok((
        Network {
            name,
            bridge,
            mtu,
            macspoofchk,
            dad,
            pools,
            masquerade,
            gateways,
            routes,
            default_metric: Some(default_metric),
            dns: Dns::default(),
            resolv_conf: None,
            options,
        },
        allocator,
    ))
}

/// The link by which the host reaches containers, which is all that tearing down wants of the network beside its name: of a network that
/// could not be set up either, as far as it says.
pub(crate) fn gateway_link(path: &str, config: &Map<String, Value>) -> String {
    match parse(path, config) {
        Ok((network, _)) => network.gateway_link().to_owned(),
        Err(_) => bridge(&mut Section::new(path, config)).unwrap_or_else(|_| DEFAULT_BRIDGE.to_owned()),
    }
}

fn bridge(section: &mut Section) -> Result<String> {
    let named = section.string("network_interface")?.filter(|name| !name.is_empty());
    let bridge = named.unwrap_or_else(|| DEFAULT_BRIDGE.to_owned());
    match interface_name_problem(&bridge) {
        Some(problem) => Err(section.problem("network_interface", problem)),
        None => Ok(bridge),
    }
}

fn refuse_unsupported(section: &mut Section, config: &Map<String, Value>) -> Result<()> {
    let unsupported = |key: &str, value: &str, remedy: &str| {
        Err(Error::Unsupported { key: key.into(), value: value.into(), remedy: remedy.into() })
    };
    if section.boolean("internal")? == Some(true) {
        return unsupported(
            "internal",
            "true",
            "leave out --internal: on a flat network containers are reached from outside",
        );
    }
    match config.get("network_dns_servers") {
        Some(asked) if !asked.is_null() && asked.as_array().is_none_or(|list| !list.is_empty()) => unsupported(
            "network_dns_servers",
            &asked.to_string(),
            "leave out --dns: no DNS server runs on flatnet's networks; `podman run --dns` works",
        ),
        _ => Ok(()),
    }
}

fn allocator(options: Option<Section>) -> Result<Allocator> {
    let Some(mut options) = options else { return Ok(Allocator::Flatnet) };
    let driver = options.string("driver")?;
    options.end()?;
    match driver.as_deref() {
        None | Some("" | "none") => Ok(Allocator::Flatnet),
        Some("host-local") => Ok(Allocator::Podman),
        Some(other) => Err(Error::Unsupported {
            key: "ipam_options.driver".into(),
            value: format!("{other:?}"),
            remedy: "leave out --ipam-driver: flatnet allocates the addresses itself".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rstest::rstest;

    use serde_json::json;

    use super::*;

    fn bounds(network: &Network) -> [IpAddr; 2] {
        network.pools.ranges().next().expect("a range").bounds().into()
    }

    fn parsed(change: &Value) -> Result<(Network, Allocator)> {
        let Value::Object(mut config) =
            json!({ "name": "flatnet", "driver": "flatnet", "options": {}, "ipam_options": {} })
        else {
            unreachable!("an object literal")
        };
        config.extend(change.as_object().expect("an object").clone());
        parse("", &config)
    }

    #[test]
    fn what_is_left_open_is_the_shipped_network() {
        let list: Value = serde_json::from_str(include_str!("../../dist/flatnet.conflist")).expect("JSON");
        let mut cni = list["plugins"][0].as_object().expect("a plugin").clone();
        cni.insert("name".into(), list["name"].clone());
        let (network, allocator) = parsed(&json!({})).expect("a network");
        let metric = DefaultMetric { base: 100, is_said: false };
        let shipped = Network { default_metric: Some(metric), ..Network::parse(&cni).expect("a network") };
        assert_eq!((network, allocator), (shipped, Allocator::Flatnet));
    }

    #[rstest]
    #[case::ipv6(json!({"ipv6_enabled": true, "subnets": [{"subnet": "10.88.0.0/16"}]}), 2, "ipv6_enabled: true")]
    #[case::internal(json!({"internal": true}), 2, "internal")]
    #[case::route_family(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "fd87:1::1"}]}), 7, "gateway is fd87:1::1, but 10.0.0.0/8 needs an IPv4 next hop")]
    #[case::route_gateway(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.87.2.1"}]}), 7, "routes.gateway is 10.87.2.1")]
    #[case::route_broadcast(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.87.1.255"}]}), 7, "routes.gateway is 10.87.1.255, the broadcast address")]
    #[case::route_twice(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.87.1.8", "metric": 100}, {"destination": "10.0.0.0/8", "gateway": "10.87.1.9"}]}), 7, "routes.destination is 10.0.0.0/8 again")]
    #[case::route_type(json!({"routes": [{"destination": "10.0.0.0/8", "route_type": "throw"}]}), 7, "routes.route_type is \"throw\"")]
    #[case::route_type_gateway(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.87.1.8", "route_type": "blackhole"}]}), 7, "routes.gateway is 10.87.1.8, but a blackhole route has none")]
    #[case::route_no_gateway(json!({"routes": [{"destination": "10.0.0.0/8", "route_type": "unicast"}]}), 7, "routes.gateway is missing")]
    #[case::route_key(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.87.1.8", "type": "blackhole"}]}), 2, "routes.type")]
    #[case::route_host_bits(json!({"routes": [{"destination": "10.0.0.1/8", "gateway": "10.87.1.9"}]}), 7, "did you mean 10.0.0.0/8?")]
    #[case::isolate(json!({"options": {"isolate": "true"}}), 2, "options.isolate: \"true\"")]
    #[case::dns(json!({"network_dns_servers": ["10.0.0.1"]}), 2, "network_dns_servers")]
    #[case::unknown_option(json!({"options": {"mtus": "1400"}}), 2, "unknown key options.mtus: did you mean options.mtu?")]
    #[case::mtu(json!({"options": {"mtu": "67"}}), 7, "options.mtu is 67")]
    #[case::mtu_text(json!({"options": {"mtu": "big"}}), 7, "options.mtu is \"big\"")]
    #[case::spoofing(json!({"options": {"macspoofchk": "yes"}}), 7, "options.macspoofchk is \"yes\", not true or false")]
    #[case::masquerade(json!({"options": {"ipmasq": "yes"}}), 7, "options.ipmasq is \"yes\", not true or false")]
    #[case::gateways(json!({"options": {"gateways": "172.30.0.1,here"}}), 7, "options.gateways has \"here\"")]
    #[case::dhcp(json!({"ipam_options": {"driver": "dhcp"}}), 2, "ipam_options.driver: \"dhcp\"")]
    #[case::overlap(json!({"subnets": [{"subnet": "10.87.0.0/16"}, {"subnet": "10.87.2.0/24"}]}), 7, "ranges must not overlap")]
    #[case::subnet_v6(json!({"subnets": [{"subnet": "fd00::1/64"}]}), 7, "subnets.subnet")]
    #[case::gateway(json!({"subnets": [{"subnet": "10.87.1.0/24", "gateway": "10.87.2.1"}]}), 7, "subnets.gateway")]
    #[case::range(json!({"subnets": [{"subnet": "10.87.1.0/24", "lease_range": {"start_ip": "10.87.2.9"}}]}), 7, "subnets.lease_range.start_ip")]
    #[case::bridge(json!({"network_interface": "a/b"}), 7, "network_interface")]
    #[case::name(json!({"name": "a b"}), 7, "name is \"a b\"")]
    fn refused(#[case] change: Value, #[case] code: u32, #[case] words: &str) {
        let error = parsed(&change).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::nothing_said(json!({"ipv6_enabled": true}), &["10.87.1.1/24", "fd87:1::1/64"])]
    #[case::host_16(json!({"ipv6_enabled": true, "subnets": [{"subnet": "10.87.16.0/24"}]}), &["10.87.16.1/24", "fd87:16::1/64"])]
    // As Podman keeps a network of IPv6 alone.
    #[case::v6_alone(json!({"ipv6_enabled": true, "subnets": [{"subnet": "fd00::/64"}]}), &["fd00::1/64"])]
    #[case::v6_not_said(json!({"subnets": [{"subnet": "fd00::/64", "gateway": "fd00::9"}]}), &["fd00::9/64"])]
    #[case::three(json!({"subnets": [{"subnet": "fd00::/64"}, {"subnet": "10.87.1.0/24"}, {"subnet": "10.87.2.0/24"}]}), &["10.87.1.1/24", "10.87.2.1/24", "fd00::1/64"])]
    fn subnets_of_both_families(#[case] change: Value, #[case] gateways: &[&str]) {
        let (network, _) = parsed(&change).expect("a network");
        let found: Vec<_> = network.gateway_networks().iter().map(ToString::to_string).collect();
        assert_eq!(found, gateways);
    }

    #[rstest]
    #[case::the_bridge(json!({"network_interface": "br7"}), "br7")]
    #[case::a_vlan(json!({"network_interface": "br7", "options": {"vlan": "100"}}), "br7.100")]
    #[case::nothing_said(json!({}), "flatnet-br0")]
    #[case::refused(json!({"network_interface": "br7", "internal": true}), "br7")]
    #[case::no_interface(json!({"network_interface": "a/b"}), "flatnet-br0")]
    fn what_teardown_wants_is_there_in_every_text(#[case] mut config: Value, #[case] link: &str) {
        config["name"] = json!("flatnet");
        assert_eq!(gateway_link("network", config.as_object().expect("an object")), link);
    }

    #[test]
    fn a_range_to_the_end_of_the_subnet_is_podmans_way_to_say_it() {
        let range = json!({"start_ip": "10.87.7.129", "end_ip": "10.87.7.255"});
        let (network, _) =
            parsed(&json!({"subnets": [{"subnet": "10.87.7.0/24", "lease_range": range}]})).expect("a network");
        assert_eq!(bounds(&network), [[10, 87, 7, 129], [10, 87, 7, 254]].map(IpAddr::from));
    }

    #[test]
    fn what_podman_says_is_honoured() {
        let (network, allocator) = parsed(&json!({
            "network_interface": "br7", "options": {"mtu": "1400", "ipmasq": "false", "gateways": "172.30.0.1, 192.168.50.0/24"}, "ipam_options": {"driver": "host-local"}, "routes": null,
            "subnets": [{"subnet": "10.87.7.0/24", "gateway": "10.87.7.254", "lease_range": {"start_ip": "10.87.7.9", "end_ip": "10.87.7.19"}}],
            "labels": {"a": "b"}, "created": "0001-01-01T00:00:00Z",
        }))
        .expect("a network");
        assert_eq!((network.bridge.as_str(), network.mtu, allocator), ("br7", Some(1400), Allocator::Podman));
        assert_eq!((network.masquerade, network.gateways.len()), (false, 2));
        assert_eq!(network.gateway_networks()[0].ip(), IpAddr::from([10, 87, 7, 254]));
        assert_eq!(bounds(&network), [[10, 87, 7, 9], [10, 87, 7, 19]].map(IpAddr::from));
    }
}
