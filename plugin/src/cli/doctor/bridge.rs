//! One network as the kernel has it: bridge, subnet, containers' links, and what is left of the pool.
//!
//! Each line is about one thing: what only follows from another line's fault is skipped, and says so.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::containers;
use super::finding::{ATTACHMENTS, BRIDGE, Finding, POOL, SUBNET, State};
use crate::config::Network;
use crate::error::{Error, Result};
use crate::ipam::lease;
use crate::ipam::pool::Pool;
use crate::link::{bridge, vlan};
use crate::netlink::{Link, Netlink};
use crate::reach::{self, Report};

/// A bridge has no more ports than this (`BR_MAX_PORTS`), however large the subnet is.
const PORTS_MAX: usize = 1023;
/// From here on the pool is soon full.
const FULL_SOON_PERCENT: usize = 90;

/// What of the bridge the other lines, and those of servers, can build on.
pub(super) struct Standing {
    /// Its findings.
    pub(super) findings: Vec<Finding>,
    /// The bridge is there.
    pub(super) exists: bool,
    /// The bridge is up, has its address, and is nobody else's.
    pub(super) sound: bool,
    /// What packets have shown, where there are containers.
    pub(super) report: Report,
}

/// `gateway` is one that a person has named.
pub(super) async fn check(host: &Netlink, network: &Network, gateway: Option<IpAddr>) -> Result<Standing> {
    let (found, line) = match judge(host, network).await {
        Ok((found, line)) => (found, line),
        Err(error @ Error::BridgeConflict { .. }) => (None, BRIDGE.failed(&error)),
        Err(error) => return Err(error),
    };
    let sound = found.is_some() && line.state == State::Ok;
    let conflict = found.is_none() && line.state == State::Bad;
    let links = host.links().await?;
    let has_leases = !reach::subjects(&links, network).is_empty();
    let mut findings = vec![line, subnet(host, network, sound).await?];
    let mut report = Report::default();
    match &found {
        None if !has_leases => {
            let why = if conflict { "depends on `bridge` above" } else { "no container has been added yet" };
            findings.extend([ATTACHMENTS.skipped(why), POOL.skipped(why)]);
        }
        None => {
            if !conflict {
                let lost = format!("there is no {}, and containers have addresses on it", network.bridge);
                findings[0] = BRIDGE.bad(
                    lost,
                    format!(
                        "start a container, or `flatnet gateway`: either makes {} again and puts the containers back",
                        network.bridge
                    ),
                );
            }
            report = reach::look(host, network, &links, gateway, |_| true).await?;
            findings.extend([containers::judge(&report), POOL.skipped("depends on `bridge` above")]);
        }
        Some(bridge) => {
            report = reach::look(host, network, &links, gateway, |_| true).await?;
            let unfinished = links.iter().find(|link| link.bridge == Some(bridge.index) && lease::is_unfinished(link));
            findings.push(match (containers::judge(&report), unfinished) {
                (line, Some(port)) if line.state != State::Bad => containers::unfinished(port, &bridge.name),
                (line, _) => line,
            });
            findings.push(pool(host, network, bridge).await?);
        }
    }
    let findings = findings.into_iter().map(|finding| finding.of(&network.name)).collect();
    Ok(Standing { findings, exists: found.is_some(), sound, report })
}

async fn judge(host: &Netlink, network: &Network) -> Result<(Option<Link>, Finding)> {
    let (name, way, gateways) = (&network.bridge, network.gateway_link(), network.gateway_networks());
    let Some(bridge) = bridge::find(host, name).await? else {
        return Ok((None, BRIDGE.ok(format!("no {name} yet: the first container makes it"))));
    };
    let line = if !bridge.up {
        BRIDGE.bad(
            format!("{name} is down"),
            format!("run `ip link set {name} up`; the next container's start does so too"),
        )
    } else if !gateways.is_empty() && !bridge::has_gateways(host, network, &bridge).await? {
        let link = vlan::find(host, network, &bridge).await?;
        let addresses = match &link {
            Some(link) => host.addresses(link).await?,
            None => Vec::new(),
        };
        match gateways.iter().find(|gateway| !addresses.contains(gateway)) {
            Some(gateway) => BRIDGE.bad(
                format!("{way} lacks the gateway's address {gateway}"),
                format!("run `ip address add {gateway} dev {way}`; the next container's start does so too"),
            ),
            None => BRIDGE.bad(
                format!("{way} lacks a link-local address, without which it reaches no container by IPv6"),
                "run `systemctl restart flatnet`, or start a container: either gives it one",
            ),
        }
    } else {
        let gateways: Vec<_> = gateways.iter().map(IpNetwork::to_string).collect();
        BRIDGE.ok(format!("{name}, up, {}", gateways.join(", ")))
    };
    Ok((Some(bridge), line))
}

/// Whose the subnet is: by the addresses of other links, by routes, and by the kernel's own choice, which policy rules have a part in.
async fn subnet(host: &Netlink, network: &Network, sound: bool) -> Result<Finding> {
    match bridge::refuse_overlap(host, network).await {
        Ok(()) => {}
        Err(error @ Error::BridgeConflict { .. }) => return Ok(SUBNET.failed(&error)),
        Err(error) => return Err(error),
    }
    let subnets = network.pools.subnets();
    let way = network.gateway_link();
    let own = host.link(way).await?.map(|link| link.index);
    for route in host.routes().await? {
        // A wider one, such as a VPN's 10.0.0.0/8, loses against the bridge's own.
        if subnets.iter().any(|subnet| is_within(route.destination, *subnet)) && route.link != own {
            return stolen(host, &route.destination.to_string(), route.link).await;
        }
    }
    if !sound {
        return Ok(SUBNET.ok(format!("{}, nobody else's", network.subnets_in_words())));
    }
    let edges = network.pools.ranges().flat_map(|range| {
        let (first, last) = range.bounds();
        [first, last].into_iter().filter(|address| *address != range.gateway())
    });
    for address in edges {
        let way = host.way_to(address).await?;
        if way.link != own {
            return stolen(host, &address.to_string(), way.link).await;
        }
    }
    Ok(SUBNET.ok(format!("{}, by {}", network.subnets_in_words(), way)))
}

fn is_within(inner: IpNetwork, outer: IpNetwork) -> bool {
    inner.prefix() >= outer.prefix() && outer.contains(inner.network())
}

async fn stolen(host: &Netlink, destination: &str, link: Option<u32>) -> Result<Finding> {
    let name = match link {
        Some(index) => host.link_by_index(index).await?.map(|link| link.name),
        None => None,
    };
    let name = name.unwrap_or_else(|| "no link".into());
    Ok(SUBNET.bad(
        format!("what is for {destination} leaves by {name}"),
        format!(
            "take that route away (`ip route show table all | grep {name}`, `ip rule`; a VPN makes such routes), or give the network another subnet"
        ),
    ))
}

async fn pool(host: &Netlink, network: &Network, bridge: &Link) -> Result<Finding> {
    let ports = host.ports(bridge).await?;
    let taken: BTreeSet<_> = ports.iter().flat_map(lease::leases).collect();
    let room = PORTS_MAX.saturating_sub(ports.len());
    let free = |pool: &Pool| pool.free(&taken).take(PORTS_MAX).count().min(room);
    // The one that is full first.
    let pools = network.pools.iter().map(|pool| (free(pool), pool));
    let (free, first) = pools.min_by_key(|(free, _)| *free).map_or((room, None), |(free, pool)| (free, Some(pool)));
    let first = first.filter(|_| network.pools.iter().count() > 1 && free < room);
    Ok(judge_pool(ports.len(), free, &first.map(|pool| format!(", of {pool}")).unwrap_or_default(), &bridge.name))
}

/// `of` names the pool, where there are several.
fn judge_pool(used: usize, free: usize, of: &str, bridge: &str) -> Finding {
    let total = used + free;
    let found = format!("{used} of {total} in use{of}");
    let remedy = format!(
        "remove containers that are no longer needed (`flatnet ls`), run `flatnet gc`, or configure a larger ipam.subnet; a bridge such as {bridge} has {PORTS_MAX} ports at most"
    );
    if free == 0 {
        return POOL.bad(found, remedy);
    }
    if used * 100 >= total * FULL_SOON_PERCENT { POOL.warning(found, remedy) } else { POOL.ok(found) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty(0, 253, State::Ok)]
    #[case::nearly(227, 26, State::Ok)]
    #[case::soon(228, 25, State::Warning)]
    #[case::full(253, 0, State::Bad)]
    fn pools(#[case] used: usize, #[case] free: usize, #[case] expected: State) {
        assert_eq!(judge_pool(used, free, "", "flatnet-br0").state, expected);
    }
}
