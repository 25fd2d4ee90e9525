//! The gateway's link on a bridge that several VLANs share: the host's own end of one of them, with the gateways' addresses.
//!
//! It stands on the bridge and goes with it. (The reference makes a veth pair with one end on the bridge, which would stay behind.)

use nix::errno::Errno;

use crate::config::Network;
use crate::error::{Doing, Error, Result, unless_there};
use crate::netlink::{Link, Netlink};

/// The link that has the gateways' addresses: the bridge, or its VLAN, if that is there. Errors: 105 where it is something else.
pub(crate) async fn find<P>(host: &Netlink, network: &Network<P>, bridge: &Link) -> Result<Option<Link>> {
    let Some((name, vlan)) = network.gateway_vlan() else { return Ok(Some(bridge.clone())) };
    let found = host.link(name).await?;
    match found {
        Some(link) if link.name != name || link.vlan != Some(vlan) || link.peer != Some(bridge.index) => {
            Err(Error::BridgeConflict {
                bridge: network.bridge.clone(),
                found: format!(
                    "its VLAN {vlan} needs a link {name}, but {} is of kind {}, not that VLAN",
                    link.name,
                    link.kind.as_deref().unwrap_or("device")
                ),
                remedy: format!(
                    "delete it if another plugin made it (`ip link del {}`), or give the network another bridge or VLAN",
                    link.name
                ),
            })
        }
        found => Ok(found),
    }
}

/// The link that is to have the gateways' addresses, made if need be. Another process may be faster, which is as good. Errors: 105.
pub(super) async fn find_or_make(host: &Netlink, network: &Network, bridge: &Link) -> Result<Link> {
    if let Some(link) = find(host, network, bridge).await? {
        return Ok(link);
    }
    let Some((name, vlan)) = network.gateway_vlan() else { return Ok(bridge.clone()) };
    unless_there(host.add_vlan(name, bridge, vlan).await)?;
    let link = find(host, network, bridge).await?;
    let link = link.ok_or(Errno::ENODEV).doing(|| format!("find link {name} just created"))?;
    host.no_ipv6_by_itself(&link, None).await?;
    Ok(link)
}

/// Brings the VLAN's link to the wanted state on a bridge that is up: the VLAN's frames get there, of the bridge's size.
/// None where the bridge itself has the addresses.
pub(super) async fn ensure(host: &Netlink, network: &Network, bridge: &Link) -> Result<Option<Link>> {
    let Some((_, vlan)) = network.gateway_vlan() else { return Ok(None) };
    let mut link = find_or_make(host, network, bridge).await?;
    host.let_in_vlan(bridge, vlan).await?;
    if link.mtu != bridge.mtu {
        host.set_mtu(&link, bridge.mtu).await?;
        link.mtu = bridge.mtu;
    }
    if !link.up {
        host.set_up(&link).await?;
    }
    // It takes the bridge's on its way up.
    link.mac = bridge.mac;
    Ok(Some(link))
}

/// What is wrong with the way that the VLAN's frames take to the gateway, for CHECK.
pub(super) async fn problem(host: &Netlink, network: &Network, bridge: &Link) -> Result<Option<String>> {
    let Some((name, vlan)) = network.gateway_vlan() else { return Ok(None) };
    match find(host, network, bridge).await? {
        None => return Ok(Some(format!("link {name} is gone"))),
        Some(link) if !link.up => return Ok(Some(format!("link {name} is down"))),
        Some(_) => {}
    }
    let own = host.vlans(bridge).await?;
    Ok((!own.passed.contains(&vlan)).then(|| format!("bridge {} does not let VLAN {vlan} in", bridge.name)))
}
