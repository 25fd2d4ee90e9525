//! The ground on which a contender stands: a node, containers, and what is taken there.
//!
//! Invariant: must only be used inside a [`crate::sandbox`]; every call is one that a runtime makes, with what it would send.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::Who;
use crate::inventory::{self, nftables};
use crate::lab::{self, Lab, Namespace, View};
use crate::plugin::{Answer, Call, PATIENCE, Plugins, environment};
use crate::scenario::{Network, Setting};

/// The host on which containers run.
const NODE: &str = "wsl";
/// What each container's interface is called.
const INTERFACE: &str = "eth0";
/// Where host-local keeps its leases.
const HOST_LOCAL: &str = "/var/lib/cni/networks";

/// One of the two, with the configuration that it gets.
pub(super) struct Contender {
    pub(super) who: Who,
    pub(super) plugins: Plugins,
    pub(super) network: Network,
}

/// A node with containers on it.
pub(super) struct Ground {
    pub(super) contender: Contender,
    pub(super) lab: Lab,
    results: BTreeMap<String, Value>,
}

/// What is taken on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) links: BTreeSet<String>,
    pub(super) rules: BTreeSet<String>,
}

impl Contender {
    /// Either of them from `folder`; both with the subnet that flatnet ships.
    pub(super) fn new(who: Who, folder: &Path) -> Result<Self> {
        let plugins = Plugins::locate(Some(folder))?;
        let shipped = Network::shipped()?;
        let network = match who {
            Who::Flatnet => shipped,
            Who::Reference => reference(&shipped)?,
        };
        let programs: &[&str] = if who == Who::Flatnet { &["flatnet"] } else { &["bridge", "host-local"] };
        // Not one that happens to be installed elsewhere.
        if let Some(missing) = programs.iter().find(|program| !plugins.folder().join(program).is_file()) {
            bail!("find the plugin {missing} in {}", folder.display());
        }
        Ok(Self { who, plugins, network })
    }
}

/// As Podman writes it for a network of its own: a gateway, masquerade, hairpins, a default route.
fn reference(shipped: &Network) -> Result<Network> {
    let subnet = *shipped.subnets().first().context("find the shipped subnet")?;
    let config = json!({
        "cniVersion": shipped.version(), "name": "reference", "type": "bridge", "bridge": "cni-podman1",
        "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": { "type": "host-local", "subnet": subnet, "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    match config {
        Value::Object(config) => Ok(Network::new(config)),
        _ => Err(anyhow!("write the configuration of the reference")),
    }
}

impl Ground {
    /// A fresh node.
    pub(super) fn build(contender: Contender) -> Result<Self> {
        let lab = Lab::build(&Setting::usual()?.hosts, &[])?;
        Ok(Self { contender, lab, results: BTreeMap::new() })
    }

    pub(super) fn node(&self) -> Result<&Namespace> {
        Ok(&self.lab.host(NODE)?.namespace)
    }

    /// ADD of a container, which is made if there is none of that name: the address, or what the plugin said instead.
    pub(super) fn add(&mut self, id: &str) -> Result<Result<IpAddr, String>> {
        self.lab.container(id)?;
        let call = self.call("ADD", id)?;
        let result = match call.read(&call.run(self.node()?)?) {
            Ok(Answer::Done(result)) => result.unwrap_or_default(),
            Ok(Answer::Refused(refusal)) => return Ok(Err(format!("error {}: {}", refusal.code, refusal.msg))),
            Err(broken) => return Ok(Err(broken.text)),
        };
        let address = address_in(&result).with_context(|| format!("find an address in {result}"))?;
        self.results.insert(id.to_owned(), result);
        Ok(Ok(address))
    }

    /// ADD of a container that must be there for the rest to mean anything.
    pub(super) fn must_add(&mut self, id: &str) -> Result<IpAddr> {
        self.add(id)?.map_err(|why| anyhow!("attach the container {id}: {why}"))
    }

    /// DEL of a container, with the result of its ADD where a runtime has one; says whether it went well.
    pub(super) fn del(&mut self, id: &str) -> Result<bool> {
        let call = self.call("DEL", id)?;
        let answer = call.read(&call.run(self.node()?)?);
        self.results.remove(id);
        Ok(matches!(answer, Ok(Answer::Done(_))))
    }

    /// The call as libcni makes it.
    pub(super) fn call(&self, command: &str, id: &str) -> Result<Call> {
        let Contender { plugins, network, .. } = &self.contender;
        let mut network = network.clone();
        if let Some(result) = self.results.get(id).filter(|_| command != "ADD") {
            network.set("prevResult", result.clone());
        }
        let args = format!("IgnoreUnknown=1;K8S_POD_NAME={id}");
        let netns = Namespace::named(id);
        let env = environment(command, id, Some(netns.path()), INTERFACE, Some(&args), &plugins.path());
        let binary = plugins.find(network.kind())?;
        Ok(Call { binary, command: command.to_owned(), env, stdin: network.to_json(), patience: PATIENCE })
    }

    /// Ends a container: its namespace goes, and nobody is told.
    pub(super) fn end(&mut self, id: &str) -> Result<()> {
        self.lab.crash(id)
    }

    /// Restarts the node: containers, processes, links, firewall and `/run` go, files elsewhere stay.
    pub(super) fn reboot(&mut self) -> Result<()> {
        self.lab.reboot(NODE)?;
        self.results.clear();
        inventory::clear_run()
    }

    /// What is taken now.
    pub(super) fn taken(&self) -> Result<Taken> {
        let view = View::of(self.node()?)?;
        let addresses = match self.contender.who {
            Who::Flatnet => addresses_in_names(&view),
            Who::Reference => addresses_in_files(self.contender.network.name())?,
        };
        let links = view.links.iter().filter(|link| link.kind == "veth" && !link.name.starts_with("eth"));
        let links = links.map(|link| link.name.clone()).collect();
        let rules = self.node()?.enter(nftables::list)?.into_iter().collect();
        Ok(Taken { addresses, links, rules })
    }

    /// The addresses that containers have, as the kernel says.
    pub(super) fn in_use(&self) -> Result<BTreeSet<IpAddr>> {
        let mut found = BTreeSet::new();
        for container in self.lab.containers() {
            let links = View::of(container)?.links;
            let texts = links.iter().filter(|link| link.name != "lo").flat_map(|link| &link.addresses);
            found.extend(texts.filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok()));
        }
        Ok(found)
    }

    /// Does what a person would do about leases that are left: host-local's are files. What flatnet leaves is nobody's to mend.
    pub(super) fn sweep(&self, left: &Taken) -> Result<()> {
        if self.contender.who == Who::Flatnet {
            return Ok(());
        }
        left.addresses.iter().try_for_each(|address| {
            let file = Path::new(HOST_LOCAL).join(self.contender.network.name()).join(address.to_string());
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
        })
    }

    /// What is taken beyond `before`, once the kernel has cleared away what was ended.
    pub(super) fn taken_since(&self, before: &Taken) -> Result<Taken> {
        // What a plugin has started may outlive it.
        let node = self.node()?;
        let look = || node.processes().and_then(|running| Ok((running, self.taken()?)));
        let (running, now) =
            lab::settle(look, |(running, now)| running.is_empty() && now.links.is_subset(&before.links))?;
        ensure!(running.is_empty(), "see what the plugin has started end");
        Ok(Taken {
            addresses: &now.addresses - &before.addresses,
            links: &now.links - &before.links,
            rules: &now.rules - &before.rules,
        })
    }
}

fn addresses_in_names(view: &View) -> BTreeSet<IpAddr> {
    let names = view.links.iter().flat_map(|link| &link.names);
    names.filter_map(|name| name.strip_prefix("flatnet-ip-")?.parse().ok()).collect()
}

/// host-local has a file for each address, and some for itself.
fn addresses_in_files(network: &str) -> Result<BTreeSet<IpAddr>> {
    let folder = Path::new(HOST_LOCAL).join(network);
    let entries = match fs::read_dir(&folder) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(|| format!("list {}", folder.display()))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn address_in(result: &Value) -> Option<IpAddr> {
    let text = result.get("ips")?.get(0)?.get("address")?.as_str()?;
    text.split('/').next()?.parse().ok()
}
