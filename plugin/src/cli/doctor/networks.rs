//! The networks of this host as their files describe them, read with the plugin's own eyes.
//!
//! A file that is not flatnet's matters only by what it takes: a name, a bridge, a subnet.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::finding::{BRIDGE, CONFIGURATION, Finding, NETWORK_CLASH};
use crate::cli::gateway::networks::{of_cni, plugin_types};
use crate::cli::podman::{Backend, Settings};
use crate::cli::probe;
use crate::cni::request::Input;
use crate::cni::request::json::{self, Refusal};
use crate::config::{self, Draft, Network};
use crate::error::Error;
use crate::link::bridge;
use crate::netlink::Netlink;
use crate::spec::Command;
use crate::{call, layout, netavark};

/// A network of flatnet's, or what should be one.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) file: PathBuf,
    pub(super) name: String,
    /// The types of its plugins, in order.
    pub(super) plugins: Vec<String>,
    /// Nothing where the file says something that cannot be: then its line is red. Nor before the first container has come, where
    /// another plugin gives the addresses.
    pub(super) network: Option<Network>,
    /// The plugin that gives the addresses, if it is not flatnet.
    pub(super) delegate: Option<String>,
    /// Where a bridge is to tell which addresses they are, and does not: the bridge's line.
    pub(super) untold: Option<Finding>,
    finding: Finding,
}

/// What a file of another kind of network takes.
#[derive(Debug, Default)]
struct Claim {
    file: PathBuf,
    name: String,
    bridges: Vec<String>,
    /// Of a flatnet network, with the gateways' addresses.
    subnets: Vec<IpNetwork>,
    /// Whether it gives its bridge addresses.
    is_gateway: bool,
}

/// All networks that files describe.
#[derive(Debug, Default)]
pub(super) struct Networks {
    pub(super) ours: Vec<Configured>,
    others: Vec<Claim>,
    folder: PathBuf,
    /// Files that could not be read, with the reason.
    unread: Vec<String>,
}

/// The valid networks of either backend's files by their names, or the one of the name `only`.
pub(super) fn described(only: Option<&str>) -> Vec<Network> {
    let folder = Settings::read().network_folder();
    let read = |backend| Networks::read(backend, folder.clone(), only).ours;
    let ours = read(Backend::Cni).into_iter().chain(read(Backend::Netavark));
    let mut networks: Vec<_> = ours.filter_map(|it| it.network).collect();
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    networks.dedup_by(|one, other| one.name == other.name);
    networks
}

impl Networks {
    /// Reads the folder of that backend; `only` leaves out all of flatnet's but the one of that name.
    pub(super) fn read(backend: Backend, folder: Option<PathBuf>, only: Option<&str>) -> Self {
        let (default, extension) = match backend {
            Backend::Cni => (layout::CNI_NETWORKS, "conflist"),
            Backend::Netavark => (layout::NETAVARK_NETWORKS, "json"),
        };
        let folder = folder.unwrap_or_else(|| default.into());
        let mut networks = Self { folder, ..Self::default() };
        if let Err(e) = fs::read_dir(&networks.folder)
            && e.kind() != ErrorKind::NotFound
        {
            networks.unread.push(format!("{} could not be read: {e}", networks.folder.display()));
        }
        for file in probe::files(&networks.folder, extension) {
            match fs::read_to_string(&file) {
                Ok(text) => networks.take(backend, file, &text, only),
                Err(e) => networks.unread.push(format!("{} could not be read: {e}", file.display())),
            }
        }
        networks
    }

    fn take(&mut self, backend: Backend, file: PathBuf, text: &str, only: Option<&str>) {
        let value: Value = match json::parse(text) {
            Ok(value) => value,
            Err(e) => {
                // Who else's it is cannot be known: Podman stumbles over it all the same.
                self.ours.extend(unreadable(file, text, &e));
                return;
            }
        };
        let mut claim = Claim { file, name: text_of(&value, "name"), ..Claim::default() };
        collect(&value, &mut claim);
        let ours = match backend {
            Backend::Cni => plugin_types(&value).any(|kind| kind == "flatnet"),
            Backend::Netavark => text_of(&value, "driver") == "flatnet",
        };
        if !ours {
            self.others.push(claim);
            return;
        }
        let configured = configured(backend, claim, &value);
        if only.is_none_or(|only| only == configured.name) {
            self.ours.push(configured);
        } else {
            self.others.extend(configured.claim());
        }
    }

    /// Why no network is known, where none is.
    pub(super) fn why_unknown(&self) -> String {
        match self.ours.iter().find_map(|it| it.delegate.as_ref()) {
            Some(plugin) => {
                format!("which addresses are the network's is known with its first container: {plugin} gives them")
            }
            None => "no valid network is configured".into(),
        }
    }

    /// Whether anything here is flatnet's.
    pub(super) fn is_empty(&self) -> bool {
        self.ours.is_empty()
    }

    pub(super) fn check(&self, only: Option<&str>) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .unread
            .iter()
            .map(|what| CONFIGURATION.warning(what, "run it as root: `sudo flatnet doctor`"))
            .collect();
        if self.is_empty() && !findings.is_empty() {
            findings.push(NETWORK_CLASH.skipped("the networks could not be read"));
            return findings;
        }
        if self.is_empty() {
            let folder = self.folder.display();
            let missing = match only {
                Some(name) => CONFIGURATION.bad(
                    format!("no network {name} of type flatnet in {folder}"),
                    "pass the name of a network that exists: `podman network ls` lists them",
                ),
                None => CONFIGURATION.bad(format!("no network of type flatnet in {folder}"), "run `flatnet install`"),
            };
            return vec![missing, NETWORK_CLASH.skipped("there is no network to compare")];
        }
        findings.extend(self.ours.iter().map(|it| it.finding.clone()));
        findings.extend(self.clashes());
        findings
    }

    fn clashes(&self) -> Vec<Finding> {
        let valid = || self.ours.iter().filter_map(|it| Some((it, it.network.as_ref()?)));
        let claims: Vec<_> = self.ours.iter().filter_map(Configured::claim).collect();
        let one = |(it, network): (&Configured, &Network)| {
            let others = || claims.iter().chain(&self.others).filter(|other| other.file != it.file);
            let clash = others().find_map(|other| clash(network, other));
            let link = network.gateway_link();
            let sharing: Vec<_> = others().filter(|other| other.has(link)).map(|other| other.name.as_str()).collect();
            let finding = match clash {
                Some((found, remedy)) => NETWORK_CLASH.bad(found, remedy),
                None if !network.options.is_gateway => {
                    NETWORK_CLASH.ok(format!("it is no gateway: {} may be others' as well", network.bridge))
                }
                None if !sharing.is_empty() => NETWORK_CLASH
                    .ok(format!("{link} is shared with network {}: neither is in the other's way", sharing.join(", "))),
                None => NETWORK_CLASH.ok(format!("no other network uses {link} or {}", network.subnets_in_words())),
            };
            finding.of(&it.name)
        };
        let findings: Vec<_> = valid().map(one).collect();
        if findings.is_empty() {
            return vec![NETWORK_CLASH.skipped(self.why_unknown())];
        }
        findings
    }
}

impl Configured {
    /// What it takes, where that is known.
    fn claim(&self) -> Option<Claim> {
        let network = self.network.as_ref()?;
        Some(Claim {
            file: self.file.clone(),
            name: self.name.clone(),
            // One that is no gateway may share its bridge with any network.
            bridges: network.options.is_gateway.then(|| network.gateway_link().to_owned()).into_iter().collect(),
            subnets: network.gateway_networks(),
            is_gateway: network.options.is_gateway,
        })
    }
}

impl Claim {
    fn has(&self, link: &str) -> bool {
        self.bridges.iter().any(|bridge| bridge == link)
    }
}

/// What `other` takes that keeps containers of either network out, and the remedy.
fn clash(network: &Network, other: &Claim) -> Option<(String, String)> {
    let file = other.file.display();
    if other.name == network.name {
        return Some((format!("{file} has the name {} too", other.name), format!("rename or remove one: `rm {file}`")));
    }
    if !network.options.is_gateway {
        return None;
    }
    let link = network.gateway_link();
    if other.has(link) && other.is_gateway {
        // As ADD judges it; two flatnet networks that pass may have one subnet, as the leases are the bridge's.
        let (_, theirs) = bridge::conflict(&network.gateway_networks(), &other.subnets)?;
        let found = format!(
            "network {} ({file}) gives {link} an address of {theirs}: of the two, the one whose container comes first keeps the other out",
            other.name
        );
        return Some((found, "give one of the two another `bridge`".into()));
    }
    let subnets = network.pools.subnets();
    let is_ours = |subnet: &&IpNetwork| subnets.iter().any(|own| bridge::overlap(**subnet, *own));
    let subnet = other.subnets.iter().find(is_ours)?;
    let found = format!("network {} ({file}) has {subnet}, which overlaps {}", other.name, network.subnets_in_words());
    Some((found, "give one of the two another subnet".into()))
}

/// A file that is not JSON; the parser's words end with line and column.
fn unreadable(file: PathBuf, text: &str, refusal: &Refusal) -> Option<Configured> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if stem != layout::NETWORK && !text.contains("\"flatnet\"") {
        return None;
    }
    let found = match refusal {
        Refusal::Malformed(error) => format!("{} is not JSON: {error}", file.display()),
        Refusal::Twice(path) => format!("{} has {path} twice", file.display()),
    };
    let remedy = format!("correct {}, or remove it and run `flatnet install`", file.display());
    let finding = CONFIGURATION.bad(found, remedy).of(&stem);
    Some(Configured { file, name: stem, plugins: Vec::new(), network: None, delegate: None, untold: None, finding })
}

fn configured(backend: Backend, claim: Claim, value: &Value) -> Configured {
    let Claim { file, name, .. } = claim;
    let mut plugins: Vec<_> = plugin_types(value).map(str::to_owned).collect();
    let said = match backend {
        Backend::Cni => of_conflist(value),
        Backend::Netavark => netavark::network(value.as_object().unwrap_or(&Map::new())).map(config::Configured::Whole),
    };
    let (mut delegate, mut untold) = (None, None);
    let parsed = match said {
        Err(error) => Err(error),
        Ok(config::Configured::Whole(network)) => Ok(Some(network)),
        Ok(config::Configured::Delegated(draft, plugin)) => {
            let settled = settled(draft);
            untold = match &settled {
                Ok(Some(_)) => None,
                Ok(None) => Some(BRIDGE.skipped(format!("the first container makes it: {plugin} gives the addresses"))),
                Err(error) => Some(BRIDGE.failed(error)),
            };
            delegate = Some(plugin);
            Ok(settled.ok().flatten())
        }
    };
    let finding = match &parsed {
        Err(error) => CONFIGURATION.bad(format!("{}: {error}", file.display()), remedy(error, &file)),
        Ok(_) if plugins.first().is_some_and(|first| first != "flatnet") => CONFIGURATION.bad(
            format!("{}: flatnet comes after {}", file.display(), plugins[0]),
            "make flatnet the first of `plugins`: it makes the interface that the others work on",
        ),
        Ok(network) => {
            let subnet = network.iter().map(Network::subnets_in_words);
            let by = delegate.iter().map(|plugin| format!("addresses by {plugin}"));
            let parts: Vec<_> = std::iter::once(file.display().to_string()).chain(subnet).chain(by).collect();
            CONFIGURATION.ok(parts.join(", "))
        }
    };
    let finding = finding.of(&name);
    let untold = untold.map(|line| line.of(&name));
    // It must be there as the others must.
    plugins.extend(delegate.clone());
    Configured { file, name, plugins, network: parsed.ok().flatten(), delegate, untold, finding }
}

/// The network as its bridge has it.
fn settled(draft: Draft) -> Result<Option<Network>, Error> {
    call::block_on(call::within_deadline(async {
        let host = Netlink::open()?;
        bridge::from_bridge(&host, draft).await
    }))
}

/// The plugin's own words, but for the place: here it is known.
fn remedy(error: &Error, file: &Path) -> String {
    match error {
        Error::Config { .. } | Error::UnknownKey { .. } => {
            format!("correct {}, as the line above says", file.display())
        }
        other => format!("{} ({})", other.remedy(), file.display()),
    }
}

/// As a runtime hands it to the plugin, with the list's version: one that the plugin does not speak fails every ADD.
fn of_conflist(list: &Value) -> Result<config::Configured, Error> {
    let mut config = of_cni(list).unwrap_or_default();
    if let Some(version) = list.get("cniVersion") {
        config.insert("cniVersion".into(), version.clone());
    }
    let input = Input::negotiate(config, Command::Add)?;
    config::Configured::parse(&input.config)
}

fn text_of(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Bridges and subnets, wherever in the file they are: each plugin has its own place for them.
fn collect(value: &Value, claim: &mut Claim) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, claim)),
        Value::Object(map) => {
            for (key, value) in map {
                // The reference's bridge, and netavark's, which always is one.
                let is_gateway = matches!(key.as_str(), "isGateway" | "isDefaultGateway") && value == true;
                claim.is_gateway |= is_gateway || (key == "driver" && value == "bridge");
                match (key.as_str(), value.as_str()) {
                    ("bridge" | "network_interface", Some(name)) => claim.bridges.push(name.to_owned()),
                    ("subnet", Some(subnet)) => claim.subnets.extend(subnet.parse::<IpNetwork>().ok()),
                    _ => collect(value, claim),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
