//! The world of a case: the usual hosts, Podman on the node, and a second gateway on which nginx serves.
//!
//! Invariant: what the world itself runs has ended before it is asked what containers left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::http::client::{self, NoAnswer, Question};
use harness::http::{forwarder, name, nginx};
use harness::lab::{HostSpec, Proxy, Role};
use harness::plugin::Plugins;
use harness::podman::Podman;
use harness::scenario::{Network, Setting};
use harness::world;
use ipnetwork::IpNetwork;
use serde_json::{Map, json};

use crate::suite::Skipped;

/// How long a container may take from its start to its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// All hosts; the wire on which containers are reached has both families.
fn hosts() -> Result<BTreeMap<String, HostSpec>> {
    let wire = |addresses: &[IpAddr]| {
        let network = |address: &IpAddr| IpNetwork::new(*address, if address.is_ipv4() { 24 } else { 64 });
        addresses.iter().map(network).collect::<Result<Vec<_>, _>>().context("read an address")
    };
    let host = |role, proxy, wires| HostSpec { role, wires, mtu: None, proxy, lacks: BTreeSet::new() };
    let lan = wire(&[Ipv4Addr::new(192, 168, 50, 9).into()])?;
    let node = wire(&[NODE_ADDRESS.into(), NODE_ADDRESS6.into()])?;
    let mut hosts = BTreeMap::from([
        (LAN.to_owned(), host(Role::Client, Proxy::default(), vec![lan])),
        (NODE.to_owned(), host(Role::Node, Proxy::default(), vec![node])),
    ]);
    for Gateway { name, proxy, front, back, back6 } in [WINDOWS, WINDOWS_WITH_NGINX] {
        let wires = vec![wire(&[front.into()])?, wire(&[back.into(), back6.into()])?];
        hosts.insert(name.to_owned(), host(Role::Gateway, proxy, wires));
    }
    Ok(hosts)
}

/// A host that passes requests on to containers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gateway {
    name: &'static str,
    proxy: Proxy,
    /// Where the LAN finds it.
    front: Ipv4Addr,
    /// What a container sees of it, if nothing translates on the way.
    pub(crate) back: Ipv4Addr,
    pub(crate) back6: Ipv6Addr,
}

/// Served by the harness's own forwarder.
pub(crate) const WINDOWS: Gateway = Gateway {
    name: "windows",
    proxy: Proxy::Builtin,
    front: Ipv4Addr::new(192, 168, 50, 1),
    back: Ipv4Addr::new(172, 30, 0, 1),
    back6: Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 1),
};

/// Served by nginx with the shipped configuration.
pub(crate) const WINDOWS_WITH_NGINX: Gateway = Gateway {
    name: "windows2",
    proxy: Proxy::Nginx,
    front: Ipv4Addr::new(192, 168, 50, 2),
    back: Ipv4Addr::new(172, 30, 0, 3),
    back6: Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 3),
};

const LAN: &str = "lan";
const NODE: &str = "wsl";
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
const NODE_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 2);

/// The networks that cases make beside the shipped one: name, bridge, subnets.
pub(crate) const SECOND_NETWORK: (&str, &str, &[&str]) = ("second", "flatnet-br1", &["10.87.2.0/24"]);
pub(crate) const DUAL_NETWORK: (&str, &str, &[&str]) = ("dual", "flatnet-br6", &["10.87.6.0/24", "fd87:6::/64"]);

pub(crate) struct World {
    pub(crate) podman: Podman,
    world: world::World,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let plugins = Plugins::locate(None)?;
        let hosts = hosts()?;
        // Gateways have routes to them, whether a case makes them or not.
        let networks = [SECOND_NETWORK, DUAL_NETWORK].map(|(name, _, subnets)| {
            let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
            (name.to_owned(), Network::new(Map::from_iter([("ipam".to_owned(), json!({ "ranges": ranges }))])))
        });
        let networks = networks.into();
        let setting = Setting { networks, ..Setting::of(hosts, Network::shipped()?) };
        let world = world::World::build(Arc::new(setting), plugins.clone())?;
        let podman = Podman::set_up(&world.lab.host(NODE)?.namespace, &plugins)?;
        Ok(Self { podman, world })
    }

    /// Runs flatnet on the node as a person does: its exit status, and what it said.
    pub(crate) fn flatnet(&self, arguments: &[&str]) -> Result<(i32, String)> {
        self.podman.flatnet(&self.world.plugins, arguments)
    }

    /// Makes one of the networks that there are routes to.
    pub(crate) fn add_network(&self, (name, bridge, subnets): (&str, &str, &[&str])) -> Result<()> {
        self.podman.add_network(name, bridge, subnets)
    }

    /// What `gateway` itself gets from port 80 of `address`, once that answers.
    pub(crate) fn page_at(&self, gateway: Gateway, address: impl Into<IpAddr>) -> Result<String> {
        let address = SocketAddr::from((address, 80));
        self.page(gateway.name, address, address.ip().to_string())
    }

    /// What the LAN client gets from port 80 of `address` through `gateway`, once that answers.
    pub(crate) fn page_through(&mut self, gateway: Gateway, address: impl Into<IpAddr>) -> Result<String> {
        if gateway.proxy == Proxy::Nginx && nginx::find().is_none() {
            bail!(Skipped("nginx is not installed".to_owned()));
        }
        self.world.proxy(gateway.name)?;
        let front = SocketAddr::from((gateway.front, forwarder::PORT));
        self.page(LAN, front, name::of(SocketAddr::from((address, 80))))
    }

    /// What `gateway` itself gets from a published port of the node, once that answers.
    pub(crate) fn page_of_port(&self, gateway: Gateway, port: u16) -> Result<String> {
        self.page(gateway.name, SocketAddr::from((NODE_ADDRESS, port)), NODE_ADDRESS.to_string())
    }

    /// What the node itself gets from a published port by its loopback address, once that answers.
    pub(crate) fn page_of_port_on_node(&self, port: u16) -> Result<String> {
        self.page(NODE, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Ipv4Addr::LOCALHOST.to_string())
    }

    /// How one try to get a page from a published port of the node fails.
    pub(crate) fn refusal_of_port(&self, gateway: Gateway, port: u16) -> Result<NoAnswer> {
        let from = &self.world.lab.host(gateway.name)?.namespace;
        let address = SocketAddr::from((NODE_ADDRESS, port));
        let question = Question { address, host: NODE_ADDRESS.to_string(), path: "/".to_owned(), patience: PATIENCE };
        match client::get(from, &question)? {
            Ok(answer) => bail!("be refused at port {port}: the answer is {answer:?}"),
            Err(refusal) => Ok(refusal),
        }
    }

    fn page(&self, from: &str, address: SocketAddr, host: String) -> Result<String> {
        let from = &self.world.lab.host(from)?.namespace;
        let question = Question { address, host, path: "/".to_owned(), patience: PATIENCE };
        Ok(client::get_served(from, &question)?.body)
    }

    /// A restart of the node: containers, links and `/run` go, Podman's storage and flatnet's files stay, nobody is told.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        self.podman.cut_off()?;
        self.world.reboot(NODE)
    }

    /// Stops what the world itself runs and names what containers left.
    pub(crate) fn end(self) -> Result<Vec<String>> {
        let Self { podman, world } = self;
        drop(world);
        podman.leftovers()
    }
}
