//! `renumber`, `route`, `cut`, `mend` and `reboot`: what befalls a host while containers run.
//!
//! Invariant: what a step itself changes for good on a node (its address) is not taken for a leftover; all else is.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::process::NoOptions;
use super::{Failure, Misfit, Verb, misfit};
use crate::lab::{self, Role};
use crate::scenario::Setting;
use crate::world::World;

/// `{ renumber = "wsl", from = "172.30.0.2/24", to = "172.30.0.77/24" }`: another address on the same wire; routes over it stay.
#[derive(Debug)]
pub(super) struct Renumber {
    host: String,
    options: RenumberOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenumberOptions {
    from: IpNetwork,
    to: IpNetwork,
}

impl Renumber {
    pub(super) fn new(host: String, options: RenumberOptions) -> Self {
        Self { host, options }
    }
}

impl Verb for Renumber {
    fn describe(&self) -> String {
        format!("renumber {} to {}", self.host, self.options.to)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        misfit("renumber", setting.node(Some(&self.host)))?;
        let RenumberOptions { from, to } = self.options;
        let wire = |address: IpNetwork| (address.network(), address.prefix());
        let fits = if from == to || wire(from) != wire(to) {
            Err(format!("{to} is not another address on the wire of {from}"))
        } else {
            Ok(())
        };
        misfit("to", fits)
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let RenumberOptions { from, to } = self.options;
        world.tally.mishaps += 1;
        Ok(world.renumber(&self.host, from, to)?)
    }
}

/// `{ route = "windows", to = "10.87.1.0/24", via = "172.30.0.77" }`: the route to that range, in the place of the one before.
#[derive(Debug)]
pub(super) struct Route {
    host: String,
    options: RouteOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteOptions {
    to: IpNetwork,
    via: IpAddr,
}

impl Route {
    pub(super) fn new(host: String, options: RouteOptions) -> Self {
        Self { host, options }
    }
}

impl Verb for Route {
    fn describe(&self) -> String {
        format!("route {} to {} via {}", self.host, self.options.to, self.options.via)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let known = setting.hosts.get(&self.host).map(|host| host.role);
        let fits = match known {
            None => Err(format!("there is no host named {}", self.host)),
            Some(Role::Node) => Err(format!("{} is a node: no route of its own leads to containers", self.host)),
            Some(Role::Gateway | Role::Client) => Ok(()),
        };
        misfit("route", fits)
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let host = &world.lab.host(&self.host)?.namespace;
        lab::replace_route(host, self.options.to, self.options.via)?;
        Ok(String::new())
    }
}

/// `{ cut = "windows", link = "eth1" }`: that wire carries nothing until `{ mend = "windows", link = "eth1" }`.
#[derive(Debug)]
pub(super) struct Plug {
    host: String,
    options: PlugOptions,
    up: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlugOptions {
    link: Option<String>,
}

impl Plug {
    pub(super) fn cut(host: String, options: PlugOptions) -> Self {
        Self { host, options, up: false }
    }

    pub(super) fn mend(host: String, options: PlugOptions) -> Self {
        Self { host, options, up: true }
    }

    fn verb(&self) -> &'static str {
        if self.up { "mend" } else { "cut" }
    }

    /// Which of the host's wires; a host with one has no other.
    fn eth(&self, wires: usize) -> Result<usize, String> {
        let host = &self.host;
        let Some(link) = &self.options.link else {
            return if wires == 1 { Ok(0) } else { Err(format!("{host} has {wires} wires: say `link`")) };
        };
        let eth = link.strip_prefix("eth").and_then(|number| number.parse().ok());
        eth.filter(|eth| *eth < wires).ok_or_else(|| format!("{host} has no wire at {link}"))
    }
}

impl Verb for Plug {
    fn describe(&self) -> String {
        let link = self.options.link.as_ref().map(|link| format!(" {link}")).unwrap_or_default();
        format!("{} {}{link}", self.verb(), self.host)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let host = setting.hosts.get(&self.host).ok_or_else(|| format!("there is no host named {}", self.host));
        misfit(self.verb(), host.as_ref().map_err(Clone::clone))?;
        misfit("link", host.and_then(|host| self.eth(host.wires.len())))
    }

    fn takes_away(&self) -> bool {
        !self.up
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let wires = world.lab.host(&self.host)?.spec.wires.len();
        let eth = self.eth(wires).map_err(Failure::wrong)?;
        world.lab.plug(&self.host, eth, self.up)?;
        world.tally.mishaps += u64::from(!self.up);
        Ok(String::new())
    }
}

/// `{ reboot = "wsl" }`: processes, containers, links and `/run` are gone, and forwarding is off; files elsewhere stay. Nobody is told.
#[derive(Debug)]
pub(super) struct Reboot(String);

impl Reboot {
    pub(super) fn new(host: String, _: NoOptions) -> Self {
        Self(host)
    }
}

impl Verb for Reboot {
    fn describe(&self) -> String {
        format!("reboot {}", self.0)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        misfit("reboot", setting.node(Some(&self.0)))?;
        let alone = setting.in_role(Role::Node).count() == 1;
        // Containers and /run are the world's, not the host's.
        misfit("reboot", if alone { Ok(()) } else { Err("only the one node of a world can reboot".to_owned()) })
    }

    fn takes_away(&self) -> bool {
        true
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.reboot(&self.0)?;
        world.tally.mishaps += 1;
        Ok(String::new())
    }
}
