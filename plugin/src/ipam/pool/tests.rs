use std::cell::Cell;

use rstest::rstest;

use super::*;
use crate::ipam::memory::Use;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn range(subnet: &str, start: &str, end: &str) -> Range {
    let bound = |text: &str| (!text.is_empty()).then(|| address(text));
    Range::new(subnet.parse().expect("a subnet"), None, bound(start), bound(end)).expect("a range")
}

fn pool(subnets: &[&str]) -> Pool {
    Pool::new(subnets.iter().map(|subnet| range(subnet, "", "")).collect())
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| address(text)).collect()
}

fn texts(own: impl Iterator<Item = Allocation>) -> Vec<String> {
    own.map(|own| own.address.ip().to_string()).collect()
}

/// The first was used first.
fn used(texts: &[&str]) -> Used {
    texts.iter().enumerate().map(|(line, text)| (address(text), Use { given: false, line })).collect()
}

#[test]
fn passes_over_what_is_taken() {
    let taken = addresses(&["10.87.1.2", "10.87.1.3", "10.87.1.5", "10.87.1.6"]);
    assert_eq!(texts(pool(&["10.87.1.0/29"]).free(&taken)), ["10.87.1.4"]);
}

#[test]
fn the_next_range_gives_what_the_first_has_not() {
    let pool = pool(&["10.87.1.0/30", "10.87.2.0/30"]);
    let own = Allocation { address: "10.87.2.2/30".parse().expect("a network"), gateway: address("10.87.2.1") };
    assert_eq!(pool.free(&addresses(&["10.87.1.2"])).collect::<Vec<_>>(), [own]);
    assert_eq!(pool.own(address("10.87.2.2")), Some(own));
    assert_eq!(pool.own(address("10.87.2.1")), None);
}

#[test]
fn its_own_then_the_lowest_never_used_then_the_longest_unused() {
    let pool = pool(&["10.87.1.0/29"]);
    let used = used(&["10.87.1.5", "10.87.1.2", "10.87.1.3", "10.99.0.1"]);
    let none = BTreeSet::new();
    let last = [address("10.99.0.1"), address("10.87.1.3")];
    let order = texts(pool.candidates(&none, &last, || &used));
    assert_eq!(order, ["10.87.1.3", "10.87.1.4", "10.87.1.6", "10.87.1.5", "10.87.1.2", "10.87.1.3"]);
    let taken = addresses(&["10.87.1.3", "10.87.1.4", "10.87.1.5"]);
    assert_eq!(texts(pool.candidates(&taken, &last, || &used)), ["10.87.1.6", "10.87.1.2"]);
}

#[test]
fn what_may_be_in_use_comes_last() {
    let pool = pool(&["10.87.1.0/29"]);
    let mut used = used(&["10.87.1.5", "10.87.1.2", "10.87.1.6", "10.87.1.4", "10.87.1.3"]);
    for given in ["10.87.1.5", "10.87.1.6"] {
        used.get_mut(&address(given)).expect("a use").given = true;
    }
    let order = texts(pool.candidates(&BTreeSet::new(), &[], || &used));
    assert_eq!(order, ["10.87.1.2", "10.87.1.4", "10.87.1.3", "10.87.1.5", "10.87.1.6"]);
}

#[test]
fn who_comes_back_asks_nobody_what_others_had() {
    let last = [address("10.87.1.3")];
    let pool = pool(&["10.87.1.0/29"]);
    let none = BTreeSet::new();
    let mut order = pool.candidates(&none, &last, || panic!("it was asked"));
    assert_eq!(order.next().expect("an address").address.ip(), last[0]);
}

#[test]
fn a_bridge_has_each_gateway_once_and_those_of_ipv4_first() {
    let ranges = [("fd00::/64", ""), ("10.87.1.0/24", "10.87.1.9"), ("10.87.1.0/24", "10.87.1.30")];
    let pools = Pools::new(ranges.map(|(subnet, start)| range(subnet, start, "").into()).into());
    let texts = |networks: Vec<IpNetwork>| networks.iter().map(IpNetwork::to_string).collect::<Vec<_>>();
    assert_eq!(texts(pools.gateway_networks()), ["10.87.1.1/24", "fd00::1/64"]);
    assert_eq!(texts(pools.subnets()), ["10.87.1.0/24", "fd00::/64"]);
}

#[test]
fn no_pool_gives_out_another_one_s_gateway() {
    let second = Range::new("10.87.1.0/24".parse().expect("a subnet"), Some(address("10.87.1.254")), None, None);
    let second = second.expect("a range");
    let pools = Pools::new(vec![range("10.87.1.0/24", "10.87.1.250", "").into(), second.into()]);
    assert_eq!(pools.refusal(address("10.87.1.254")).as_deref(), Some("is the gateway's"));
    let none = BTreeSet::new();
    assert!(pools.iter().all(|pool| pool.free(&none).all(|own| own.address.ip() != address("10.87.1.254"))));
}

#[rstest]
#[case::inside("10.87.1.9", None)]
#[case::inside_v6("fd00::9", None)]
#[case::gateway("10.87.1.1", Some("gateway"))]
#[case::excluded("10.87.1.77", Some("is excluded"))]
#[case::network("10.87.1.0", Some("is outside this network's ranges (10.87.1.2 - 10.87.1.254, fd00::2 - "))]
#[case::reserved("10.87.0.9", Some("is outside"))]
#[case::elsewhere("10.88.1.9", Some("is outside"))]
#[case::mapped("::ffff:10.87.1.9", Some("is outside"))]
fn requests(#[case] asked: IpAddr, #[case] words: Option<&str>) {
    let excluded = [Span::from(address("10.87.1.77"))];
    let pools = ["10.87.1.0/24", "fd00::/64"].map(|subnet| range(subnet, "", "").without(&excluded).into());
    let refusal = Pools::new(pools.into()).refusal(asked);
    match words {
        None => assert_eq!(refusal, None),
        Some(words) => assert!(refusal.expect("a refusal").contains(words)),
    }
}

#[test]
fn what_is_reserved_is_not_said_to_be_excluded() {
    let refusal = Pools::from(range("10.87.0.0/16", "", "")).refusal(address("10.87.0.9"));
    assert_eq!(refusal.as_deref(), Some("is in 10.87.0.0/24, which is reserved for gateways"));
}

#[test]
fn who_gives_no_addresses_says_so() {
    let refusal = Pools::default().refusal(address("10.87.1.9"));
    assert_eq!(refusal.as_deref(), Some("cannot be assigned: this network gives no addresses"));
}

/// How many addresses the chooser looks at until it has one, or knows that there is none.
fn steps(pool: &Pool, taken: &BTreeSet<IpAddr>, last: &[IpAddr], used: &Used) -> usize {
    let count = Cell::new(0);
    let all = pool.all().inspect(|_| count.set(count.get() + 1));
    pool.candidates_of(all, taken, last, || used).next();
    count.get()
}

#[rstest]
#[case::usual("10.88.1.0/24")]
#[case::large("10.88.0.0/16")]
#[case::largest("11.0.0.0/8")]
#[case::v6("fd00::/64")]
#[case::largest_v6("fc00::/7")]
fn choosing_takes_no_longer_where_there_is_more_to_choose_from(#[case] subnet: &str) {
    let none = BTreeSet::new();
    let pool = pool(&[subnet]);
    let taken: BTreeSet<_> = pool.free(&none).take(200).map(|own| own.address.ip()).collect();
    let never = Used::new();
    let used: Used = taken.iter().enumerate().map(|(line, address)| (*address, Use { given: true, line })).collect();
    assert_eq!(steps(&pool, &none, &[], &never), 1);
    assert_eq!(steps(&pool, &taken, &[], &never), 201);
    assert_eq!(steps(&pool, &none, &[], &used), 201);
    // Who comes back looks at none.
    let own = *taken.last().expect("an address");
    assert_eq!(steps(&pool, &none, &[own], &used), 0);
    // All but the last few are excluded.
    let (first, last) = pool.0[0].bounds();
    let before = (0..3).fold(last, |address, _| span::before(address));
    let pool = Pool::from(range(subnet, "", "").without(&[Span { first, last: before }]));
    assert_eq!(steps(&pool, &none, &[], &never), 1);
}

mod properties {
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// A pool and what befalls it: small, so that everything that can meet does.
    #[derive(Clone, Debug)]
    struct Case {
        pools: Pools,
        excluded: Vec<Span>,
        taken: BTreeSet<IpAddr>,
        used: Used,
        last: Vec<IpAddr>,
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        // Two neighbouring subnets of each family, at the edge of what is reserved for gateways.
        let v4 = (0_u32..1024).prop_map(|n| IpAddr::from((0x0a56_ff00 + n).to_be_bytes()));
        let v6 = (0_u128..1024).prop_map(|n| IpAddr::from(((0xfd87 << 112) + (1 << 64) - 512 + n).to_be_bytes()));
        prop_oneof![v4, v6]
    }

    fn any_span() -> impl Strategy<Value = Span> {
        (any_address(), 0_u8..40)
            .prop_map(|(first, length)| Span { first, last: (0..length).fold(first, |address, _| span::next(address)) })
    }

    fn any_range() -> impl Strategy<Value = Range> {
        let bounds = (any::<Index>(), any::<Index>(), any::<Option<Index>>());
        (any_address(), 0_u8..10, bounds).prop_filter_map("no range", |(address, bits, (start, end, gateway))| {
            let prefix = if address.is_ipv4() { 32 } else { 128 } - bits;
            let subnet = IpNetwork::new(address, prefix).ok()?;
            let subnet = IpNetwork::new(subnet.network(), prefix).ok()?;
            let nth = |index: Index| subnet.iter().nth(index.index(1 << bits));
            Range::new(subnet, gateway.and_then(nth), nth(start), nth(end)).ok()
        })
    }

    prop_compose! {
        fn any_case()(
            ranges in vec(vec(any_range(), 1..3), 1..3),
            excluded in vec(any_span(), 0..4),
            taken in btree_set(any_address(), 0..300),
            used in btree_map(any_address(), (any::<bool>(), 0_usize..50), 0..300),
            last in vec(any_address(), 0..3),
        ) -> Case {
            let pool = |ranges: Vec<Range>| Pool::new(ranges.into_iter().map(|range| range.without(&excluded)).collect());
            let pools = Pools::new(ranges.into_iter().map(pool).collect());
            let used = used.into_iter().map(|(address, (given, line))| (address, Use { given, line })).collect();
            Case { pools, excluded, taken, used, last }
        }
    }

    /// All that the pool may give, address by address.
    fn givable(case: &Case, pool: &Pool) -> BTreeSet<IpAddr> {
        let is_kept = |address: &IpAddr| {
            let is_gateway = case.pools.ranges().any(|range| range.gateway() == *address);
            let is_reserved = match address {
                IpAddr::V4(address) => address.octets().starts_with(&[10, 87, 0]),
                IpAddr::V6(address) => address.segments().starts_with(&[0xfd87, 0, 0, 0]),
            };
            is_gateway || is_reserved || case.excluded.iter().any(|span| (span.first..=span.last).contains(address))
        };
        let of_range = |range: &Range| {
            let (first, last) = range.bounds();
            range.subnet().iter().filter(move |address| (first..=last).contains(address)).collect::<Vec<_>>()
        };
        pool.0.iter().flat_map(of_range).filter(|address| !is_kept(address)).collect()
    }

    proptest! {
        #[test]
        fn gives_all_that_is_free_and_nothing_else(case in any_case()) {
            for pool in case.pools.iter() {
                let expected: BTreeSet<_> = &givable(&case, pool) - &case.taken;
                let order: Vec<_> = pool.candidates(&case.taken, &case.last, || &case.used).map(|own| own.address.ip()).collect();
                prop_assert_eq!(&order.iter().copied().collect::<BTreeSet<_>>(), &expected);
                let free: BTreeSet<_> = pool.free(&case.taken).map(|own| own.address.ip()).collect();
                prop_assert_eq!(&free, &expected);
                // The first is the one that is taken, so that it alone has to be right: it comes from the best of the three.
                let is_last = |address: &IpAddr| case.last.contains(address);
                let is_new = |address: &IpAddr| !case.used.contains_key(address);
                if let Some(first) = order.first() {
                    let has_last = expected.iter().any(is_last);
                    prop_assert_eq!(is_last(first), has_last);
                    if !has_last {
                        prop_assert_eq!(is_new(first), expected.iter().any(is_new));
                    }
                    if !has_last && !is_new(first) {
                        let longest = expected.iter().filter_map(|address| case.used.get(address)).min();
                        prop_assert_eq!(case.used.get(first), longest);
                    }
                }
            }
        }

        #[test]
        fn what_may_be_asked_for_is_what_may_be_given(case in any_case(), asked in any_address()) {
            let all: Vec<_> = case.pools.iter().map(|pool| givable(&case, pool)).collect();
            let may = all.iter().any(|givable| givable.contains(&asked));
            prop_assert_eq!(case.pools.refusal(asked).is_none(), may);
            for (pool, givable) in case.pools.iter().zip(&all) {
                prop_assert_eq!(pool.own(asked).is_some(), givable.contains(&asked));
                if let Some(own) = pool.own(asked) {
                    prop_assert_eq!(own.address.ip(), asked);
                    prop_assert!(own.address.contains(own.gateway));
                }
            }
        }

        #[test]
        fn choosing_takes_as_many_steps_as_addresses_are_taken_or_remembered(case in any_case()) {
            for pool in case.pools.iter() {
                let steps = steps(pool, &case.taken, &case.last, &case.used);
                prop_assert!(steps <= 1 + (case.taken.len() + case.used.len()) * pool.0.len());
            }
        }
    }
}
