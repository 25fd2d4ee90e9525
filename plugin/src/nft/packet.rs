//! Where a rule finds the parts of a packet, and where it keeps them.

/// Where a packet's bytes are kept: 16 slots of four bytes each. A concatenated key takes consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u8);

impl Slot {
    /// What a single comparison uses.
    pub(crate) const FIRST: Self = Self(0);

    /// As `NFT_REG32_00` and the others.
    pub(super) fn number(self) -> u32 {
        8 + u32::from(self.0)
    }

    /// The kernel shows the first of four as one of the older registers of 16 bytes.
    pub(super) fn of(number: u32) -> Option<Self> {
        match number {
            1..=4 => u8::try_from((number - 1) * 4).ok().map(Self),
            8..=23 => u8::try_from(number - 8).ok().map(Self),
            _ => None,
        }
    }
}

/// What is known of a packet beside its bytes (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    /// What the link carries, such as 0x0800 for IPv4.
    Protocol = 1,
    /// The number of the link that it came by, in the byte order of the host.
    InLinkIndex = 4,
    InLink = 6,
    OutLink = 7,
    /// `NFPROTO_IPV4` or another, in one byte.
    Family = 15,
    TransportProtocol = 16,
    /// The number of the group of the link that it leaves by, in the byte order of the host.
    OutLinkGroup = 22,
}

/// Where counting of a packet's bytes begins (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

impl Meta {
    pub(super) fn of(number: u32) -> Option<Self> {
        let known = [
            Self::Protocol,
            Self::InLinkIndex,
            Self::InLink,
            Self::OutLink,
            Self::Family,
            Self::TransportProtocol,
            Self::OutLinkGroup,
        ];
        known.into_iter().find(|key| *key as u32 == number)
    }
}

impl Base {
    pub(super) fn of(number: u32) -> Option<Self> {
        [Self::Link, Self::Network, Self::Transport].into_iter().find(|base| *base as u32 == number)
    }
}
