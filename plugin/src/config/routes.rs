//! Containers' routes: which the kernel takes, one by one and beside each other, whoever configured them.
//!
//! A route that is taken in is one that containers will have: none is passed over in silence, none is refused by the kernel only.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::error::{Error, Result};
use crate::ipam::pool::{Allocation, Pool, Pools, Range, subnet_of};
use crate::netlink::{Route, RouteAttributes, RouteKind};
use crate::reply;

/// `RT_SCOPE_LINK` of linux/rtnetlink.h: from here on a route leads no further than its link, and has no next hop.
pub(crate) const LINK_SCOPE: u8 = 253;
/// `RT_SCOPE_NOWHERE`.
const NOWHERE_SCOPE: u8 = 255;
/// `RT_TABLE_DEFAULT`, `RT_TABLE_MAIN` and `RT_TABLE_LOCAL`: the ones that every packet looks into. IPv6 has not got the first.
const DEFAULT_TABLE: u32 = 253;
const MAIN_TABLE: u32 = 254;
pub(crate) const LOCAL_TABLE: u32 = 255;
/// The priority of a route of IPv6 that says none (`IP6_RT_PRIO_USER` of `linux/ipv6_route.h`); IPv4's is zero.
const IPV6_PRIORITY: u32 = 1024;
/// That of the kernel's own routes of IPv6 (`IP6_RT_PRIO_ADDRCONF`); IPv4's is zero.
const IPV6_KERNEL_PRIORITY: u32 = 256;

/// The key that cannot be (`dst`, `gw` or `scope`), and why: the text follows the key.
pub(crate) type Refusal = (&'static str, String);

/// Puts a network's route behind the ones that it has, unless it is there already.
pub(crate) fn take_in(routes: &mut Vec<Route>, route: Route, pools: &Pools) -> Result<(), Refusal> {
    let route = Route { attributes: route.attributes.as_kept(), ..route };
    let refuse = |key, problem: Option<String>| problem.map_or(Ok(()), |problem| Err((key, problem)));
    refuse("scope", scope_problem(&route))?;
    refuse("gw", route.gateway.and_then(|gateway| next_hop_problem(&route, gateway, &pools.subnets(), routes)))?;
    refuse("dst", own_subnet_problem(&route, pools))?;
    if let Some(former) = routes.iter().find(|former| place(former) == place(&route)) {
        return refuse("dst", twin_problem(former, &route, pools));
    }
    routes.push(route);
    Ok(())
}

/// The next hop of a route that names none, for a container with that gateway.
pub(super) fn next_hop(route: &Route, gateway: Option<IpAddr>) -> Option<IpAddr> {
    route.gateway.or(gateway.filter(|_| !stays(route) && route.attributes.kind == RouteKind::Unicast))
}

/// Refuses what only a container's addresses tell: that it would send to itself, or has none of the next hop's subnet. Errors: 7.
pub(super) fn refuse_unreachable(routes: &[Route], own: &[Allocation]) -> Result<()> {
    let addresses: Vec<_> = own.iter().map(|own| own.address.ip()).collect();
    let subnets: Vec<_> = own.iter().map(|own| subnet_of(own.address)).collect();
    for (n, route) in routes.iter().enumerate() {
        let Some(gateway) = route.gateway else { continue };
        let refusal = own_address_problem(gateway, &addresses);
        if let Some(refusal) = refusal.or_else(|| next_hop_problem(route, gateway, &subnets, &routes[..n])) {
            let problem = format!("has {}, whose gw {refusal}", route.destination);
            return Err(Error::Config { key: "routes".into(), problem });
        }
    }
    Ok(())
}

/// Why a container with these addresses cannot send by `gateway`, if so, to follow its key. (IPv4's kernel lets it: the container that is a network's
/// router may have the network's routes.)
pub(crate) fn own_address_problem(gateway: IpAddr, own: &[IpAddr]) -> Option<String> {
    (gateway.is_ipv6() && own.contains(&gateway))
        .then(|| format!("is {gateway}, the container's own address: use another one, or exclude it from the range"))
}

fn scope_problem(route: &Route) -> Option<String> {
    let leads_nowhere = route.attributes.scope == Some(NOWHERE_SCOPE);
    leads_nowhere.then(|| format!("is {NOWHERE_SCOPE}, which leads nowhere: leave it out, or use another"))
}

/// Why who has addresses of `subnets` cannot send by `gateway`, if so, to follow its key. A next hop is on a subnet, has an address of
/// the link's own, or is where a route `before` this one leads that stays on the link: one of its own table, or of those that all use.
fn next_hop_problem(route: &Route, gateway: IpAddr, subnets: &[IpNetwork], before: &[Route]) -> Option<String> {
    let Route { destination, attributes, .. } = route;
    if gateway.is_ipv4() != destination.is_ipv4() {
        let family = if destination.is_ipv4() { "IPv4" } else { "IPv6" };
        return Some(format!("is {gateway}, but {destination} needs an {family} next hop"));
    }
    if let Some(scope) = attributes.scope.filter(|_| stays(route)) {
        return Some(format!("is {gateway}, but a route of scope {scope} has no next hop"));
    }
    if let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(gateway)) {
        return match gateway {
            // (The lowest of IPv6 means any router, which will do: RFC 4291, section 2.6.1.)
            IpAddr::V4(_) if gateway == subnet.network() || gateway == subnet.broadcast() => {
                let kind = if gateway == subnet.broadcast() { "broadcast" } else { "network" };
                Some(format!("is {gateway}, the {kind} address of {subnet}: use the address of a host"))
            }
            IpAddr::V4(_) => None,
            IpAddr::V6(_) => detour(gateway, *subnet, before).map(|detour| {
                let detour = reply::Route::from(detour);
                format!("is {gateway}, which the earlier route {detour} reaches via another next hop: move this route before it, or use another next hop")
            }),
        };
    }
    let is_link_s_own = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_looked_into = |table: u32| match table {
        DEFAULT_TABLE => gateway.is_ipv4(),
        MAIN_TABLE | LOCAL_TABLE => true,
        other => other == table_of(attributes),
    };
    let leads_there = |route: &Route| {
        stays(route) && route.attributes.kind == RouteKind::Unicast && route.destination.contains(gateway)
    };
    if is_link_s_own || before.iter().any(|route| leads_there(route) && is_looked_into(table_of(&route.attributes))) {
        return None;
    }
    if before.iter().any(leads_there) {
        let table = table_of(attributes);
        return Some(format!(
            "is {gateway}, which only a route of another table reaches: give that route table {table}, or none"
        ));
    }
    let subnets: Vec<_> = subnets.iter().map(IpNetwork::to_string).collect();
    Some(format!("is {gateway}, which containers do not reach: use a next hop in {}", subnets.join(" or ")))
}

/// The route that IPv6 would take to a next hop on the subnet, if it has one of its own: the kernel refuses a way of several.
fn detour(gateway: IpAddr, subnet: IpNetwork, before: &[Route]) -> Option<&Route> {
    let rank = |(destination, _, priority): (IpNetwork, u32, u32)| (destination.prefix(), Reverse(priority));
    let kernel_s = rank((subnet, MAIN_TABLE, IPV6_KERNEL_PRIORITY));
    let leads_there = |route: &&Route| {
        route.destination.contains(gateway)
            && table_of(&route.attributes) == MAIN_TABLE
            && rank(place(route)) > kernel_s
    };
    before.iter().filter(leads_there).max_by_key(|route| rank(place(route))).filter(|route| !stays(route))
}

/// Why a route to the containers' own subnet would be one that no packet takes, if so, to follow its key: the kernel has one there, and
/// goes by that first. One that says no more than that does no harm.
fn own_subnet_problem(route: &Route, pools: &Pools) -> Option<String> {
    let Route { destination, gateway, attributes, .. } = route;
    let is_own = |pool: &Pool| pool.ranges().iter().all(|range| range.subnet() == *destination);
    if !pools.iter().any(is_own) || table_of(attributes) != MAIN_TABLE {
        return None;
    }
    let is_plain = gateway.is_none()
        && attributes.kind == RouteKind::Unicast
        && attributes.mtu.is_none()
        && attributes.advmss.is_none()
        && (destination.is_ipv6() || matches!(attributes.scope, None | Some(0 | LINK_SCOPE)));
    let priority = said(attributes.priority);
    let (is_apart, remedy) = match destination {
        IpNetwork::V4(_) => (priority.is_some(), "give it another table, or a priority"),
        // One that goes before the kernel's must not lead to the gateway by the gateway.
        IpNetwork::V6(_) => (
            priority.is_some_and(|it| it > IPV6_KERNEL_PRIORITY || (it < IPV6_KERNEL_PRIORITY && stays(route))),
            "give it another table, or scope 253 and a priority below 256",
        ),
    };
    (!(is_apart || is_plain && priority.is_none())).then(|| {
        format!("is {destination}, the containers' own subnet, for which the kernel's own route is used first: {remedy}, or leave it out")
    })
}

/// Why a route cannot be beside the one that is in its place, if it is another one, to follow the key of its destination.
fn twin_problem(former: &Route, route: &Route, pools: &Pools) -> Option<String> {
    let are_same = meaning(former, pools) == meaning(route, pools);
    let (former, route) = (reply::Route::from(former), reply::Route::from(route));
    let dst = route.dst;
    (!are_same).then(|| format!("is {dst} again, but {former} and {route} cannot both exist: leave one out, or give it another priority or table"))
}

/// Where the kernel has one route at most.
fn place(route: &Route) -> (IpNetwork, u32, u32) {
    let none = if route.destination.is_ipv4() { 0 } else { IPV6_PRIORITY };
    let RouteAttributes { priority, .. } = route.attributes;
    (route.destination, table_of(&route.attributes), said(priority).unwrap_or(none))
}

/// What a packet meets that takes it. Its next hop is known where every container has the same gateway.
fn meaning(route: &Route, pools: &Pools) -> (Option<IpAddr>, Option<u32>, Option<u32>, u8, RouteKind) {
    let RouteAttributes { mtu, advmss, scope, kind, .. } = route.attributes;
    // A container's gateway is that of its first address of the family.
    let pool = pools.iter().find(|pool| pool.is_ipv4() == route.destination.is_ipv4());
    let mut gateways = pool.into_iter().flat_map(Pool::ranges).map(Range::gateway);
    let first = gateways.next();
    let gateway = first.filter(|first| gateways.all(|gateway| gateway == *first));
    let scope = if route.destination.is_ipv4() { scope.unwrap_or_default() } else { 0 };
    (next_hop(route, gateway), mtu, advmss, scope, kind)
}

/// Whether it leads no further than its link.
fn stays(route: &Route) -> bool {
    route.attributes.scope.is_some_and(|scope| scope >= LINK_SCOPE)
}

fn table_of(attributes: &RouteAttributes) -> u32 {
    said(attributes.table).unwrap_or(MAIN_TABLE)
}

/// Zero is libcni's way to say nothing.
pub(crate) fn said(value: Option<u32>) -> Option<u32> {
    value.filter(|value| *value != 0)
}
