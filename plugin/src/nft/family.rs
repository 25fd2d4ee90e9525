//! The families of addresses, as nftables has them.

use crate::family::IpFamily;

/// `NFPROTO_*` of `linux/netfilter.h`: which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// In a question only: whichever it is.
    Any = 0,
    Inet = 1,
    Ip = 2,
    /// One link's frames, before anything else looks at them.
    Netdev = 5,
    Bridge = 7,
    Ip6 = 10,
}

impl Family {
    /// As `nft` calls it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        }
    }
}

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
