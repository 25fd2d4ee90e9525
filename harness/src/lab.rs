//! The network of a world: hosts, the wires between them, and containers.
//!
//! Invariant: must only be used inside a [`crate::sandbox`]; a host sees the others over its wires and in no other way.

mod burial;
mod change;
mod namespace;
mod tap;
mod view;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, anyhow};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::lacking::Piece;

pub(crate) use burial::settle;
pub use change::replace_route;
pub use namespace::{FOLDER, Namespace};
pub use tap::{Ears, Tap};
pub use view::{Link, Route, TABLE_LOCAL, View};

/// What a host is in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A machine of the LAN: knows no route to containers.
    Client,
    /// Reaches containers by a route over the node, and proxies to them.
    Gateway,
    /// Runs containers: the plugin is called here.
    Node,
}

/// What serves port 80 of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// The harness's own forwarder.
    #[default]
    Builtin,
    /// nginx, or `OpenResty`, with the shipped configuration.
    Nginx,
}

/// A host as it is asked for.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// What it is.
    pub role: Role,
    /// Its wires, in order, and its addresses on each.
    pub wires: Vec<Vec<IpNetwork>>,
    /// Of its wires, in bytes; the kernel's own (1500) if not said.
    pub mtu: Option<u32>,
    /// What serves its port 80, if it is a gateway, or a node with nginx.
    pub proxy: Proxy,
    /// What its kernel lacks, as far as the programs can see that run there.
    pub lacks: BTreeSet<Piece>,
}

impl HostSpec {
    /// Whether it proxies to containers: a gateway does, and a node where nginx was asked for.
    pub fn proxies(&self) -> bool {
        self.role == Role::Gateway || self.proxy == Proxy::Nginx
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &IpNetwork> {
        self.wires.iter().flatten()
    }

    /// Its addresses on subnets that `other` has an address on too.
    pub fn addresses_beside(&self, other: &Self) -> impl Iterator<Item = IpAddr> {
        let shared = |mine: &&IpNetwork| other.addresses().any(|theirs| subnet(theirs) == subnet(mine));
        self.addresses().filter(shared).map(IpNetwork::ip)
    }
}

/// A host as it stands.
#[derive(Debug)]
pub struct Host {
    /// As it was asked for.
    pub spec: HostSpec,
    /// Its network.
    pub namespace: Namespace,
}

/// All hosts and containers of a world.
#[derive(Debug, Default)]
pub struct Lab {
    hosts: BTreeMap<String, Host>,
    containers: BTreeMap<String, Namespace>,
}

impl Lab {
    /// Builds the hosts, wires them up, and gives gateways routes to the `flat` ranges.
    pub fn build(specs: &BTreeMap<String, HostSpec>, flat: &[IpNetwork]) -> Result<Self> {
        let mut hosts = BTreeMap::new();
        for (name, spec) in specs {
            let namespace = Namespace::create(name).with_context(|| format!("make the host {name}"))?;
            let namespace = namespace.lacking(spec.lacks.clone());
            hosts.insert(name.clone(), Host { spec: spec.clone(), namespace });
        }
        let switches = switches(specs);
        let mut cables = Vec::new();
        for host in hosts.values() {
            for (eth, addresses) in host.spec.wires.iter().enumerate() {
                let has_one = |switch: &BTreeSet<Subnet>| addresses.iter().any(|it| switch.contains(&subnet(it)));
                let switch = switches.iter().position(has_one).context("find the switch of a wire")?;
                cables.push(wire::Cable { switch, host: &host.namespace, eth, mtu: host.spec.mtu });
            }
        }
        wire::lay(switches.len(), &cables)?;
        for (name, host) in &hosts {
            let routes = routes_of(&host.spec, specs, flat);
            wire::configure(&host.namespace, &host.spec.wires, &routes)
                .with_context(|| format!("configure the host {name}"))?;
            change::stop_forwarding(&host.namespace)?;
        }
        Ok(Self { hosts, containers: BTreeMap::new() })
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.get(name).ok_or_else(|| anyhow!("find a host named {name}"))
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.hosts.iter().map(|(name, host)| (name.as_str(), host))
    }

    /// All containers, by name.
    pub fn containers(&self) -> impl Iterator<Item = &Namespace> {
        self.containers.values()
    }

    /// The container of that name; its namespace, `lo` down, is made when it is first named.
    pub fn container(&mut self, name: &str) -> Result<&Namespace> {
        if !self.containers.contains_key(name) {
            let namespace = Namespace::create(name).with_context(|| format!("make the container {name}"))?;
            self.containers.insert(name.to_owned(), namespace);
        }
        self.namespace(name)
    }

    /// The host or existing container of that name.
    pub fn namespace(&self, name: &str) -> Result<&Namespace> {
        let host = self.hosts.get(name).map(|host| &host.namespace);
        host.or_else(|| self.containers.get(name)).ok_or_else(|| anyhow!("find a host or container named {name}"))
    }

    /// Ends a container as a crash does: its processes are killed, its namespace goes, nobody is told.
    pub fn crash(&mut self, name: &str) -> Result<()> {
        let namespace = self.containers.remove(name).ok_or_else(|| anyhow!("find a container named {name}"))?;
        namespace.kill_processes()?;
        namespace.remove()
    }

    /// Gives a host another address in the place of `from`, which the others forget; tells on which link.
    pub fn renumber(&self, name: &str, from: IpNetwork, to: IpNetwork) -> Result<String> {
        let link = change::renumber(&self.host(name)?.namespace, from, to)?;
        self.hosts().try_for_each(|(_, host)| change::forget_neighbour(&host.namespace, from.ip()))?;
        Ok(link)
    }

    /// Pulls the cable of a host's `eth`-th link, or plugs it in again.
    pub fn plug(&self, name: &str, eth: usize, up: bool) -> Result<()> {
        // Cables are numbered as they were laid: host by host, in the order of the addresses.
        let before = self.hosts().take_while(|(other, _)| *other != name).map(|(_, host)| host.spec.wires.len());
        let number = before.sum::<usize>() + eth;
        self.host(name)?;
        wire::plug(number, up)
    }

    /// Ends what runs on a node and in all containers, and leaves the node's network as it comes up.
    pub fn reboot(&mut self, node: &str) -> Result<()> {
        self.crash_all()?;
        change::restart(&self.host(node)?.namespace)
    }

    /// Ends all containers.
    pub fn crash_all(&mut self) -> Result<()> {
        let names: Vec<String> = self.containers.keys().cloned().collect();
        names.iter().try_for_each(|name| self.crash(name))
    }
}

/// Reads the kernel setting `name` (like `net.ipv4.ip_forward`) as `namespace` has it.
pub fn sysctl(namespace: &Namespace, name: &str) -> Result<String> {
    let file = sysctl_file(name);
    namespace.enter(|| Ok(fs::read_to_string(&file).with_context(|| format!("read {name}"))?.trim().to_owned()))
}

/// Sets the kernel setting `name` in `namespace`.
pub fn set_sysctl(namespace: &Namespace, name: &str, value: &str) -> Result<()> {
    let file = sysctl_file(name);
    namespace.enter(|| fs::write(&file, value).with_context(|| format!("set {name} to {value}")))
}

fn sysctl_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

type Subnet = (IpAddr, u8);

fn subnet(address: &IpNetwork) -> Subnet {
    (address.network(), address.prefix())
}

/// The switches that the hosts' wires lead to, each as the subnets that are on it: wires that share one share the others too.
fn switches(specs: &BTreeMap<String, HostSpec>) -> Vec<BTreeSet<Subnet>> {
    let mut switches: Vec<BTreeSet<Subnet>> = Vec::new();
    for wire in specs.values().flat_map(|spec| &spec.wires) {
        let mut own: BTreeSet<Subnet> = wire.iter().map(subnet).collect();
        for shared in switches.extract_if(.., |switch| !switch.is_disjoint(&own)).collect::<Vec<_>>() {
            own.extend(shared);
        }
        switches.push(own);
    }
    switches
}

/// A gateway's ways to containers, a node's ways to the rest of the world, of both families; a client gets none.
fn routes_of(spec: &HostSpec, all: &BTreeMap<String, HostSpec>, flat: &[IpNetwork]) -> Vec<(IpNetwork, IpAddr)> {
    let beside = |role: Role, ipv6: bool| {
        let others = all.values().filter(move |other| other.role == role);
        others.flat_map(|other| other.addresses_beside(spec)).find(|address| address.is_ipv6() == ipv6)
    };
    match spec.role {
        Role::Client => Vec::new(),
        Role::Gateway => flat.iter().filter_map(|range| Some((*range, beside(Role::Node, range.is_ipv6())?))).collect(),
        Role::Node => {
            let gateways = [false, true].into_iter().filter_map(|ipv6| beside(Role::Gateway, ipv6));
            gateways.filter_map(|gateway| Some((everything(gateway)?, gateway))).collect()
        }
    }
}

/// All addresses of the family of `address`.
fn everything(address: IpAddr) -> Option<IpNetwork> {
    let unspecified = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNetwork::new(unspecified, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::{HostSpec, Proxy, Role, routes_of, switches};
    use std::collections::{BTreeMap, BTreeSet};

    fn host(role: Role, wires: &[&[&str]]) -> HostSpec {
        let addresses = |wire: &&[&str]| wire.iter().map(|address| address.parse().unwrap()).collect();
        HostSpec {
            role,
            wires: wires.iter().map(addresses).collect(),
            mtu: None,
            proxy: Proxy::Builtin,
            lacks: BTreeSet::new(),
        }
    }

    fn all(hosts: [(&str, &HostSpec); 3]) -> BTreeMap<String, HostSpec> {
        hosts.map(|(name, spec)| (name.to_owned(), spec.clone())).into()
    }

    #[test]
    fn only_the_gateway_knows_the_way_to_containers() {
        let lan = host(Role::Client, &[&["192.168.50.9/24", "fd50::9/64"]]);
        let windows = host(Role::Gateway, &[&["192.168.50.1/24", "fd50::1/64"], &["172.30.0.1/24", "fd30::1/64"]]);
        let wsl = host(Role::Node, &[&["172.30.0.2/24", "fd30::2/64"]]);
        let flat = ["10.87.1.0/24".parse().unwrap(), "fd87:1::/64".parse().unwrap()];
        let all = all([("lan", &lan), ("windows", &windows), ("wsl", &wsl)]);
        assert_eq!(routes_of(&lan, &all, &flat), []);
        let by_wsl = [(flat[0], "172.30.0.2".parse().unwrap()), (flat[1], "fd30::2".parse().unwrap())];
        assert_eq!(routes_of(&windows, &all, &flat), by_wsl);
        let by_windows = [("0.0.0.0/0", "172.30.0.1"), ("::/0", "fd30::1")];
        let by_windows = by_windows.map(|(to, via)| (to.parse().unwrap(), via.parse().unwrap()));
        assert_eq!(routes_of(&wsl, &all, &flat), by_windows);
    }

    #[test]
    fn wires_that_share_a_subnet_share_a_switch() {
        let old = host(Role::Node, &[&["172.30.0.2/24"], &["10.1.0.1/24"]]);
        let new = host(Role::Node, &[&["fd30::3/64"]]);
        let both = host(Role::Gateway, &[&["172.30.0.1/24", "fd30::1/64"]]);
        let mut switches = switches(&all([("a", &old), ("b", &new), ("c", &both)]));
        switches.sort_by_key(BTreeSet::len);
        assert_eq!(switches.iter().map(BTreeSet::len).collect::<Vec<_>>(), [1, 2]);
    }
}
