//! CHECK: compares what is there with what ADD said it made.
//!
//! The expectations come from `prevResult`. What plugins after flatnet may have changed or added (a MAC, more routes, more
//! addresses) is not flatnet's to judge.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::within_deadline;
use crate::config::Network;
use crate::error::{Doing, Error, PREV_RESULT, Result};
use crate::firewall::{forward, masquerade, spoofing};
use crate::ipam::lease::{self, Attachment};
use crate::ipam::pool::{Pool, Pools, Range};
use crate::link::bridge;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::reply::Reply;
use crate::request::Target;
use crate::sysctl;

/// `prevResult`, as far as CHECK reads it. Plugins after flatnet may have added anything, so nothing is required of it here.
#[derive(Debug, Deserialize)]
struct PrevResult {
    interfaces: Option<Vec<PrevInterface>>,
    ips: Option<Vec<PrevIp>>,
    routes: Option<Vec<PrevRoute>>,
}

#[derive(Debug, Deserialize)]
struct PrevInterface {
    name: String,
    sandbox: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PrevIp {
    interface: Option<usize>,
    address: IpNetwork,
    gateway: Option<IpAddr>,
}

#[derive(Debug, Deserialize)]
struct PrevRoute {
    dst: IpNetwork,
    gw: Option<IpAddr>,
}

/// The part of `prevResult` that is flatnet's to judge: what is on this attachment's interface.
#[derive(Debug)]
pub(super) struct Expected {
    /// All addresses of the interface.
    addresses: Vec<IpNetwork>,
    /// Those that flatnet leased; at least one.
    leases: Vec<IpAddr>,
    /// Destination, and the next hop if there is one.
    routes: Vec<(IpNetwork, Option<IpAddr>)>,
}

impl PrevResult {
    /// Errors: 7.
    fn read(config: &Map<String, Value>) -> Result<Self> {
        match config.get(PREV_RESULT) {
            None | Some(Value::Null) => Err(problem("is missing: CHECK needs the result of ADD".into())),
            Some(json) => {
                serde_json::from_value(json.clone()).map_err(|e| problem(format!("is not a result of CNI: {e}")))
            }
        }
    }
}

/// The subnets and gateways that ADD was given by another plugin. Errors: 7.
pub(super) fn pools_of(config: &Map<String, Value>) -> Result<Pools> {
    let ips = PrevResult::read(config)?.ips.unwrap_or_default();
    let range_of = |ip: &PrevIp| {
        let subnet = IpNetwork::new(ip.address.network(), ip.address.prefix()).ok()?;
        Range::new(subnet, Some(ip.gateway?), None, None).ok()
    };
    let pools: Vec<Pool> = ips.iter().filter_map(range_of).map(Pool::from).collect();
    if pools.is_empty() { Err(problem("has no address with its gateway".into())) } else { Ok(Pools::new(pools)) }
}

fn problem(problem: String) -> Error {
    Error::Config { key: PREV_RESULT.into(), problem }
}

impl Expected {
    /// Errors: 7 where there is no `prevResult`, or none that ADD for this attachment can have given.
    pub(super) fn parse(config: &Map<String, Value>, target: &Target, network: &Network) -> Result<Self> {
        let result = PrevResult::read(config)?;
        let is_this = |found: &PrevInterface| {
            found.name == target.interface && found.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())
        };
        let interfaces = result.interfaces.unwrap_or_default();
        let Some(own) = interfaces.iter().position(is_this) else {
            return Err(problem(format!("has no interface {} with a sandbox", target.interface)));
        };
        let ips: Vec<_> = result.ips.unwrap_or_default();
        // The index is optional; an address without one can only be meant for this interface.
        let own = ips.iter().filter(|ip| ip.interface.is_none_or(|index| index == own));
        let own: Vec<_> = own.map(|ip| (ip.address, ip.gateway)).collect();
        let is_lease = |(address, by): &&(IpNetwork, Option<IpAddr>)| {
            let mut ranges = network.pools.ranges().filter(|range| range.contains(address.ip()));
            ranges.any(|range| by.is_none_or(|by| by == range.gateway()))
        };
        let leases: Vec<_> = own.iter().filter(is_lease).map(|(address, _)| address.ip()).collect();
        if leases.is_empty() {
            return Err(problem(format!("has no address of {} for {}", network.name, target.interface)));
        }
        // What another plugin has routed by a network of its own, is that one's to judge.
        let is_own_hop = |by: IpAddr| own.iter().any(|(address, _)| address.contains(by));
        let routes = result.routes.unwrap_or_default();
        let routes = routes.iter().filter(|route| route.gw.is_none_or(is_own_hop));
        let routes = routes.map(|route| (route.dst, route.gw)).collect();
        Ok(Self { addresses: own.into_iter().map(|(address, _)| address).collect(), leases, routes })
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
    if let Some(setting) = sysctl::not_forwarding(network)? {
        return Ok(Some(format!("{setting} is 0")));
    }
    if let Some(problem) = masquerade::problem(network).await? {
        return Ok(Some(problem));
    }
    if let Some(problem) = forward::problem(network).await? {
        return Ok(Some(problem));
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
    let held: Vec<_> = lease::leases(&link).collect();
    if let Some(address) = expected.leases.iter().find(|address| !held.contains(address)) {
        return Ok(Some(format!("host link {} holds no lease of {address}", link.name)));
    }
    if !network.macspoofchk {
        return Ok(None);
    }
    if lease::guarded_mac(&link).is_none() {
        return Ok(Some(format!("host link {} was made without macspoofchk", link.name)));
    }
    spoofing::problem(std::slice::from_ref(&link)).await
}

/// What is wrong inside the container.
async fn check_container(target: &Target, expected: &Expected) -> Result<Option<String>> {
    let netns = Netns::open(&target.netns)?;
    let container =
        Netlink::open_in(&netns).doing(|| format!("open a netlink socket in {}", netns.path().display()))?;
    let name = &target.interface;
    let Some(link) = container.link(name).await.doing(|| format!("look up {name} in the container"))? else {
        return Ok(Some(format!("interface {name} is gone from the container")));
    };
    if !link.up {
        return Ok(Some(format!("interface {name} is down")));
    }
    let addresses = match container.addresses(link.index).await {
        // A DEL at the same moment.
        Err(Errno::ENODEV) => return Ok(Some(format!("interface {name} is gone from the container"))),
        addresses => addresses.doing(|| format!("list the addresses of {name}"))?,
    };
    if let Some(missing) = expected.addresses.iter().find(|address| !addresses.contains(address)) {
        return Ok(Some(format!("interface {name} lacks the address {missing}")));
    }
    let routes = container.routes().await.doing(|| "list the container's routes".into())?;
    let is_there = |(destination, by): &&(IpNetwork, Option<IpAddr>)| {
        let fits = |gateway: Option<IpAddr>| by.is_none() || gateway == *by;
        routes.iter().any(|route| route.destination == *destination && fits(route.gateway))
    };
    let missing = expected.routes.iter().find(|route| !is_there(route));
    Ok(missing.map(|(destination, by)| match by {
        Some(gateway) => format!("the container lacks the route to {destination} by {gateway}"),
        None => format!("the container lacks the route to {destination}"),
    }))
}
