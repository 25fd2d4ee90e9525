//! The two families of addresses: a packet filter keeps rules for each apart.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IpFamily {
    #[default]
    V4,
    V6,
}

impl IpFamily {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether the network is one of this family.
    pub(crate) fn has(self, network: IpNetwork) -> bool {
        Self::of(network.ip()) == self
    }
}
