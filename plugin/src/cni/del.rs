//! DEL: takes an attachment back, whatever is left of it.
//!
//! It needs the network's name and nothing else of the configuration, and no network namespace: the attachment is found by
//! its name on the host, and everything else goes with that one link.

use crate::attachment::{Attachment, Target};
use crate::call::{within_deadline, within_part};
use crate::error::{Result, both};
use crate::firewall::{ports, spoofing};
use crate::ipam::lease;
use crate::names::vlan_link;
use crate::netlink::{Link, Netlink};
use crate::reply::Reply;

/// Deletes the attachment's link, if there is one, and what the host remembers of its addresses.
pub(super) async fn del(target: &Target, network: &str) -> Result<Reply> {
    detach(target, network, Published::Never).await.map(|()| Reply::Nothing)
}

/// Whether flatnet may have published ports of the container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Published<'a> {
    /// Publishing is somebody else's, or there was nothing to publish: the packet filter is not even looked at.
    Never,
    /// For a container on the bridge of that name: those that were asked for, if any were, or a dead one's at the same address.
    Perhaps { bridge: &'a str, asked: bool },
}

/// Takes the attachment back, and with it the ports that were published for it; goes on past an error, and tells both.
pub(crate) async fn detach(target: &Target, network: &str, published: Published<'_>) -> Result<()> {
    let host = Netlink::open()?;
    let attachment = Attachment { network, target };
    within_deadline(async {
        let found = lease::find(&host, &attachment).await;
        let unpublished = match published {
            Published::Never => Ok(()),
            Published::Perhaps { bridge, asked } => {
                // A packet filter that never answers must not keep the link.
                within_part(unpublish_at(&host, &attachment.name(), (bridge, asked))).await
            }
        };
        let deleted = match found {
            Ok(Some(link)) => delete(&host, &link).await,
            // Its container may have crashed, and nobody knows what it had.
            Ok(None) => spoofing::forget_gone(&host).await,
            Err(error) => Err(error),
        };
        both(unpublished, deleted)
    })
    .await
}

/// Takes back an attachment, or what is left of one, whose host end is known already.
pub(crate) async fn remove(host: &Netlink, link: &Link) -> Result<()> {
    within_deadline(async {
        let unpublished = within_part(unpublish(host, link)).await;
        let deleted = delete(host, link).await;
        both(unpublished, deleted)
    })
    .await
}

/// Takes away the ports that were published for the attachment, if any can have been.
async fn unpublish(host: &Netlink, link: &Link) -> Result<()> {
    let (Some(name), Some(index)) = (lease::attachment_of(link), gateway_of(host, link).await?) else { return Ok(()) };
    match host.link_by_index(index).await? {
        Some(gateway) => unpublish_at(host, name, (&gateway.name, false)).await,
        None => Ok(()),
    }
}

/// The same for an attachment of that name, to a bridge where ports were asked for, or may be published.
async fn unpublish_at(host: &Netlink, name: &str, (bridge, asked): (&str, bool)) -> Result<()> {
    if asked || ports::is_in_use(host, bridge).await { Box::pin(ports::unpublish(host, name)).await } else { Ok(()) }
}

/// Deletes an attachment's host end, and with it everything else; goes on past an error, and tells both if there are two.
///
/// While the bridge remembers the dead container's MAC, the host sends to nobody for up to a minute, and the gateway waits as long; without,
/// it learns within three seconds that nobody is there.
pub(super) async fn delete(host: &Netlink, link: &Link) -> Result<()> {
    let gateway = gateway_of(host, link).await;
    let bridge = gateway.as_ref().ok().copied().flatten();
    let neighbours: Vec<_> =
        bridge.into_iter().flat_map(|bridge| lease::leases(link).map(move |it| (bridge, it))).collect();
    let deleted = host.delete_link_soon(link, &neighbours).await;
    // The link itself tells: DEL knows no configuration, and pays nothing for networks without `macspoofchk`.
    let released = match &deleted {
        _ if !spoofing::may_be_guarded(link) => Ok(()),
        Ok(()) => spoofing::forget(host, link).await,
        // It may still be there, and must then stay under control.
        Err(_) => spoofing::forget_gone(host).await,
    };
    lease::mark_freed(link);
    both(deleted, both(gateway.map(drop), released))
}

/// The index of the link by which the host reaches the attachment: its bridge, or a VLAN there.
async fn gateway_of(host: &Netlink, link: &Link) -> Result<Option<u32>> {
    let (Some(bridge), Some(vlan)) = (link.bridge, lease::vlan(link)) else { return Ok(link.bridge) };
    let found = host.link_by_index(bridge).await?;
    let Some(name) = found.map(|bridge| vlan_link(&bridge.name, vlan)) else { return Ok(None) };
    let found = host.link(&name).await?;
    Ok(found.filter(|link| link.vlan == Some(vlan)).map(|link| link.index))
}
