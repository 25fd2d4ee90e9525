//! `ipam` where flatnet gives the addresses itself: the keys of host-local, with its meaning of them, and `exclude`.
//!
//! Every address is given out of one place: ranges that overlap are refused, whoever configured them.

use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::section::Section;
use super::{address, routes, subnet};
use crate::error::{Error, Result};
use crate::ipam::pool::{Pool, Pools, Range, Span, host_bits_problem};
use crate::netlink::{Route, RouteAttributes};

/// What `ipam` says; nothing, on a network of layer 2.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) pools: Pools,
    pub(super) routes: Vec<Route>,
    pub(super) resolv_conf: Option<PathBuf>,
}

/// A range, and where it stands.
struct Placed {
    path: String,
    range: Range,
}

/// `config` is the whole, of which the runtime's part may bring further ranges. Errors: 2 and 7.
pub(super) fn parse(mut section: Section, config: &Map<String, Value>) -> Result<Addresses> {
    let excluded = spans(&mut section)?;
    let single = single(&mut section)?;
    let mut sets = runtime_ranges(config)?;
    sets.extend(single.map(|range| vec![range]));
    sets.extend(sets_of(&mut section, "ranges")?);
    let listed = section.sections("routes")?;
    let resolv_conf = resolv_conf(&mut section)?;
    refuse_data_dir(&mut section)?;
    if sets.is_empty() {
        return Err(section.problem("subnet", "is missing, and so is ipam.ranges: set one of them"));
    }
    refuse_foreign(&section, &excluded, || sets.iter().flatten().map(|placed| &placed.range))?;
    section.end()?;
    let pools = pools(sets, &excluded)?;
    let mut routes = Vec::new();
    for section in listed {
        take_in_route(&mut routes, section, &pools)?;
    }
    Ok(Addresses { pools, routes, resolv_conf })
}

/// `subnet` and its keys right in `ipam`, as one range is configured: the first set, of its own.
fn single(section: &mut Section) -> Result<Option<Placed>> {
    let path = section.path().to_owned();
    if section.has("subnet") {
        return Ok(Some(Placed { path, range: range(section)? }));
    }
    for key in ["subnet", "gateway", "rangeStart", "rangeEnd"] {
        if section.has(key) {
            return Err(section.problem(key, format!("is set, but {path}.subnet is not")));
        }
        section.skip(key);
    }
    Ok(None)
}

/// Whether the runtime brings ranges.
pub(super) fn has_runtime_ranges(config: &Map<String, Value>) -> bool {
    let ranges = config.get("runtimeConfig").and_then(|runtime| runtime.get("ipRanges"));
    ranges.and_then(Value::as_array).is_some_and(|ranges| !ranges.is_empty())
}

/// `runtimeConfig.ipRanges`: before all others, as with host-local.
fn runtime_ranges(config: &Map<String, Value>) -> Result<Vec<Vec<Placed>>> {
    let mut whole = Section::new("", config);
    match whole.optional_section("runtimeConfig")? {
        Some(mut runtime) => sets_of(&mut runtime, "ipRanges"),
        None => Ok(Vec::new()),
    }
}

/// A list of sets, each a list of ranges of one family.
fn sets_of(section: &mut Section, key: &'static str) -> Result<Vec<Vec<Placed>>> {
    let sets = section.lists_of_sections(key)?;
    let path = |n: usize| format!("{key}[{n}]");
    if let Some(empty) = sets.iter().position(Vec::is_empty) {
        return Err(section.problem(&path(empty), "has no range: add one, or leave it out"));
    }
    let sets = sets.into_iter().map(|set| set.into_iter().map(placed).collect::<Result<Vec<_>>>());
    let sets = sets.collect::<Result<Vec<_>>>()?;
    for (n, set) in sets.iter().enumerate() {
        let subnets = || set.iter().map(|placed| placed.range.subnet());
        let other = subnets().find(|subnet| subnet.is_ipv4() != set[0].range.subnet().is_ipv4());
        if let Some(other) = other {
            let first = set[0].range.subnet();
            let problem =
                format!("has {first} and {other}, but a list gives one address: for one of each family, use two lists");
            return Err(section.problem(&path(n), problem));
        }
    }
    Ok(sets)
}

fn placed(mut section: Section) -> Result<Placed> {
    let excluded = spans(&mut section)?;
    let range = range(&mut section)?;
    refuse_foreign(&section, &excluded, || std::iter::once(&range))?;
    let range = leave_some(range, &excluded).map_err(|problem| section.problem("exclude", problem))?;
    let path = section.path().to_owned();
    section.end()?;
    Ok(Placed { path, range })
}

fn range(section: &mut Section) -> Result<Range> {
    let subnet = subnet(section)?;
    let gateway = address(section, "gateway")?;
    let start = address(section, "rangeStart")?;
    let end = address(section, "rangeEnd")?;
    Range::new(subnet, gateway, start, end).map_err(|(key, problem)| section.problem(key, problem))
}

/// `exclude`: what is never given out.
fn spans(section: &mut Section) -> Result<Vec<Span>> {
    let texts = section.strings("exclude")?.unwrap_or_default();
    let spans = texts.iter().map(|text| Span::parse(text).map_err(|problem| section.problem("exclude", problem)));
    spans.collect()
}

/// Refuses a span of `exclude` that has nothing of any subnet, of another family for example. One that is of a subnet, but of none of its
/// part that is given out, says what is so already.
fn refuse_foreign<'a, R: Iterator<Item = &'a Range>>(
    section: &Section,
    excluded: &[Span],
    ranges: impl Fn() -> R,
) -> Result<()> {
    let Some(foreign) = excluded.iter().find(|span| !ranges().any(|range| range.meets(**span))) else { return Ok(()) };
    let subnets: Vec<_> = ranges().map(|range| range.subnet().to_string()).collect();
    let problem = format!("has {foreign}, which is outside {}: correct it, or leave it out", subnets.join(", "));
    Err(section.problem("exclude", problem))
}

fn pools(sets: Vec<Vec<Placed>>, excluded: &[Span]) -> Result<Pools> {
    let problem = |key: &str, problem: String| Error::Config { key: key.into(), problem };
    let all: Vec<_> = sets.iter().flatten().collect();
    for (n, one) in all.iter().enumerate() {
        for other in &all[..n] {
            if let Some(clash) = one.range.clash(&other.range) {
                return Err(problem(&one.path, format!("overlaps {}: it {clash}", other.path)));
            }
        }
    }
    let paths: Vec<_> = all.iter().map(|placed| placed.path.clone()).collect();
    let pool = |set: Vec<Placed>| {
        let left = set.into_iter().map(|placed| leave_some(placed.range, excluded));
        left.collect::<Result<_, _>>().map(Pool::new)
    };
    let pools = sets.into_iter().map(pool).collect::<Result<_, _>>();
    let pools = Pools::new(pools.map_err(|exclusion| problem("ipam.exclude", exclusion))?);
    for (range, path) in pools.ranges().zip(paths) {
        if let Some(emptiness) = range.emptiness() {
            return Err(problem(&path, emptiness));
        }
    }
    Ok(pools)
}

/// The range without what is excluded; why that leaves nothing, if so, to follow the key.
fn leave_some(range: Range, excluded: &[Span]) -> Result<Range, String> {
    let whole = range.to_string();
    let range = range.without(excluded);
    match range.emptiness() {
        Some(_) => Err(format!("covers all of {whole}, and leaves no address for a container")),
        None => Ok(range),
    }
}

/// One of `routes`: `dst`, by `gw`, else by the gateway of the address of its family.
fn take_in_route(routes: &mut Vec<Route>, mut section: Section, pools: &Pools) -> Result<()> {
    let destination = destination(&mut section)?;
    let gateway = address(&mut section, "gw")?;
    let attributes = RouteAttributes {
        mtu: number(&mut section, "mtu")?,
        advmss: number(&mut section, "advmss")?,
        priority: number(&mut section, "priority")?,
        table: number(&mut section, "table")?,
        scope: number(&mut section, "scope")?,
        ..RouteAttributes::default()
    };
    let family = if destination.is_ipv4() { "IPv4" } else { "IPv6" };
    if !pools.iter().any(|pool| pool.is_ipv4() == destination.is_ipv4()) {
        return Err(section.problem("dst", format!("is {destination}, but the network has no {family} addresses")));
    }
    let route = Route { destination, gateway, link: None, attributes };
    routes::take_in(routes, route, pools).map_err(|(key, problem)| section.problem(key, problem))?;
    section.end()
}

fn destination(section: &mut Section) -> Result<IpNetwork> {
    let text = section.required_string("dst")?;
    let Some(destination) = text.parse::<IpNetwork>().ok().filter(|_| text.contains('/')) else {
        return Err(section.problem("dst", format!("is {text:?}, not a subnet such as 192.168.50.0/24 or ::/0")));
    };
    match host_bits_problem(destination) {
        Some(problem) => Err(section.problem("dst", format!("is {destination}, which {problem}"))),
        None => Ok(destination),
    }
}

/// A whole number of the kernel's; zero is none, as for the reference.
fn number<T: TryFrom<i64> + Default + PartialEq>(section: &mut Section, key: &'static str) -> Result<Option<T>> {
    let Some(number) = section.integer(key)? else { return Ok(None) };
    match T::try_from(number) {
        Ok(number) => Ok(Some(number).filter(|number| *number != T::default())),
        Err(_) => Err(section.problem(key, format!("is {number}, which is out of range"))),
    }
}

/// What a container's `dns` is read from, if the network itself says none.
fn resolv_conf(section: &mut Section) -> Result<Option<PathBuf>> {
    let Some(path) = section.string("resolvConf")?.filter(|path| !path.is_empty()) else { return Ok(None) };
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(Some(path.into()));
    }
    Err(section.problem("resolvConf", format!("is {path:?}, not an absolute path")))
}

/// host-local's: the folder of its files. (Where `ipam.type` is host-local, the key is that plugin's, and is honoured.)
fn refuse_data_dir(section: &mut Section) -> Result<()> {
    match section.string("dataDir")?.filter(|path| !path.is_empty()) {
        None => Ok(()),
        Some(path) => Err(Error::Unsupported {
            key: format!("{}.dataDir", section.path()),
            value: format!("{path:?}"),
            remedy: "leave it out: flatnet's leases are in the kernel, not in files; or set ipam.type to host-local, which has this key".into(),
        }),
    }
}

#[cfg(test)]
mod tests;
