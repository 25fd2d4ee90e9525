//! What an installation has to know of the kernel: who is attached, and the bridge that goes with the network.
//!
//! A bridge with anything on it is never deleted.

use anyhow::Result;
use ipnetwork::IpNetwork;

use crate::call::{block_on, within_deadline};
use crate::config::Network;
use crate::error;
use crate::firewall::{self, forward, masquerade, ports};
use crate::ipam::lease;
use crate::link::bridge;
use crate::netlink::{Link, Netlink};

/// The attachments of a network, each as its record says.
pub(in crate::cli) fn attached(network: &str) -> Result<Vec<String>> {
    let found = block_on(within_deadline(async {
        let host = Netlink::open()?;
        lease::of_network(&host, network).await
    }))?;
    let words = |(name, link): (String, Link)| link.alias.unwrap_or(name);
    Ok(found.into_iter().map(words).collect())
}

/// Whether there is a bridge of that name with nothing on it, or what belonged to one that is gone.
pub(in crate::cli) fn is_idle(name: &str) -> Result<bool> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        let is_gone = host.link(name).await?.is_none();
        Ok(idle(&host, name).await?.is_some()
            || (is_gone && (masquerade::exists(name).await? || forward::exists(name).await?)))
    }))?)
}

/// Deletes the bridge, if there is one with nothing on it, the rules that are there for it, and what crashed containers have left of others.
pub(in crate::cli) fn delete(name: &str) -> Result<()> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        if let Some(bridge) = idle(&host, name).await? {
            host.delete_link(&bridge).await?;
        }
        firewall::sweep(&host).await
    }))?)
}

/// Whether there is anything of published ports.
pub(in crate::cli) fn may_be_published() -> Result<bool> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        ports::may_be_published(&host).await
    }))?)
}

/// Takes away the ports that crashed containers have published, and leaves those of running ones.
pub(in crate::cli) fn unpublish() -> Result<()> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        ports::repair(&host).await
    }))?)
}

/// The bridges that flatnet has made and nobody uses any more, of whichever network.
pub(in crate::cli) fn left() -> Result<Vec<String>> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        Ok(bridge::left(&host).await?.into_iter().map(|link| link.name).collect())
    }))?)
}

/// Errors: 109 where the kernel lacks what the network's masquerade needs: each ADD would fail.
pub(super) fn refuse_masquerade(network: &Network) -> Result<()> {
    Ok(block_on(within_deadline(masquerade::try_out(network)))?)
}

async fn idle(host: &Netlink, name: &str) -> error::Result<Option<Link>> {
    // What is no bridge is not ours.
    let Ok(Some(bridge)) = bridge::find(host, name).await else { return Ok(None) };
    let ports = host.ports(&bridge).await?;
    Ok(ports.is_empty().then_some(bridge))
}

/// The host's routes into the network's subnets, in whichever table, each as `ip route` shows it: those by the network's own bridge are none,
/// nor are those to more than the whole subnet, which its own route goes before.
pub(super) fn routes_into(network: &Network) -> Result<Vec<String>> {
    /// `RT_TABLE_LOCAL` of linux/rtnetlink.h: of the host's own addresses, which [`refuse_conflict`] looks at.
    const LOCAL: u32 = 255;
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        let mut found = Vec::new();
        for ipv4 in [true, false] {
            let routes = host.routes_of_all_tables(ipv4).await?;
            for route in routes.iter().filter(|route| route.attributes.table != Some(LOCAL)) {
                let is_into = |subnet: &IpNetwork| {
                    bridge::overlap(*subnet, route.destination) && route.destination.prefix() >= subnet.prefix()
                };
                if !network.pools.subnets().iter().any(is_into) {
                    continue;
                }
                let link = match route.link {
                    Some(link) => host.link_by_index(link).await?,
                    None => None,
                };
                let link = link.map(|link| link.name).unwrap_or_default();
                if link != network.bridge && link != network.gateway_link() {
                    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                    let dev = if link.is_empty() { String::new() } else { format!(" dev {link}") };
                    found.push(format!("{}{via}{dev}", route.destination));
                }
            }
        }
        Ok(found)
    }))?)
}

/// Errors: 105 where the host's bridge or addresses are in the way of the network.
pub(super) fn refuse_conflict(network: &Network) -> Result<()> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open()?;
        bridge::refuse_conflict(&host, network).await
    }))?)
}
