//! How the host reaches published ports at its own 127.0.0.0/8: by a pair of links of its own, and not by the bridge.
//!
//! The kernel takes packets to or from loopback addresses only where `route_localnet` says so. On a bridge that would open the host's own
//! services to every container as soon as somebody flushed the rules that guard it. Here the setting is on one link alone, to which
//! nothing can be sent but what the host itself has translated: a packet to 127.0.0.1 leaves by [`OUTER`] to a mirrored address, comes
//! in by [`INNER`], and is led from there to the container like one from another host; the answer comes back the same way. Without
//! the rules nothing is translated, and nothing arrives: it is closed by its nature. The pair is there while ports are published.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::error::{Result, unless_there};
use crate::mac::Mac;
use crate::netlink::{Ipv4Setting, Link, Netlink, Route, RouteAttributes};

/// The link by which the host's own packets leave, and their answers come back: the only one with `route_localnet`.
pub(super) const OUTER: &str = "flatnet-lo0";
/// The other end, where they come in to be led on.
pub(super) const INNER: &str = "flatnet-lo1";
/// All loopback addresses (RFC 1122), and where they are mirrored between the two links: reserved addresses (RFC 1112), which
/// nobody routes.
pub(in crate::firewall) const LOOPBACK: Ipv4Network = network(Ipv4Addr::new(127, 0, 0, 0), 8);
pub(super) const MIRROR: Ipv4Network = network(Ipv4Addr::new(247, 0, 0, 0), 8);
/// Whom the host speaks as between the two links.
pub(super) const SPEAKER: Ipv4Addr = Ipv4Addr::new(247, 255, 255, 254);
/// Of both ends.
const MAC: Mac = Mac([0x0a, 0x57, 247, 0, 0, 1]);
/// `RT_SCOPE_LINK`.
const ON_THE_LINK: u8 = 253;

const fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Network {
    match Ipv4Network::new_checked(address, prefix) {
        Some(network) => network,
        None => unreachable!(),
    }
}

/// Makes the pair, or makes it as it should be.
pub(super) async fn ensure(host: &Netlink, links: &[Link]) -> Result<()> {
    if problem(links).is_some() {
        make(host).await?;
    }
    for (name, destination) in [(OUTER, MIRROR), (INNER, Ipv4Network::from(SPEAKER))] {
        let link = host.made_link(name).await?;
        let attributes = RouteAttributes { scope: Some(ON_THE_LINK), ..RouteAttributes::default() };
        let route = Route { destination: destination.into(), gateway: None, link: Some(link.index), attributes };
        unless_there(host.add_route(&link, &route).await)?;
    }
    Ok(())
}

/// What is wrong with it.
pub(super) fn problem(links: &[Link]) -> Option<String> {
    [OUTER, INNER].into_iter().find_map(|name| match links.iter().find(|link| link.name == name) {
        None => Some(format!("there is no link {name}")),
        Some(link) if !link.up => Some(format!("link {name} is down")),
        Some(_) => None,
    })
}

/// Whether it is there: then ports may be published.
pub(super) async fn is_there(host: &Netlink) -> bool {
    !matches!(host.link(OUTER).await, Ok(None))
}

/// Whether one of these is of it.
pub(super) fn is_left(links: &[Link]) -> bool {
    links.iter().any(|link| [OUTER, INNER].contains(&link.name.as_str()))
}

/// Takes it away.
pub(super) async fn remove(host: &Netlink) -> Result<()> {
    match host.link(OUTER).await? {
        Some(link) => host.delete_link_soon(&link, &[]).await,
        None => Ok(()),
    }
}

async fn make(host: &Netlink) -> Result<()> {
    unless_there(host.add_inner_pair((OUTER, INNER), MAC).await)?;
    for (name, outer) in [(OUTER, true), (INNER, false)] {
        let link = host.made_link(name).await?;
        host.no_ipv6_by_itself(&link, None).await?;
        // Nothing is passed on that comes back to the host: it has been answered there, or is nobody's.
        let settings = [(Ipv4Setting::RouteLocalnet, outer), (Ipv4Setting::Forwarding, !outer)];
        host.set_ipv4(&link, &settings).await?;
        host.set_up(&link).await?;
    }
    Ok(())
}
