//! What a network is made of: its bridge, and the pairs that tie containers to it.

pub(crate) mod bridge;
pub(crate) mod forwarding;
pub(crate) mod ipv6;
pub(crate) mod metric;
pub(crate) mod port;
pub(crate) mod veth;
pub(crate) mod vlan;
