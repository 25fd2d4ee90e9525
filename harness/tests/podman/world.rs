//! The world of a case: the usual hosts, Podman on the node, and a second gateway on which nginx serves.
//!
//! Invariant: what the world itself runs has ended before it is asked what containers left.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::deadline;
use harness::http::client::{self, NoAnswer, Question};
use harness::http::{forwarder, name, nginx};
use harness::lab::{HostSpec, Proxy, Role};
use harness::plugin::Plugins;
use harness::podman::Podman;
use harness::scenario::{Network, Setting};
use harness::world;

/// How long a container may take from its start to its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A case that cannot run on this machine.
#[derive(Debug)]
pub(crate) struct Skipped(&'static str);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skipped {}

/// A host that passes requests on to containers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gateway {
    name: &'static str,
    proxy: Proxy,
    /// Where the LAN finds it.
    front: Ipv4Addr,
    /// What a container sees of it, if nothing translates on the way.
    pub(crate) back: Ipv4Addr,
}

/// Served by the harness's own forwarder.
pub(crate) const WINDOWS: Gateway = Gateway {
    name: "windows",
    proxy: Proxy::Builtin,
    front: Ipv4Addr::new(192, 168, 50, 1),
    back: Ipv4Addr::new(172, 30, 0, 1),
};

/// Served by nginx with the shipped configuration.
pub(crate) const WINDOWS_WITH_NGINX: Gateway = Gateway {
    name: "windows2",
    proxy: Proxy::Nginx,
    front: Ipv4Addr::new(192, 168, 50, 2),
    back: Ipv4Addr::new(172, 30, 0, 3),
};

const LAN: &str = "lan";
const NODE: &str = "wsl";
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);

pub(crate) struct World {
    pub(crate) podman: Podman,
    world: world::World,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let plugins = Plugins::locate(None)?;
        let host = |role, proxy, addresses: &[Ipv4Addr]| -> Result<HostSpec> {
            let wires = addresses.iter().map(|address| Ok(vec![format!("{address}/24").parse()?]));
            let wires = wires.collect::<Result<_>>().context("read an address")?;
            Ok(HostSpec { role, wires, mtu: None, proxy })
        };
        let mut hosts = vec![
            (LAN.to_owned(), host(Role::Client, Proxy::default(), &[Ipv4Addr::new(192, 168, 50, 9)])?),
            (NODE.to_owned(), host(Role::Node, Proxy::default(), &[NODE_ADDRESS])?),
        ];
        for gateway in [WINDOWS, WINDOWS_WITH_NGINX] {
            let spec = host(Role::Gateway, gateway.proxy, &[gateway.front, gateway.back])?;
            hosts.push((gateway.name.to_owned(), spec));
        }
        let hosts = hosts.into_iter().collect();
        let setting =
            Setting { hosts, network: Network::shipped()?, networks: [].into(), chains: [].into(), installed: false };
        let world = world::World::build(Arc::new(setting), plugins.clone())?;
        let podman = Podman::set_up(&world.lab.host(NODE)?.namespace, &plugins)?;
        Ok(Self { podman, world })
    }

    /// Runs flatnet on the node as a person does: its exit status, and what it said.
    pub(crate) fn flatnet(&self, arguments: &[&str]) -> Result<(i32, String)> {
        self.podman.flatnet(&self.world.plugins, arguments)
    }

    /// What `gateway` itself gets from port 80 of `address`, once that answers.
    pub(crate) fn page_at(&self, gateway: Gateway, address: Ipv4Addr) -> Result<String> {
        self.page(gateway.name, SocketAddr::from((address, 80)), address.to_string())
    }

    /// What the LAN client gets from port 80 of `address` through `gateway`, once that answers.
    pub(crate) fn page_through(&mut self, gateway: Gateway, address: Ipv4Addr) -> Result<String> {
        if gateway.proxy == Proxy::Nginx && nginx::find().is_none() {
            bail!(Skipped("nginx is not installed"));
        }
        self.world.proxy(gateway.name)?;
        let front = SocketAddr::from((gateway.front, forwarder::PORT));
        self.page(LAN, front, name::of(SocketAddrV4::new(address, 80)))
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
        let mut last = None;
        let answer = deadline::until(PATIENCE, || match client::get(from, &question) {
            Ok(Ok(answer)) if answer.status == 200 => Some(answer.body),
            other => {
                last = Some(other);
                None
            }
        });
        answer.with_context(|| format!("get a page from {address}: the last try gave {last:?}"))
    }

    /// Stops what the world itself runs and names what containers left.
    pub(crate) fn end(self) -> Result<Vec<String>> {
        let Self { podman, world } = self;
        drop(world);
        podman.leftovers()
    }
}
