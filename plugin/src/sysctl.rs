//! The one kernel setting that flatnet needs, in the network namespace of the caller.

use std::fs;

use crate::error::{Doing, Result, errno_of};

/// Whether the host passes packets on between its links (ip-sysctl.rst, `ip_forward`).
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Turns forwarding on; writes only if it is off. Without it the gateway's packets end at the host.
pub(crate) fn enable_forwarding() -> Result<()> {
    if is_forwarding()? {
        return Ok(());
    }
    fs::write(IP_FORWARD, "1").map_err(|e| errno_of(&e)).doing(|| format!("write {IP_FORWARD}"))
}

/// Whether forwarding is on.
pub(crate) fn is_forwarding() -> Result<bool> {
    let text = fs::read_to_string(IP_FORWARD).map_err(|e| errno_of(&e)).doing(|| format!("read {IP_FORWARD}"))?;
    Ok(text.trim() == "1")
}
