//! The addresses that a network may give out. Pure: it knows which are taken only by being told.
//!
//! A pool that exists has at least one address to give, and never gives out the network's, the broadcast's or the gateway's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// Beyond this a subnet has no room for a gateway and a container (/31 and /32 are host routes, not networks).
const LONGEST_PREFIX: u8 = 30;

/// 10.87.0.0/24, which the address plan keeps for gateways: no container gets one of these.
const RESERVED: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(10, 87, 0, 0), 24) {
    Some(network) => network,
    None => unreachable!(),
};

/// One subnet, its gateway, and the range of it that is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    subnet: Ipv4Network,
    gateway: Ipv4Addr,
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// The key of the configuration that cannot be, and why: the text follows the key.
type Refusal = (&'static str, String);

impl Pool {
    /// `gateway`, `start` and `end` default to the subnet's first, first and last usable address.
    pub(crate) fn new(
        subnet: Ipv4Network,
        gateway: Option<Ipv4Addr>,
        start: Option<Ipv4Addr>,
        end: Option<Ipv4Addr>,
    ) -> Result<Self, Refusal> {
        if subnet.ip() != subnet.network() {
            let meant =
                Ipv4Network::new(subnet.network(), subnet.prefix()).map_or_else(|_| String::new(), |n| n.to_string());
            return Err(("subnet", format!("is {subnet}, which has host bits set: did you mean {meant}?")));
        }
        if subnet.prefix() > LONGEST_PREFIX {
            return Err(("subnet", format!("is {subnet}, which has no room for a gateway and a container")));
        }
        if subnet.prefix() == 0 {
            return Err(("subnet", format!("is {subnet}: the whole of IPv4 cannot be one network")));
        }
        if subnet.is_subnet_of(RESERVED) {
            return Err((
                "subnet",
                format!("is {subnet}, but {RESERVED} is reserved for gateways: take 10.87.N.0/24 for host N"),
            ));
        }
        let lowest = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
        let highest = Ipv4Addr::from_bits(subnet.broadcast().to_bits() - 1);
        let usable = |key: &'static str, address: Option<Ipv4Addr>, default: Ipv4Addr| match address.unwrap_or(default)
        {
            address if (lowest..=highest).contains(&address) => Ok(address),
            address => Err((key, format!("is {address}, which is not one of {lowest} - {highest} of {subnet}"))),
        };
        let pool = Self {
            subnet,
            gateway: usable("gateway", gateway, lowest)?,
            first: usable("rangeStart", start, lowest)?,
            last: usable("rangeEnd", end, highest)?,
        };
        if pool.first > pool.last {
            return Err(("rangeStart", format!("is {}, which is after rangeEnd {}", pool.first, pool.last)));
        }
        if pool.free(&BTreeSet::new()).next().is_none() {
            let (first, last) = pool.range();
            return Err(("rangeStart", format!("leaves {first} - {last}, of which no container can have any")));
        }
        Ok(pool)
    }

    /// The gateway's address with the subnet's prefix length: the bridge has it.
    pub(crate) fn gateway_network(&self) -> Ipv4Network {
        self.with_prefix(self.gateway)
    }

    /// The subnet itself.
    pub(crate) fn subnet(&self) -> Ipv4Network {
        self.subnet
    }

    /// The address containers send to whatever is not on their own subnet.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// First and last address of the range that is given out.
    pub(crate) fn range(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.first, self.last)
    }

    /// Whether `address` is of the subnet.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.subnet.contains(address)
    }

    /// `address` with the subnet's prefix length.
    pub(crate) fn with_prefix(&self, address: Ipv4Addr) -> Ipv4Network {
        Ipv4Network::new(address, self.subnet.prefix()).expect("a prefix length that came out of a network")
    }

    /// The addresses that can be given out, lowest first, but for those `taken`.
    pub(crate) fn free<'a>(&'a self, taken: &'a BTreeSet<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> + 'a {
        (self.first.to_bits()..=self.last.to_bits())
            .map(Ipv4Addr::from_bits)
            .filter(move |address| self.may_give(*address) && !taken.contains(address))
    }

    fn may_give(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address) && address != self.gateway && !RESERVED.contains(address)
    }

    /// Why a container may not ask for `address`, if so; the text follows the address.
    pub(crate) fn refusal(&self, address: Ipv4Addr) -> Option<String> {
        if address == self.gateway {
            Some("is the gateway's own".to_owned())
        } else if self.may_give(address) {
            None
        } else {
            Some(format!("is not one of {} - {} of this network", self.first, self.last))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn pool(subnet: &str, gateway: &str, start: &str, end: &str) -> Result<Pool, Refusal> {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse().expect("an address"));
        Pool::new(subnet.parse().expect("a subnet"), address(gateway), address(start), address(end))
    }

    #[rstest]
    #[case::whole("10.87.1.0/24", "", "", "", "10.87.1.2", 253)]
    #[case::gateway_last("10.87.1.0/24", "10.87.1.254", "", "", "10.87.1.1", 253)]
    #[case::range("10.87.1.0/24", "", "10.87.1.10", "10.87.1.12", "10.87.1.10", 3)]
    #[case::gateway_inside_range("10.87.1.0/24", "10.87.1.11", "10.87.1.10", "10.87.1.12", "10.87.1.10", 2)]
    #[case::smallest("10.87.1.0/30", "", "", "", "10.87.1.2", 1)]
    #[case::without_reserved("10.87.0.0/16", "", "", "", "10.87.1.0", 65_279)]
    #[case::large("10.88.0.0/16", "", "", "", "10.88.0.2", 65_533)]
    fn gives(
        #[case] subnet: &str,
        #[case] gateway: &str,
        #[case] start: &str,
        #[case] end: &str,
        #[case] first: Ipv4Addr,
        #[case] count: usize,
    ) {
        let pool = pool(subnet, gateway, start, end).expect("a pool");
        let none = BTreeSet::new();
        assert_eq!(pool.free(&none).next(), Some(first));
        assert_eq!(pool.free(&none).count(), count);
        assert!(pool.free(&none).all(|address| pool.refusal(address).is_none() && address != pool.gateway()));
    }

    #[test]
    fn passes_over_what_is_taken() {
        let pool = pool("10.87.1.0/29", "", "", "").expect("a pool");
        let taken = pool.free(&BTreeSet::new()).filter(|a| a.octets()[3] != 4).collect();
        assert_eq!(pool.free(&taken).collect::<Vec<_>>(), [Ipv4Addr::new(10, 87, 1, 4)]);
    }

    #[rstest]
    #[case::host_bits("10.87.1.1/24", "", "", "", "subnet", "10.87.1.0/24")]
    #[case::no_room("10.87.1.0/31", "", "", "", "subnet", "no room")]
    #[case::whole_internet("0.0.0.0/0", "", "", "", "subnet", "whole")]
    #[case::gateway_outside("10.87.1.0/24", "10.87.2.1", "", "", "gateway", "10.87.2.1")]
    #[case::gateway_is_network("10.87.1.0/24", "10.87.1.0", "", "", "gateway", "10.87.1.0")]
    #[case::gateway_is_broadcast("10.87.1.0/24", "10.87.1.255", "", "", "gateway", "10.87.1.255")]
    #[case::start_outside("10.87.1.0/24", "", "10.87.0.9", "", "rangeStart", "10.87.0.9")]
    #[case::end_outside("10.87.1.0/24", "", "", "10.87.2.9", "rangeEnd", "10.87.2.9")]
    #[case::backwards("10.87.1.0/24", "", "10.87.1.9", "10.87.1.8", "rangeStart", "after")]
    #[case::only_the_gateway("10.87.1.0/24", "", "10.87.1.1", "10.87.1.1", "rangeStart", "no container")]
    #[case::reserved("10.87.0.0/24", "", "", "", "subnet", "reserved")]
    #[case::only_reserved("10.87.0.0/16", "", "10.87.0.8", "10.87.0.9", "rangeStart", "no container")]
    fn refuses(
        #[case] subnet: &str,
        #[case] gateway: &str,
        #[case] start: &str,
        #[case] end: &str,
        #[case] key: &str,
        #[case] words: &str,
    ) {
        let (found, problem) = pool(subnet, gateway, start, end).unwrap_err();
        assert_eq!(found, key);
        assert!(problem.contains(words), "{problem}");
    }

    #[rstest]
    #[case::inside("10.87.1.9", None)]
    #[case::gateway("10.87.1.1", Some("gateway"))]
    #[case::network("10.87.1.0", Some("not one of"))]
    #[case::elsewhere("10.88.1.9", Some("not one of"))]
    fn requests(#[case] address: Ipv4Addr, #[case] words: Option<&str>) {
        let refusal = pool("10.87.1.0/24", "", "", "").expect("a pool").refusal(address);
        match words {
            None => assert_eq!(refusal, None),
            Some(words) => assert!(refusal.expect("a refusal").contains(words)),
        }
    }
}
