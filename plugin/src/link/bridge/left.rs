//! The bridges that nobody uses any more: made by flatnet, and without a port.
//!
//! Such a bridge is made anew by the next ADD of a network that needs it, so that nothing is lost with it. For an operator's command only: it
//! lists all links.

use std::collections::BTreeSet;

use super::MARK_PREFIX;
use crate::error::Result;
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};

/// All of them.
pub(crate) async fn left(host: &Netlink) -> Result<Vec<Link>> {
    let links = host.links().await?;
    let used: BTreeSet<_> = links.iter().filter_map(|link| link.bridge).collect();
    let mut left = Vec::new();
    for link in links.into_iter().filter(|link| !used.contains(&link.index)) {
        if is_made_by_flatnet(host, &link).await? {
            left.push(link);
        }
    }
    Ok(left)
}

/// Whether this link is one of them.
pub(crate) async fn is_left(host: &Netlink, link: &Link) -> Result<bool> {
    let ports = host.ports(link).await?;
    Ok(ports.is_empty() && is_made_by_flatnet(host, link).await?)
}

/// It has the MAC that flatnet gives the bridge of a gateway with one of its addresses, or one that is no gateway's; or the mark of a
/// network. One that somebody else has made keeps its own MAC.
async fn is_made_by_flatnet(host: &Netlink, link: &Link) -> Result<bool> {
    let Some(mac) = link.mac.filter(|_| link.kind.as_deref() == Some("bridge")) else { return Ok(false) };
    if mac == Mac::named(&[&link.name]) || link.names.iter().any(|name| name.starts_with(MARK_PREFIX)) {
        return Ok(true);
    }
    let addresses = host.addresses(link).await?;
    Ok(addresses.iter().any(|address| Mac::of(address.ip()) == mac))
}
