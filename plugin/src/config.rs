//! The network configuration, lowered from JSON into meaning.
//!
//! Nothing past this module sees the JSON, and a `Network` that exists is one that can be built.

#[cfg(test)]
mod defaults;
mod family;
pub(crate) mod gateways;
mod ipam;
#[cfg(test)]
mod keys;
pub(crate) mod metric;
pub(crate) mod options;
pub(crate) mod resolv_conf;
pub(crate) mod routes;
pub(crate) mod section;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use self::ipam::Addresses;
use self::metric::DefaultMetric;
use self::options::BridgeOptions;
use self::section::Section;
use crate::error::{Error, Result};
use crate::ipam::pool::{Allocation, Pools};
use crate::names::{interface_name_problem, is_identifier};
use crate::netlink::Route;
use crate::reply::Dns;

/// The bridge's name where the configuration gives none.
pub(crate) const DEFAULT_BRIDGE: &str = "flatnet-br0";
/// Below this IPv4 does not work (RFC 791); above, a veth does not.
const MTU_BYTES: std::ops::RangeInclusive<u32> = 68..=65_535;

/// `ipam.type` where flatnet gives the addresses itself; so does none, or an empty one.
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
    /// The metric of the default ones, where it is not the kernel's to choose: under netavark.
    pub(crate) default_metric: Option<DefaultMetric>,
    /// `dns`, as it goes into the result (section "Success", key `dns`).
    pub(crate) dns: Dns,
    /// `ipam.resolvConf`: the file that `dns` is read from where the configuration says none.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// What the bridge and the interfaces are like.
    pub(crate) options: BridgeOptions,
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
        Network {
            name: self.name,
            bridge: self.bridge,
            mtu: self.mtu,
            macspoofchk: self.macspoofchk,
            pools: pools.into(),
            masquerade: self.masquerade,
            gateways: self.gateways,
            routes: self.routes,
            default_metric: self.default_metric,
            dns: self.dns,
            resolv_conf: self.resolv_conf,
            dad: self.dad,
            options: self.options,
        }
    }
}

impl<P> Network<P> {
    /// The name of the link that has the gateways' addresses, where the host's routing begins: the bridge, or a VLAN on it.
    pub(crate) fn gateway_link(&self) -> &str {
        self.options.vlan_link.as_deref().unwrap_or(&self.bridge)
    }

    /// That link's name and its VLAN, where it is not the bridge itself.
    pub(crate) fn gateway_vlan(&self) -> Option<(&str, u16)> {
        self.options.vlan_link.as_deref().zip(self.options.port.vlan)
    }
}

impl Network {
    /// The addresses that the gateway's link has, each once, IPv4 first; none where the bridge is no gateway.
    pub(crate) fn gateway_networks(&self) -> Vec<IpNetwork> {
        if self.options.is_gateway { self.pools.gateway_networks() } else { Vec::new() }
    }

    /// Whether containers have no addresses of its giving.
    pub(crate) fn is_layer_2(&self) -> bool {
        self.pools.iter().next().is_none()
    }

    /// The routes of a container that was given `own`, each with its next hop. Errors: 7 where it does not reach one.
    pub(crate) fn container_routes(&self, own: &[Allocation]) -> Result<Vec<Route>> {
        let gateway = |ipv4: bool| own.iter().map(|own| own.gateway).find(|gateway| gateway.is_ipv4() == ipv4);
        let mut routes = self.routes.clone();
        let gateways = [gateway(true), gateway(false)].into_iter().flatten();
        for gateway in gateways.filter(|_| self.options.is_default_gateway) {
            let mut default = Route::default_by(gateway);
            default.attributes.priority = self.default_metric.map(|metric| metric.base);
            // Without a metric that is said, one is enough.
            let is_it = |route: &Route| {
                route.destination == default.destination
                    && route.attributes.is_in_main_table()
                    && (self.default_metric.is_none() || route.attributes.priority == default.attributes.priority)
            };
            if !routes.iter().any(is_it) {
                routes.push(default);
            }
        }
        for route in &mut routes {
            route.gateway = routes::next_hop(route, gateway(route.destination.is_ipv4()));
        }
        routes::refuse_unreachable(&routes, own)?;
        Ok(routes)
    }

    /// Reads the file that `dns` comes from, if there is one; what the configuration itself says as `dns` goes before. Errors: 7.
    pub(crate) async fn read_resolv_conf(&mut self) -> Result<()> {
        let Some(path) = &self.resolv_conf else { return Ok(()) };
        let dns = resolv_conf::read(path).await?;
        if self.dns.is_empty() {
            self.dns = dns;
        }
        Ok(())
    }

    /// The subnets, to be shown.
    pub(crate) fn subnets_in_words(&self) -> String {
        self.pools.subnets().iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(", ")
    }

    /// A network whose addresses must be flatnet's to give. Errors: 2 and 7.
    pub(crate) fn parse(config: &Map<String, Value>) -> Result<Self> {
        match Configured::parse(config)? {
            Configured::Whole(network) => Ok(network),
            Configured::Delegated(_, plugin) => Err(Error::Unsupported {
                key: "ipam.type".into(),
                value: format!("{plugin:?}"),
                remedy: "leave ipam.type out: flatnet allocates this network's addresses itself".into(),
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
        let ipam_section = section.optional_section("ipam")?;
        let addressing =
            ipam_section.as_ref().map(|ipam| !ipam.has_only_empty("type") || ipam::has_runtime_ranges(config));
        let (options, has_addresses) = BridgeOptions::parse(&mut section, &bridge, addressing)?;
        let dad = section.boolean("enabledad")?.unwrap_or(false);
        refuse_spoofing_check(&section, macspoofchk, (&options, has_addresses))?;
        if !has_addresses && ipam::has_runtime_ranges(config) {
            let without = "is set, but without ipam the network has no addresses: add `\"ipam\": {}`, or leave it out";
            return Err(section.problem("runtimeConfig.ipRanges", without));
        }
        let ipam = match ipam_section.filter(|_| has_addresses) {
            Some(ipam_section) => ipam(ipam_section, config)?,
            None => Ipam::Own(Box::default()),
        };
        let dns = dns(section.optional_section("dns")?)?;
        let masquerade = masquerade(&mut section, &options, has_addresses)?;
        let gateways = section.strings("gateways")?.unwrap_or_default();
        let gateways = gateways::parse(gateways.iter().map(String::as_str));
        let gateways = gateways.map_err(|problem| section.problem("gateways", problem))?;
        section.end()?;
        let (routes, resolv_conf, pools) = (Vec::new(), None, ());
        let draft = Network {
            name,
            bridge,
            mtu,
            macspoofchk,
            dad,
            pools,
            masquerade,
            gateways,
            routes,
            default_metric: None,
            dns,
            resolv_conf,
            options,
        };
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

/// What `macspoofchk` cannot go with. Errors: 7.
fn refuse_spoofing_check(
    section: &Section,
    macspoofchk: bool,
    (options, has_addresses): (&BridgeOptions, bool),
) -> Result<()> {
    let problem = |key, words: &str| Err(section.problem(key, words));
    match macspoofchk {
        true if !options.port.trunk.is_empty() => {
            problem("vlanTrunk", "is set, but macspoofchk is true, which drops tagged frames: use one of them")
        }
        // The rules are of ports that have an address: no port would be among them, and everything would pass.
        true if !has_addresses => problem("macspoofchk", "is true, but without ipam there are no addresses to check"),
        _ => Ok(()),
    }
}

/// `ipMasq`, and `ipMasqBackend` of the reference plugin, which says something only where there is masquerading. Errors: 2 and 7.
fn masquerade(section: &mut Section, options: &BridgeOptions, has_addresses: bool) -> Result<bool> {
    // Without addresses there is nothing to masquerade: the reference takes the key there, and it has no effect.
    let masquerade = section.boolean("ipMasq")?.unwrap_or(options.is_gateway) && has_addresses;
    match section.string("ipMasqBackend")?.filter(|backend| masquerade && backend != "nftables") {
        None => Ok(masquerade),
        Some(backend) => Err(Error::Unsupported {
            key: "ipMasqBackend".into(),
            value: format!("{backend:?}"),
            remedy: "leave it out: flatnet masquerades with nftables, which works beside iptables; or set ipMasq to false and masquerade yourself".into(),
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
        Some(plugin) if !plugin.is_empty() && plugin != OWN_IPAM => match plugin_name_problem(&plugin) {
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

/// An address, or nothing; an empty text is nothing, as in the reference.
pub(crate) fn address(section: &mut Section, key: &'static str) -> Result<Option<IpAddr>> {
    let Some(text) = section.string(key)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<IpAddr>() {
        // IPv4 in the dress of IPv6 is IPv4, as in the reference.
        Ok(address) => Ok(Some(address.to_canonical())),
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
mod tests;
