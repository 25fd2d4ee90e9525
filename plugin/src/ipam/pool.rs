//! The addresses that a network may give out, of either family. Pure: it knows which are taken only by being told.
//!
//! A pool that exists has at least one address to give, and never gives out the network's, the broadcast's or the gateway's.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

/// 10.87.0.0/24, which the address plan keeps for gateways: no container gets one of these.
const RESERVED: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(10, 87, 0, 0), 24) {
    Some(network) => network,
    None => unreachable!(),
};

/// All pools of a network; an attachment gets one address of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pools(Vec<Pool>);

/// Ranges of one family, of which an attachment gets one address: the first range that has one gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool(Vec<Range>);

/// One subnet, its gateway, and the part of it that is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    subnet: IpNetwork,
    gateway: IpAddr,
    first: IpAddr,
    last: IpAddr,
}

/// An address that somebody has been given, with its subnet's prefix length and the subnet's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) address: IpNetwork,
    pub(crate) gateway: IpAddr,
}

/// The key of the configuration that cannot be, and why: the text follows the key.
type Refusal = (&'static str, String);

impl Pools {
    pub(crate) fn new(pools: Vec<Pool>) -> Self {
        Self(pools)
    }

    /// In the order of the configuration, which is that of the addresses in a result.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.0.iter().flat_map(|pool| &pool.0)
    }

    /// The gateways' addresses with their subnets' prefix lengths, each once, IPv4 first: the bridge has them.
    pub(crate) fn gateway_networks(&self) -> Vec<IpNetwork> {
        once_each(self.ranges().map(Range::gateway_network))
    }

    /// Each once, IPv4 first.
    pub(crate) fn subnets(&self) -> Vec<IpNetwork> {
        once_each(self.ranges().map(Range::subnet))
    }

    /// Whether `address` is of one of the subnets.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.ranges().any(|range| range.contains(address))
    }

    /// Why a container may not ask for `address`, if so; the text follows the address.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<String> {
        let refusals: Vec<_> = self.iter().map(|pool| pool.refusal(address)).collect();
        if refusals.iter().any(Option::is_none) {
            return None;
        }
        if self.ranges().any(|range| range.gateway == address) {
            return Some("is the gateway's own".to_owned());
        }
        let pools: Vec<_> = self.iter().map(Pool::to_string).collect();
        Some(format!("is not one of {} of this network", pools.join(", ")))
    }
}

impl Pool {
    /// `ranges` are of one family; there is at least one.
    pub(crate) fn new(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }

    /// The addresses that can be given out, range by range, lowest first, but for those `taken`.
    pub(crate) fn free<'a>(&'a self, taken: &'a BTreeSet<IpAddr>) -> impl Iterator<Item = Own> + 'a {
        self.0.iter().flat_map(|range| range.free(taken).map(|address| range.own(address)))
    }

    /// `address` with what belongs to it, if it can be given out.
    pub(crate) fn own(&self, address: IpAddr) -> Option<Own> {
        self.0.iter().find(|range| range.may_give(address)).map(|range| range.own(address))
    }

    /// Why a container may not ask for `address`, if so; the text follows the address.
    fn refusal(&self, address: IpAddr) -> Option<String> {
        let refusals: Option<Vec<_>> = self.0.iter().map(|range| range.refusal(address)).collect();
        refusals.map(|refusals| refusals.into_iter().next().unwrap_or_default())
    }
}

impl Range {
    /// `gateway`, `start` and `end` default to the subnet's first, first and last usable address.
    pub(crate) fn new(
        subnet: IpNetwork,
        gateway: Option<IpAddr>,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
    ) -> Result<Self, Refusal> {
        if let Some(problem) = subnet_problem(subnet) {
            return Err(("subnet", problem));
        }
        // The highest of IPv4 is the broadcast's; the lowest of IPv6 means any router (RFC 4291, section 2.6.1).
        let lowest = next(subnet.network());
        let highest = if subnet.is_ipv4() { before(subnet.broadcast()) } else { subnet.broadcast() };
        let usable = |key: &'static str, address: Option<IpAddr>, default: IpAddr| match address.unwrap_or(default) {
            address if (lowest..=highest).contains(&address) => Ok(address),
            address => Err((key, format!("is {address}, which is not one of {lowest} - {highest} of {subnet}"))),
        };
        let range = Self {
            subnet,
            gateway: usable("gateway", gateway, lowest)?,
            first: usable("rangeStart", start, lowest)?,
            last: usable("rangeEnd", end, highest)?,
        };
        if range.first > range.last {
            return Err(("rangeStart", format!("is {}, which is after rangeEnd {}", range.first, range.last)));
        }
        if range.free(&BTreeSet::new()).next().is_none() {
            return Err(("rangeStart", format!("leaves {range}, of which no container can have any")));
        }
        Ok(range)
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
        (self.first, self.last)
    }

    /// Whether `address` is of the subnet.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address)
    }

    /// `address` with what belongs to it.
    pub(crate) fn own(&self, address: IpAddr) -> Own {
        Own { address: self.with_prefix(address), gateway: self.gateway }
    }

    fn with_prefix(&self, address: IpAddr) -> IpNetwork {
        IpNetwork::new(address, self.subnet.prefix()).expect("a prefix length that came out of a network")
    }

    /// The addresses that can be given out, lowest first, but for those `taken`.
    fn free<'a>(&'a self, taken: &'a BTreeSet<IpAddr>) -> impl Iterator<Item = IpAddr> + 'a {
        between(self.first, self.last).filter(move |address| self.may_give(*address) && !taken.contains(address))
    }

    fn may_give(&self, address: IpAddr) -> bool {
        let is_reserved = matches!(address, IpAddr::V4(address) if RESERVED.contains(address));
        (self.first..=self.last).contains(&address) && address != self.gateway && !is_reserved
    }

    /// Why a container may not ask for `address`, if so; the text follows the address.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<String> {
        if address == self.gateway {
            Some("is the gateway's own".to_owned())
        } else if self.may_give(address) {
            None
        } else {
            Some(format!("is not one of {self} of this network"))
        }
    }
}

impl From<Range> for Pool {
    fn from(range: Range) -> Self {
        Self::new(vec![range])
    }
}

impl From<Range> for Pools {
    fn from(range: Range) -> Self {
        Self(vec![range.into()])
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.first, self.last)
    }
}

/// Why containers cannot have addresses of that subnet, if so, to follow a key.
fn subnet_problem(subnet: IpNetwork) -> Option<String> {
    if subnet.ip() != subnet.network() {
        let meant = IpNetwork::new(subnet.network(), subnet.prefix()).map_or_else(|_| String::new(), |n| n.to_string());
        return Some(format!("is {subnet}, which has host bits set: did you mean {meant}?"));
    }
    // Two bits: the network's, the gateway's, a container's and, with IPv4, the broadcast's. (/31 and /32 are host routes, not networks.)
    let longest = if subnet.is_ipv4() { 30 } else { 126 };
    if subnet.prefix() > longest {
        return Some(format!("is {subnet}, which has no room for a gateway and a container"));
    }
    match subnet {
        _ if subnet.prefix() == 0 => {
            let family = if subnet.is_ipv4() { "IPv4" } else { "IPv6" };
            Some(format!("is {subnet}: the whole of {family} cannot be one network"))
        }
        IpNetwork::V4(subnet) if subnet.is_subnet_of(RESERVED) => {
            Some(format!("is {subnet}, but {RESERVED} is reserved for gateways: take 10.87.N.0/24 for host N"))
        }
        _ => None,
    }
}

/// In order, each once.
fn once_each(networks: impl Iterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    let mut once = Vec::new();
    for network in networks {
        if !once.contains(&network) {
            once.push(network);
        }
    }
    once.sort_by_key(IpNetwork::is_ipv6);
    once
}

/// All addresses from `first` to `last`, which are of one family.
fn between(first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
    (bits(first)..=bits(last)).map(move |number| of_family(first, number))
}

fn next(address: IpAddr) -> IpAddr {
    of_family(address, bits(address) + 1)
}

fn before(address: IpAddr) -> IpAddr {
    of_family(address, bits(address) - 1)
}

/// The address as a number.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of that number, in the family of `like`.
fn of_family(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn range(subnet: &str, gateway: &str, start: &str, end: &str) -> Result<Range, Refusal> {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse().expect("an address"));
        Range::new(subnet.parse().expect("a subnet"), address(gateway), address(start), address(end))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[rstest]
    #[case::whole("10.87.1.0/24", "", "", "", "10.87.1.2", 253)]
    #[case::gateway_last("10.87.1.0/24", "10.87.1.254", "", "", "10.87.1.1", 253)]
    #[case::range("10.87.1.0/24", "", "10.87.1.10", "10.87.1.12", "10.87.1.10", 3)]
    #[case::gateway_inside_range("10.87.1.0/24", "10.87.1.11", "10.87.1.10", "10.87.1.12", "10.87.1.10", 2)]
    #[case::smallest("10.87.1.0/30", "", "", "", "10.87.1.2", 1)]
    #[case::without_reserved("10.87.0.0/16", "", "", "", "10.87.1.0", 65_279)]
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
        let none = BTreeSet::new();
        assert_eq!(range.free(&none).next(), Some(first));
        assert_eq!(range.free(&none).count(), count);
        assert!(range.free(&none).all(|address| range.refusal(address).is_none() && address != range.gateway()));
    }

    #[test]
    fn passes_over_what_is_taken() {
        let range = range("10.87.1.0/29", "", "", "").expect("a range");
        let taken = range.free(&BTreeSet::new()).filter(|a| *a != address("10.87.1.4")).collect();
        assert_eq!(range.free(&taken).collect::<Vec<_>>(), [address("10.87.1.4")]);
    }

    #[test]
    fn the_next_range_gives_what_the_first_has_not() {
        let ranges = ["10.87.1.0/30", "10.87.2.0/30"].map(|subnet| range(subnet, "", "", "").expect("a range"));
        let pool = Pool::new(ranges.into());
        let taken = BTreeSet::from([address("10.87.1.2")]);
        let own = Own { address: "10.87.2.2/30".parse().expect("a network"), gateway: address("10.87.2.1") };
        assert_eq!(pool.free(&taken).collect::<Vec<_>>(), [own]);
        assert_eq!(pool.own(address("10.87.2.2")), Some(own));
        assert_eq!(pool.own(address("10.87.2.1")), None);
    }

    #[test]
    fn a_bridge_has_each_gateway_once_and_those_of_ipv4_first() {
        let ranges = [("fd00::/64", ""), ("10.87.1.0/24", "10.87.1.9"), ("10.87.1.0/24", "10.87.1.30")];
        let pools = ranges.map(|(subnet, start)| range(subnet, "", start, "").expect("a range").into());
        let pools = Pools::new(pools.into());
        let texts = |networks: Vec<IpNetwork>| networks.iter().map(IpNetwork::to_string).collect::<Vec<_>>();
        assert_eq!(texts(pools.gateway_networks()), ["10.87.1.1/24", "fd00::1/64"]);
        assert_eq!(texts(pools.subnets()), ["10.87.1.0/24", "fd00::/64"]);
    }

    #[rstest]
    #[case::host_bits("10.87.1.1/24", "", "", "", "subnet", "10.87.1.0/24")]
    #[case::no_room("10.87.1.0/31", "", "", "", "subnet", "no room")]
    #[case::whole_internet("0.0.0.0/0", "", "", "", "subnet", "whole of IPv4")]
    #[case::gateway_outside("10.87.1.0/24", "10.87.2.1", "", "", "gateway", "10.87.2.1")]
    #[case::gateway_is_network("10.87.1.0/24", "10.87.1.0", "", "", "gateway", "10.87.1.0")]
    #[case::gateway_is_broadcast("10.87.1.0/24", "10.87.1.255", "", "", "gateway", "10.87.1.255")]
    #[case::start_outside("10.87.1.0/24", "", "10.87.0.9", "", "rangeStart", "10.87.0.9")]
    #[case::end_outside("10.87.1.0/24", "", "", "10.87.2.9", "rangeEnd", "10.87.2.9")]
    #[case::backwards("10.87.1.0/24", "", "10.87.1.9", "10.87.1.8", "rangeStart", "after")]
    #[case::only_the_gateway("10.87.1.0/24", "", "10.87.1.1", "10.87.1.1", "rangeStart", "no container")]
    #[case::reserved("10.87.0.0/24", "", "", "", "subnet", "reserved")]
    #[case::only_reserved("10.87.0.0/16", "", "10.87.0.8", "10.87.0.9", "rangeStart", "no container")]
    #[case::v6_host_bits("fd00::1/64", "", "", "", "subnet", "fd00::/64")]
    #[case::v6_no_room("fd00::/127", "", "", "", "subnet", "no room")]
    #[case::v6_whole_internet("::/0", "", "", "", "subnet", "whole of IPv6")]
    #[case::v6_any_router("fd00::/64", "fd00::", "", "", "gateway", "fd00::1")]
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
    #[case::inside("10.87.1.9", None)]
    #[case::inside_v6("fd00::9", None)]
    #[case::gateway("10.87.1.1", Some("gateway"))]
    #[case::network("10.87.1.0", Some("not one of 10.87.1.1 - 10.87.1.254, fd00::1 - "))]
    #[case::elsewhere("10.88.1.9", Some("not one of"))]
    fn requests(#[case] address: IpAddr, #[case] words: Option<&str>) {
        let pools = ["10.87.1.0/24", "fd00::/64"].map(|subnet| range(subnet, "", "", "").expect("a range").into());
        let refusal = Pools::new(pools.into()).refusal(address);
        match words {
            None => assert_eq!(refusal, None),
            Some(words) => assert!(refusal.expect("a refusal").contains(words)),
        }
    }
}
