//! The expressions of a rule: what it loads into registers, compares, and does.
//!
//! Only those are understood that flatnet writes, or has to judge in other firewalls' rules. Any other is read as `Unknown`, which
//! equals none that is wanted: so a rule that somebody changed is never mistaken for flatnet's own.

use super::conntrack;
use crate::netlink::attribute::{self, Attributes};

/// `linux/netfilter/nf_tables.h`: `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME` and `_DATA`, `NFTA_DATA_VALUE` and `_VERDICT`,
/// `NFTA_VERDICT_CODE` and `_CHAIN`.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;
/// `NFT_CMP_EQ` and `NFT_CMP_NEQ`; `NFT_REG_VERDICT`; `NFT_BITWISE_MASK_XOR` (as `NFT_BITWISE_BOOL` was called before).
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const MASK_AND_XOR: u32 = 0;
/// `NFT_CT_STATE`.
const CT_STATE: u32 = 0;
/// `NFT_CT_STATUS`.
const CT_STATUS: u32 = 2;
/// `NF_DROP`, `NF_ACCEPT`, and the verdicts of nftables' own.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = (-3_i32).cast_unsigned();
const GOTO: u32 = (-4_i32).cast_unsigned();
const RETURN: u32 = (-5_i32).cast_unsigned();
/// `IFNAMSIZ`: nftables compares the names of links with all of their bytes.
const LINK_NAME_BYTES: usize = 16;

/// Where a packet's bytes are kept: 16 slots of four bytes each. A concatenated key takes consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u8);

impl Slot {
    /// What a single comparison uses.
    pub(crate) const FIRST: Self = Self(0);

    /// As `NFT_REG32_00` and the others.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }

    /// The kernel shows the first of four as one of the older registers of 16 bytes.
    fn of(number: u32) -> Option<Self> {
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

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// Back to the calling chain; in a base chain, its policy.
    Return,
    Jump(String),
    Goto(String),
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta {
        key: Meta,
        to: Slot,
    },
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        to: Slot,
    },
    /// Keeps these bits, in place.
    Mask {
        slot: Slot,
        bits: Vec<u8>,
    },
    /// Goes on with the rule only where the bytes are equal, or are not.
    Compare {
        slot: Slot,
        equal: bool,
        value: Vec<u8>,
    },
    /// Goes on only where the key that starts at `slot` is in the set, or is not.
    Lookup {
        set: String,
        slot: Slot,
        present: bool,
    },
    Verdict(Verdict),
    /// Gives the connection the address of the link that it leaves by.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// The state of the packet's connection (`enum ip_conntrack_info`, as bits).
    State {
        to: Slot,
    },
    /// What has been done about the packet's connection (`enum ip_conntrack_status`).
    Status {
        to: Slot,
    },
    /// The same two as iptables has them, `-m conntrack --ctstate`: one of these (`XT_CONNTRACK_STATE_BIT`).
    Tracked {
        states: u16,
    },
    /// Only read: a condition of iptables' (`iptables-extensions(8)`), with its text where it is a comment.
    Match {
        name: String,
        comment: Option<String>,
    },
    /// Only read: what iptables does with the packet, where nftables has no word for it.
    Target {
        name: String,
    },
    /// Read, and none of these: its name.
    Unknown(String),
}

/// Packets that leave (or came) by that link, or by any other.
pub(crate) fn link(key: Meta, name: &str, equal: bool) -> [Expression; 2] {
    let mut value = name.as_bytes().to_vec();
    value.resize(LINK_NAME_BYTES, 0);
    [Expression::Meta { key, to: Slot::FIRST }, Expression::Compare { slot: Slot::FIRST, equal, value }]
}

/// The content of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn write(expressions: &[Expression]) -> Attributes {
    expressions.iter().fold(Attributes::default(), |list, expression| list.nested(LIST_ELEMENT, expression.write()))
}

/// The reverse of `write`.
pub(super) fn read(list: &[u8]) -> Vec<Expression> {
    attribute::each(list).map(|(_, element)| Expression::read(element)).collect()
}

impl Expression {
    /// What a kernel without it lacks, where it is a module of its own.
    pub(super) fn piece(&self) -> Option<&'static str> {
        matches!(self, Self::Masquerade).then_some("masquerade (CONFIG_NFT_MASQ)")
    }

    fn write(&self) -> Attributes {
        let new = Attributes::default;
        let value = |bytes: &[u8]| new().bytes(DATA_VALUE, bytes);
        let (name, data) = match self {
            Self::Meta { key, to } => ("meta", new().number(1, to.number()).number(2, *key as u32)),
            Self::Payload { base, offset, length, to } => {
                let place = new().number(1, to.number()).number(2, *base as u32);
                ("payload", place.number(3, *offset).number(4, *length))
            }
            Self::Mask { slot, bits } => {
                let length = u32::try_from(bits.len()).expect("as many bytes as registers have");
                let registers = new().number(1, slot.number()).number(2, slot.number()).number(3, length);
                ("bitwise", registers.nested(4, value(bits)).nested(5, value(&vec![0; bits.len()])))
            }
            Self::Compare { slot, equal, value: bytes } => {
                let operation = if *equal { EQUAL } else { NOT_EQUAL };
                ("cmp", new().number(1, slot.number()).number(2, operation).nested(3, value(bytes)))
            }
            Self::Lookup { set, slot, present } => {
                let flags = if *present { 0 } else { LOOKUP_INVERTED };
                ("lookup", new().text(1, set).number(2, slot.number()).number(5, flags))
            }
            Self::Verdict(verdict) => {
                let verdict = new().nested(DATA_VERDICT, verdict.write());
                ("immediate", new().number(1, VERDICT_REGISTER).nested(2, &verdict))
            }
            Self::Masquerade => ("masq", new()),
            Self::Counter => ("counter", new()),
            Self::State { to } => ("ct", new().number(1, to.number()).number(2, CT_STATE)),
            Self::Status { to } => ("ct", new().number(1, to.number()).number(2, CT_STATUS)),
            Self::Tracked { states } => {
                let condition = new().text(1, conntrack::NAME).number(2, conntrack::REVISION);
                ("match", condition.bytes(3, &conntrack::info(*states)))
            }
            Self::Match { name, .. } => ("match", new().text(1, name)),
            Self::Target { name } => ("target", new().text(1, name)),
            Self::Unknown(name) => (name.as_str(), new()),
        };
        new().text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, &data)
    }

    fn read(element: &[u8]) -> Self {
        let name = attribute::text(element, EXPRESSION_NAME).unwrap_or_default();
        let data = attribute::find(element, EXPRESSION_DATA).unwrap_or_default();
        Self::known(&name, data).unwrap_or(Self::Unknown(name))
    }

    fn known(name: &str, data: &[u8]) -> Option<Self> {
        let number = |kind| attribute::number(data, kind);
        let slot = |kind| number(kind).and_then(Slot::of);
        let value = |kind| Some(attribute::find(attribute::find(data, kind)?, DATA_VALUE)?.to_vec());
        match name {
            "meta" => Some(Self::Meta { key: Meta::of(number(2)?)?, to: slot(1)? }),
            "payload" => Some(Self::Payload {
                base: Base::of(number(2)?)?,
                offset: number(3)?,
                length: number(4)?,
                to: slot(1)?,
            }),
            "bitwise" => {
                let plain = slot(1)? == slot(2)?
                    && number(6).is_none_or(|operation| operation == MASK_AND_XOR)
                    && value(5)?.iter().all(|byte| *byte == 0);
                plain.then_some(Self::Mask { slot: slot(1)?, bits: value(4)? })
            }
            "cmp" => {
                let equal = match number(2)? {
                    EQUAL => true,
                    NOT_EQUAL => false,
                    _ => return None,
                };
                Some(Self::Compare { slot: slot(1)?, equal, value: value(3)? })
            }
            // With a destination it is a map's.
            "lookup" if number(3).is_none() => {
                let present = number(5).unwrap_or_default() & LOOKUP_INVERTED == 0;
                Some(Self::Lookup { set: attribute::text(data, 1)?, slot: slot(2)?, present })
            }
            "immediate" if number(1)? == VERDICT_REGISTER => {
                let verdict = attribute::find(attribute::find(data, 2)?, DATA_VERDICT)?;
                Verdict::read(verdict).map(Self::Verdict)
            }
            // With flags or ports it is another's.
            "masq" if data.is_empty() => Some(Self::Masquerade),
            "counter" => Some(Self::Counter),
            // With a source it sets.
            "ct" if number(2)? == CT_STATE => Some(Self::State { to: slot(1)? }),
            "ct" if number(2)? == CT_STATUS => Some(Self::Status { to: slot(1)? }),
            "match" => {
                if let Some(states) = conntrack::states(data) {
                    return Some(Self::Tracked { states });
                }
                let name = attribute::text(data, 1)?;
                let text = |info: &[u8]| {
                    let end = info.iter().position(|byte| *byte == 0).unwrap_or(info.len());
                    String::from_utf8_lossy(&info[..end]).into_owned()
                };
                let comment = attribute::find(data, 3).filter(|_| name == "comment").map(text);
                Some(Self::Match { name, comment })
            }
            "target" => Some(Self::Target { name: attribute::text(data, 1)? }),
            _ => None,
        }
    }
}

impl Meta {
    fn of(number: u32) -> Option<Self> {
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
    fn of(number: u32) -> Option<Self> {
        [Self::Link, Self::Network, Self::Transport].into_iter().find(|base| *base as u32 == number)
    }
}

impl Verdict {
    fn write(&self) -> Attributes {
        let (code, chain) = match self {
            Self::Accept => (ACCEPT, None),
            Self::Drop => (DROP, None),
            Self::Return => (RETURN, None),
            Self::Jump(chain) => (JUMP, Some(chain)),
            Self::Goto(chain) => (GOTO, Some(chain)),
        };
        let verdict = Attributes::default().number(VERDICT_CODE, code);
        match chain {
            Some(chain) => verdict.text(VERDICT_CHAIN, chain),
            None => verdict,
        }
    }

    fn read(verdict: &[u8]) -> Option<Self> {
        let chain = attribute::text(verdict, VERDICT_CHAIN);
        match (attribute::number(verdict, VERDICT_CODE)?, chain) {
            (ACCEPT, None) => Some(Self::Accept),
            (DROP, None) => Some(Self::Drop),
            (RETURN, None) => Some(Self::Return),
            (JUMP, Some(chain)) => Some(Self::Jump(chain)),
            (GOTO, Some(chain)) => Some(Self::Goto(chain)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;

    use super::super::network::{from_network, to_network};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let network = |text: &str| text.parse::<IpNetwork>().expect("a network");
        let mut steps =
            [from_network(network("10.87.0.0/16"), false), to_network(network("172.30.0.1/32"), true)].concat();
        steps.extend(from_network(network("fd00:87::/63"), false));
        steps.extend(to_network(network("fd00:30::1/128"), true));
        steps.extend(link(Meta::OutLink, "flatnet-br0", true));
        steps.push(Expression::Lookup { set: "known".into(), slot: Slot(4), present: false });
        steps.push(Expression::Masquerade);
        for verdict in
            [Verdict::Accept, Verdict::Drop, Verdict::Return, Verdict::Jump("a".into()), Verdict::Goto("b".into())]
        {
            steps.push(Expression::Verdict(verdict));
        }
        assert_eq!(read(write(&steps).as_ref()), steps);
        assert_eq!(steps.iter().filter(|step| matches!(step, Expression::Mask { .. })).count(), 2);
    }

    #[test]
    fn what_flatnet_does_not_write_is_unknown() {
        let element = |name, data: Attributes| {
            let element = Attributes::default().text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, &data);
            Attributes::default().nested(LIST_ELEMENT, &element)
        };
        let with_flags = element("masq", Attributes::default().number(1, 4));
        assert_eq!(read(with_flags.as_ref()), [Expression::Unknown("masq".into())]);
        let log = element("log", Attributes::default().number(4, 1));
        assert_eq!(read(log.as_ref()), [Expression::Unknown("log".into())]);
    }

    #[test]
    fn a_comment_of_iptables_is_read() {
        let mut info = b"why".to_vec();
        info.resize(256, 0);
        let data = Attributes::default().text(1, "comment").number(2, 0).bytes(3, &info);
        let element = Attributes::default().text(EXPRESSION_NAME, "match").nested(EXPRESSION_DATA, &data);
        let found = read(Attributes::default().nested(LIST_ELEMENT, &element).as_ref());
        assert_eq!(found, [Expression::Match { name: "comment".into(), comment: Some("why".into()) }]);
    }
}
