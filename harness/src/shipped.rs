//! The files that flatnet ships, as they were when the harness was built.
//!
//! Invariant: whoever needs one takes it from here, so that the harness runs without its checkout, and nothing is copied by hand.

use anyhow::{Context, Result};
use serde_json::Value;

/// `plugin/dist/flatnet.conflist`: the network.
pub const CONFLIST: &str = include_str!("../../plugin/dist/flatnet.conflist");

/// `plugin/dist/openresty/flatnet.conf`: the gateway.
pub const NGINX_CONF: &str = include_str!("../../plugin/dist/openresty/flatnet.conf");

/// The network list.
pub fn list() -> Result<Value> {
    serde_json::from_str(CONFLIST).context("read the shipped flatnet.conflist")
}
