//! A container's port of the bridge: how the bridge treats what comes from there, which VLANs pass, and whose MACs are behind it.
//!
//! What is not as by default is said while the port is down: nothing passes before it has all of its settings.

use std::net::IpAddr;

use crate::config::options::PortOptions;
use crate::error::{Error, Result};
use crate::ipam::lease;
use crate::mac::Mac;
use crate::netlink::{Link, Netlink, PortSettings};

/// What the bridge is told of a port; `filtered` is whether its packet filter must see every frame.
pub(crate) fn settings(options: &PortOptions, filtered: bool) -> PortSettings {
    PortSettings { filtered, hairpin: options.hairpin, isolated: options.isolated }
}

/// Puts a new port in the VLANs that it belongs to, beside the one of all new ports or in its place.
pub(crate) async fn enter_vlans(host: &Netlink, port: &Link, bridge: &Link, options: &PortOptions) -> Result<()> {
    if !options.needs_vlan_filtering() {
        return Ok(());
    }
    let unwanted = bridge.default_vlan.filter(|_| !options.keeps_default_vlan);
    if let Some(vlan) = unwanted.filter(|vlan| options.vlan != Some(*vlan)) {
        host.keep_out(port, vlan).await?;
    }
    host.let_pass(port, options.vlan, &options.trunk).await
}

/// For the container behind `own`, which asked for `mac`: frames to a MAC of the bridge or a port end on the host, and those to another
/// container's now here, now there. Errors: 102.
pub(crate) async fn refuse_taken_mac(
    host: &Netlink,
    mac: Mac,
    (own, vlan): (&Link, Option<u16>),
    bridge: &Link,
) -> Result<()> {
    let taken = |holder: String| Err(Error::MacTaken { mac, holder });
    if bridge.mac == Some(mac) {
        return taken(format!("bridge {}", bridge.name));
    }
    let ports = host.ports(bridge).await?;
    match ports.iter().find(|port| has(port, mac, (own, vlan))) {
        Some(port) => taken(lease::describe(port)),
        None => Ok(()),
    }
}

/// Whether `mac` is this port's, or that of a container behind it other than `own`'s. Containers of another VLAN never meet.
fn has(port: &Link, mac: Mac, (own, vlan): (&Link, Option<u16>)) -> bool {
    let is_another = port.index != own.index && lease::vlan(port) == vlan;
    port.mac == Some(mac) || (is_another && container_mac(port) == Some(mac))
}

/// What the container behind a port has, as far as the host knows: another one that it asked for only where it is held to that.
fn container_mac(port: &Link) -> Option<Mac> {
    let of_address = || lease::leases(port).min_by_key(IpAddr::is_ipv6).map(Mac::of);
    lease::guarded_mac(port).or_else(of_address)
}

/// Makes a container's host end a port of the bridge again, and up, as it was: under control where it was.
pub(crate) async fn put_back(host: &Netlink, link: &Link, bridge: &Link, options: &PortOptions) -> Result<()> {
    let settings = settings(options, lease::guarded_mac(link).is_some());
    if link.up && settings == PortSettings::default() && !options.needs_vlan_filtering() {
        return host.set_bridge(link, bridge).await;
    }
    // A new port has no settings yet: nothing passes until it has them.
    host.set_down(link).await?;
    host.set_bridge(link, bridge).await?;
    enter_vlans(host, link, bridge, options).await?;
    host.set_up_port(link, settings, None).await
}

/// What is not with a port as its options have it, for CHECK. What is there beside it is not looked at.
pub(crate) async fn problem(
    host: &Netlink,
    port: &Link,
    bridge: &Link,
    options: &PortOptions,
) -> Result<Option<String>> {
    let name = &port.name;
    if options.hairpin && !port.port.hairpin {
        return Ok(Some(format!("hairpin mode of host link {name} is off")));
    }
    if options.isolated && !port.port.isolated {
        return Ok(Some(format!("host link {name} is not isolated")));
    }
    if !options.needs_vlan_filtering() {
        return Ok(None);
    }
    let vlans = host.vlans(port).await?;
    if let Some(vlan) = options.vlan.filter(|vlan| vlans.native != Some(*vlan)) {
        return Ok(Some(format!("host link {name} is not in VLAN {vlan}")));
    }
    if let Some(vlan) = options.trunk.iter().cloned().flatten().find(|vlan| !vlans.passed.contains(vlan)) {
        return Ok(Some(format!("host link {name} does not pass VLAN {vlan}")));
    }
    let kept_out = bridge.default_vlan.filter(|vlan| !options.keeps_default_vlan && options.vlan != Some(*vlan));
    let is_wanted = |vlan: &u16| options.trunk.iter().any(|range| range.contains(vlan));
    let leaking = kept_out.filter(|vlan| vlans.passed.contains(vlan) && !is_wanted(vlan));
    Ok(leaking.map(|vlan| format!("host link {name} is in VLAN {vlan}, the bridge's default, too")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::its_end_on_the_host("02:00:00:00:00:07", "", Some(100), true)]
    #[case::of_its_address("0a:57:0a:57:01:02", "", Some(100), true)]
    #[case::of_its_address_in_another_vlan("0a:57:0a:57:01:02", "", None, false)]
    #[case::its_end_on_the_host_is_of_all_vlans("02:00:00:00:00:07", "", None, true)]
    #[case::held_to("02:00:00:00:00:55", " mac=02:00:00:00:00:55", Some(100), true)]
    #[case::held_to_another("0a:57:0a:57:01:02", " mac=02:00:00:00:00:55", Some(100), false)]
    #[case::nobody_s("02:00:00:00:00:55", "", Some(100), false)]
    fn who_has_a_mac(#[case] mac: &str, #[case] record: &str, #[case] vlan: Option<u16>, #[case] expected: bool) {
        let parse = |text: &str| text.parse::<Mac>().expect("a MAC");
        let names = ["fd00::2", "10.87.1.2", "10.87.1.3"].map(|address| format!("flatnet-ip-{address}")).into();
        let alias = Some(format!("network=flatnet container=web interface=eth0{record} vlan=100"));
        let port = Link { index: 7, mac: Some(parse("02:00:00:00:00:07")), names, alias, ..Link::default() };
        let own = Link { index: 8, ..Link::default() };
        assert_eq!(has(&port, parse(mac), (&own, vlan)), expected);
        assert!(!has(&port, parse("0a:57:0a:57:01:02"), (&port, Some(100))), "it is the one that asks");
    }
}
