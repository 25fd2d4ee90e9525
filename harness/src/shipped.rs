//! The files that flatnet ships, as they were when the harness was built.
//!
//! Invariant: whoever needs one takes it from here, so that the harness runs without its checkout, and nothing is copied by hand.

use anyhow::{Context, Result};
use serde_json::Value;

/// `plugin/dist/flatnet.conflist`: the network.
pub const CONFLIST: &str = include_str!("../../plugin/dist/flatnet.conflist");

/// `plugin/dist/openresty/flatnet.conf`: the gateway.
pub const NGINX_CONF: &str = include_str!("../../plugin/dist/openresty/flatnet.conf");

/// `plugin/dist/openresty/flatnet-proxy.conf`: how a request is passed on.
pub const NGINX_PROXY: &str = include_str!("../../plugin/dist/openresty/flatnet-proxy.conf");
/// `plugin/dist/openresty/flatnet-upstreams.conf`: connections to containers that stay open.
pub const NGINX_UPSTREAMS: &str = include_str!("../../plugin/dist/openresty/flatnet-upstreams.conf");

/// The network list.
pub fn list() -> Result<Value> {
    serde_json::from_str(CONFLIST).context("read the shipped flatnet.conflist")
}

#[cfg(test)]
mod tests {
    use super::{NGINX_UPSTREAMS, list};
    use ipnetwork::Ipv4Network;

    #[test]
    fn every_address_of_the_shipped_network_has_a_group_and_nothing_else_does() {
        let list = list().unwrap();
        let subnet: Ipv4Network = list["plugins"][0]["ipam"]["subnet"].as_str().unwrap().parse().unwrap();
        // The first is the gateway's, the last is for broadcasts.
        let kept = "keepalive 256; keepalive_timeout 4s; keepalive_requests 100000;";
        let group = |address| format!("upstream {address} {{ server {address}:80; {kept} }}");
        let usable = usize::try_from(subnet.size()).unwrap() - 3;
        let wanted: Vec<String> = subnet.iter().skip(2).take(usable).map(group).collect();
        let found: Vec<&str> =
            NGINX_UPSTREAMS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(found, wanted);
    }
}
