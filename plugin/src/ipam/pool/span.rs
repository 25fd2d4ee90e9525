//! Stretches of addresses of one family, as `exclude` names them, and what is left between them.
//!
//! Nothing here goes from address to address: a stretch costs the same whatever its length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// All addresses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

impl Span {
    /// An address, a subnet, or the first and the last address with a dash between them; the error follows a key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("has {text:?}, which is not an address, a subnet or a range such as 10.87.1.10-10.87.1.20");
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        if let Some((first, last)) = text.split_once('-') {
            let span = Self { first: address(first)?, last: address(last)? };
            return match span {
                Self { first, last } if first.is_ipv4() != last.is_ipv4() => {
                    Err(format!("has {text:?}, whose ends are of different address families"))
                }
                Self { first, last } if first > last => {
                    Err(format!("has {text:?}, whose first address is after its last"))
                }
                span => Ok(span),
            };
        }
        if !text.contains('/') {
            return address(text).map(Self::from);
        }
        let subnet: IpNetwork = text.parse().map_err(|_| wrong())?;
        match host_bits_problem(subnet) {
            Some(problem) => Err(format!("has {subnet}, which {problem}")),
            None => Ok(Self::from(subnet)),
        }
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl From<IpNetwork> for Span {
    fn from(subnet: IpNetwork) -> Self {
        Self { first: subnet.network(), last: subnet.broadcast() }
    }
}

impl From<IpAddr> for Span {
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{} - {}", self.first, self.last) }
    }
}

/// In order, and none meets another.
pub(super) fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(former) if former.overlaps(span) => former.last = former.last.max(span.last),
            _ => merged.push(span),
        }
    }
    merged
}

/// The addresses of `whole`, lowest first, but for those of `without`, which is in order and all of whose family is the same.
pub(super) fn between(whole: Span, without: &[Span]) -> impl Iterator<Item = IpAddr> {
    let (first, last) = (bits(whole.first), bits(whole.last));
    let after = without.iter().map(|span| bits(span.last).checked_add(1));
    let before = without.iter().map(|span| bits(span.first).checked_sub(1));
    let gaps = std::iter::once(Some(first)).chain(after).zip(before.chain([Some(last)]));
    let gaps = gaps.filter_map(move |(start, end)| Some((start?.max(first), end?.min(last))));
    gaps.filter(|(start, end)| start <= end)
        .flat_map(move |(start, end)| (start..=end).map(move |number| of_family(whole.first, number)))
}

/// Why the subnet is none, but an address in one; the text follows "which".
pub(crate) fn host_bits_problem(subnet: IpNetwork) -> Option<String> {
    let meant = || format!("has host bits set: did you mean {}/{}?", subnet.network(), subnet.prefix());
    (subnet.ip() != subnet.network()).then(meant)
}

/// The subnet that an address with a prefix length is of.
pub(crate) fn subnet_of(address: IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).expect("a prefix length that came out of a network")
}

pub(super) fn next(address: IpAddr) -> IpAddr {
    of_family(address, bits(address).saturating_add(1))
}

pub(super) fn before(address: IpAddr) -> IpAddr {
    of_family(address, bits(address).saturating_sub(1))
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

    #[rstest]
    #[case::address("10.87.1.9", "10.87.1.9")]
    #[case::address_v6("fd00::9", "fd00::9")]
    #[case::subnet("10.87.1.16/28", "10.87.1.16 - 10.87.1.31")]
    #[case::subnet_v6("fd00::100/120", "fd00::100 - fd00::1ff")]
    #[case::range("10.87.1.10-10.87.1.20", "10.87.1.10 - 10.87.1.20")]
    #[case::range_with_spaces("fd00::1 - fd00::ffff", "fd00::1 - fd00::ffff")]
    fn spans(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(Span::parse(text).expect("a span").to_string(), expected);
    }

    #[rstest]
    #[case::nothing("", "not an address")]
    #[case::name("web", "not an address")]
    #[case::half("10.87.1.10-", "not an address")]
    #[case::three("10.87.1.1-10.87.1.2-10.87.1.3", "not an address")]
    #[case::last_byte_only("10.87.1.10-20", "not an address")]
    #[case::long("10.87.1.0/33", "not an address")]
    #[case::host_bits("10.87.1.9/28", "did you mean 10.87.1.0/28?")]
    #[case::backwards("10.87.1.20-10.87.1.10", "after its last")]
    #[case::two_families("10.87.1.20-fd00::1", "different address families")]
    fn refused(#[case] text: &str, #[case] words: &str) {
        let problem = Span::parse(text).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }

    fn span(text: &str) -> Span {
        Span::parse(text).expect("a span")
    }

    #[test]
    fn spans_that_meet_are_one() {
        let spans = ["10.0.0.9", "10.0.0.1-10.0.0.4", "10.0.0.3-10.0.0.6", "10.0.0.2"].map(span);
        assert_eq!(merged(spans.to_vec()), ["10.0.0.1-10.0.0.6", "10.0.0.9"].map(span));
    }

    #[rstest]
    #[case::nothing(&[], "1 2 3 4 5 6")]
    #[case::first(&["10.0.0.1"], "2 3 4 5 6")]
    #[case::last(&["10.0.0.5-10.0.0.6"], "1 2 3 4")]
    #[case::neighbours(&["10.0.0.2", "10.0.0.3"], "1 4 5 6")]
    #[case::beyond_both_ends(&["0.0.0.0-10.0.0.2", "10.0.0.5-255.255.255.255"], "3 4")]
    #[case::all(&["10.0.0.0/8"], "")]
    fn what_is_left_between_spans(#[case] without: &[&str], #[case] expected: &str) {
        let without: Vec<_> = without.iter().map(|text| span(text)).collect();
        let left: Vec<_> = between(span("10.0.0.1-10.0.0.6"), &without)
            .map(|address| address.to_string().replace("10.0.0.", ""))
            .collect();
        assert_eq!(left.join(" "), expected);
    }

    #[test]
    fn the_last_address_of_all_is_no_obstacle() {
        let whole = span("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(between(whole, &[]).count(), 2);
        assert_eq!(between(whole, &[whole.last.into()]).count(), 1);
    }
}
