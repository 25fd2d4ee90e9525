//! What a network has of each family of addresses.

use ipnetwork::IpNetwork;

use super::Network;
use crate::family::IpFamily;

impl Network {
    /// Its subnets of the family.
    pub(crate) fn subnets_of(&self, family: IpFamily) -> Vec<IpNetwork> {
        self.pools.subnets().into_iter().filter(|subnet| family.has(*subnet)).collect()
    }

    /// Whether containers get addresses of the family.
    pub(crate) fn has(&self, family: IpFamily) -> bool {
        !self.subnets_of(family).is_empty()
    }

    /// Whether containers get addresses of IPv4.
    pub(crate) fn has_ipv4(&self) -> bool {
        self.has(IpFamily::V4)
    }

    /// Whether containers get addresses of IPv6.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.has(IpFamily::V6)
    }
}
