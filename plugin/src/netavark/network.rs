//! A network as Podman describes it, lowered to the meaning that a CNI configuration has too.
//!
//! A key that flatnet does not know passes (Podman keeps more there than a driver needs); one that it knows and cannot honour
//! is refused by name.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::{Map, Value};

use crate::config::section::Section;
use crate::config::{self, DEFAULT_BRIDGE, Network, fitting_mtu, gateways};
use crate::error::{Error, Result};
use crate::ipam::pool::Range;
use crate::reply::Dns;
use crate::request::interface_name_problem;

/// The subnet of a network that names none: host 1 of the plan 10.87.N.0/24.
const DEFAULT_SUBNET: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(10, 87, 1, 0), 24) {
    Some(network) => network,
    None => unreachable!(),
};

/// Who picks addresses, in Podman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocator {
    /// `none`: Podman does not, so flatnet does.
    Flatnet,
    /// `host-local`: Podman does, and asks for what it picked.
    Podman,
}

impl Allocator {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Flatnet => "none",
            Self::Podman => "host-local",
        }
    }
}

/// Checks and lowers the network; what it leaves open is filled in. `path` is where it stands in the request, if not alone.
/// Errors: 2 and 7.
pub(super) fn parse(path: &str, config: &Map<String, Value>) -> Result<(Network, Allocator)> {
    let mut section = Section::new(path, config);
    let name = config::name_of(config)?;
    refuse_unsupported(&mut section, config)?;
    let bridge = bridge(&mut section)?;
    let options = match section.optional_section("options")? {
        Some(options) => Options::parse(options)?,
        None => Options::default(),
    };
    let allocator = allocator(section.optional_section("ipam_options")?)?;
    let range = range(&section, config)?;
    let Options { mtu, macspoofchk, masquerade, gateways } = options;
    Ok((
        Network {
            name,
            bridge,
            mtu,
            macspoofchk,
            dad: false,
            pools: range.into(),
            masquerade,
            gateways,
            routes: Vec::new(),
            dns: Dns::default(),
            resolv_conf: None,
        },
        allocator,
    ))
}

/// The bridge, which is all that tearing down wants of the network beside its name.
pub(super) fn bridge(section: &mut Section) -> Result<String> {
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
    if section.boolean("ipv6_enabled")? == Some(true) {
        return unsupported("ipv6_enabled", "true", "leave out --ipv6 and IPv6 subnets: flatnet's addresses are IPv4");
    }
    if section.boolean("internal")? == Some(true) {
        return unsupported(
            "internal",
            "true",
            "leave out --internal: on a flat network containers are reached from outside",
        );
    }
    let remedies = [
        ("routes", "leave out --route: a container's routes are its subnet and the gateway's"),
        ("network_dns_servers", "leave out --dns: no DNS server runs on flatnet's networks; `podman run --dns` works"),
    ];
    for (key, remedy) in remedies {
        if let Some(asked) =
            config.get(key).filter(|asked| asked.as_array().is_none_or(|list| !list.is_empty()) && !asked.is_null())
        {
            return unsupported(key, &asked.to_string(), remedy);
        }
    }
    Ok(())
}

/// `podman network create --opt`: a text each.
struct Options {
    mtu: Option<u32>,
    macspoofchk: bool,
    masquerade: bool,
    gateways: Vec<IpNetwork>,
}

impl Default for Options {
    fn default() -> Self {
        Self { mtu: None, macspoofchk: false, masquerade: true, gateways: Vec::new() }
    }
}

impl Options {
    fn parse(mut options: Section) -> Result<Self> {
        let mtu = match options.string("mtu")? {
            Some(text) => mtu(&text).map_err(|problem| options.problem("mtu", problem))?,
            None => None,
        };
        let macspoofchk = boolean(&mut options, "macspoofchk")?.unwrap_or(false);
        let masquerade = boolean(&mut options, "ipmasq")?.unwrap_or(true);
        let gateways = options.string("gateways")?.unwrap_or_default();
        let gateways = gateways.split([',', ' ']).filter(|text| !text.is_empty());
        let gateways = gateways::parse(gateways).map_err(|problem| options.problem("gateways", problem))?;
        options.end()?;
        Ok(Self { mtu, macspoofchk, masquerade, gateways })
    }
}

fn boolean(options: &mut Section, key: &'static str) -> Result<Option<bool>> {
    match options.string(key)?.as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(options.problem(key, format!("is {other:?}, not true or false"))),
    }
}

/// Zero means "not configured", as for CNI. The error follows the key.
fn mtu(text: &str) -> Result<Option<u32>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(mtu) => fitting_mtu(mtu).map(Some),
        Err(_) => Err(format!("is {text:?}, not a number of bytes")),
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
            remedy: "leave out --ipam-driver: flatnet keeps the leases itself".into(),
        }),
    }
}

fn range(section: &Section, config: &Map<String, Value>) -> Result<Range> {
    let subnets: &[Value] = match config.get("subnets") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(subnets)) => subnets,
        Some(other) => return Err(section.problem("subnets", format!("is {other}, not a list"))),
    };
    let Some(first) = subnets.first() else {
        return Range::new(DEFAULT_SUBNET.into(), None, None, None)
            .map_err(|(key, problem)| section.problem(key, problem));
    };
    if subnets.len() > 1 {
        return Err(
            section.problem("subnets", format!("has {} subnets, but a network of flatnet's has one", subnets.len()))
        );
    }
    let first = first.as_object().ok_or_else(|| section.problem("subnets", "holds something that is not an object"))?;
    let mut inner = Section::new("subnets", first);
    let subnet = config::subnet(&mut inner)?;
    let gateway = config::address(&mut inner, "gateway")?;
    let (mut start, mut end) = (None, None);
    if let Some(mut range) = inner.optional_section("lease_range")? {
        (start, end) = (config::address(&mut range, "start_ip")?, config::address(&mut range, "end_ip")?);
        // Podman ends a range that reaches the subnet's end with the broadcast address (`--ip-range`).
        end = end.map(|end| match end {
            IpAddr::V4(last) if end == subnet.broadcast() => {
                Ipv4Addr::from_bits(last.to_bits().saturating_sub(1)).into()
            }
            end => end,
        });
    }
    if subnet.is_ipv6() {
        return Err(inner.problem("subnet", format!("is {subnet}, but flatnet's addresses under netavark are IPv4")));
    }
    Range::new(subnet, gateway, start, end).map_err(|(key, problem)| inner.problem(podmans_word(key), problem))
}

/// The range speaks of itself as CNI does.
fn podmans_word(key: &'static str) -> &'static str {
    match key {
        "rangeStart" => "lease_range.start_ip",
        "rangeEnd" => "lease_range.end_ip",
        key => key,
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!((network, allocator), (Network::parse(&cni).expect("a network"), Allocator::Flatnet));
    }

    #[rstest]
    #[case::ipv6(json!({"ipv6_enabled": true}), 2, "ipv6_enabled")]
    #[case::internal(json!({"internal": true}), 2, "internal")]
    #[case::routes(json!({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.87.1.1"}]}), 2, "routes")]
    #[case::dns(json!({"network_dns_servers": ["10.0.0.1"]}), 2, "network_dns_servers")]
    #[case::unknown_option(json!({"options": {"mtus": "1400"}}), 7, "options.mtus is not a known key: did you mean options.mtu?")]
    #[case::mtu(json!({"options": {"mtu": "67"}}), 7, "options.mtu is 67")]
    #[case::mtu_text(json!({"options": {"mtu": "big"}}), 7, "options.mtu is \"big\"")]
    #[case::spoofing(json!({"options": {"macspoofchk": "yes"}}), 7, "options.macspoofchk is \"yes\", not true or false")]
    #[case::masquerade(json!({"options": {"ipmasq": "yes"}}), 7, "options.ipmasq is \"yes\", not true or false")]
    #[case::gateways(json!({"options": {"gateways": "172.30.0.1,here"}}), 7, "options.gateways has \"here\"")]
    #[case::dhcp(json!({"ipam_options": {"driver": "dhcp"}}), 2, "ipam_options.driver = \"dhcp\"")]
    #[case::two(json!({"subnets": [{"subnet": "10.87.1.0/24"}, {"subnet": "10.87.2.0/24"}]}), 7, "has 2 subnets")]
    #[case::subnet_v6(json!({"subnets": [{"subnet": "fd00::/64"}]}), 7, "subnets.subnet")]
    #[case::gateway(json!({"subnets": [{"subnet": "10.87.1.0/24", "gateway": "10.87.2.1"}]}), 7, "subnets.gateway")]
    #[case::range(json!({"subnets": [{"subnet": "10.87.1.0/24", "lease_range": {"start_ip": "10.87.2.9"}}]}), 7, "subnets.lease_range.start_ip")]
    #[case::bridge(json!({"network_interface": "a/b"}), 7, "network_interface")]
    #[case::name(json!({"name": "a b"}), 7, "name is \"a b\"")]
    fn refused(#[case] change: Value, #[case] code: u32, #[case] words: &str) {
        let error = parsed(&change).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
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
