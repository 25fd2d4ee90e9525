//! What a network is made of: its bridge, and the pairs that tie containers to it.

pub(crate) mod bridge;
pub(crate) mod ipv6;
pub(crate) mod veth;
