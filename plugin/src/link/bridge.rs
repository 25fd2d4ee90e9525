//! The bridge of a network: it has the gateway's address, and is the one thing that stays when containers go.
//!
//! `ensure` brings a bridge to the wanted state from whatever it finds, so that any number of first ADDs may race.

mod addresses;
mod group;
mod left;

use std::fs;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::attachment;
use crate::config::{Draft, Network};
use crate::error::{Doing, Error, Result, unless_there};
use crate::firewall::masquerade;
use crate::hash::hex16;
use crate::ipam::lease;
use crate::ipam::pool::{Pool, Pools, Range, subnet_of};
use crate::layout::ELSEWHERE;
use crate::link::{ipv6, port, vlan};
use crate::mac::Mac;
use crate::netlink::{Address, Link, Netlink, NewBridge};

pub(crate) use self::addresses::{conflict, has_gateways, overlap, refuse_conflict, refuse_overlap};
pub(crate) use self::left::left;

/// How the mark of a network begins that has no gateway on the bridge; the network's name follows.
const MARK_PREFIX: &str = "flatnet-ports-";
/// Ethernet's own, where the host has no uplink to take another from.
const ETHERNET_MTU_BYTES: u32 = 1500;
/// The most that a bridge or a veth takes; the uplink may be a link that takes more.
const MTU_MAX_BYTES: u32 = 65_535;
/// What the kernel says where no route leads somewhere, one that drops, or one that refuses; or where it lacks the family.
const NO_WAY: [Errno; 6] =
    [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL, Errno::EACCES, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];

/// A network's bridge, ready for containers.
pub(crate) struct Bridge {
    pub(crate) link: Link,
    /// The VLAN on it that has the gateways' addresses, where it is not the bridge that does.
    pub(crate) vlan: Option<Link>,
}

impl Bridge {
    /// The link with the gateways' addresses, by which the host reaches containers.
    pub(crate) fn gateway(&self) -> &Link {
        self.vlan.as_ref().unwrap_or(&self.link)
    }
}

/// The network's bridge, made if need be: up, with the gateway's address and the network's MTU, which is its containers'. `index` is set as
/// soon as there is a bridge: whatever the error is, who knows the index can see whether the bridge was deleted meanwhile.
/// Errors: 105 where the name is something else's.
pub(crate) async fn ensure(host: &Netlink, network: &Network, index: &mut Option<u32>) -> Result<Bridge> {
    let name = &network.bridge;
    *index = None;
    ipv6::refuse_lacking(network)?;
    let found = find(host, name).await?;
    *index = found.as_ref().map(|found| found.index);
    let (mut bridge, in_use) = match found {
        Some(bridge) if has_gateways(host, network, &bridge).await? => {
            hold_mac(host, network, &bridge).await?;
            if !bridge.carrier && !network.options.container_down {
                // It has no container, or none any more: somebody may have taken its ports off, as systemd-networkd does to links that a file
                // of its own matches. Where containers are on it, nothing is listed.
                reattach_orphans(host, network, &bridge).await?;
            }
            (bridge, true)
        }
        found => (take_into_use(host, network, found, index).await?, false),
    };
    keep_vlans_apart(host, network, &mut bridge).await?;
    // One that is no gateway may be somebody else's, with the host's uplink for a port: up already, it is taken as it is.
    let is_ours = network.options.is_gateway || !bridge.up;
    // Not at creation: only a change of its MTU keeps the kernel from adjusting it to the bridge's ports later.
    let mtu = match network.mtu {
        Some(mtu) => mtu,
        None if !is_ours => bridge.mtu,
        None => match uplink_mtu(host, network).await? {
            Some(mtu) => mtu,
            // An uplink that is gone comes back: its containers' MTU is not to change twice.
            None if in_use => bridge.mtu,
            None => ETHERNET_MTU_BYTES,
        },
    };
    if bridge.mtu != mtu {
        if is_ours {
            host.set_mtu(&bridge, mtu).await?;
        }
        bridge.mtu = mtu;
    }
    raise(host, network, &bridge).await?;
    let vlan = vlan::ensure(host, network, &bridge).await?;
    let bridge = Bridge { link: bridge, vlan };
    group::join(host, network, bridge.gateway()).await?;
    if !in_use && network.has_ipv6() {
        let place = ipv6::Place { netlink: host, netns: None, link: bridge.gateway() };
        place.wait_for_mld_join(network.gateway_networks().iter().map(IpNetwork::ip)).await?;
    }
    Ok(bridge)
}

async fn raise(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    if network.options.promiscuous && !bridge.promiscuous {
        host.set_up_promiscuous(bridge).await
    } else if bridge.up {
        Ok(())
    } else {
        host.set_up(bridge).await
    }
}

/// The network as its bridge has it: where another plugin gives the addresses, nothing else on the host says which. None before
/// the first container has come, and where the bridge is no gateway. Errors: 105 where containers are there, and no bridge that tells.
pub(crate) async fn from_bridge(host: &Netlink, draft: Draft) -> Result<Option<Network>> {
    if !draft.options.is_gateway {
        return Ok(None);
    }
    let found = find(host, &draft.bridge).await?;
    let pools = match &found {
        Some(bridge) => told(host, &draft, bridge).await?,
        None => None,
    };
    if pools.is_none() && !lease::of_network(host, &draft.name).await?.is_empty() {
        return Err(Error::BridgeConflict {
            bridge: draft.bridge,
            found: format!("it is gone, or has no address, and network {} has containers", draft.name),
            remedy: "start another container on this network, which repairs it: only the IPAM plugin knows the address"
                .into(),
        });
    }
    Ok(pools.map(|pools| draft.with(pools)))
}

/// The pools that the addresses of a bridge, or of a VLAN on it, tell of. One of IPv6 may be there for the host's own sake, and the host
/// would forward for it: it tells only of containers that are there.
pub(crate) async fn told<P>(host: &Netlink, network: &Network<P>, bridge: &Link) -> Result<Option<Pools>> {
    let Some(link) = vlan::find(host, network, bridge).await? else { return Ok(None) };
    let found = host.addresses_of_any_scope(&link).await?;
    let can_tell = |found: &Address| found.network.is_ipv4() || (found.permanent && !found.is_link_local());
    let addresses: Vec<_> = found.into_iter().filter(can_tell).map(|found| found.network).collect();
    let has_ipv6 = addresses.iter().any(IpNetwork::is_ipv6);
    let containers = if has_ipv6 { lease::of_network(host, &network.name).await? } else { Vec::new() };
    let leases: Vec<_> = containers.iter().flat_map(|(_, link)| lease::leases(link)).collect();
    let is_told = |gateway: &&IpNetwork| gateway.is_ipv4() || leases.iter().any(|lease| gateway.contains(*lease));
    let range_of = |gateway: &IpNetwork| Range::new(subnet_of(*gateway), Some(gateway.ip()), None, None).ok();
    let pools: Vec<Pool> = addresses.iter().filter(is_told).filter_map(range_of).map(Pool::from).collect();
    Ok((!pools.is_empty()).then(|| Pools::new(pools)))
}

/// Puts containers back that are no longer on any bridge: one that is deleted leaves its ports behind; and those on this one that are
/// down, as a try that was cut short leaves them. Whoever has an address of the network's belongs here, also to a network of another
/// name that shares the bridge and the VLAN; where addresses do not tell, whoever is of this network.
pub(crate) async fn reattach_orphans(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    for link in host.links().await? {
        let is_lost = link.bridge.is_none() || (link.bridge == Some(bridge.index) && !link.up);
        if !is_lost || !lease::is_whole(&link) || !belongs(network, &link) {
            continue;
        }
        match port::put_back(host, &link, bridge, &network.options.port).await {
            // Its container has just ended.
            Err(error) if error.is(Errno::ENODEV) => {}
            done => done?,
        }
    }
    Ok(())
}

fn belongs(network: &Network, link: &Link) -> bool {
    // Nobody keeps subnets apart that have no gateway.
    if !network.options.is_gateway {
        return lease::is_of_network(link, &network.name);
    }
    let has_address = lease::leases(link).any(|address| network.pools.contains(address));
    has_address && lease::vlan(link) == network.options.port.vlan
}

/// The link of that name, if it is there. Errors: 105 where it is not a bridge.
pub(crate) async fn find(host: &Netlink, name: &str) -> Result<Option<Link>> {
    let found = host.link(name).await?;
    match found {
        // The kernel finds a link by its alternative names as well: that is not the bridge either.
        Some(link) if link.kind.as_deref() != Some("bridge") || link.name != name => Err(Error::BridgeConflict {
            bridge: name.to_owned(),
            found: format!("link {} is of kind {}, not a bridge", link.name, link.kind.as_deref().unwrap_or("device")),
            remedy: "give the network another bridge (`bridge` in its .conflist, `--interface-name` with Podman 5), or rename that link".into(),
        }),
        Some(link) if link.stp => Err(Error::BridgeConflict {
            bridge: name.to_owned(),
            found: "it runs STP, which blocks a new port for 30 s".into(),
            remedy: format!("turn it off: `ip link set {name} type bridge stp_state 0`"),
        }),
        found => Ok(found),
    }
}

/// Makes the bridge if there is none, and gives it the gateway's address. Refuses before it makes anything.
async fn take_into_use(
    host: &Netlink,
    network: &Network,
    found: Option<Link>,
    index: &mut Option<u32>,
) -> Result<Link> {
    refuse_overlap(host, network).await?;
    let mut bridge = match found {
        Some(mut bridge) => {
            fix_mac(host, network, &mut bridge).await?;
            bridge
        }
        None => create(host, network, index).await?,
    };
    keep_vlans_apart(host, network, &mut bridge).await?;
    let link = vlan::find_or_make(host, network, &bridge).await?;
    let place = ipv6::Place { netlink: host, netns: None, link: &link };
    if network.options.is_gateway {
        place.ignores_routers()?;
    }
    if let (Some(_), Some(mac)) = (network.gateway_vlan(), bridge.mac) {
        // Other VLANs' gateways have it too: whatever it is, it is not to change with the bridge's ports.
        host.set_mac(&bridge, mac).await?;
    }
    if network.options.is_gateway && !network.masquerade {
        // Nobody may know of rules that an earlier bridge of that name had. Before the address, which says that this is done.
        masquerade::remove(network.gateway_link()).await?;
    }
    // Before the address: with that the bridge is in use, and nobody looks for more.
    reattach_orphans(host, network, &bridge).await?;
    if network.options.force_address {
        addresses::clear_the_way(host, network, &link).await?;
    }
    if !network.options.is_gateway {
        let mark = mark_of(&network.name);
        // Another first ADD was faster; or a bridge of another name has it, and here each ADD looks for what is lost.
        unless_there(host.add_alternative_name(&bridge, &mark).await)?;
    }
    let mac = network.gateway_networks().first().map(|gateway| Mac::of(gateway.ip()));
    if let Some(mac) = mac.filter(|_| network.has_ipv6()) {
        ipv6::prepare_bridge(host, &link, ipv6::link_local(mac)).await?;
    }
    for gateway in network.gateway_networks() {
        // Another first ADD was faster, or it has this one already.
        unless_there(place.give(gateway, false).await)?;
    }
    Ok(bridge)
}

/// The bridge's alternative name that says of a network for which it is no gateway what an address says of another: that all its containers
/// are there.
fn mark_of(network: &str) -> String {
    let name = format!("{MARK_PREFIX}{network}");
    if name.len() <= attachment::ALTERNATIVE_NAME_MAX_BYTES {
        name
    } else {
        format!("{MARK_PREFIX}{}", hex16(&[network]))
    }
}

/// Makes the bridge; another process may be faster, which is as good.
async fn create(host: &Netlink, network: &Network, index: &mut Option<u32>) -> Result<Link> {
    let name = &network.bridge;
    let mac = gateway_mac(network).unwrap_or_else(|| Mac::named(&[name]));
    let new = NewBridge { name, mac: Some(mac), vlan_filtering: network.options.port.needs_vlan_filtering() };
    unless_there(host.add_bridge(&new).await)?;
    let bridge = find(host, name).await?.ok_or(Errno::ENODEV).doing(|| format!("find bridge {name} just created"))?;
    *index = Some(bridge.index);
    host.no_ipv6_by_itself(&bridge, None).await?;
    ipv6::Place { netlink: host, netns: None, link: &bridge }.ignores_routers()?;
    Ok(bridge)
}

/// The MAC that a bridge has which is the gateway of one network.
fn gateway_mac(network: &Network) -> Option<Mac> {
    match network.gateway_vlan() {
        Some(_) => None,
        None => network.gateway_networks().first().map(|gateway| Mac::of(gateway.ip())),
    }
}

/// One that was made by hand changes its MAC with its ports, and the containers' ARP caches go stale. Where it has an address, or somebody has
/// set its MAC, it keeps the one that it has: somebody may know it.
async fn fix_mac(host: &Netlink, network: &Network, bridge: &mut Link) -> Result<()> {
    let Some(mac) = gateway_mac(network).filter(|mac| bridge.mac != Some(*mac)) else { return Ok(()) };
    let addresses = host.addresses(bridge).await?;
    let mac = bridge.mac.filter(|_| !addresses.is_empty() || has_set_mac(bridge) == Some(true)).unwrap_or(mac);
    host.set_mac(bridge, mac).await?;
    bridge.mac = Some(mac);
    Ok(())
}

/// The same for a bridge that somebody else gave the gateway's address.
async fn hold_mac(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    match bridge.mac.filter(|mac| gateway_mac(network).is_some_and(|own| own != *mac)) {
        // Where sysfs does not show that, it is set again.
        Some(mac) if has_set_mac(bridge) != Some(true) => host.set_mac(bridge, mac).await,
        _ => Ok(()),
    }
}

/// Whether somebody has set the bridge's MAC (`NET_ADDR_SET` of linux/netdevice.h), which else changes with its ports; unknown where no sysfs
/// is mounted, or that of another network namespace, where a link of that name has another MAC.
fn has_set_mac(bridge: &Link) -> Option<bool> {
    let told = |file| fs::read_to_string(format!("/sys/class/net/{}/{file}", bridge.name)).ok();
    let is_this = told("address")?.trim().parse() == Ok(bridge.mac?);
    is_this.then(|| told("addr_assign_type").map(|told| told.trim() == "3")).flatten()
}

async fn keep_vlans_apart(host: &Netlink, network: &Network, bridge: &mut Link) -> Result<()> {
    if network.options.port.needs_vlan_filtering() && !bridge.vlan_filtering {
        host.set_vlan_filtering(bridge).await?;
        bridge.vlan_filtering = true;
    }
    Ok(())
}

/// The MTU, in bytes, of the link that the host's default route leaves by, if there is one; IPv4's where there are two.
async fn uplink_mtu(host: &Netlink, network: &Network) -> Result<Option<u32>> {
    let has_ipv6 = network.has_ipv6();
    for address in ELSEWHERE.into_iter().filter(|address| address.is_ipv4() || has_ipv6) {
        let uplink = match host.way_to(address).await {
            Err(error) if NO_WAY.iter().any(|errno| error.is(*errno)) => continue,
            found => found?.link,
        };
        let link = if let Some(uplink) = uplink { host.link_by_index(uplink).await? } else { None };
        let least = if has_ipv6 { ipv6::MTU_MIN_BYTES } else { 0 };
        if let Some(link) = link {
            return Ok(Some(link.mtu.clamp(least, MTU_MAX_BYTES)));
        }
    }
    Ok(None)
}

/// What is wrong with the bridge, for CHECK.
pub(crate) async fn problem(host: &Netlink, network: &Network, bridge: &Link) -> Result<Option<String>> {
    let name = &network.bridge;
    if !bridge.up {
        return Ok(Some(format!("bridge {name} is down")));
    }
    if network.options.promiscuous && !bridge.promiscuous {
        return Ok(Some(format!("bridge {name} is not promiscuous, but promiscMode is true")));
    }
    if network.options.port.needs_vlan_filtering() && !bridge.vlan_filtering {
        return Ok(Some(format!("bridge {name} does not filter VLANs: its vlan_filtering is 0")));
    }
    if let Some(problem) = vlan::problem(host, network, bridge).await? {
        return Ok(Some(problem));
    }
    let Some(link) = vlan::find(host, network, bridge).await? else { return Ok(None) };
    let name = &link.name;
    let found = host.addresses_of_any_scope(&link).await?;
    let is_there = |gateway: &IpNetwork| found.iter().any(|found| found.network == *gateway);
    let kind = if link.index == bridge.index { "bridge" } else { "link" };
    if let Some(gateway) = network.gateway_networks().iter().find(|gateway| !is_there(gateway)) {
        return Ok(Some(format!("{kind} {name} lacks the gateway address {gateway}")));
    }
    let mute = network.has_ipv6() && network.options.is_gateway && !ipv6::can_ask(&found);
    Ok(mute.then(|| format!("{kind} {name} lacks a link-local address, without which it reaches no container by IPv6")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::its_own(json!({}), "network=flatnet container=a", true)]
    #[case::of_another_name(json!({}), "network=other container=a", true)]
    #[case::of_a_vlan(json!({}), "network=other container=a vlan=100", false)]
    #[case::of_its_vlan(json!({"vlan": 100}), "network=flatnet container=a vlan=100", true)]
    #[case::of_another_vlan(json!({"vlan": 100}), "network=other container=a vlan=200", false)]
    #[case::of_another_subnet(json!({"ipam": {"subnet": "10.87.2.0/24"}}), "network=other container=a", false)]
    #[case::without_gateway(json!({"isGateway": false}), "network=flatnet container=a", true)]
    #[case::without_gateway_another(json!({"isGateway": false}), "network=other container=a", false)]
    fn who_belongs_to_a_network(#[case] change: serde_json::Value, #[case] record: &str, #[case] expected: bool) {
        let mut config = json!({"name": "flatnet", "type": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
        let config = config.as_object_mut().expect("an object");
        config.extend(change.as_object().expect("an object").clone());
        let network = Network::parse(config).expect("a network");
        let names = vec!["flatnet-ip-10.87.1.2".to_owned()];
        let link = Link { alias: Some(record.to_owned()), names, ..Link::default() };
        assert_eq!(belongs(&network, &link), expected);
    }
}
