//! What `setup` answers: the `StatusBlock` of netavark, of which Podman shows address, MAC and gateway.

use serde_json::{Value, json};

use crate::reply::Success;

/// The answer for the container's `interface`, out of what ADD would answer.
pub(super) fn block(success: &Success, interface: &str) -> Value {
    // The host's interfaces have no sandbox.
    let made = success.interfaces.iter().find(|found| !found.sandbox.is_empty());
    let subnets: Vec<_> = success.ips.iter().map(|ip| json!({ "ipnet": ip.address, "gateway": ip.gateway })).collect();
    json!({
        "dns_search_domains": [],
        "dns_server_ips": [],
        "interfaces": { interface: { "mac_address": made.map(|made| made.mac.as_str()).unwrap_or_default(), "subnets": subnets } },
    })
}
