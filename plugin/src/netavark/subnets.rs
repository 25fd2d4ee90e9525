//! `subnets`, `ipv6_enabled` and `routes`: what addresses containers get, and where they send what is not on their subnets.
//!
//! A container gets an address of each subnet, as with netavark's own bridge driver.

use std::iter;
use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::{Map, Value};

use crate::config::metric;
use crate::config::section::Section;
use crate::error::{Error, Result};
use crate::ipam::pool::{Pool, Pools, Range, host_bits_problem};
use crate::netlink::{Route, RouteAttributes, RouteKind};
use crate::{config, layout};

/// The subnet of a network that names none: host 1 of the plan 10.87.N.0/24.
const DEFAULT: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(10, 87, 1, 0), 24) {
    Some(network) => network,
    None => unreachable!(),
};

/// The subnets that a network may have which names none, the likeliest first.
pub(super) fn defaults_in_turn() -> impl Iterator<Item = Ipv4Network> {
    let of_host = |host| Ipv4Network::new(Ipv4Addr::new(10, 87, host, 0), 24).ok();
    iter::once(DEFAULT).chain((2..=254).rev().filter_map(of_host))
}

/// The pools, one a subnet. With `ipv6_enabled` and no subnet of IPv6 there is one more, which goes with the one of IPv4. Errors: 2 and 7.
pub(super) fn parse(section: &mut Section, config: &Map<String, Value>) -> Result<Pools> {
    let mut ranges = Vec::new();
    for subnet in list(section, config, "subnets")? {
        ranges.push(range(&mut object(section, "subnets", subnet)?)?);
    }
    if ranges.is_empty() {
        ranges.push(whole(section, DEFAULT.into())?);
    }
    let is_dual = section.boolean("ipv6_enabled")? == Some(true);
    if is_dual && !ranges.iter().any(|range| range.subnet().is_ipv6()) {
        ranges.push(whole(section, counterpart(ranges[0].subnet())?)?);
    }
    for (place, range) in ranges.iter().enumerate() {
        if let Some(clash) = ranges[..place].iter().find_map(|other| range.clash(other)) {
            return Err(section.problem("subnets", format!("has one which {clash}")));
        }
    }
    Ok(Pools::new(ranges.into_iter().map(Pool::from).collect()))
}

/// Containers' routes beside the default ones. Errors: 7.
pub(super) fn routes(section: &Section, config: &Map<String, Value>, pools: &Pools) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for route in list(section, config, "routes")? {
        let mut section = object(section, "routes", route)?;
        let route = one_route(&mut section)?;
        let refused = |(key, problem)| section.problem(podmans_word(key), problem);
        config::routes::take_in(&mut routes, route, pools).map_err(refused)?;
        // What a route says and flatnet does not know may turn its meaning round, as `route_type` does.
        section.end()?;
    }
    Ok(routes)
}

/// `podman network create --route DESTINATION,GATEWAY[,METRIC]`; since Podman 6 also `TYPE,DESTINATION[,METRIC]`.
fn one_route(route: &mut Section) -> Result<Route> {
    let text = route.required_string("destination")?;
    let destination: IpNetwork = text
        .parse()
        .map_err(|_| route.problem("destination", format!("is {text:?}, not a subnet such as 192.168.50.0/24")))?;
    let (kind, gateway) = (kind(route)?, config::address(route, "gateway")?);
    match gateway {
        None if kind == RouteKind::Unicast => return Err(route.problem("gateway", "is missing")),
        Some(gateway) if kind != RouteKind::Unicast => {
            let word = route.string("route_type")?.unwrap_or_default();
            return Err(route.problem("gateway", format!("is {gateway}, but a {word} route has none")));
        }
        _ => {}
    }
    if let Some(problem) = host_bits_problem(destination) {
        return Err(route.problem("destination", format!("is {destination}, which {problem}")));
    }
    let priority = match route.integer("metric")? {
        Some(metric) => fitting_metric(metric).map_err(|problem| route.problem("metric", problem))?,
        None => metric::DEFAULT,
    };
    let attributes = RouteAttributes { priority: Some(priority), kind, ..RouteAttributes::default() };
    Ok(Route { destination, gateway, link: None, attributes })
}

/// `route_type`, of which netavark knows these.
fn kind(route: &mut Section) -> Result<RouteKind> {
    match route.string("route_type")?.as_deref() {
        None | Some("" | "unicast") => Ok(RouteKind::Unicast),
        Some("blackhole") => Ok(RouteKind::Blackhole),
        Some("unreachable") => Ok(RouteKind::Unreachable),
        Some("prohibit") => Ok(RouteKind::Prohibit),
        Some(other) => {
            let problem = format!("is {other:?}, not one of unicast, blackhole, unreachable and prohibit");
            Err(route.problem("route_type", problem))
        }
    }
}

/// A metric that the kernel has; of two routes to one destination the one with the lower is taken. The error follows the key.
pub(super) fn fitting_metric(metric: i64) -> Result<u32, String> {
    u32::try_from(metric).map_err(|_| format!("is {metric}, but must be 0 - {}", u32::MAX))
}

fn list<'a>(section: &Section, config: &'a Map<String, Value>, key: &str) -> Result<&'a [Value]> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(section.problem(key, format!("is {other}, not a list"))),
    }
}

/// Errors name the place by `key`, also within a request.
fn object<'a>(section: &Section, key: &'static str, value: &'a Value) -> Result<Section<'a>> {
    let object = value.as_object().ok_or_else(|| section.problem(key, "holds something that is not an object"))?;
    Ok(Section::new(key, object))
}

fn range(inner: &mut Section) -> Result<Range> {
    let subnet = config::subnet(inner)?;
    let gateway = config::address(inner, "gateway")?;
    let (mut start, mut end) = (None, None);
    if let Some(mut range) = inner.optional_section("lease_range")? {
        (start, end) = (config::address(&mut range, "start_ip")?, config::address(&mut range, "end_ip")?);
    }
    Range::new(subnet, gateway, start, end).map_err(|(key, problem)| inner.problem(podmans_word(key), problem))
}

fn whole(section: &Section, subnet: IpNetwork) -> Result<Range> {
    Range::new(subnet, None, None, None).map_err(|(key, problem)| section.problem(key, problem))
}

/// The IPv6 subnet that goes with one of IPv4. Errors: 2 where the address plan has none.
fn counterpart(subnet: IpNetwork) -> Result<IpNetwork> {
    let planned = match subnet {
        IpNetwork::V4(subnet) => layout::ipv6_beside(subnet),
        IpNetwork::V6(_) => None,
    };
    planned.map(IpNetwork::from).ok_or_else(|| Error::Unsupported {
        key: "ipv6_enabled".into(),
        value: "true".into(),
        remedy: format!("pass an IPv6 subnet beside {subnet}, which gateways need a route to: --subnet fd87:1::/64"),
    })
}

/// Ranges and routes speak of themselves as CNI does.
fn podmans_word(key: &'static str) -> &'static str {
    match key {
        "rangeStart" => "lease_range.start_ip",
        "rangeEnd" => "lease_range.end_ip",
        "dst" => "destination",
        "gw" => "gateway",
        key => key,
    }
}
