//! The two families of addresses: a packet filter keeps rules for each apart.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::config::Network;
use crate::netlink::nftables;

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

    /// The network's subnets of this family.
    pub(crate) fn subnets(self, network: &Network) -> Vec<IpNetwork> {
        network.pools.subnets().into_iter().filter(|subnet| self.has(*subnet)).collect()
    }

    /// Whether the network has subnets of this family.
    pub(crate) fn is_of(self, network: &Network) -> bool {
        !self.subnets(network).is_empty()
    }

    /// The family of nftables' tables that see its packets and no others.
    pub(crate) const fn tables(self) -> nftables::Family {
        match self {
            Self::V4 => nftables::Family::Ip,
            Self::V6 => nftables::Family::Ip6,
        }
    }

    /// `NFPROTO_IPV4` or `_IPV6`, which rules of the family inet ask for.
    pub(crate) const fn number(self) -> u8 {
        self.tables() as u8
    }
}
