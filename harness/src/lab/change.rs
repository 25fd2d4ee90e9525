//! What befalls a host's network while it runs: another address, another route, a restart.
//!
//! Invariant: only the named thing changes; the routes over a link outlive its change of address, as a DHCP client renews them.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};

use crate::inventory::nftables;

use super::{Namespace, View, set_sysctl, wire};

/// Where a kernel with IPv6 has its settings, a folder for each link.
const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// Gives a host another address in the place of `from`; tells on which link.
pub(super) fn renumber(host: &Namespace, from: IpNetwork, to: IpNetwork) -> Result<String> {
    let view = View::of(host)?;
    let holder = view.links.iter().find(|link| link.addresses.contains(&from.to_string()));
    let link = holder.ok_or_else(|| anyhow!("find the address {from} on {}", host.name()))?;
    host.netlink(async |handle| {
        let all = RouteMessageBuilder::<IpAddr>::new().build();
        let routes: Vec<RouteMessage> = handle.route().get(all).execute().try_collect().await.context("list routes")?;
        let addresses: Vec<AddressMessage> =
            handle.address().get().execute().try_collect().await.context("list addresses")?;
        let old = addresses.into_iter().find(|message| message.header.index == link.index && is_of(message, from.ip()));
        let old = old.with_context(|| format!("find the address {from}"))?;
        // With the last address of a link the kernel takes all routes over it.
        handle.address().del(old).execute().await.with_context(|| format!("remove the address {from}"))?;
        wire::add_address(&handle, link.index, to).await?;
        for route in routes.into_iter().filter(|route| leads_over(route, link.index)) {
            handle.route().add(route).replace().execute().await.context("renew a route")?;
        }
        Ok(())
    })?;
    Ok(link.name.clone())
}

/// Makes a host forget at which hardware address it has seen `address`: else it would go on talking to whoever had it.
pub(super) fn forget_neighbour(host: &Namespace, address: IpAddr) -> Result<()> {
    host.netlink(async |handle| {
        let all: Vec<NeighbourMessage> =
            handle.neighbours().get().execute().try_collect().await.context("list neighbours")?;
        for message in all.into_iter().filter(|message| is_at(message, address)) {
            handle.neighbours().del(message).execute().await.with_context(|| format!("forget {address}"))?;
        }
        Ok(())
    })
}

/// Sets a host's route to a range, in the place of the one that it has.
pub fn replace_route(host: &Namespace, to: IpNetwork, via: IpAddr) -> Result<()> {
    let message = wire::route(to, via)?;
    host.netlink(async |handle| {
        let replace = handle.route().add(message).replace().execute();
        replace.await.with_context(|| format!("set the route to {to} via {via}"))
    })
}

/// Leaves a host as it comes up: no processes, no links but its wires, no forwarding, no packet filter.
pub(super) fn restart(host: &Namespace) -> Result<()> {
    host.kill_processes()?;
    let own = |name: &str| name == "lo" || name.strip_prefix("eth").is_some_and(|number| number.parse::<u8>().is_ok());
    let strange: Vec<u32> =
        View::of(host)?.links.iter().filter(|link| !own(&link.name)).map(|link| link.index).collect();
    host.netlink(async |handle| {
        for index in strange {
            match handle.link().del(index).execute().await {
                // A port goes with its container, when the kernel comes to it.
                Err(rtnetlink::Error::NetlinkError(err)) if err.raw_code() == -(Errno::ENODEV as i32) => {}
                outcome => outcome.context("remove a link")?,
            }
        }
        Ok(())
    })?;
    host.enter(nftables::flush)?;
    stop_forwarding(host)
}

/// Has a host forward nothing, and hear router advertisements, as every kernel begins.
pub(super) fn stop_forwarding(host: &Namespace) -> Result<()> {
    set_sysctl(host, "net.ipv4.ip_forward", "0")?;
    host.enter(|| {
        let Ok(links) = fs::read_dir(IPV6_CONF) else {
            // A kernel without IPv6.
            return Ok(());
        };
        fs::write(format!("{IPV6_CONF}/all/forwarding"), "0").context("stop forwarding IPv6")?;
        for link in links {
            let file = link.context("list links")?.path().join("accept_ra");
            fs::write(file, "1").context("have a link hear router advertisements")?;
        }
        Ok(())
    })
}

fn is_of(message: &AddressMessage, address: IpAddr) -> bool {
    message.attributes.iter().any(|it| matches!(it, AddressAttribute::Address(found) if *found == address))
}

fn is_at(message: &NeighbourMessage, address: IpAddr) -> bool {
    let found = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    found == Some(address)
}

/// Whether a route has a next hop over that link: those without one follow from the addresses.
fn leads_over(route: &RouteMessage, link: u32) -> bool {
    let over = route.attributes.iter().any(|it| matches!(it, RouteAttribute::Oif(index) if *index == link));
    over && route.attributes.iter().any(|it| matches!(it, RouteAttribute::Gateway(_)))
}
