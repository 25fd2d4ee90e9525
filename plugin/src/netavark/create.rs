//! `create`: completes the configuration of a network that Podman is about to make, and refuses what `setup` could not build.
//!
//! Nothing is made yet. Name, id and driver come back as they were, as does every key that flatnet does not know.

use serde_json::{Map, Value, json};

use super::planned::{All, Planned};
use super::{network, subnets};
use crate::call;
use crate::config::Network;
use crate::error::{Error, Result};
use crate::link::bridge;
use crate::netlink::{Link, Netlink};

/// What a bridge is called that nobody names: this, and a number from 0 on. Number 0 is also the default of a CNI configuration.
const BRIDGE_PREFIX: &str = "flatnet-br";
/// How many are tried.
const BRIDGES: u8 = 100;

/// The configuration as Podman will keep it.
pub(super) fn create(mut config: Map<String, Value>) -> Result<Value> {
    let planned = All::read();
    if config.get("subnets").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        take_free_subnet(&mut config, &planned)?;
    }
    let (mut network, allocator) = network::parse("", &config)?;
    let is_named = config.get("network_interface").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    call::block_on(call::within_deadline(async {
        let host = Netlink::open()?;
        if !is_named {
            network.bridge = free_bridge(&host, &mut network, &planned).await?;
        }
        refuse_planned(&network, &planned)?;
        bridge::refuse_conflict(&host, &network).await
    }))?;
    let asked = config.get("subnets").and_then(Value::as_array).cloned().unwrap_or_default();
    let subnets = network.pools.ranges().enumerate().map(|(place, range)| {
        let mut subnet = json!({ "subnet": range.subnet(), "gateway": range.gateway() });
        let asked = asked.get(place).and_then(|subnet| subnet.get("lease_range"));
        if asked.is_some_and(|range| !range.is_null()) {
            let (first, last) = range.bounds();
            subnet["lease_range"] = json!({ "start_ip": first, "end_ip": last });
        }
        subnet
    });
    let subnets: Vec<_> = subnets.collect();
    for (key, value) in [
        ("network_interface", json!(network.bridge)),
        ("subnets", json!(subnets)),
        ("ipam_options", json!({ "driver": allocator.as_str() })),
        ("ipv6_enabled", json!(network.pools.ranges().any(|range| range.subnet().is_ipv6()))),
        ("internal", json!(false)),
        ("dns_enabled", json!(false)),
    ] {
        config.insert(key.to_owned(), value);
    }
    Ok(Value::Object(config))
}

/// A subnet for a network that names none, which no other network has: the first host's of the address plan, or from the top of the plan
/// down, where no host's is likely to be. Errors: 2 where all are taken, and what the configuration has otherwise wrong.
fn take_free_subnet(config: &mut Map<String, Value>, planned: &All) -> Result<()> {
    for subnet in subnets::defaults_in_turn() {
        config.insert("subnets".into(), json!([{ "subnet": subnet }]));
        let (network, _) = network::parse("", config)?;
        if network.pools.subnets().iter().all(|subnet| planned.overlapping(*subnet, &network.name).is_none()) {
            return Ok(());
        }
    }
    Err(Error::Unsupported {
        key: "subnets".into(),
        value: "[]".into(),
        remedy: "pass a subnet with --subnet: other networks use all of 10.87.0.0/16".into(),
    })
}

/// Errors: 105 where another network has the subnet on another bridge, which may not be there yet: the same addresses would be in two places.
fn refuse_planned(network: &Network, planned: &All) -> Result<()> {
    for subnet in network.pools.subnets() {
        let Some(other) = planned.overlapping(subnet, &network.name) else { continue };
        if other.bridge.as_ref() != Some(&network.bridge) {
            let remedy = "pass another subnet with --subnet, or that network's bridge with --interface-name";
            return Err(Error::BridgeConflict {
                bridge: network.bridge.clone(),
                found: format!("network {} has addresses of {subnet} already", other.name),
                remedy: remedy.into(),
            });
        }
    }
    Ok(())
}

/// The first bridge that no network with another gateway has, neither in the kernel nor, as a bridge is made by the first
/// container only, in files.
async fn free_bridge(host: &Netlink, network: &mut Network, planned: &All) -> Result<String> {
    let gateways = network.gateway_networks();
    for number in 0..BRIDGES {
        network.bridge = format!("{BRIDGE_PREFIX}{number}");
        let is_others = |other: &Planned| {
            other.bridge.as_ref() == Some(&network.bridge)
                && other.name != network.name
                && !gateways.iter().any(|own| other.gateways.contains(&own.ip()))
        };
        if planned.networks.iter().any(is_others) {
            continue;
        }
        let free = match bridge::find(host, &network.bridge).await {
            Ok(Some(found)) => is_free(host, network, &found).await,
            found => found.map(|_| true),
        };
        match free {
            Ok(true) => return Ok(network.bridge.clone()),
            Ok(false) | Err(Error::BridgeConflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unsupported {
        key: "network_interface".into(),
        value: "\"\"".into(),
        remedy: format!(
            "pass a bridge with --interface-name: {BRIDGE_PREFIX}0 - {BRIDGE_PREFIX}{} are in use",
            BRIDGES - 1
        ),
    })
}

/// Whether nobody else has the bridge: addresses of the other family are in nobody's way, but say that somebody does.
async fn is_free(host: &Netlink, network: &Network, bridge: &Link) -> Result<bool> {
    if bridge::has_gateways(host, network, bridge).await? {
        return Ok(true);
    }
    let addresses = host.addresses(bridge).await?;
    let gateways = network.gateway_networks();
    Ok(addresses.is_empty() || addresses.iter().any(|address| gateways.contains(address)))
}
