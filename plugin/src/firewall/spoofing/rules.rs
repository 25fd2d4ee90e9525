//! The rules by which a port speaks for itself only: always the same, whoever speaks.
//!
//! Of what a packet lacks nothing can be compared, and the rule goes on to the next: so a rule that drops asks only for what makes the
//! packet dangerous, and one that accepts for all that makes it harmless.

use super::Way;
use crate::nft::{Base, BaseChain, Chain, Expression, Hook, Meta, Rule, Slot, Verdict};

/// The table's name, in either family.
pub(super) const TABLE: &str = "flatnet";
/// The chain where all frames arrive at.
pub(super) const CHAIN: &str = "spoofing";
/// Where IPv6 goes on.
pub(super) const CHAIN_IPV6: &str = "spoofing-ipv6";
/// How the chain is called by which a port's frames come, in the family netdev; its number follows.
const PORT_PREFIX: &str = "port-";
/// The ports under control, by number.
pub(super) const PORTS: &str = "ports";
/// Who may speak there: port, MAC, and address. Each port with IPv4 is there with 0.0.0.0 as well, which only ARP may say.
pub(super) const SPEAKERS: &str = "speakers";
/// The same for IPv6, where only a probe for an address and a report of groups may say ::.
pub(super) const SPEAKERS_IPV6: &str = "speakers-ipv6";
/// Before whatever else looks at frames: `NF_BR_PRI_NAT_DST_BRIDGED` of `linux/netfilter_bridge.h`.
const PRIORITY: i32 = -300;
/// Ethertypes (IEEE 802).
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// How a message of ARP begins (RFC 826): hardware Ethernet, protocol IPv4, addresses of six and of four bytes.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// Where a frame has what is compared: base, offset and length.
type Place = (Base, u32, u32);
const ETHERTYPE: Place = (Base::Link, 12, 2);
const MAC: Place = (Base::Link, 6, 6);
const ADDRESS: Place = (Base::Network, 12, 4);
/// The header of IPv4 (RFC 791): its version and length, the fragment's offset, and the protocol.
const VERSION_AND_LENGTH: Place = (Base::Network, 0, 1);
const OFFSET: Place = (Base::Network, 6, 2);
const PROTOCOL: Place = (Base::Network, 9, 1);
/// Where UDP has its ports: behind a header of IPv4 without options, one with options, a header of IPv6, and one extension header.
const PORTS_OF_UDP: [Place; 4] =
    [(Base::Network, 20, 2), (Base::Transport, 0, 2), (Base::Network, 40, 2), (Base::Network, 48, 2)];
const ARP_BEGINNING: Place = (Base::Network, 0, 6);
const ARP_MAC: Place = (Base::Network, 8, 6);
const ARP_ADDRESS: Place = (Base::Network, 14, 4);

/// The header of IPv6 (RFC 8200), and the first bytes behind it.
const LENGTH: Place = (Base::Network, 4, 2);
const NEXT: Place = (Base::Network, 6, 1);
const SOURCE: Place = (Base::Network, 8, 16);
const SECOND_NEXT: Place = (Base::Network, 40, 1);
/// Of an extension header: what follows, and its length beyond eight bytes, in eights.
const SECOND_NEXT_AND_LENGTH: Place = (Base::Network, 40, 2);
const FRAGMENT_OFFSET: Place = (Base::Network, 42, 2);
/// The type of a message of `ICMPv6`, right behind the header and behind an extension header of eight bytes.
const TYPE: Place = (Base::Network, 40, 1);
const SECOND_TYPE: Place = (Base::Network, 48, 1);
/// What a message of neighbour discovery is about, and its only option with type, length and MAC (RFC 4861, sections 4.1 to 4.4 and 4.6).
const TARGET: Place = (Base::Network, 48, 16);
const OPTION: Place = (Base::Network, 64, 2);
const OPTION_MAC: Place = (Base::Network, 66, 6);
const ROUTER_OPTION: Place = (Base::Network, 48, 2);
const ROUTER_OPTION_MAC: Place = (Base::Network, 50, 6);

/// Numbers of headers (IANA, "Protocol Numbers").
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const SCTP: u8 = 132;

/// Types of `ICMPv6` (RFC 4861), and what a host tells of its groups: queries, reports, that it has left, reports (RFC 2710, RFC 3810).
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OF_GROUPS: [u8; 4] = [130, 131, 132, 143];
/// Of a type: this bit makes it no error, and without the last bit both echoes are this.
const INFORMATIONAL: u8 = 0x80;
const ALL_BUT_LAST_BIT: u8 = 0xfe;
const ECHO: u8 = 0x80;
/// A header of IPv4 without options.
const WITHOUT_OPTIONS: u8 = 0x45;
/// The bits of a fragment's offset in IPv4.
const OFFSET_BITS_OF_IPV4: [u8; 2] = [0x1f, 0xff];
/// The ports of DHCP: of its servers and of their clients (RFC 2131, RFC 8415).
const DHCP: [u16; 2] = [67, 68];
const DHCPV6: [u16; 2] = [547, 546];
/// The bits of a fragment's offset.
const OFFSET_BITS: [u8; 2] = [0xff, 0xf8];
/// How long a message of neighbour discovery is without an option, and with one of eight bytes; one about routers is shorter.
const NEIGHBOUR_BYTES: [u8; 2] = [0, 24];
const NEIGHBOUR_BYTES_WITH_OPTION: [u8; 2] = [0, 32];
const ROUTER_BYTES: [u8; 2] = [0, 8];
const ROUTER_BYTES_WITH_OPTION: [u8; 2] = [0, 16];
/// Type and length of the options: the sender's MAC, the target's, and a probe's nonce (RFC 7527).
const SENDERS_MAC: [u8; 2] = [1, 1];
const TARGETS_MAC: [u8; 2] = [2, 1];
const NONCE: [u8; 2] = [14, 1];

/// The chain where all frames arrive at, with its rules. The ethertype is the frame's own bytes: of a frame with a tag it is the tag's,
/// although the kernel may have set the tag aside.
pub(super) fn first(way: Way) -> (Chain, Vec<Rule>) {
    let base = match way {
        Way::Bridge => Some(base()),
        Way::Links => None,
    };
    let chain = Chain { table: TABLE.into(), name: CHAIN.into(), base };
    // Frames from other ports go on as if this table were not there.
    let others =
        rule([vec![Expression::Meta { key: Meta::InLinkIndex, to: Slot(0) }, lookup(PORTS, false)]], Verdict::Accept);
    let rules = vec![
        rule([is(ETHERTYPE, &IPV4), is_not(ADDRESS, &[0; 4]), speaks(MAC, ADDRESS)], Verdict::Accept),
        rule(
            [
                is(ETHERTYPE, &ARP),
                is(ARP_BEGINNING, &ARP_OF_IPV4),
                speaks(MAC, ARP_ADDRESS),
                speaks(ARP_MAC, ARP_ADDRESS),
            ],
            Verdict::Accept,
        ),
        rule([is(ETHERTYPE, &IPV6)], Verdict::Goto(CHAIN_IPV6.into())),
        rule([vec![]], Verdict::Drop),
    ];
    (chain, [vec![others], dhcp(), rules].concat())
}

/// The chain by which the frames of a port come to the first, where no chain sees those of all ports.
pub(super) fn of_port(port: u32) -> (Chain, Vec<Rule>) {
    let chain = Chain { table: TABLE.into(), name: format!("{PORT_PREFIX}{port}"), base: Some(base()) };
    (chain, vec![rule([vec![]], Verdict::Goto(CHAIN.into()))])
}

/// The port whose frames come by the chain of that name.
pub(super) fn port_of(chain: &str) -> Option<u32> {
    chain.strip_prefix(PORT_PREFIX)?.parse().ok()
}

fn base() -> BaseChain {
    BaseChain { kind: "filter".into(), hook: Hook::Prerouting as u32, priority: PRIORITY, accept: true }
}

/// No container is a server of DHCP: clients hear whoever writes to their port, or from the servers' port.
fn dhcp() -> Vec<Rule> {
    let udp = || {
        let whole = masked(OFFSET, &OFFSET_BITS_OF_IPV4, true, &[0, 0]);
        [is(ETHERTYPE, &IPV4), is(PROTOCOL, &[UDP]), whole].concat()
    };
    let [plain, with_options, ..] = PORTS_OF_UDP;
    let plain = serves(plain, DHCP, || [udp(), is(VERSION_AND_LENGTH, &[WITHOUT_OPTIONS])].concat());
    let with_options = serves(with_options, DHCP, || [udp(), is_not(VERSION_AND_LENGTH, &[WITHOUT_OPTIONS])].concat());
    [plain, with_options].concat()
}

fn dhcpv6() -> Vec<Rule> {
    let [.., plain, in_fragment] = PORTS_OF_UDP;
    let plain = serves(plain, DHCPV6, || is(NEXT, &[UDP]));
    let in_fragment = serves(in_fragment, DHCPV6, || {
        [is(NEXT, &[FRAGMENT]), is(SECOND_NEXT, &[UDP]), masked(FRAGMENT_OFFSET, &OFFSET_BITS, true, &[0, 0])].concat()
    });
    [plain, in_fragment].concat()
}

/// Drops what comes from the servers' port, or goes to the clients'.
fn serves(ports: Place, [server, client]: [u16; 2], datagram: impl Fn() -> Vec<Expression>) -> Vec<Rule> {
    let (base, offset, length) = ports;
    vec![
        rule([datagram(), is(ports, &server.to_be_bytes())], Verdict::Drop),
        rule([datagram(), is((base, offset + length, length), &client.to_be_bytes())], Verdict::Drop),
    ]
}

/// The chain for IPv6, with its rules.
pub(super) fn ipv6() -> (Chain, Vec<Rule>) {
    let chain = Chain { table: TABLE.into(), name: CHAIN_IPV6.into(), base: None };
    let rules = [extension_headers(), dhcpv6(), probes(), discovery()].concat();
    let rules = rules.into_iter().chain([
        // Whoever speaks under no address has said all that it may. (Bytes that are all zero are not in the set as an address of IPv6.)
        rule([is(SOURCE, &[0; 16])], Verdict::Drop),
        rule([speaks_ipv6(MAC, SOURCE)], Verdict::Accept),
        rule([vec![]], Verdict::Drop),
    ]);
    (chain, rules.collect())
}

/// What stands between the header and the message could hide a message from the rules that follow.
fn extension_headers() -> Vec<Rule> {
    let is_of_no_group = |kind: u8| compare(false, &[kind]);
    let groups = OF_GROUPS.map(is_of_no_group).concat();
    let whole = [TCP, UDP, ESP, ICMPV6, SCTP].map(|next| compare(false, &[next])).concat();
    vec![
        // Hop-by-hop options of eight bytes stand before what a host tells of its groups, and nothing else.
        rule([is(NEXT, &[HOP_BY_HOP]), is_not(SECOND_NEXT_AND_LENGTH, &[ICMPV6, 0])], Verdict::Drop),
        rule([is(NEXT, &[HOP_BY_HOP]), vec![load(SECOND_TYPE, Slot(0))], groups], Verdict::Drop),
        rule([is(NEXT, &[HOP_BY_HOP]), speaks_ipv6(MAC, SOURCE)], Verdict::Accept),
        rule([is(NEXT, &[ROUTING])], Verdict::Drop),
        rule([is(NEXT, &[DESTINATION_OPTIONS])], Verdict::Drop),
        // Fragments are of a whole message, which begins in the first; neighbour discovery is never in pieces (RFC 6980).
        rule([is(NEXT, &[FRAGMENT]), vec![load(SECOND_NEXT, Slot(0))], whole], Verdict::Drop),
        rule(
            [
                is(NEXT, &[FRAGMENT]),
                is(SECOND_NEXT, &[ICMPV6]),
                masked(FRAGMENT_OFFSET, &OFFSET_BITS, true, &[0, 0]),
                masked(SECOND_TYPE, &[ALL_BUT_LAST_BIT], false, &[ECHO]),
            ],
            Verdict::Drop,
        ),
    ]
}

/// Who has no address yet asks whether another has it (RFC 4862, section 5.4).
fn probes() -> Vec<Rule> {
    let probe =
        |length| [message(NEIGHBOUR_SOLICITATION, length), is(SOURCE, &[0; 16]), speaks_ipv6(MAC, SOURCE)].concat();
    vec![
        rule([probe(NEIGHBOUR_BYTES)], Verdict::Accept),
        rule([probe(NEIGHBOUR_BYTES_WITH_OPTION), is(OPTION, &NONCE)], Verdict::Accept),
    ]
}

/// Neighbour discovery that claims nothing of others; of all else that is no error only the echoes. So no container is a router,
/// and none redirects.
fn discovery() -> Vec<Rule> {
    // An address of its own, and not ::.
    let own = || [is_not(SOURCE, &[0; 16]), speaks_ipv6(MAC, SOURCE)].concat();
    let solicits = |kind, length| [message(kind, length), own()].concat();
    let advertises = |length| [message(NEIGHBOUR_ADVERTISEMENT, length), own(), is_not(TARGET, &[0; 16])].concat();
    vec![
        rule([solicits(NEIGHBOUR_SOLICITATION, NEIGHBOUR_BYTES)], Verdict::Accept),
        rule(
            [
                solicits(NEIGHBOUR_SOLICITATION, NEIGHBOUR_BYTES_WITH_OPTION),
                is(OPTION, &SENDERS_MAC),
                speaks_ipv6(OPTION_MAC, SOURCE),
            ],
            Verdict::Accept,
        ),
        rule([advertises(NEIGHBOUR_BYTES), speaks_ipv6(MAC, TARGET)], Verdict::Accept),
        rule(
            [advertises(NEIGHBOUR_BYTES_WITH_OPTION), is(OPTION, &TARGETS_MAC), speaks_ipv6(OPTION_MAC, TARGET)],
            Verdict::Accept,
        ),
        rule([solicits(ROUTER_SOLICITATION, ROUTER_BYTES)], Verdict::Accept),
        rule(
            [
                solicits(ROUTER_SOLICITATION, ROUTER_BYTES_WITH_OPTION),
                is(ROUTER_OPTION, &SENDERS_MAC),
                speaks_ipv6(ROUTER_OPTION_MAC, SOURCE),
            ],
            Verdict::Accept,
        ),
        rule(
            [
                is(NEXT, &[ICMPV6]),
                masked(TYPE, &[INFORMATIONAL], true, &[INFORMATIONAL]),
                masked(TYPE, &[ALL_BUT_LAST_BIT], false, &[ECHO]),
            ],
            Verdict::Drop,
        ),
    ]
}

/// A message of `ICMPv6` right behind the header, of that type and of that many bytes.
fn message(kind: u8, length: [u8; 2]) -> Vec<Expression> {
    [is(NEXT, &[ICMPV6]), is(TYPE, &[kind]), is(LENGTH, &length)].concat()
}

/// Goes on only where the port may say this of itself.
fn speaks(mac: Place, address: Place) -> Vec<Expression> {
    in_set(SPEAKERS, mac, address)
}

fn speaks_ipv6(mac: Place, address: Place) -> Vec<Expression> {
    in_set(SPEAKERS_IPV6, mac, address)
}

/// The key is the port, a MAC and an address: each begins at a slot.
fn in_set(set: &str, mac: Place, address: Place) -> Vec<Expression> {
    let key = [Expression::Meta { key: Meta::InLinkIndex, to: Slot(0) }, load(mac, Slot(1)), load(address, Slot(3))];
    key.into_iter().chain([lookup(set, true)]).collect()
}

fn rule<const N: usize>(conditions: [Vec<Expression>; N], verdict: Verdict) -> Rule {
    let expressions = conditions.into_iter().flatten().chain([Expression::Verdict(verdict)]).collect();
    Rule { expressions, comment: None }
}

fn is(place: Place, value: &[u8]) -> Vec<Expression> {
    [vec![load(place, Slot(0))], compare(true, value)].concat()
}

fn is_not(place: Place, value: &[u8]) -> Vec<Expression> {
    [vec![load(place, Slot(0))], compare(false, value)].concat()
}

fn masked(place: Place, bits: &[u8], equal: bool, value: &[u8]) -> Vec<Expression> {
    let mask = Expression::Mask { slot: Slot(0), bits: bits.to_vec() };
    [vec![load(place, Slot(0)), mask], compare(equal, value)].concat()
}

fn load((base, offset, length): Place, to: Slot) -> Expression {
    Expression::Payload { base, offset, length, to }
}

fn compare(equal: bool, value: &[u8]) -> Vec<Expression> {
    vec![Expression::Compare { slot: Slot(0), equal, value: value.to_vec() }]
}

fn lookup(set: &str, present: bool) -> Expression {
    Expression::Lookup { set: set.into(), slot: Slot(0), present }
}
