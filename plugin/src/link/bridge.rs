//! The bridge of a network: it has the gateway's address, and is the one thing that stays when containers go.
//!
//! `ensure` brings a bridge to the wanted state from whatever it finds, so that any number of first ADDs may race.

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::config::{Draft, Network};
use crate::error::{Doing, Error, Result};
use crate::firewall::masquerade;
use crate::ipam::lease;
use crate::ipam::pool::{Pool, Pools, Range};
use crate::link::ipv6;
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};

/// Ethernet's own, where the host has no uplink to take another from.
const ETHERNET_MTU_BYTES: u32 = 1500;
/// The most that a bridge or a veth takes; the uplink may be a link that takes more.
const MTU_MAX_BYTES: u32 = 65_535;

/// The network's bridge, made if need be: up, with the gateway's address and the network's MTU, which is its containers'.
/// Errors: 105 where the name is something else's.
pub(crate) async fn ensure(host: &Netlink, network: &Network) -> Result<Link> {
    let name = &network.bridge;
    ipv6::refuse_lacking(network)?;
    let (mut bridge, in_use) = match find(host, name).await? {
        Some(bridge) if has_gateways(host, network, &bridge).await? => (bridge, true),
        found => (take_into_use(host, network, found).await?, false),
    };
    if let Some(mac) = mac(network).filter(|mac| bridge.mac != Some(*mac)) {
        // New, or made by hand: its MAC would change with its ports, and the containers' ARP caches go stale.
        host.set_mac(bridge.index, mac).await.doing(|| format!("fix the MAC of {name} to {mac}"))?;
        bridge.mac = Some(mac);
    }
    // Not at creation: only a change of its MTU keeps the kernel from adjusting it to the bridge's ports later.
    let mtu = match network.mtu {
        Some(mtu) => mtu,
        None => match uplink_mtu(host, network).await? {
            Some(mtu) => mtu,
            // An uplink that is gone comes back: its containers' MTU is not to change twice.
            None if in_use => bridge.mtu,
            None => ETHERNET_MTU_BYTES,
        },
    };
    if bridge.mtu != mtu {
        host.set_mtu(bridge.index, mtu).await.doing(|| format!("set the MTU of {name} to {mtu}"))?;
        bridge.mtu = mtu;
    }
    if !bridge.up {
        host.set_up(bridge.index).await.doing(|| format!("set {name} up"))?;
    }
    if !in_use && network.has_ipv6() {
        let place = ipv6::Place { netlink: host, netns: None, link: &bridge };
        place.hears(network.gateway_networks().iter().map(IpNetwork::ip)).await?;
    }
    Ok(bridge)
}

/// The MAC that the network's bridge has.
fn mac(network: &Network) -> Option<Mac> {
    network.gateway_networks().first().map(|gateway| Mac::of(gateway.ip()))
}

/// The network as its bridge has it: where another plugin gives the addresses, nothing else on the host says which. None before
/// the first container has come. Errors: 105 where containers are there, and no bridge that tells.
pub(crate) async fn settled(host: &Netlink, draft: Draft) -> Result<Option<Network>> {
    let found = find(host, &draft.bridge).await?;
    let pools = match &found {
        Some(bridge) => told(host, bridge).await?,
        None => None,
    };
    if pools.is_none() && !lease::of_network(host, &draft.name).await?.is_empty() {
        return Err(Error::BridgeConflict {
            bridge: draft.bridge,
            found: format!("it is gone, or has no address, and network {} has containers", draft.name),
            remedy: "start another container on this network, which mends it: only the plugin of ipam.type knows the address"
                .into(),
        });
    }
    Ok(pools.map(|pools| draft.with(pools)))
}

/// The pools that a bridge's addresses tell of.
pub(crate) async fn told(host: &Netlink, bridge: &Link) -> Result<Option<Pools>> {
    let addresses = host.addresses(bridge.index).await.doing(|| format!("list the addresses of {}", bridge.name))?;
    let range_of = |gateway: &IpNetwork| {
        let subnet = IpNetwork::new(gateway.network(), gateway.prefix()).ok()?;
        Range::new(subnet, Some(gateway.ip()), None, None).ok()
    };
    let pools: Vec<Pool> = addresses.iter().filter_map(range_of).map(Pool::from).collect();
    Ok((!pools.is_empty()).then(|| Pools::new(pools)))
}

/// Puts containers back that are no longer on any bridge: one that is deleted leaves its ports behind. Whoever has an address of
/// the network's belongs here, also to a network of another name that shares the bridge.
pub(crate) async fn gather(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    for link in host.links().await.doing(|| "list the host's links".into())? {
        let is_ours = lease::is_whole(&link) && lease::leases(&link).any(|address| network.pools.contains(address));
        if link.bridge.is_some() || !is_ours {
            continue;
        }
        match put_back(host, &link, bridge).await {
            // Its container has just ended.
            Ok(()) | Err(Errno::ENODEV) => {}
            Err(errno) => return Err(errno).doing(|| format!("put {} back on {}", link.name, network.bridge)),
        }
    }
    Ok(())
}

/// Makes a container's host end a port of the bridge, under control where it was.
pub(crate) async fn put_back(host: &Netlink, link: &Link, bridge: &Link) -> std::result::Result<(), Errno> {
    if lease::guarded_mac(link).is_none() {
        return host.set_bridge(link.index, bridge.index).await;
    }
    // A new port has no settings yet: nothing passes until it has them.
    host.set_down(link.index).await?;
    host.set_bridge(link.index, bridge.index).await?;
    host.set_up_filtered(link.index, None).await
}

/// The link of that name, if it is there. Errors: 105 where it is not a bridge.
pub(crate) async fn find(host: &Netlink, name: &str) -> Result<Option<Link>> {
    let found = host.link(name).await.doing(|| format!("look up {name}"))?;
    match found {
        // The kernel finds a link by its alternative names as well: that is not the bridge either.
        Some(link) if link.kind.as_deref() != Some("bridge") || link.name != name => Err(Error::BridgeConflict {
            bridge: name.to_owned(),
            found: format!("link {} is of kind {}, not a bridge", link.name, link.kind.as_deref().unwrap_or("device")),
            remedy: "give the network another bridge (`bridge` in its .conflist, `--interface-name` with Podman 5), or rename that link".into(),
        }),
        Some(link) if link.stp => Err(Error::BridgeConflict {
            bridge: name.to_owned(),
            found: "it runs STP, which keeps a new port shut for 30 s".into(),
            remedy: format!("turn it off: `ip link set {name} type bridge stp_state 0`"),
        }),
        found => Ok(found),
    }
}

/// Makes the bridge if there is none, and gives it the gateway's address. Refuses before it makes anything.
async fn take_into_use(host: &Netlink, network: &Network, found: Option<Link>) -> Result<Link> {
    refuse_overlap(host, network).await?;
    let name = &network.bridge;
    let bridge = match found {
        Some(bridge) => bridge,
        None => create(host, name).await?,
    };
    if !network.masquerade {
        // Nobody may know of rules that an earlier bridge of that name had. Before the address, which says that this is done.
        masquerade::remove(name).await?;
    }
    // Before the address: with that the bridge is in use, and nobody looks for more.
    gather(host, network, &bridge).await?;
    if let Some(mac) = mac(network).filter(|_| network.has_ipv6()) {
        ipv6::prepare_bridge(host, &bridge, ipv6::link_local(mac)).await?;
    }
    let place = ipv6::Place { netlink: host, netns: None, link: &bridge };
    for gateway in network.gateway_networks() {
        match place.give(gateway, false).await {
            // Another first ADD was faster, or it has this one already.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).doing(|| format!("give {name} the address {gateway}")),
        }
    }
    Ok(bridge)
}

/// Makes the bridge; another process may be faster, which is as good.
async fn create(host: &Netlink, name: &str) -> Result<Link> {
    match host.add_bridge(name).await {
        Err(Errno::EEXIST) => {}
        done => done.doing(|| format!("create bridge {name}"))?,
    }
    let bridge = find(host, name).await?.ok_or(Errno::ENODEV).doing(|| format!("find bridge {name} just created"))?;
    host.no_ipv6_by_itself(bridge.index).await.doing(|| format!("keep {name} from IPv6"))?;
    Ok(bridge)
}

/// Whether the bridge has the gateways' addresses, and for IPv6 one to ask by. Errors: 105 where it has others only: it is then not
/// taken over.
pub(crate) async fn has_gateways(host: &Netlink, network: &Network, bridge: &Link) -> Result<bool> {
    let (name, gateways) = (&network.bridge, network.gateway_networks());
    let found = host.addresses_of_any_scope(bridge.index).await.doing(|| format!("list the addresses of {name}"))?;
    let can_ask = !network.has_ipv6() || ipv6::can_ask(&found);
    let addresses: Vec<_> = found.iter().filter(|found| !found.is_link_local()).map(|found| found.network).collect();
    let (Some(other), Some(gateway)) = (addresses.first(), gateways.first()) else { return Ok(gateways.is_empty()) };
    match gateways.iter().filter(|gateway| addresses.contains(gateway)).count() {
        found if found == gateways.len() => Ok(can_ask),
        // The network has grown.
        1.. => Ok(false),
        0 => Err(Error::BridgeConflict {
            bridge: name.clone(),
            found: format!("it has address {other}, but network {} needs {gateway} there", network.name),
            remedy: format!(
                "give the network another bridge (`bridge` in its .conflist, `--interface-name` with Podman 5), or free this one: `ip address del {other} dev {name}`"
            ),
        }),
    }
}

/// Errors: 105 where the host's bridge or addresses are in the way of a network that is to be set up.
pub(crate) async fn refuse_conflict(host: &Netlink, network: &Network) -> Result<()> {
    match find(host, &network.bridge).await? {
        Some(found) if has_gateways(host, network, &found).await? => Ok(()),
        _ => refuse_overlap(host, network).await,
    }
}

/// Errors: 105 where the host has an address of this subnet elsewhere: one of the two places could not be reached.
pub(crate) async fn refuse_overlap(host: &Netlink, network: &Network) -> Result<()> {
    let gateways = network.gateway_networks();
    let addresses = host.all_addresses().await.doing(|| "list the host's addresses".into())?;
    let overlapping = |other: IpNetwork| gateways.iter().find(move |gateway| overlap(other, **gateway));
    for (index, other) in &addresses {
        let Some(gateway) = overlapping(*other) else { continue };
        // On the bridge itself it is the gateway's own: another first ADD was faster.
        let link = host.link_by_index(*index).await.doing(|| format!("look up who has {other}"))?;
        let Some(link) = link.filter(|link| link.name != network.bridge) else { continue };
        let (name, bridge) = (&link.name, &network.bridge);
        let rename = if other == gateway && link.kind.as_deref() == Some("bridge") {
            format!(
                "name it back if it is {bridge} renamed (`ip link set {name} down`, `ip link set {name} name {bridge}`), or "
            )
        } else {
            String::new()
        };
        return Err(Error::BridgeConflict {
            bridge: bridge.clone(),
            found: format!("{name} already has {other}, which overlaps network {}'s {gateway}", network.name),
            remedy: format!(
                "{rename}give the network another subnet (`ipam.subnet` in its .conflist, `--subnet` with Podman 5)"
            ),
        });
    }
    Ok(())
}

/// The MTU, in bytes, of the link that the host's default route leaves by, if there is one; IPv4's where there are two.
async fn uplink_mtu(host: &Netlink, network: &Network) -> Result<Option<u32>> {
    let ipv6 = network.has_ipv6();
    let routes = if ipv6 { host.routes().await } else { host.ipv4_routes().await };
    let routes = routes.doing(|| "list the routes".into())?;
    let Some(uplink) = routes.iter().find(|route| route.is_default()).and_then(|route| route.link) else {
        return Ok(None);
    };
    let link = host.link_by_index(uplink).await.doing(|| "look up the uplink".into())?;
    let least = if ipv6 { ipv6::MTU_MIN_BYTES } else { 0 };
    Ok(link.map(|link| link.mtu.clamp(least, MTU_MAX_BYTES)))
}

/// What is wrong with the bridge, for CHECK, to follow "failed to ...: ".
pub(crate) async fn problem(host: &Netlink, network: &Network, bridge: &Link) -> Result<Option<String>> {
    let name = &network.bridge;
    if !bridge.up {
        return Ok(Some(format!("bridge {name} is down")));
    }
    let found = host.addresses_of_any_scope(bridge.index).await.doing(|| format!("list the addresses of {name}"))?;
    let is_there = |gateway: &IpNetwork| found.iter().any(|found| found.network == *gateway);
    if let Some(gateway) = network.gateway_networks().iter().find(|gateway| !is_there(gateway)) {
        return Ok(Some(format!("bridge {name} lacks the gateway address {gateway}")));
    }
    let mute = network.has_ipv6() && !ipv6::can_ask(&found);
    Ok(mute.then(|| format!("bridge {name} lacks a link-local address, and so finds no container by IPv6")))
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}
