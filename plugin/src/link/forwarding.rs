//! Whether the host forwards what a network's containers send, family by family.
//!
//! Only the families that the network has are looked at.

use super::ipv6;
use crate::config::Network;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::sysctl::{IPV4, IPV6};

/// Turns forwarding on for the network's families, where its bridge is their gateway. Without it the gateway's packets end at the host.
pub(crate) async fn enable(host: &Netlink, network: &Network) -> Result<()> {
    if !network.options.is_gateway {
        return Ok(());
    }
    if network.has_ipv4() {
        IPV4.enable()?;
    }
    if network.has_ipv6() && !IPV6.is_on()? {
        // A host that forwards listens to no router any more, unless it is told to.
        ipv6::preserve_accept_ra(host).await?;
        IPV6.enable()?;
    }
    Ok(())
}

/// The setting that keeps the network's packets from being forwarded, if one does.
pub(crate) fn problem(network: &Network) -> Result<Option<&'static str>> {
    let is_gateway = network.options.is_gateway;
    for (forwarding, needed) in [(IPV4, network.has_ipv4()), (IPV6, network.has_ipv6())] {
        if is_gateway && needed && !forwarding.is_on()? {
            return Ok(Some(forwarding.setting));
        }
    }
    Ok(None)
}
