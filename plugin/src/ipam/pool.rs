//! The addresses that a network may give out, of either family. Pure: it knows which are taken, and which names had them, only by
//! being told.
//!
//! A pool never gives out what is taken, a gateway's, reserved or excluded; it finds an address whenever there is one, and passes over
//! excluded stretches whole: choosing takes as many steps as addresses are taken or remembered, however large the subnet is.

mod range;
mod span;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

pub(crate) use self::range::Range;
pub(crate) use self::span::{Span, host_bits_problem, subnet_of};
use crate::ipam::memory::Used;

/// All pools of a network; an attachment gets one address of each. None where it gives no addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pools(Vec<Pool>);

/// Ranges of one family, of which an attachment gets one address: the first range that has one gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool(Vec<Range>);

/// An address that somebody has been given, with its subnet's prefix length and the subnet's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) address: IpNetwork,
    pub(crate) gateway: IpAddr,
}

impl Pools {
    /// No pool gives out the gateway of another one's range.
    pub(crate) fn new(pools: Vec<Pool>) -> Self {
        let gateways: Vec<_> = pools.iter().flat_map(|pool| &pool.0).map(|range| Span::from(range.gateway())).collect();
        let without = |pool: Pool| Pool(pool.0.into_iter().map(|range| range.without(&gateways)).collect());
        Self(pools.into_iter().map(without).collect())
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
        if self.iter().any(|pool| pool.own(address).is_some()) {
            return None;
        }
        if self.ranges().any(|range| range.gateway() == address) {
            return Some("is the gateway's".to_owned());
        }
        if self.ranges().any(|range| range.spans(address)) {
            return Range::reservation(address).or_else(|| Some("is excluded from this network's range".to_owned()));
        }
        let ranges: Vec<_> = self.ranges().map(Range::to_string).collect();
        Some(match ranges.as_slice() {
            [] => "cannot be assigned: this network gives no addresses".to_owned(),
            [range] => format!("is outside this network's range ({range})"),
            ranges => format!("is outside this network's ranges ({})", ranges.join(", ")),
        })
    }
}

impl Pool {
    /// `ranges` are of one family; there is at least one.
    pub(crate) fn new(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }

    pub(crate) fn ranges(&self) -> &[Range] {
        &self.0
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.0.iter().all(|range| range.subnet().is_ipv4())
    }

    /// The addresses that can be given out, range by range, lowest first, but for those `taken`.
    pub(crate) fn free<'a>(&'a self, taken: &'a BTreeSet<IpAddr>) -> impl Iterator<Item = Allocation> + 'a {
        without(taken, self.all())
    }

    /// The same, in the order in which a container gets them: what its name had `last`, the lowest that no name had, then what has been
    /// unused for longest, and then what may be in use still. `used` is asked for only where the first of these is not enough.
    pub(crate) fn candidates<'a>(
        &'a self,
        taken: &'a BTreeSet<IpAddr>,
        last: &'a [IpAddr],
        used: impl FnOnce() -> &'a Used + 'a,
    ) -> impl Iterator<Item = Allocation> + 'a {
        self.candidates_of(self.all(), taken, last, used)
    }

    /// Those of `all`, which it gives out, one after the other: no more of them is looked at than is asked for.
    fn candidates_of<'a>(
        &'a self,
        all: impl Iterator<Item = Allocation> + 'a,
        taken: &'a BTreeSet<IpAddr>,
        last: &'a [IpAddr],
        used: impl FnOnce() -> &'a Used + 'a,
    ) -> impl Iterator<Item = Allocation> + 'a {
        let free = move |address: IpAddr| self.own(address).filter(|_| !taken.contains(&address));
        let its_own = last.iter().filter_map(move |address| free(*address));
        let others = std::iter::once_with(move || {
            let used = used();
            let never = without(taken, all).filter(|own| !used.contains_key(&own.address.ip()));
            let longest = std::iter::once_with(move || {
                let mut once: Vec<_> =
                    used.iter().filter_map(|(address, latest)| Some((*latest, free(*address)?))).collect();
                once.sort_by_key(|(latest, own)| (*latest, own.address.ip()));
                once.into_iter().map(|(_, own)| own)
            });
            never.chain(longest.flatten())
        });
        its_own.chain(others.flatten())
    }

    /// `address` with what belongs to it, if it can be given out.
    pub(crate) fn own(&self, address: IpAddr) -> Option<Allocation> {
        self.0.iter().find(|range| range.may_give(address)).map(|range| range.own(address))
    }

    /// Whether `address` is of one of its subnets.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// All that can ever be given out.
    fn all(&self) -> impl Iterator<Item = Allocation> {
        self.0.iter().flat_map(|range| range.all().map(|address| range.own(address)))
    }
}

impl From<Range> for Pool {
    fn from(range: Range) -> Self {
        Self::new(vec![range])
    }
}

impl From<Range> for Pools {
    fn from(range: Range) -> Self {
        Self::new(vec![range.into()])
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

/// Those that nobody has.
fn without<'a>(
    taken: &'a BTreeSet<IpAddr>,
    all: impl Iterator<Item = Allocation> + 'a,
) -> impl Iterator<Item = Allocation> + 'a {
    all.filter(|own| !taken.contains(&own.address.ip()))
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

#[cfg(test)]
mod tests;
