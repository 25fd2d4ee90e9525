//! What `setup` and `teardown` read (`NetworkPluginExec` of netavark), lowered to a CNI verb's target, network and ports.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{network, ports};
use crate::attachment::{Args, Target};
use crate::config::section::Section;
use crate::config::{self, Network};
use crate::error::{Error, Result};
use crate::family::IpFamily;
use crate::firewall::ports::Port;
use crate::mac::Mac;
use crate::names::{container_problem, interface_name_problem};

/// One container that is to be attached.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) target: Target,
    pub(crate) network: Network,
    pub(crate) ports: Vec<Port>,
}

/// One attachment that is to be taken back: less is asked of the text, so that nothing keeps it from going.
#[derive(Debug)]
pub(crate) struct Teardown {
    pub(crate) target: Target,
    /// The network's name.
    pub(crate) network: String,
    /// The link by which the host reaches the network's containers.
    pub(crate) gateway_link: String,
    /// Whether ports were to be published.
    pub(crate) published: bool,
}

impl Setup {
    /// Errors: 2 and 7.
    pub(crate) fn parse(request: &Map<String, Value>, netns: &str) -> Result<Self> {
        let (network, _) = network::parse("network", object(request, "network")?)?;
        let mut target = target(request, netns)?;
        let options = object(request, "network_options")?;
        target.args = args(Section::new("network_options", options), &network)?;
        target.args.name = Section::new("", request).string("container_name")?.filter(|name| !name.is_empty());
        let families: Vec<_> = IpFamily::BOTH.into_iter().filter(|family| network.has(*family)).collect();
        let ports = ports::parse(request.get("port_mappings"), &families)?;
        Ok(Self { target, network, ports })
    }
}

impl Teardown {
    /// Errors: 7 where it does not say which attachment it is about.
    pub(crate) fn parse(request: &Map<String, Value>, netns: &str) -> Result<Self> {
        let network = object(request, "network")?;
        let published = request.get("port_mappings").and_then(Value::as_array).is_some_and(|ports| !ports.is_empty());
        Ok(Self {
            target: target(request, netns)?,
            gateway_link: network::gateway_link("network", network),
            network: config::name_of(network)?,
            published,
        })
    }
}

fn object<'a>(request: &'a Map<String, Value>, key: &str) -> Result<&'a Map<String, Value>> {
    let problem = || Error::Config { key: key.into(), problem: "is missing or not an object".into() };
    request.get(key).and_then(Value::as_object).ok_or_else(problem)
}

fn target(request: &Map<String, Value>, netns: &str) -> Result<Target> {
    let mut outer = Section::new("", request);
    let container = outer.required_string("container_id")?;
    if let Some(problem) = container_problem(&container) {
        return Err(outer.problem("container_id", problem));
    }
    let mut options = outer.section("network_options")?;
    let interface = options.required_string("interface_name")?;
    if let Some(problem) = interface_name_problem(&interface) {
        return Err(options.problem("interface_name", problem));
    }
    Ok(Target { container, interface, netns: netns.into(), args: Args::default() })
}

fn args(mut options: Section, network: &Network) -> Result<Args> {
    refuse_options(options.object("options")?)?;
    let texts = options.strings("static_ips")?.unwrap_or_default();
    let mut ips = Vec::new();
    for text in &texts {
        let ip = static_ip(&options, text, network)?;
        // `podman network reload` asks for what was asked at first, and once more for what the container has.
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    let mac = options.string("static_mac")?.filter(|mac| !mac.is_empty());
    let mac = mac.map(|text| {
        text.parse::<Mac>().map_err(|problem| options.problem("static_mac", format!("is {text}, which {problem}")))
    });
    Ok(Args { ips, mac: mac.transpose()?, name: None })
}

/// What Podman does not know after `--network flatnet:`, it hands on; each is a key and its value. Errors: 2.
fn refuse_options(options: Option<&Map<String, Value>>) -> Result<()> {
    match options.and_then(|options| options.iter().next()) {
        None => Ok(()),
        Some((key, value)) => Err(Error::Unsupported {
            key: format!("network_options.options.{key}"),
            value: value.to_string(),
            remedy:
                "leave it out of `--network <network>:..`: a container has ip, mac, alias and interface_name there, \
                and the network its options (`podman network create --opt`)"
                    .into(),
        }),
    }
}

fn static_ip(options: &Section, text: &str, network: &Network) -> Result<IpAddr> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(options.problem("static_ips", format!("has {text:?}, which is not an IP address")));
    };
    network.pools.refusal(address).map_or(Ok(address), |refusal| {
        Err(Error::Requested { source: "static_ips", problem: format!("address {text} {refusal}") })
    })
}
