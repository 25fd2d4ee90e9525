//! The bridge of a network: it has the gateway's address, and is the one thing that stays when containers go.
//!
//! `ensure` brings a bridge to the wanted state from whatever it finds, so that any number of first ADDs may race.

use nix::errno::Errno;

use crate::config::Network;
use crate::error::{Doing, Error, Result};
use crate::mac::Mac;
use crate::netlink::{Link, Netlink, Route};

/// Ethernet's own, where the host has no uplink to take another from.
const ETHERNET_MTU_BYTES: u32 = 1500;

/// The network's bridge, made if need be: up, with the gateway's address. Errors: 105 where the name is something else's.
pub(crate) async fn ensure(host: &Netlink, network: &Network) -> Result<Link> {
    let name = &network.bridge;
    let mut bridge = match find(host, name).await? {
        Some(bridge) => bridge,
        None => create(host, network).await?,
    };
    give_gateway(host, network, &bridge).await?;
    let mac = Mac::of(network.pool.gateway());
    if bridge.mac != Some(mac) {
        // New, or made by hand: its MAC would change with its ports, and the containers' ARP caches go stale.
        host.set_mac(bridge.index, mac).await.doing(|| format!("fix the MAC of {name} to {mac}"))?;
        bridge.mac = Some(mac);
    }
    if let Some(mtu) = network.mtu.filter(|mtu| *mtu != bridge.mtu) {
        host.set_mtu(bridge.index, mtu).await.doing(|| format!("set the MTU of {name} to {mtu}"))?;
        bridge.mtu = mtu;
    }
    if !bridge.up {
        host.set_up(bridge.index).await.doing(|| format!("set {name} up"))?;
    }
    Ok(bridge)
}

/// The link of that name, if it is there. Errors: 105 where it is not a bridge.
pub(crate) async fn find(host: &Netlink, name: &str) -> Result<Option<Link>> {
    let found = host.link(name).await.doing(|| format!("look up {name}"))?;
    match found {
        // The kernel finds a link by its alternative names as well: that is not the bridge either.
        Some(link) if link.kind.as_deref() != Some("bridge") || link.name != name => Err(Error::BridgeConflict {
            bridge: name.to_owned(),
            found: format!("link {} is of kind {}, not a bridge", link.name, link.kind.as_deref().unwrap_or("device")),
            remedy: "set another name as `bridge` in the network's .conflist, or rename that link".into(),
        }),
        found => Ok(found),
    }
}

/// Makes the bridge; another process may be faster, which is as good.
async fn create(host: &Netlink, network: &Network) -> Result<Link> {
    let name = &network.bridge;
    let mtu = match network.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(host).await?,
    };
    match host.add_bridge(name, mtu).await {
        Err(Errno::EEXIST) => {}
        done => done.doing(|| format!("create bridge {name}"))?,
    }
    let bridge = find(host, name).await?.ok_or(Errno::ENODEV).doing(|| format!("find bridge {name} just created"))?;
    host.no_ipv6_by_itself(bridge.index).await.doing(|| format!("keep {name} from IPv6"))?;
    Ok(bridge)
}

/// The MTU, in bytes, of the link that the host's default route leaves by.
async fn uplink_mtu(host: &Netlink) -> Result<u32> {
    let routes = host.routes().await.doing(|| "list the routes".into())?;
    let Some(uplink) = routes.iter().find(|route| route.destination == Route::DEFAULT).and_then(|route| route.link)
    else {
        return Ok(ETHERNET_MTU_BYTES);
    };
    let link = host.link_by_index(uplink).await.doing(|| "look up the uplink".into())?;
    Ok(link.map_or(ETHERNET_MTU_BYTES, |link| link.mtu))
}

/// A bridge with an address of other people's is not taken over.
async fn give_gateway(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    let (name, gateway) = (&network.bridge, network.pool.gateway_network());
    let addresses = host.addresses(bridge.index).await.doing(|| format!("list the addresses of {name}"))?;
    if addresses.contains(&gateway) {
        return Ok(());
    }
    if let Some(other) = addresses.first() {
        return Err(Error::BridgeConflict {
            bridge: name.clone(),
            found: format!("it has address {other}, but network {} needs {gateway} there", network.name),
            remedy: format!(
                "set another name as `bridge` in the network's .conflist, or free this one: `ip address del {other} dev {name}`"
            ),
        });
    }
    match host.add_address(bridge.index, gateway).await {
        Err(Errno::EEXIST) => Ok(()),
        done => done.doing(|| format!("give {name} the address {gateway}")),
    }
}

/// What is wrong with the bridge, for CHECK, to follow "failed to ...: ".
pub(crate) async fn problem(host: &Netlink, network: &Network, bridge: &Link) -> Result<Option<String>> {
    let (name, gateway) = (&network.bridge, network.pool.gateway_network());
    if !bridge.up {
        return Ok(Some(format!("bridge {name} is down")));
    }
    let addresses = host.addresses(bridge.index).await.doing(|| format!("list the addresses of {name}"))?;
    Ok((!addresses.contains(&gateway)).then(|| format!("bridge {name} lacks the gateway address {gateway}")))
}
