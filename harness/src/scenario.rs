//! A scenario: one claim about the plugin, as a world, networks and steps.
//!
//! Invariant: whatever is loaded can be run: names it uses exist, each step has one verb, and every option belongs to its verb.

mod chain;
mod kernel;
mod mistake;
mod network;
mod raw;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use ipnetwork::IpNetwork;

use crate::conformance::{Judged, Missing, Need, Rule, Strength, Subject};
pub use crate::lab::{HostSpec, Proxy, Role};
use crate::lacking::Stock;
use crate::verb::Verb;

pub use chain::Chain;
pub use kernel::Kernel;
pub use mistake::Mistake;
pub use network::Network;

/// A scenario, ready to run.
#[derive(Debug)]
pub struct Scenario {
    /// The file that it came from.
    pub file: PathBuf,
    /// What it claims, in a sentence.
    pub summary: String,
    /// Whether it takes long, and mostly waits: among many it begins first.
    pub slow: bool,
    /// What it needs of the kernel that not every kernel has.
    pub kernel: Option<Kernel>,
    /// The kernels that its nodes seem to have when it is run once more, one after the other.
    pub kernels: Vec<Stock>,
    /// What it is about: hosts and networks.
    pub setting: Arc<Setting>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// The hosts and networks that steps refer to.
#[derive(Debug)]
pub struct Setting {
    /// All hosts, by name.
    pub hosts: BTreeMap<String, HostSpec>,
    /// What containers are added to unless a step names another.
    pub network: Network,
    /// Further networks, by name.
    pub networks: BTreeMap<String, Network>,
    /// The other plugins of those that have several, by the same names; the first network's by none.
    pub chains: BTreeMap<Option<String>, Chain>,
    /// Whether flatnet is installed, with files of these networks.
    pub installed: bool,
    /// The rule of CNI that is tried, if it is one.
    pub rule: Option<Rule>,
    /// The plugin that is held against it, if it is not flatnet as every other scenario has it.
    pub subject: Option<Subject>,
}

/// A step as it was written, and what it means.
#[derive(Debug)]
pub struct Step {
    /// Where it begins in the file, counted from 1.
    pub line: usize,
    /// Its text.
    pub source: String,
    /// What a plugin has to have for it; it is left out where that is missing.
    pub needs: Vec<Need>,
    /// How strong what it expects is, where that is less than its rule.
    pub strength: Strength,
    /// What it does.
    pub verb: Box<dyn Verb>,
}

impl Scenario {
    /// Reads a file; a mistake in it is an error that says where it is.
    pub fn load(file: &Path) -> Result<Self> {
        Self::load_for(file, None)
    }

    /// Reads one that is part of this program, which people know by `name`.
    pub fn built_in(name: &str, text: &str) -> Result<Self> {
        let file = Path::new(name);
        raw::parse(file, text, None).map_err(|mistake| anyhow!("{}", mistake.at(file, text)))
    }

    /// Reads a file, to be held against `subject` in flatnet's place.
    pub fn load_for(file: &Path, subject: Option<&Subject>) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        raw::parse(file, &text, subject).map_err(|mistake| anyhow!("{}", mistake.at(file, &text)))
    }

    /// The same, with nodes that lack what `kernel` lacks.
    #[must_use]
    pub fn on(mut self, kernel: Stock) -> Self {
        // Nobody else has it yet.
        for host in Arc::get_mut(&mut self.setting).into_iter().flat_map(|setting| setting.hosts.values_mut()) {
            if host.role == Role::Node {
                host.lacks.extend(kernel.lacks());
            }
        }
        self
    }
}

impl Setting {
    /// The hosts of the picture (a LAN client, a Windows gateway, a WSL node) and the shipped network.
    pub fn usual() -> Result<Self> {
        let network = Network::shipped()?;
        Ok(Self::of(raw::usual_hosts(network.has_ipv6()), network))
    }

    /// A host of its own for a plugin that nothing is known of: `host`, with one link, eth0.
    pub fn bare(network: Network) -> Self {
        Self::of(raw::bare_host(network.has_ipv6()), network)
    }

    /// These hosts and that network, and nothing else.
    pub fn of(hosts: BTreeMap<String, HostSpec>, network: Network) -> Self {
        let (networks, chains) = (BTreeMap::new(), BTreeMap::new());
        Self { hosts, network, networks, chains, installed: false, rule: None, subject: None }
    }

    /// Whether that is looked at after every step: of a plugin that is held against one rule, only what the rule is about.
    pub fn judges(&self, what: Judged) -> bool {
        self.subject.is_none() || self.rule.as_ref().is_some_and(|rule| rule.judges.contains(&what))
    }

    /// What of `needs` is not there, if anything; flatnet has them all.
    pub fn missing(&self, needs: &[Need]) -> Option<Missing> {
        let traits = &self.subject.as_ref()?.traits;
        needs.iter().find_map(|need| need.missing(traits))
    }

    /// The network of that name, or the one that is used where no name is given.
    pub fn network(&self, name: Option<&str>) -> Option<&Network> {
        name.map_or(Some(&self.network), |name| self.networks.get(name))
    }

    /// The other plugins of that network, if it has any.
    pub fn chain(&self, name: Option<&str>) -> Option<&Chain> {
        self.chains.get(&name.map(str::to_owned))
    }

    /// Says so if the network has several plugins: what calls flatnet alone would leave the others out.
    pub fn alone(&self, name: Option<&str>) -> Result<(), String> {
        self.chain(name).map_or(Ok(()), |_| Err("that network has several plugins, and this calls one".to_owned()))
    }

    /// Each network with all its plugins, in order.
    pub fn lists(&self) -> impl Iterator<Item = Vec<&Network>> {
        let names = std::iter::once(None).chain(self.networks.keys().map(|name| Some(name.as_str())));
        names.filter_map(|name| {
            let own = self.network(name)?;
            Some(self.chain(name).map_or_else(|| vec![own], |chain| chain.around(own).collect()))
        })
    }

    /// All networks.
    pub fn all_networks(&self) -> impl Iterator<Item = &Network> {
        std::iter::once(&self.network).chain(self.networks.values())
    }

    /// The ranges that containers get addresses from, each once.
    pub fn subnets(&self) -> Vec<IpNetwork> {
        let all: BTreeSet<IpNetwork> = self.all_networks().flat_map(Network::subnets).collect();
        all.into_iter().collect()
    }

    /// The names of all hosts in that role.
    pub fn in_role(&self, role: Role) -> impl Iterator<Item = &str> {
        self.hosts.iter().filter(move |(_, host)| host.role == role).map(|(name, _)| name.as_str())
    }

    /// `on` if it names a node; without it, the only node there is.
    pub fn node<'a>(&'a self, on: Option<&'a str>) -> Result<&'a str, String> {
        let mut nodes = self.in_role(Role::Node);
        match (on, nodes.next(), nodes.next()) {
            (Some(name), ..) => match self.hosts.get(name) {
                Some(host) if host.role == Role::Node => Ok(name),
                Some(_) => Err(format!("{name} is not a node: containers do not run there")),
                None => Err(format!("there is no host named {name}")),
            },
            (None, Some(node), None) => Ok(node),
            (None, None, _) => Err("there is no node in [hosts]".to_owned()),
            (None, Some(_), Some(_)) => Err("there are several nodes: say `on`".to_owned()),
        }
    }
}
