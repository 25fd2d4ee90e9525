//! A container's port of the bridge: how the bridge treats what comes from there, and which VLANs pass.
//!
//! What is not as by default is said while the port is down: nothing passes before it has all of its settings.

use nix::errno::Errno;

use crate::config::options::PortOptions;
use crate::error::{Doing, Result};
use crate::ipam::lease;
use crate::netlink::{Link, Netlink, PortSettings};

/// What the bridge is told of a port; `filtered` is whether its packet filter must see every frame.
pub(crate) fn settings(options: &PortOptions, filtered: bool) -> PortSettings {
    PortSettings { filtered, hairpin: options.hairpin, isolated: options.isolated }
}

/// Puts a new port in the VLANs that it belongs to, beside the one of all new ports or in its place.
pub(crate) async fn enter_vlans(
    host: &Netlink,
    port: &Link,
    bridge: &Link,
    options: &PortOptions,
) -> std::result::Result<(), Errno> {
    if !options.needs_vlan_filtering() {
        return Ok(());
    }
    let unwanted = bridge.default_vlan.filter(|_| !options.keeps_default_vlan);
    if let Some(vlan) = unwanted.filter(|vlan| options.vlan != Some(*vlan)) {
        host.keep_out(port.index, vlan).await?;
    }
    host.let_pass(port.index, options.vlan, &options.trunk).await
}

/// Makes a container's host end a port of the bridge again, and up, as it was: under control where it was.
pub(crate) async fn put_back(
    host: &Netlink,
    link: &Link,
    bridge: &Link,
    options: &PortOptions,
) -> std::result::Result<(), Errno> {
    let settings = settings(options, lease::guarded_mac(link).is_some());
    if link.up && settings == PortSettings::default() && !options.needs_vlan_filtering() {
        return host.set_bridge(link.index, bridge.index).await;
    }
    // A new port has no settings yet: nothing passes until it has them.
    host.set_down(link.index).await?;
    host.set_bridge(link.index, bridge.index).await?;
    enter_vlans(host, link, bridge, options).await?;
    host.set_up_port(link.index, settings, None).await
}

/// What is not with a port as its options have it, for CHECK, to follow "failed to ...: ". What is there beside it is not looked at.
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
    let vlans = host.vlans(port.index).await.doing(|| format!("list the VLANs of {name}"))?;
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
