//! One subnet, its gateway, and the part of it that is given out.
//!
//! A range never gives out the network's address, the broadcast's, the gateway's, or one that is reserved or excluded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::Allocation;
use super::span::{Span, before, between, host_bits_problem, merged, next};

/// 10.87.0.0/24 and `fd87:0::/64`, which the address plan keeps for gateways: no container gets one of these.
const RESERVED: [IpNetwork; 2] = [
    match Ipv4Network::new_checked(Ipv4Addr::new(10, 87, 0, 0), 24) {
        Some(network) => IpNetwork::V4(network),
        None => unreachable!(),
    },
    match Ipv6Network::new_checked(Ipv6Addr::new(0xfd87, 0, 0, 0, 0, 0, 0, 0), 64) {
        Some(network) => IpNetwork::V6(network),
        None => unreachable!(),
    },
];

/// The key of the configuration that cannot be, and why: the text follows the key.
type Refusal = (&'static str, String);

/// A subnet that addresses are given from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    subnet: IpNetwork,
    gateway: IpAddr,
    given: Span,
    /// In order, none meets another, and all are of this family: the gateway is among them.
    excluded: Vec<Span>,
}

impl Range {
    /// `gateway`, `start` and `end` default to the subnet's first, first and last usable address.
    pub(crate) fn new(
        subnet: IpNetwork,
        gateway: Option<IpAddr>,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
    ) -> Result<Self, Refusal> {
        if let Some(problem) = host_bits_problem(subnet) {
            return Err(("subnet", format!("is {subnet}, which {problem}")));
        }
        if let Some(problem) = subnet_problem(subnet) {
            return Err(("subnet", problem));
        }
        // The highest of IPv4 is the broadcast's; the lowest of IPv6 means any router (RFC 4291, section 2.6.1).
        let lowest = next(subnet.network());
        let highest = if subnet.is_ipv4() { before(subnet.broadcast()) } else { subnet.broadcast() };
        // Who gives out the whole subnet, its network and its broadcast address included, means all that there is (host-local takes it so,
        // and Podman writes it so).
        let start = start.map(|start| if start == subnet.network() { lowest } else { start });
        let end = end.map(|end| if end == subnet.broadcast() { highest } else { end });
        let usable = |key: &'static str, address: Option<IpAddr>, default: IpAddr| match address.unwrap_or(default) {
            address if (lowest..=highest).contains(&address) => Ok(address),
            address => Err((key, format!("is {address}, which is outside {lowest} - {highest} of {subnet}"))),
        };
        let gateway = usable("gateway", gateway, lowest)?;
        let given = Span { first: usable("rangeStart", start, lowest)?, last: usable("rangeEnd", end, highest)? };
        if given.first > given.last {
            return Err(("rangeStart", format!("is {}, which is after rangeEnd {}", given.first, given.last)));
        }
        let range = Self { subnet, gateway, given, excluded: Vec::new() };
        let range = range.without(&[gateway.into()]).without(&RESERVED.map(Span::from));
        match range.emptiness() {
            Some(problem) => Err(("rangeStart", problem)),
            None => Ok(range),
        }
    }

    /// The same, but for these; those of the other family mean nothing to it.
    pub(crate) fn without(mut self, spans: &[Span]) -> Self {
        self.excluded.extend(spans.iter().filter(|span| self.given.overlaps(**span)));
        self.excluded = merged(self.excluded);
        self
    }

    /// Why no container can have any of its addresses, if so, to follow a key.
    pub(crate) fn emptiness(&self) -> Option<String> {
        self.all().next().is_none().then(|| format!("leaves only {self}, which no container can have"))
    }

    /// The gateway's address with the subnet's prefix length: the bridge has it.
    pub(crate) fn gateway_network(&self) -> IpNetwork {
        self.with_prefix(self.gateway)
    }

    /// The subnet itself.
    pub(crate) fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The address containers send to whatever is not on their own subnet.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// First and last address of the range that is given out.
    pub(crate) fn bounds(&self) -> (IpAddr, IpAddr) {
        (self.given.first, self.given.last)
    }

    /// Whether `address` is of the subnet.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address)
    }

    /// Whether some address of the subnet is in the span.
    pub(crate) fn meets(&self, span: Span) -> bool {
        span.overlaps(self.subnet.into())
    }

    /// Whether both would give out some address, or have subnets that hold each other's addresses without being the same; why, to
    /// follow "which".
    pub(crate) fn clash(&self, other: &Self) -> Option<String> {
        if self.given.overlaps(other.given) {
            return Some(format!("gives out {self}, and so does {other}: ranges must not overlap"));
        }
        let (one, two) = (self.subnet, other.subnet);
        let overlap = one != two && Span::from(one).overlaps(two.into());
        overlap.then(|| {
            format!("is in {one}, which overlaps {two}: containers of one subnet would not reach those of the other")
        })
    }

    /// `address` with what belongs to it.
    pub(crate) fn own(&self, address: IpAddr) -> Allocation {
        Allocation { address: self.with_prefix(address), gateway: self.gateway }
    }

    /// All that it may ever give out, lowest first.
    pub(super) fn all(&self) -> impl Iterator<Item = IpAddr> {
        between(self.given, &self.excluded)
    }

    /// Why no container of any network may have it, if so, to follow it.
    pub(super) fn reservation(address: IpAddr) -> Option<String> {
        let reserved = RESERVED.into_iter().find(|reserved| reserved.contains(address));
        reserved.map(|reserved| format!("is in {reserved}, which is reserved for gateways"))
    }

    /// Whether it is of the part that is given out, excluded or not.
    pub(super) fn spans(&self, address: IpAddr) -> bool {
        self.given.contains(address)
    }

    pub(super) fn may_give(&self, address: IpAddr) -> bool {
        self.spans(address) && !self.is_excluded(address)
    }

    fn is_excluded(&self, address: IpAddr) -> bool {
        // The first that ends where it is, or later.
        let place = self.excluded.partition_point(|span| span.last < address);
        self.excluded.get(place).is_some_and(|span| span.contains(address))
    }

    fn with_prefix(&self, address: IpAddr) -> IpNetwork {
        IpNetwork::new(address, self.subnet.prefix()).expect("a prefix length that came out of a network")
    }
}

impl fmt::Display for Range {
    /// What containers can have: without the gateway's address where it is at an end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { mut first, mut last } = self.given;
        if first < last && first == self.gateway {
            first = next(first);
        } else if first < last && last == self.gateway {
            last = before(last);
        }
        Span { first, last }.fmt(f)
    }
}

/// Why containers cannot have addresses of that subnet, if so, to follow a key.
fn subnet_problem(subnet: IpNetwork) -> Option<String> {
    // Two bits: the network's, the gateway's, a container's and, with IPv4, the broadcast's. (/31 and /32 are host routes, not networks.)
    let longest = if subnet.is_ipv4() { 30 } else { 126 };
    let problem = match subnet {
        _ if subnet.prefix() > longest => format!("is {subnet}, which has no room for a gateway and a container"),
        IpNetwork::V4(_) if subnet.prefix() == 0 => format!("is {subnet}: the whole of IPv4 cannot be one network"),
        IpNetwork::V6(_) if subnet.prefix() == 0 => format!("is {subnet}: the whole of IPv6 cannot be one network"),
        _ => return reserved_problem(subnet).or_else(|| foreign_problem(subnet)),
    };
    Some(problem)
}

/// Why the subnet is the gateways', if so, to follow a key.
fn reserved_problem(subnet: IpNetwork) -> Option<String> {
    let is_within = |reserved: &IpNetwork| subnet.prefix() >= reserved.prefix() && reserved.contains(subnet.network());
    let reserved = RESERVED.into_iter().find(is_within)?;
    let instead = if subnet.is_ipv4() { "10.87.N.0/24" } else { "fd87:N::/64" };
    Some(format!("is {subnet}, but {reserved} is reserved for gateways: use {instead} for host N"))
}

/// Why the subnet cannot be one of containers that has any address which means something else (RFC 6890), if so, to follow a key.
fn foreign_problem(subnet: IpNetwork) -> Option<String> {
    let meets = |part: &str| {
        let part: IpNetwork = part.parse().expect("a subnet");
        Span::from(subnet).overlaps(part.into())
    };
    let problem = match subnet {
        _ if meets("0.0.0.0/8") => format!("is {subnet}, with addresses of 0.0.0.0/8, which no host can have"),
        _ if meets("127.0.0.0/8") => format!("is {subnet}, with loopback addresses (127.0.0.0/8)"),
        _ if meets("224.0.0.0/4") => {
            format!("is {subnet}, with multicast addresses (224.0.0.0/4)")
        }
        _ if meets("::/128") => format!("is {subnet}, with ::, which no host can have"),
        _ if meets("::1/128") => format!("is {subnet}, with the loopback address ::1"),
        _ if meets("::ffff:0:0/96") => {
            format!("is {subnet}, with IPv4-mapped addresses (::ffff:0:0/96): write it as IPv4")
        }
        _ if meets("fe80::/10") => {
            format!("is {subnet}, with link-local addresses (fe80::/10): use addresses of fd00::/8")
        }
        _ if meets("ff00::/8") => {
            format!("is {subnet}, with multicast addresses (ff00::/8)")
        }
        _ => return None,
    };
    Some(problem)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn range(subnet: &str, gateway: &str, start: &str, end: &str) -> Result<Range, Refusal> {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse().expect("an address"));
        Range::new(subnet.parse().expect("a subnet"), address(gateway), address(start), address(end))
    }

    fn whole(subnet: &str) -> Range {
        range(subnet, "", "", "").expect("a range")
    }

    fn spans(texts: &[&str]) -> Vec<Span> {
        texts.iter().map(|text| Span::parse(text).expect("a span")).collect()
    }

    #[rstest]
    #[case::whole("10.87.1.0/24", "", "", "", "10.87.1.2", 253)]
    #[case::gateway_last("10.87.1.0/24", "10.87.1.254", "", "", "10.87.1.1", 253)]
    #[case::range("10.87.1.0/24", "", "10.87.1.10", "10.87.1.12", "10.87.1.10", 3)]
    #[case::gateway_inside_range("10.87.1.0/24", "10.87.1.11", "10.87.1.10", "10.87.1.12", "10.87.1.10", 2)]
    #[case::smallest("10.87.1.0/30", "", "", "", "10.87.1.2", 1)]
    #[case::without_reserved("10.87.0.0/16", "", "", "", "10.87.1.0", 65_279)]
    #[case::without_reserved_ipv6("fd87::/48", "", "", "fd87:0:0:1::3", "fd87:0:0:1::", 4)]
    #[case::beside_reserved_ipv6("fd87:0:0:1::/64", "", "", "fd87:0:0:1::3", "fd87:0:0:1::2", 2)]
    #[case::large("10.88.0.0/16", "", "", "", "10.88.0.2", 65_533)]
    #[case::v6("fd00:1::/120", "", "", "", "fd00:1::2", 254)]
    #[case::v6_smallest("fd00:1::/126", "", "", "", "fd00:1::2", 2)]
    #[case::v6_range("fd00:1::/64", "", "fd00:1::10", "fd00:1::12", "fd00:1::10", 3)]
    fn gives(
        #[case] subnet: &str,
        #[case] gateway: &str,
        #[case] start: &str,
        #[case] end: &str,
        #[case] first: IpAddr,
        #[case] count: usize,
    ) {
        let range = range(subnet, gateway, start, end).expect("a range");
        assert_eq!(range.all().next(), Some(first));
        assert_eq!(range.all().count(), count);
        assert!(range.all().all(|address| range.may_give(address) && address != range.gateway()));
    }

    #[test]
    fn never_gives_what_is_excluded() {
        let range =
            whole("10.87.1.0/28").without(&spans(&["10.87.1.3", "10.87.1.4/30", "10.87.1.9-10.87.1.12", "fd00::/64"]));
        let given: Vec<_> = range.all().map(|address| address.to_string()).collect();
        assert_eq!(given, ["10.87.1.2", "10.87.1.8", "10.87.1.13", "10.87.1.14"]);
        let excluded = "10.87.1.10".parse().expect("an address");
        assert!(range.spans(excluded) && !range.may_give(excluded));
        let nothing = range.without(&spans(&["10.87.1.0/25"]));
        assert!(nothing.emptiness().is_some_and(|problem| problem.contains("no container can have")));
    }

    #[rstest]
    #[case::host_bits("10.87.1.1/24", "", "", "", "subnet", "10.87.1.0/24")]
    #[case::no_room("10.87.1.0/31", "", "", "", "subnet", "no room")]
    #[case::one_address("10.87.1.1/32", "", "", "", "subnet", "no room")]
    #[case::whole_internet("0.0.0.0/0", "", "", "", "subnet", "whole of IPv4")]
    #[case::multicast("224.0.0.0/24", "", "", "", "subnet", "multicast")]
    #[case::loopback("127.0.0.0/8", "", "", "", "subnet", "loopback")]
    #[case::around_multicast(
        "192.0.0.0/2",
        "",
        "192.168.0.9",
        "192.168.0.10",
        "subnet",
        "is 192.0.0.0/2, with multicast addresses (224.0.0.0/4)"
    )]
    #[case::no_host("0.0.0.0/8", "", "", "", "subnet", "no host can have")]
    #[case::in_no_host("0.9.0.0/16", "", "", "", "subnet", "no host can have")]
    #[case::around_loopback("126.0.0.0/7", "", "", "", "subnet", "loopback")]
    #[case::gateway_outside("10.87.1.0/24", "10.87.2.1", "", "", "gateway", "10.87.2.1")]
    #[case::gateway_is_network("10.87.1.0/24", "10.87.1.0", "", "", "gateway", "10.87.1.0")]
    #[case::gateway_is_broadcast("10.87.1.0/24", "10.87.1.255", "", "", "gateway", "10.87.1.255")]
    #[case::start_outside("10.87.1.0/24", "", "10.87.0.9", "", "rangeStart", "10.87.0.9")]
    #[case::end_outside("10.87.1.0/24", "", "", "10.87.2.9", "rangeEnd", "10.87.2.9")]
    #[case::backwards("10.87.1.0/24", "", "10.87.1.9", "10.87.1.8", "rangeStart", "after")]
    #[case::only_the_gateway("10.87.1.0/24", "", "10.87.1.1", "10.87.1.1", "rangeStart", "no container")]
    #[case::reserved("10.87.0.0/24", "", "", "", "subnet", "reserved")]
    #[case::part_of_reserved("10.87.0.128/25", "", "", "", "subnet", "reserved")]
    #[case::reserved_ipv6("fd87::/64", "", "", "", "subnet", "use fd87:N::/64 for host N")]
    #[case::part_of_reserved_ipv6("fd87:0:0:0:8000::/80", "", "", "", "subnet", "reserved")]
    #[case::only_reserved_ipv6("fd87::/48", "", "fd87::8", "fd87::9", "rangeStart", "no container")]
    #[case::only_reserved("10.87.0.0/16", "", "10.87.0.8", "10.87.0.9", "rangeStart", "no container")]
    #[case::v6_host_bits("fd00::1/64", "", "", "", "subnet", "fd00::/64")]
    #[case::v6_no_room("fd00::/127", "", "", "", "subnet", "no room")]
    #[case::v6_one_address("fd00::1/128", "", "", "", "subnet", "no room")]
    #[case::v6_whole_internet("::/0", "", "", "", "subnet", "whole of IPv6")]
    #[case::v6_any_router("fd00::/64", "fd00::", "", "", "gateway", "fd00::1")]
    #[case::v6_multicast("ff05::/64", "", "", "", "subnet", "multicast")]
    #[case::v6_link_local("fe80::/64", "", "", "", "subnet", "link-local")]
    #[case::v6_around_link_local("fe00::/8", "", "fe80::9", "", "subnet", "link-local addresses (fe80::/10)")]
    #[case::v6_no_host("::/64", "", "", "", "subnet", "no host can have")]
    #[case::v6_around_mapped("::fffe:0:0/95", "", "", "", "subnet", "write it as IPv4")]
    #[case::v6_around_multicast("fe00::/7", "", "", "", "subnet", "link-local addresses")]
    #[case::v6_mapped("::ffff:10.87.1.0/120", "", "", "", "subnet", "write it as IPv4")]
    #[case::gateway_of_the_other_family("10.87.1.0/24", "fd00::1", "", "", "gateway", "fd00::1")]
    fn refuses(
        #[case] subnet: &str,
        #[case] gateway: &str,
        #[case] start: &str,
        #[case] end: &str,
        #[case] key: &str,
        #[case] words: &str,
    ) {
        let (found, problem) = range(subnet, gateway, start, end).unwrap_err();
        assert_eq!(found, key);
        assert!(problem.contains(words), "{problem}");
    }

    #[rstest]
    #[case::apart(("10.87.1.0/24", "", ""), ("10.87.2.0/24", "", ""), None)]
    #[case::families(("10.87.1.0/24", "", ""), ("fd00::/64", "", ""), None)]
    #[case::parts_of_a_subnet(("10.87.1.0/24", "10.87.1.2", "10.87.1.9"), ("10.87.1.0/24", "10.87.1.10", ""), None)]
    #[case::same(("10.87.1.0/24", "", ""), ("10.87.1.0/24", "", ""), Some("so does"))]
    #[case::one_address(("10.87.1.0/24", "", "10.87.1.9"), ("10.87.1.0/24", "10.87.1.9", ""), Some("so does"))]
    #[case::inside(("10.87.0.0/16", "10.87.9.0", ""), ("10.87.1.0/24", "", ""), Some("overlaps"))]
    #[case::inside_v6(("fd00::/64", "fd00::1:0", "fd00::2:0"), ("fd00::/112", "", ""), Some("overlaps"))]
    fn clashes(#[case] one: (&str, &str, &str), #[case] two: (&str, &str, &str), #[case] words: Option<&str>) {
        let [one, two] = [one, two].map(|(subnet, start, end)| range(subnet, "", start, end).expect("a range"));
        for clash in [one.clash(&two), two.clash(&one)] {
            match (clash, words) {
                (None, None) => {}
                (Some(clash), Some(words)) => assert!(clash.contains(words), "{clash}"),
                (clash, words) => panic!("{clash:?} instead of {words:?}"),
            }
        }
    }
}
