//! What in a message of netlink names a missing piece, and by what it is replaced.
//!
//! Invariant: a message keeps its length, and each of its attributes its place; bytes that are no message are left alone.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Piece;

/// `NETLINK_ROUTE` and `NETLINK_NETFILTER` of linux/netlink.h.
pub(super) const ROUTE: i32 = 0;
pub(super) const NETFILTER: i32 = 12;
/// `struct nlmsghdr`, `struct nlattr`.
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_BYTES: usize = 4;
/// Of an attribute's type, without the two flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// `NFNL_SUBSYS_NFTABLES`, and its messages (`enum nf_tables_msg_types`): rules, and the last that 5.15 knows.
const NFTABLES: u16 = 10;
const NEW_RULE: u16 = 6;
const LAST_OF_5_15: u16 = 24;
/// A message that no kernel knows.
const NO_MESSAGE: u8 = 0xff;
/// `struct nfgenmsg`.
const NFTABLES_HEADER_BYTES: usize = 4;
const INET: u8 = 1;
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;
const IPV6: u8 = 10;
/// Of those that tables have a number for, one that no kernel has tables of.
const NO_FAMILY: u8 = 4;
/// `NFTA_RULE_EXPRESSIONS`, `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`.
const NAME_OF_EXPRESSION: [u16; 3] = [4, 1, 1];

/// `RTM_NEWLINK`, `RTM_SETLINK` and `RTM_NEWQDISC`, with what stands before their attributes.
const NEW_LINK: u16 = 16;
/// `RTM_GETLINK`, which is about all links with `NLM_F_DUMP`; and a message of that family that no kernel knows.
const GET_LINK: u16 = 18;
const DUMP: u16 = 0x300;
const NO_ROUTE_MESSAGE: u16 = 0x7ffe;
const SET_LINK: u16 = 19;
const NEW_QDISC: u16 = 36;
const LINK_HEADER_BYTES: usize = 16;
const QDISC_HEADER_BYTES: usize = 20;
/// `IFLA_LINKINFO`, `IFLA_INFO_KIND`; `TCA_KIND`.
const KIND_OF_LINK: [u16; 2] = [18, 1];
const KIND_OF_QDISC: [u16; 1] = [1];
/// `IFLA_BRPORT_LOCKED` within `IFLA_LINKINFO`, `IFLA_INFO_SLAVE_DATA`, and within `IFLA_PROTINFO`.
const LOCKED: u16 = 39;
const SETTINGS_OF_PORT: [&[u16]; 2] = [&[18, 5, LOCKED], &[12, LOCKED]];
/// A number that no kernel has given to an attribute: it is ignored there.
const NO_ATTRIBUTE: u16 = 0x3ffe;

/// Replaces what messages of `protocol` name of missing pieces; says whether there was any.
pub(super) fn rewrite(protocol: i32, bytes: &mut [u8], lacks: &BTreeSet<Piece>) -> bool {
    let mut changed = false;
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = at.checked_add(length).and_then(|end| bytes.get_mut(at..end)) else { break };
        if length < HEADER_BYTES {
            break;
        }
        changed |= match protocol {
            ROUTE => route(kind, message, lacks),
            NETFILTER if kind >> 8 == NFTABLES => nftables(kind & 0xff, message, lacks),
            _ => false,
        };
        at += length.next_multiple_of(4);
    }
    changed
}

fn nftables(kind: u16, message: &mut [u8], lacks: &BTreeSet<Piece>) -> bool {
    let Some(family) = message.get(HEADER_BYTES).copied() else { return false };
    let has_no = |number, piece| family == number && lacks.contains(&piece);
    if has_no(BRIDGE, Piece::NftBridge) || has_no(NETDEV, Piece::NftNetdev) {
        message[HEADER_BYTES] = NO_FAMILY;
        return true;
    }
    if kind > LAST_OF_5_15 && kind != u16::from(NO_MESSAGE) && lacks.contains(&Piece::NftDestroy) {
        message[4..6].copy_from_slice(&(NFTABLES << 8 | u16::from(NO_MESSAGE)).to_ne_bytes());
        return true;
    }
    let [ipv4, ipv6] = [Piece::FibIpv4, Piece::FibIpv6].map(|piece| lacks.contains(&piece));
    let no_fib = (family == IPV4 && ipv4) || (family == IPV6 && ipv6) || (family == INET && (ipv4 || ipv6));
    let missing: [(bool, &[&str]); 2] = [(no_fib, &["fib"]), (lacks.contains(&Piece::NftCompat), &["match", "target"])];
    let names: Vec<_> = missing.into_iter().filter(|(lacks, _)| *lacks).flat_map(|(_, names)| names).copied().collect();
    kind == NEW_RULE && rename(message, HEADER_BYTES + NFTABLES_HEADER_BYTES, &NAME_OF_EXPRESSION, &names)
}

fn route(kind: u16, message: &mut [u8], lacks: &BTreeSet<Piece>) -> bool {
    let shaping = lacks.contains(&Piece::Shaping);
    match kind {
        GET_LINK
            if lacks.contains(&Piece::LinkLists) && u16::from_ne_bytes([message[6], message[7]]) & DUMP == DUMP =>
        {
            message[4..6].copy_from_slice(&NO_ROUTE_MESSAGE.to_ne_bytes());
            true
        }
        NEW_QDISC if shaping => rename(message, HEADER_BYTES + QDISC_HEADER_BYTES, &KIND_OF_QDISC, &["htb", "tbf"]),
        NEW_LINK | SET_LINK => {
            let first = HEADER_BYTES + LINK_HEADER_BYTES;
            let renamed = shaping && rename(message, first, &KIND_OF_LINK, &["ifb"]);
            renamed | (lacks.contains(&Piece::LockedPorts) && unlock(message, first))
        }
        _ => false,
    }
}

/// Replaces the second letter of a name that is one of `names`.
fn rename(message: &mut [u8], first: usize, path: &[u16], names: &[&str]) -> bool {
    let mut renamed = false;
    for value in at_path(message, first..message.len(), path) {
        let name = message[value.clone()].strip_suffix(&[0]).unwrap_or(&message[value.clone()]);
        if names.iter().any(|known| known.as_bytes() == name) {
            message[value.start + 1] = b'-';
            renamed = true;
        }
    }
    renamed
}

fn unlock(message: &mut [u8], first: usize) -> bool {
    let found: Vec<_> = SETTINGS_OF_PORT.iter().flat_map(|path| at_path(message, first..message.len(), path)).collect();
    for value in &found {
        let kind = value.start - ATTRIBUTE_BYTES + 2;
        message[kind..kind + 2].copy_from_slice(&NO_ATTRIBUTE.to_ne_bytes());
    }
    !found.is_empty()
}

/// Where the values of the attributes are to which the types of `path` lead, one within the other.
fn at_path(message: &[u8], within: Range<usize>, path: &[u16]) -> Vec<Range<usize>> {
    let Some((kind, rest)) = path.split_first() else { return vec![within] };
    let mut found = Vec::new();
    let mut at = within.start;
    while at + ATTRIBUTE_BYTES <= within.end {
        let length = usize::from(u16::from_ne_bytes([message[at], message[at + 1]]));
        if length < ATTRIBUTE_BYTES || at + length > within.end {
            break;
        }
        if u16::from_ne_bytes([message[at + 2], message[at + 3]]) & TYPE_MASK == *kind {
            found.extend(at_path(message, at + ATTRIBUTE_BYTES..at + length, rest));
        }
        at += length.next_multiple_of(ATTRIBUTE_BYTES);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Stock;
    use super::*;
    use rstest::rstest;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(path: &[u16], value: &[u8]) -> Vec<u8> {
        path.iter().rev().fold(value.to_vec(), |inner, kind| attribute(*kind, &inner))
    }

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(payload);
        bytes
    }

    fn rule(family: u8, expression: &str) -> Vec<u8> {
        let name = [expression.as_bytes(), &[0]].concat();
        let other = nested(&NAME_OF_EXPRESSION[1..], b"meta\0");
        let both = attribute(4, &[other, nested(&NAME_OF_EXPRESSION[1..], &name)].concat());
        message(0xa00 | NEW_RULE, &[vec![family, 0, 0, 0], attribute(1, b"flatnet\0"), both].concat())
    }

    fn link(path: &[u16], value: &[u8]) -> Vec<u8> {
        let other = attribute(3, b"fn-1\0");
        message(NEW_LINK, &[vec![0; LINK_HEADER_BYTES], other, nested(path, value)].concat())
    }

    fn qdisc(kind: &[u8]) -> Vec<u8> {
        message(NEW_QDISC, &[vec![0; QDISC_HEADER_BYTES], attribute(1, kind)].concat())
    }

    #[rstest]
    #[case::bridge(NETFILTER, message(0xa00, &[BRIDGE, 0, 0, 0]), [true, true, true])]
    #[case::netdev(NETFILTER, message(0xa00, &[NETDEV, 0, 0, 0]), [true, false, false])]
    #[case::other_family(NETFILTER, message(0xa00, &[IPV4, 0, 0, 0]), [false; 3])]
    #[case::destroy(NETFILTER, message(0xa1a, &[IPV4, 0, 0, 0]), [true, false, false])]
    #[case::fib_of_ipv4(NETFILTER, rule(IPV4, "fib"), [true, false, false])]
    #[case::fib_of_ipv6(NETFILTER, rule(IPV6, "fib"), [true, true, false])]
    #[case::fib_of_both(NETFILTER, rule(INET, "fib"), [true, true, false])]
    #[case::other_expression(NETFILTER, rule(IPV6, "fibre"), [false; 3])]
    #[case::locked(ROUTE, link(&[18, 0x8005, LOCKED], &[1]), [true, false, false])]
    #[case::locked_by_protinfo(ROUTE, link(&[0x800c, LOCKED], &[1]), [true, false, false])]
    #[case::isolated(ROUTE, link(&[18, 5, 33], &[1]), [false; 3])]
    #[case::ifb(ROUTE, link(&KIND_OF_LINK, b"ifb\0"), [true, false, false])]
    #[case::veth(ROUTE, link(&KIND_OF_LINK, b"veth"), [false; 3])]
    #[case::tbf(ROUTE, qdisc(b"tbf\0"), [true, false, false])]
    #[case::other_protocol(9, message(0xa00, &[BRIDGE, 0, 0, 0]), [false; 3])]
    fn what_a_kernel_lacks_is_not_named(#[case] protocol: i32, #[case] message: Vec<u8>, #[case] changed: [bool; 3]) {
        for (stock, changed) in [Stock::Wsl5, Stock::Wsl6, Stock::Wsl618].into_iter().zip(changed) {
            // The second of two is reached as well.
            let mut bytes = [message.as_slice(), &message].concat();
            assert_eq!(rewrite(protocol, &mut bytes, &stock.lacks()), changed, "{stock:?}");
            let (one, two) = bytes.split_at(message.len());
            assert_eq!((one == message, one), (!changed, two), "{stock:?}");
            assert!(!rewrite(protocol, &mut bytes, &stock.lacks()), "{stock:?}: nothing is left to replace");
        }
    }

    #[rstest]
    #[case::list(GET_LINK, DUMP | 1, true)]
    #[case::one(GET_LINK, 1, false)]
    #[case::list_of_others(22, DUMP | 1, false)]
    fn lists_of_links_may_be_missing(#[case] kind: u16, #[case] flags: u16, #[case] changed: bool) {
        let mut message = message(kind, &[0; LINK_HEADER_BYTES]);
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        assert_eq!(rewrite(ROUTE, &mut message, &BTreeSet::from([Piece::LinkLists])), changed);
    }

    #[rstest]
    #[case::condition("match", true)]
    #[case::target("target", true)]
    #[case::nftables_own("ct", false)]
    fn what_iptables_alone_has_may_be_missing(#[case] expression: &str, #[case] changed: bool) {
        for family in [IPV4, IPV6, INET] {
            assert_eq!(rewrite(NETFILTER, &mut rule(family, expression), &BTreeSet::from([Piece::NftCompat])), changed);
        }
    }

    #[test]
    fn what_is_no_message_is_left_alone() {
        let whole = rule(IPV6, "fib");
        for cut in 0..whole.len() {
            let mut bytes = whole[..cut].to_vec();
            assert!(!rewrite(NETFILTER, &mut bytes, &Stock::Wsl5.lacks()), "{cut} bytes");
        }
        let mut text = b"GET / HTTP/1.1\r\nHost: web.flat\r\n\r\n".to_vec();
        assert!(!rewrite(NETFILTER, &mut text, &Stock::Wsl5.lacks()));
    }
}
