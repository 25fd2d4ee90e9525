//! CHECK: compares what is there with what ADD said it made.
//!
//! The expectations come from `prevResult`. What plugins after flatnet may have changed or added (a MAC, more routes, more
//! addresses) is not flatnet's to judge.

use std::net::IpAddr;
use std::path::Path;

use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::{Map, Value};

use super::within_deadline;
use crate::config::Network;
use crate::error::{Doing, Error, Result};
use crate::ipam::lease::{self, Attachment};
use crate::link::bridge;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::reply::{Interface, Reply, Route, Success};
use crate::request::Target;
use crate::sysctl;

/// The part of `prevResult` that is about this attachment.
#[derive(Debug)]
pub(super) struct Expected {
    result: Success,
    /// Index of the container's interface.
    interface: usize,
}

impl Expected {
    /// Errors: 7 where there is no `prevResult`, or none that ADD for this attachment can have given.
    pub(super) fn parse(config: &Map<String, Value>, target: &Target) -> Result<Self> {
        let problem = |problem: String| Error::Config { key: "prevResult".into(), problem };
        let json = match config.get("prevResult") {
            None | Some(Value::Null) => return Err(problem("is missing: CHECK needs the result of ADD".into())),
            Some(json) => json.clone(),
        };
        let result: Success =
            serde_json::from_value(json).map_err(|e| problem(format!("is not a result of CNI 1.0.0: {e}")))?;
        let is_this = |found: &Interface| found.name == target.interface && !found.sandbox.is_empty();
        match result.interfaces.iter().position(is_this) {
            Some(interface) => Ok(Self { result, interface }),
            None => Err(problem(format!("has no interface {} with a sandbox", target.interface))),
        }
    }

    /// The IPv4 addresses of this attachment: flatnet gives no others.
    fn addresses(&self) -> impl Iterator<Item = Ipv4Network> {
        let own = self.result.ips.iter().filter(|ip| ip.interface == Some(self.interface));
        own.filter_map(|ip| match ip.address {
            IpNetwork::V4(address) => Some(address),
            IpNetwork::V6(_) => None,
        })
    }
}

/// Errors: 106 naming the first thing that is not as ADD left it.
pub(super) async fn check(target: &Target, network: &Network, expected: &Expected) -> Result<Reply> {
    within_deadline(async {
        let host = Netlink::open().doing(|| "open a netlink socket".into())?;
        let found = match check_host(&host, target, network, expected).await? {
            Some(problem) => Some(problem),
            None => check_container(target, expected).await?,
        };
        match found {
            Some(what) => Err(Error::Changed { what }),
            None => Ok(Reply::Nothing),
        }
    })
    .await
}

/// What is wrong on the host's side.
async fn check_host(host: &Netlink, target: &Target, network: &Network, expected: &Expected) -> Result<Option<String>> {
    let attachment = Attachment { network: &network.name, target };
    let Some(bridge) = bridge::find(host, &network.bridge).await? else {
        return Ok(Some(format!("bridge {} is gone", network.bridge)));
    };
    if let Some(problem) = bridge::problem(host, network, &bridge).await? {
        return Ok(Some(problem));
    }
    if !sysctl::is_forwarding()? {
        return Ok(Some("net.ipv4.ip_forward is 0".into()));
    }
    let Some(link) = lease::find(host, &attachment).await? else {
        return Ok(Some(format!("no host link is called {}", attachment.name())));
    };
    if link.bridge != Some(bridge.index) {
        return Ok(Some(format!("host link {} is not a port of {}", link.name, bridge.name)));
    }
    if !link.up {
        return Ok(Some(format!("host link {} is down", link.name)));
    }
    let leases: Vec<_> = link.leases().collect();
    // An address of another subnet is another plugin's.
    let mut own = expected.addresses().map(Ipv4Network::ip).filter(|address| network.pool.contains(*address));
    let missing = own.find(|address| !leases.contains(address));
    Ok(missing.map(|address| format!("host link {} holds no lease of {address}", link.name)))
}

/// What is wrong inside the container.
async fn check_container(target: &Target, expected: &Expected) -> Result<Option<String>> {
    let netns = Netns::open(target.netns.as_deref().unwrap_or_else(|| Path::new("")))?;
    let container =
        Netlink::open_in(&netns).doing(|| format!("open a netlink socket in {}", netns.path().display()))?;
    let name = &target.interface;
    let Some(link) = container.link(name).await.doing(|| format!("look up {name} in the container"))? else {
        return Ok(Some(format!("interface {name} is gone from the container")));
    };
    if !link.up {
        return Ok(Some(format!("interface {name} is down")));
    }
    let addresses = container.addresses(link.index).await.doing(|| format!("list the addresses of {name}"))?;
    if let Some(missing) = expected.addresses().find(|address| !addresses.contains(address)) {
        return Ok(Some(format!("interface {name} lacks the address {missing}")));
    }
    let routes = container.routes().await.doing(|| "list the container's routes".into())?;
    let is_there = |wanted: &Route| match wanted.dst {
        IpNetwork::V4(destination) => routes.iter().any(|route| {
            let gateway = route.gateway.map(IpAddr::V4);
            route.destination == destination && (wanted.gw.is_none() || gateway == wanted.gw)
        }),
        IpNetwork::V6(_) => true,
    };
    let missing = expected.result.routes.iter().find(|route| !is_there(route));
    Ok(missing.map(|route| match route.gw {
        Some(gateway) => format!("the container lacks the route to {} by {gateway}", route.dst),
        None => format!("the container lacks the route to {}", route.dst),
    }))
}
