//! The link group by which the host's rules know the gateways' links of all its flat networks, whatever these are called.
//!
//! A link that the host's own default route leaves by leads to the world, too: it does not get the group.

use crate::config::Network;
use crate::error::Result;
use crate::layout::{ELSEWHERE, LINK_GROUP};
use crate::netlink::{Link, Netlink};

/// Puts the gateway's link into the group, unless it is there. One that somebody put into another group stays in that.
pub(super) async fn join(host: &Netlink, network: &Network, link: &Link) -> Result<()> {
    if !network.options.is_gateway || link.group != 0 || leads_elsewhere(host, link).await {
        return Ok(());
    }
    host.set_group(link, LINK_GROUP).await
}

/// Whether a default route leaves by the link.
async fn leads_elsewhere(host: &Netlink, link: &Link) -> bool {
    for address in ELSEWHERE {
        // There may be no route at all, nor IPv6.
        if host.way_to(address).await.is_ok_and(|route| route.link == Some(link.index)) {
            return true;
        }
    }
    false
}
