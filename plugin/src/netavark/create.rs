//! `create`: completes the configuration of a network that Podman is about to make, and refuses what `setup` could not build.
//!
//! Nothing is made yet. Name, id and driver come back as they were, as does every key that flatnet does not know.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::network;
use crate::command;
use crate::config::Network;
use crate::error::{Doing, Error, Result};
use crate::layout;
use crate::link::bridge;
use crate::netlink::{Link, Netlink};

/// What a bridge is called that nobody names: this, and a number from 0 on. Number 0 is also the default of a CNI configuration.
const BRIDGE_PREFIX: &str = "flatnet-br";
/// How many are tried.
const BRIDGES: u8 = 100;

/// The configuration as Podman will keep it.
pub(super) fn create(mut config: Map<String, Value>) -> Result<Value> {
    let (mut network, allocator) = network::parse("", &config)?;
    let is_named = config.get("network_interface").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    command::block_on(command::within_deadline(async {
        let host = Netlink::open().doing(|| "open a netlink socket".into())?;
        if !is_named {
            network.bridge = free_bridge(&host, &mut network).await?;
        }
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

/// The first bridge that no network with another gateway has, neither in the kernel nor, as a bridge is made by the first
/// container only, in Podman's files.
async fn free_bridge(host: &Netlink, network: &mut Network) -> Result<String> {
    let gateways = network.gateway_networks();
    let planned = planned(Path::new(layout::NETAVARK_NETWORKS));
    for number in 0..BRIDGES {
        network.bridge = format!("{BRIDGE_PREFIX}{number}");
        let is_ours = |others: &Vec<IpAddr>| gateways.iter().any(|own| others.contains(&own.ip()));
        if planned.iter().any(|(bridge, others)| *bridge == network.bridge && !is_ours(others)) {
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
            "name a bridge with --interface-name: {BRIDGE_PREFIX}0 - {BRIDGE_PREFIX}{} are in use",
            BRIDGES - 1
        ),
    })
}

/// Whether nobody else has the bridge: addresses of the other family are in nobody's way, but say that somebody does.
async fn is_free(host: &Netlink, network: &Network, bridge: &Link) -> Result<bool> {
    if bridge::has_gateways(host, network, bridge).await? {
        return Ok(true);
    }
    let addresses = host.addresses(bridge.index).await.doing(|| format!("list the addresses of {}", bridge.name))?;
    let gateways = network.gateway_networks();
    Ok(addresses.is_empty() || addresses.iter().any(|address| gateways.contains(address)))
}

/// The bridges and gateways of the networks that Podman keeps in `folder`. What cannot be read is none of flatnet's.
fn planned(folder: &Path) -> Vec<(String, Vec<IpAddr>)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let network = |file: fs::DirEntry| {
        let network: Value = serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok()?;
        let subnets = network["subnets"].as_array()?.iter();
        let gateways: Vec<_> = subnets.filter_map(|subnet| subnet["gateway"].as_str()?.parse().ok()).collect();
        Some((network["network_interface"].as_str().filter(|_| !gateways.is_empty())?.to_owned(), gateways))
    };
    files.filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_files_name_the_bridges_of_networks() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        write(
            "a.json",
            r#"{"network_interface": "flatnet-br0", "subnets": [{"gateway": "10.87.1.1"}, {"gateway": "fd87:1::1"}]}"#,
        );
        write("b.json", r#"{"driver": "macvlan"}"#);
        write("c.json", "nonsense");
        let gateways = ["10.87.1.1", "fd87:1::1"].map(|text| text.parse().expect("an address"));
        assert_eq!(planned(folder.path()), [("flatnet-br0".to_owned(), gateways.to_vec())]);
        assert_eq!(planned(&folder.path().join("missing")), []);
    }
}
