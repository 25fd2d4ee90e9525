//! The families of addresses, as nftables has them.

use super::Family;
use crate::family::IpFamily;

impl IpFamily {
    /// The family of nftables' tables that see its packets and no others.
    pub(crate) const fn tables(self) -> Family {
        match self {
            Self::V4 => Family::Ip,
            Self::V6 => Family::Ip6,
        }
    }

    /// `NFPROTO_IPV4` or `_IPV6`, which rules of the family inet ask for.
    pub(crate) const fn number(self) -> u8 {
        self.tables() as u8
    }
}
