//! `create`: completes the configuration of a network that Podman is about to make, and refuses what `setup` could not build.
//!
//! Nothing is made yet. Name, id and driver come back as they were, as does every key that flatnet does not know.

use serde_json::{Map, Value, json};

use super::network;
use crate::command;
use crate::error::{Doing, Result};
use crate::link::bridge;
use crate::netlink::Netlink;

/// The configuration as Podman will keep it.
pub(super) fn create(mut config: Map<String, Value>) -> Result<Value> {
    let (network, allocator) = network::parse("", &config)?;
    command::block_on(command::within_deadline(async {
        let host = Netlink::open().doing(|| "open a netlink socket".into())?;
        bridge::refuse_conflict(&host, &network).await
    }))?;
    let pool = &network.pool;
    let mut subnet = json!({ "subnet": pool.subnet(), "gateway": pool.gateway() });
    if let Some(range) = config.get("subnets").and_then(|subnets| subnets.get(0)?.get("lease_range")) {
        subnet["lease_range"] = range.clone();
    }
    for (key, value) in [
        ("network_interface", json!(network.bridge)),
        ("subnets", json!([subnet])),
        ("ipam_options", json!({ "driver": allocator.as_str() })),
        ("ipv6_enabled", json!(false)),
        ("internal", json!(false)),
        ("dns_enabled", json!(false)),
    ] {
        config.insert(key.to_owned(), value);
    }
    Ok(Value::Object(config))
}
