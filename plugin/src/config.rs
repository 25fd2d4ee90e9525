//! The network configuration, lowered from JSON into meaning.
//!
//! Nothing past this module sees the JSON, and a `Network` that exists is one that can be built.

pub(crate) mod gateways;
mod ipam;
pub(crate) mod resolv_conf;
pub(crate) mod section;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::{Map, Value};

use self::ipam::Addresses;
use self::section::Section;
use crate::error::{Error, Result};
use crate::ipam::pool::{Own, Pools};
use crate::netlink::Route;
use crate::reply::Dns;
use crate::request::{interface_name_problem, is_identifier};

/// The bridge's name where the configuration gives none.
pub(crate) const DEFAULT_BRIDGE: &str = "flatnet-br0";
/// Below this IPv4 does not work (RFC 791); above, a veth does not.
const MTU_BYTES: std::ops::RangeInclusive<u32> = 68..=65_535;

/// `ipam.type` where flatnet gives the addresses itself; so does none.
const OWN_IPAM: &str = "flatnet";

/// Keys that belong to the specification or the runtime: they pass.
const RESERVED: &[&str] = &[
    "args",
    "capabilities",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "runtimeConfig",
    "type",
];

/// A network as ADD and CHECK need it; with `P` other than pools, as far as the configuration alone tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Network<P = Pools> {
    /// `name`.
    pub(crate) name: String,
    /// `bridge`: the interface's name.
    pub(crate) bridge: String,
    /// `mtu`, in bytes; without one the host's uplink decides.
    pub(crate) mtu: Option<u32>,
    /// `macspoofchk`: whether containers may speak for themselves only.
    pub(crate) macspoofchk: bool,
    /// `enabledad`: whether containers' IPv6 addresses are asked for on the bridge first: ADD waits until nobody else has them.
    pub(crate) dad: bool,
    /// `ipam`: the subnets, their gateways and what may be given out.
    pub(crate) pools: P,
    /// `ipMasq`: whether what leaves the flat range is masqueraded.
    pub(crate) masquerade: bool,
    /// `gateways`: who beyond the flat range has a route to the containers, so that nothing sent there is masqueraded.
    pub(crate) gateways: Vec<IpNetwork>,
    /// Containers' routes beside the default ones by the gateways, or in their place.
    pub(crate) routes: Vec<Route>,
    /// `dns`, as it goes into the result (section "Success", key `dns`).
    pub(crate) dns: Dns,
    /// `ipam.resolvConf`: the file that `dns` is read from where the configuration says none.
    pub(crate) resolv_conf: Option<PathBuf>,
}

/// All of a network but its addresses, which somebody else gives.
pub(crate) type Draft = Network<()>;

/// What a configuration says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Configured {
    /// A network whose addresses flatnet gives.
    Whole(Network),
    /// One whose addresses the plugin of this name gives (`ipam.type`).
    Delegated(Draft, String),
}

/// Who gives the addresses.
enum Ipam {
    Own(Box<Addresses>),
    /// The rest of `ipam` is that plugin's business.
    Delegated(String),
}

impl Draft {
    /// The network, its addresses known.
    pub(crate) fn with(self, pools: impl Into<Pools>) -> Network {
        let Self { name, bridge, mtu, macspoofchk, dad, pools: (), masquerade, gateways, routes, dns, resolv_conf } =
            self;
        let pools = pools.into();
        Network { name, bridge, mtu, macspoofchk, dad, pools, masquerade, gateways, routes, dns, resolv_conf }
    }
}

impl Network {
    /// The addresses that the bridge has, each once, IPv4 first.
    pub(crate) fn gateway_networks(&self) -> Vec<IpNetwork> {
        self.pools.gateway_networks()
    }

    /// The routes of a container that was given `own`, each with its next hop.
    pub(crate) fn container_routes(&self, own: &[Own]) -> Vec<Route> {
        let gateway = |ipv4: bool| own.iter().map(|own| own.gateway).find(|gateway| gateway.is_ipv4() == ipv4);
        let mut routes = self.routes.clone();
        for gateway in [gateway(true), gateway(false)].into_iter().flatten() {
            let default = Route::default_by(gateway);
            let is_it = |route: &Route| route.destination == default.destination && route.attributes.is_in_main_table();
            if !routes.iter().any(is_it) {
                routes.push(default);
            }
        }
        for route in &mut routes {
            route.gateway = ipam::next_hop(route, gateway(route.destination.is_ipv4()));
        }
        routes
    }

    /// Reads the file that `dns` comes from, if there is one; what the configuration itself says as `dns` goes before. Errors: 7.
    pub(crate) fn read_resolv_conf(&mut self) -> Result<()> {
        let Some(path) = &self.resolv_conf else { return Ok(()) };
        let dns = resolv_conf::read(path)?;
        if self.dns.is_empty() {
            self.dns = dns;
        }
        Ok(())
    }

    /// Whether containers get addresses of IPv4.
    pub(crate) fn has_ipv4(&self) -> bool {
        self.pools.ranges().any(|range| range.subnet().is_ipv4())
    }

    /// Whether containers get addresses of IPv6.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.pools.ranges().any(|range| range.subnet().is_ipv6())
    }

    /// The subnets, to be shown.
    pub(crate) fn subnets_in_words(&self) -> String {
        self.pools.subnets().iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The first subnet of IPv4, and its gateway.
    pub(crate) fn ipv4(&self) -> Option<(Ipv4Network, Ipv4Addr)> {
        self.pools.ranges().find_map(|range| match (range.subnet(), range.gateway()) {
            (IpNetwork::V4(subnet), IpAddr::V4(gateway)) => Some((subnet, gateway)),
            _ => None,
        })
    }

    /// A network whose addresses must be flatnet's to give. Errors: 2 and 7.
    pub(crate) fn parse(config: &Map<String, Value>) -> Result<Self> {
        match Configured::parse(config)? {
            Configured::Whole(network) => Ok(network),
            Configured::Delegated(_, plugin) => Err(Error::Unsupported {
                key: "ipam.type".into(),
                value: format!("{plugin:?}"),
                remedy: "leave ipam.type out: here flatnet keeps the leases itself".into(),
            }),
        }
    }
}

impl Configured {
    /// The network's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Whole(network) => &network.name,
            Self::Delegated(draft, _) => &draft.name,
        }
    }

    /// Checks and lowers the whole configuration. Errors: 2 and 7.
    pub(crate) fn parse(config: &Map<String, Value>) -> Result<Self> {
        let mut section = Section::new("", config);
        section.skip("cniVersion");
        section.skip("prevResult");
        for key in RESERVED {
            section.skip(key);
        }
        let name = name_of(config)?;
        section.skip("name");
        let bridge = bridge(&mut section)?;
        let mtu = mtu(&mut section)?;
        let macspoofchk = section.boolean("macspoofchk")?.unwrap_or(false);
        let dad = section.boolean("enabledad")?.unwrap_or(false);
        let ipam = ipam(section.section("ipam")?, config)?;
        let dns = dns(section.optional_section("dns")?)?;
        let masquerade = section.boolean("ipMasq")?.unwrap_or(true);
        refuse_backend(section.string("ipMasqBackend")?)?;
        let gateways = section.strings("gateways")?.unwrap_or_default();
        let gateways = gateways::parse(gateways.iter().map(String::as_str));
        let gateways = gateways.map_err(|problem| section.problem("gateways", problem))?;
        section.end()?;
        let (routes, resolv_conf, pools) = (Vec::new(), None, ());
        let draft =
            Network { name, bridge, mtu, macspoofchk, dad, pools, masquerade, gateways, routes, dns, resolv_conf };
        Ok(match ipam {
            Ipam::Own(own) => {
                let Addresses { pools, routes, resolv_conf } = *own;
                Self::Whole(Draft { routes, resolv_conf, ..draft }.with(pools))
            }
            Ipam::Delegated(plugin) => Self::Delegated(draft, plugin),
        })
    }
}

/// `name`, which is all that DEL needs of a configuration. Errors: 7.
pub(crate) fn name_of(config: &Map<String, Value>) -> Result<String> {
    let name = Section::new("", config).required_string("name")?;
    if is_identifier(&name) {
        return Ok(name);
    }
    let problem = format!("is {name:?}, but must start with a letter or digit and hold only letters, digits, _ . -");
    Err(Error::Config { key: "name".into(), problem })
}

/// `ipMasqBackend` of the reference plugin. Errors: 2.
fn refuse_backend(backend: Option<String>) -> Result<()> {
    match backend.filter(|backend| backend != "nftables") {
        None => Ok(()),
        Some(backend) => Err(Error::Unsupported {
            key: "ipMasqBackend".into(),
            value: format!("{backend:?}"),
            remedy: "leave it out: flatnet masquerades by nftables, which works beside the iptables of others; or set ipMasq to false and masquerade yourself".into(),
        }),
    }
}

fn bridge(section: &mut Section) -> Result<String> {
    let bridge = section.string("bridge")?.unwrap_or_else(|| DEFAULT_BRIDGE.to_owned());
    match interface_name_problem(&bridge) {
        Some(problem) => Err(section.problem("bridge", problem)),
        None => Ok(bridge),
    }
}

/// Zero means "not configured", as in the reference.
fn mtu(section: &mut Section) -> Result<Option<u32>> {
    let Some(mtu) = section.integer("mtu")?.filter(|mtu| *mtu != 0) else { return Ok(None) };
    fitting_mtu(mtu).map(Some).map_err(|problem| section.problem("mtu", problem))
}

/// An MTU that a network can have, in bytes; the error follows the key.
pub(crate) fn fitting_mtu(mtu: i64) -> Result<u32, String> {
    let fitting = u32::try_from(mtu).ok().filter(|mtu| MTU_BYTES.contains(mtu));
    fitting.ok_or_else(|| format!("is {mtu}, but must be {} - {} bytes", MTU_BYTES.start(), MTU_BYTES.end()))
}

fn ipam(mut section: Section, config: &Map<String, Value>) -> Result<Ipam> {
    match section.string("type")? {
        Some(plugin) if plugin != OWN_IPAM => match plugin_name_problem(&plugin) {
            Some(problem) => Err(section.problem("type", problem)),
            None => Ok(Ipam::Delegated(plugin)),
        },
        _ => ipam::parse(section, config).map(|own| Ipam::Own(Box::new(own))),
    }
}

/// The plugin that gives the addresses, if it is not flatnet: of a configuration that may be wrong otherwise, or in this as well.
pub(crate) fn delegate_of(config: &Map<String, Value>) -> Option<&str> {
    let plugin = config.get("ipam")?.get("type")?.as_str()?;
    (plugin != OWN_IPAM && plugin_name_problem(plugin).is_none()).then_some(plugin)
}

/// Why a plugin cannot be of that name (specification, section 4), to follow a key.
fn plugin_name_problem(plugin: &str) -> Option<String> {
    let is_plain = !matches!(plugin, "" | "." | "..") && !plugin.contains(['/', '\0']);
    (!is_plain).then(|| format!("is {plugin:?}, but must be the plain name of a plugin in a folder of CNI_PATH"))
}

/// `subnet`, which must be there.
pub(crate) fn subnet(section: &mut Section) -> Result<IpNetwork> {
    let text = section.required_string("subnet")?;
    let subnet = text
        .parse()
        .map_err(|_| section.problem("subnet", format!("is {text:?}, not a subnet such as 10.87.1.0/24")))?;
    if !text.contains('/') {
        return Err(section.problem("subnet", format!("is {text:?}, which lacks its prefix length, such as /24")));
    }
    Ok(subnet)
}

/// An address, or nothing.
pub(crate) fn address(section: &mut Section, key: &'static str) -> Result<Option<IpAddr>> {
    let Some(text) = section.string(key)? else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(section.problem(key, format!("is {text:?}, not an IP address"))),
    }
}

fn dns(section: Option<Section>) -> Result<Dns> {
    let Some(mut section) = section else { return Ok(Dns::default()) };
    let dns = Dns {
        nameservers: section.strings("nameservers")?.unwrap_or_default(),
        domain: section.string("domain")?.unwrap_or_default(),
        search: section.strings("search")?.unwrap_or_default(),
        options: section.strings("options")?.unwrap_or_default(),
    };
    section.end()?;
    Ok(dns)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn parse(change: &Value) -> Result<Network> {
        let Value::Object(mut config) = json!({
            "cniVersion": "1.0.0", "name": "flatnet", "type": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}
        }) else {
            unreachable!("an object literal")
        };
        config.extend(change.as_object().expect("an object").clone());
        Network::parse(&config)
    }

    #[test]
    fn the_shipped_file_is_the_default_network() {
        let list: Value = serde_json::from_str(include_str!("../dist/flatnet.conflist")).expect("JSON");
        let mut config = list["plugins"][0].as_object().expect("a plugin").clone();
        config.insert("name".into(), list["name"].clone());
        let network = Network::parse(&config).expect("a network");
        assert_eq!(network, parse(&json!({"bridge": "flatnet-br0"})).expect("a network"));
        assert_eq!(network.gateway_networks(), ["10.87.1.1/24".parse().expect("a network")]);
    }

    #[rstest]
    #[case::misspelt(json!({"brigde": "x"}), 2, "brigde is not a known key: did you mean bridge? (it is \"x\")")]
    #[case::unlike_any(json!({"qqqqqqqq": 1}), 2, "known keys are")]
    #[case::misspelt_inside(json!({"ipam": {"subnet": "10.87.1.0/24", "gatway": "10.87.1.1"}}), 2, "ipam.gatway")]
    #[case::bridge_type(json!({"bridge": 1}), 7, "bridge is 1, not a string")]
    #[case::bridge_long(json!({"bridge": "a234567890123456"}), 7, "16 bytes")]
    #[case::mtu_small(json!({"mtu": 67}), 7, "mtu is 67")]
    #[case::mtu_large(json!({"mtu": 65536}), 7, "mtu is 65536")]
    #[case::mtu_negative(json!({"mtu": -1}), 7, "mtu is -1")]
    #[case::mtu_fraction(json!({"mtu": 1.5}), 7, "mtu is 1.5")]
    #[case::name_missing(json!({"name": null}), 7, "name is missing")]
    #[case::name_bad(json!({"name": "../x"}), 7, "../x")]
    #[case::no_ipam(json!({"ipam": null}), 7, "ipam is missing")]
    #[case::no_subnet(json!({"ipam": {}}), 7, "ipam.subnet is missing")]
    #[case::subnet_no_prefix(json!({"ipam": {"subnet": "10.87.1.0"}}), 7, "prefix length")]
    #[case::delegated(json!({"ipam": {"type": "host-local", "subnet": "10.87.1.0/24"}}), 2, "host-local")]
    #[case::delegated_path(json!({"ipam": {"type": "../host-local"}}), 7, "ipam.type is \"../host-local\"")]
    #[case::delegated_parent(json!({"ipam": {"type": ".."}}), 7, "ipam.type is \"..\"")]
    #[case::delegated_nothing(json!({"ipam": {"type": ""}}), 7, "ipam.type is \"\"")]
    #[case::delegated_nul(json!({"ipam": {"type": "host\u{0}local"}}), 7, "ipam.type is")]
    #[case::masquerade_text(json!({"ipMasq": "yes"}), 7, "ipMasq is \"yes\", not true or false")]
    #[case::masquerade_backend(json!({"ipMasqBackend": "iptables"}), 2, "ipMasqBackend = \"iptables\"")]
    #[case::gateways_text(json!({"gateways": "172.30.0.1"}), 7, "gateways is \"172.30.0.1\", not a list of strings")]
    #[case::gateways_name(json!({"gateways": ["gateway.lan"]}), 7, "gateways has \"gateway.lan\"")]
    #[case::gateway_at_the_wrong_place(json!({"gateway": "172.30.0.1"}), 2, "did you mean gateways?")]
    #[case::spoofing_type(json!({"macspoofchk": "true"}), 7, "macspoofchk is \"true\", not true or false")]
    #[case::dns_type(json!({"dns": {"nameservers": "1.1.1.1"}}), 7, "dns.nameservers")]
    fn refused(#[case] change: Value, #[case] code: u32, #[case] words: &str) {
        let error = parse(&change).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn spoofing_is_not_looked_for_by_default() {
        assert!(!parse(&json!({})).expect("a network").macspoofchk);
        assert!(parse(&json!({"macspoofchk": true})).expect("a network").macspoofchk);
    }

    #[rstest]
    #[case::masquerade_off(json!({"ipMasq": false}))]
    #[case::masquerade_on(json!({"ipMasq": true, "ipMasqBackend": "nftables", "gateways": []}))]
    #[case::runtime_keys(json!({"args": {}, "runtimeConfig": {}, "capabilities": {}, "cni.dev/attachments": []}))]
    #[case::mtu_zero(json!({"mtu": 0}))]
    fn accepted(#[case] change: Value) {
        assert_eq!(parse(&change).expect("a network").mtu, None);
    }

    #[rstest]
    #[case::left_out(json!({"subnet": "10.87.1.0/24"}), None)]
    #[case::own(json!({"type": "flatnet", "subnet": "10.87.1.0/24"}), None)]
    #[case::another_s(json!({"type": "host-local", "ranges": [[]], "anything": 1}), Some("host-local"))]
    fn who_gives_the_addresses(#[case] ipam: Value, #[case] expected: Option<&str>) {
        let config = json!({"name": "flatnet", "ipam": ipam, "args": {"cni": {"ips": expected.map(|_| "10.87.1.9")}}});
        let config = config.as_object().expect("an object");
        assert_eq!(delegate_of(config), expected);
        match Configured::parse(config).expect("a network") {
            Configured::Whole(_) => assert_eq!(expected, None),
            Configured::Delegated(_, plugin) => assert_eq!(expected, Some(plugin.as_str())),
        }
    }

    #[rstest]
    #[case::not_a_text(json!({"ipam": {"type": 1}}))]
    #[case::a_path(json!({"ipam": {"type": "../host-local"}}))]
    #[case::no_object(json!({"ipam": []}))]
    #[case::nothing(json!({}))]
    fn nobody_else_gives_addresses_in(#[case] config: Value) {
        assert_eq!(delegate_of(config.as_object().expect("an object")), None);
    }

    #[test]
    fn masquerade_is_on_unless_it_is_off() {
        let network = parse(&json!({})).expect("a network");
        assert!(network.masquerade && network.gateways.is_empty());
        let network = parse(&json!({"ipMasq": false, "gateways": ["172.30.0.1"]})).expect("a network");
        assert_eq!((network.masquerade, network.gateways), (false, vec![IpAddr::from([172, 30, 0, 1]).into()]));
    }
}
