//! The expressions of a rule: what it loads into registers, compares, and does.
//!
//! Only those are understood that flatnet writes, or has to judge in other firewalls' rules. Any other is read as `Unknown`, which
//! equals none that is wanted: so a rule that somebody changed is never mistaken for flatnet's own.

use super::conntrack;
use super::family::Family;
use super::packet::{Base, Meta, Slot};
use super::verdict::Verdict;
use crate::netlink::attribute::{self, Attributes};

/// `linux/netfilter/nf_tables.h`: `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME` and `_DATA`, `NFTA_DATA_VALUE` and `_VERDICT`.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;
/// `NFT_CMP_EQ` and `NFT_CMP_NEQ`; `NFT_REG_VERDICT`; `NFT_BITWISE_MASK_XOR` (as `NFT_BITWISE_BOOL` was called before).
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const MASK_AND_XOR: u32 = 0;
/// `NFT_CT_STATE` and `NFT_CT_STATUS`.
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, and `NFTA_FIB_F_DADDR`.
const FIB_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 2;
/// `NFT_NAT_SNAT` and `NFT_NAT_DNAT`.
const NAT_OF_SOURCE: u32 = 0;
const NAT_OF_DESTINATION: u32 = 1;
/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`.
const NAT_DERIVED_FLAGS: u32 = 1 | 2;
/// What stock kernels of WSL lack: until 6.6.114 for IPv6, and 5.15 for both families.
pub(crate) const FIB: &str = "fib (CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6)";
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
    /// Keeps some bits, in place, and then inverts others.
    Change {
        slot: Slot,
        keep: Vec<u8>,
        invert: Vec<u8>,
    },
    /// Puts these bytes there.
    Value {
        bytes: Vec<u8>,
        to: Slot,
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
    /// Goes on only where the map has the key that starts at `slot`; gets what it leads to.
    Map {
        map: String,
        slot: Slot,
        to: Slot,
    },
    /// What the destination is to this host (`RTN_LOCAL` or another of `linux/rtnetlink.h`), in the byte order of the host.
    DestinationType {
        to: Slot,
    },
    /// What has become of the packet's connection (`IPS_DST_NAT` and others, as bits), in the byte order of the host.
    Status {
        to: Slot,
    },
    /// Gives the connection another source or destination.
    Translate {
        source: bool,
        family: Family,
        address: Slot,
        port: Option<Slot>,
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
    /// State and status as iptables has them, `-m conntrack --ctstate`: one of these (`XT_CONNTRACK_STATE_BIT`).
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
        match self {
            Self::Masquerade => Some("masquerade (CONFIG_NFT_MASQ)"),
            Self::Translate { .. } => Some("address translation (CONFIG_NFT_NAT)"),
            Self::DestinationType { .. } => Some(FIB),
            _ => None,
        }
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
            Self::Mask { slot, bits } => ("bitwise", change(*slot, bits, &vec![0; bits.len()])),
            Self::Change { slot, keep, invert } => ("bitwise", change(*slot, keep, invert)),
            Self::Value { bytes, to } => ("immediate", new().number(1, to.number()).nested(2, value(bytes))),
            Self::Compare { slot, equal, value: bytes } => {
                let operation = if *equal { EQUAL } else { NOT_EQUAL };
                ("cmp", new().number(1, slot.number()).number(2, operation).nested(3, value(bytes)))
            }
            Self::Lookup { set, slot, present } => {
                let flags = if *present { 0 } else { LOOKUP_INVERTED };
                ("lookup", new().text(1, set).number(2, slot.number()).number(5, flags))
            }
            Self::Map { map, slot, to } => {
                ("lookup", new().text(1, map).number(2, slot.number()).number(3, to.number()))
            }
            Self::DestinationType { to } => {
                ("fib", new().number(1, to.number()).number(2, FIB_TYPE).number(3, FIB_OF_DESTINATION))
            }
            Self::Status { to } => ("ct", new().number(1, to.number()).number(2, CT_STATUS)),
            Self::Translate { source, family, address, port } => {
                let kind = if *source { NAT_OF_SOURCE } else { NAT_OF_DESTINATION };
                let nat = new().number(1, kind).number(2, *family as u32).number(3, address.number());
                ("nat", port.iter().fold(nat, |nat, port| nat.number(5, port.number())))
            }
            Self::Verdict(verdict) => {
                let verdict = new().nested(DATA_VERDICT, verdict.write());
                ("immediate", new().number(1, VERDICT_REGISTER).nested(2, &verdict))
            }
            Self::Masquerade => ("masq", new()),
            Self::Counter => ("counter", new()),
            Self::State { to } => ("ct", new().number(1, to.number()).number(2, CT_STATE)),
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
                let plain = slot(1)? == slot(2)? && number(6).is_none_or(|operation| operation == MASK_AND_XOR);
                let (slot, keep, invert) = (slot(1)?, value(4)?, value(5)?);
                let only_keeps = invert.iter().all(|byte| *byte == 0);
                let change =
                    if only_keeps { Self::Mask { slot, bits: keep } } else { Self::Change { slot, keep, invert } };
                plain.then_some(change)
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
            "lookup" if number(5).is_none_or(|flags| flags == 0) => {
                Some(Self::Map { map: attribute::text(data, 1)?, slot: slot(2)?, to: slot(3)? })
            }
            "fib" if number(2)? == FIB_TYPE && number(3)? == FIB_OF_DESTINATION => {
                Some(Self::DestinationType { to: slot(1)? })
            }
            "nat" => Self::translation(data),
            "immediate" if number(1)? == VERDICT_REGISTER => {
                let verdict = attribute::find(attribute::find(data, 2)?, DATA_VERDICT)?;
                Verdict::read(verdict).map(Self::Verdict)
            }
            "immediate" => Some(Self::Value { bytes: value(2)?, to: slot(1)? }),
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

    /// Of one address and at most one port: a range of either is another's. What the kernel derives from these is in the flags.
    fn translation(data: &[u8]) -> Option<Self> {
        let number = |kind| attribute::number(data, kind);
        let (first, last) = (number(3)?, number(4));
        let (port, last_port) = (number(5), number(6));
        let plain = last.is_none_or(|last| last == first) && last_port.is_none_or(|last| Some(last) == port);
        let flags = number(7).unwrap_or_default() & !NAT_DERIVED_FLAGS;
        let family = match number(2)? {
            2 => Family::Ip,
            10 => Family::Ip6,
            _ => return None,
        };
        let source = match number(1)? {
            NAT_OF_SOURCE => true,
            NAT_OF_DESTINATION => false,
            _ => return None,
        };
        let port = match port {
            Some(port) => Some(Slot::of(port)?),
            None => None,
        };
        (plain && flags == 0).then_some(Self::Translate { source, family, address: Slot::of(first)?, port })
    }
}

/// The content of a bitwise step.
fn change(slot: Slot, keep: &[u8], invert: &[u8]) -> Attributes {
    let value = |bytes: &[u8]| Attributes::default().bytes(DATA_VALUE, bytes);
    let length = u32::try_from(keep.len()).expect("as many bytes as registers have");
    let registers = Attributes::default().number(1, slot.number()).number(2, slot.number()).number(3, length);
    registers.nested(4, value(keep)).nested(5, value(invert))
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;

    use super::super::network::{from_network, link, to_network};
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
        let slot = Slot(4);
        steps.push(Expression::Change { slot, keep: vec![0, 255, 255, 255], invert: vec![127, 0, 0, 0] });
        steps.push(Expression::Value { bytes: vec![127, 0, 0, 1], to: slot });
        steps.push(Expression::Map { map: "published".into(), slot: Slot::FIRST, to: slot });
        steps.push(Expression::DestinationType { to: slot });
        steps.push(Expression::Status { to: slot });
        for (source, port) in [(true, None), (false, Some(Slot(5)))] {
            steps.push(Expression::Translate { source, family: Family::Ip, address: slot, port });
        }
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
