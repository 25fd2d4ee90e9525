//! DEL: takes an attachment back, whatever is left of it.
//!
//! It needs the network's name and nothing else of the configuration, and no network namespace: the attachment is found by
//! its name on the host, and everything else goes with that one link.

use super::within_deadline;
use crate::error::{Doing, Result};
use crate::ipam::lease::{self, Attachment};
use crate::netlink::{Link, Netlink};
use crate::reply::Reply;
use crate::request::Target;

/// Deletes the attachment's link, if there is one, and what the host remembers of its addresses.
pub(super) async fn del(target: &Target, network: &str) -> Result<Reply> {
    let host = Netlink::open().doing(|| "open a netlink socket".into())?;
    within_deadline(detach(&host, &Attachment { network, target })).await?;
    Ok(Reply::Nothing)
}

async fn detach(host: &Netlink, attachment: &Attachment<'_>) -> Result<()> {
    match lease::find(host, attachment).await? {
        Some(link) => delete(host, &link).await,
        None => Ok(()),
    }
}

/// Deletes an attachment's host end, and with it everything else; goes on past an error, and tells both if there are two.
pub(super) async fn delete(host: &Netlink, link: &Link) -> Result<()> {
    let deleted = host.delete_link_soon(link.index).await.doing(|| format!("delete link {}", link.name));
    let forgotten = forget_neighbours(host, link).await;
    match (deleted, forgotten) {
        (Err(first), Err(second)) => Err(first.and_then(second)),
        (deleted, forgotten) => deleted.and(forgotten),
    }
}

/// While the bridge remembers the dead container's MAC, the host sends to nobody for up to a minute, and the gateway waits
/// as long; without, it learns within three seconds that nobody is there.
async fn forget_neighbours(host: &Netlink, link: &Link) -> Result<()> {
    let Some(bridge) = link.bridge else { return Ok(()) };
    for address in lease::leases(link) {
        host.delete_neighbour(bridge, address).await.doing(|| format!("forget the neighbour {address}"))?;
    }
    Ok(())
}
