use std::net::{Ipv4Addr, Ipv6Addr};

use rstest::rstest;

use super::*;

fn port(address: IpAddr, protocol: Protocol, number: u16) -> HostPort {
    HostPort { address, protocol, number }
}

/// Two published ports of one container.
fn wanted(family: IpFamily) -> Wanted {
    let (one, container, subnet): (IpAddr, IpAddr, _) = match family {
        IpFamily::V4 => (Ipv4Addr::LOCALHOST.into(), [10, 87, 1, 2].into(), "10.87.1.0/24"),
        IpFamily::V6 => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::new(0xfd87, 1, 0, 0, 0, 0, 0, 2).into(), "fd87:1::/64"),
    };
    Wanted {
        family,
        ports: BTreeMap::from([
            (port(all_of(family), Protocol::Tcp, 8080), (container, 80)),
            (port(one, Protocol::Udp, 53), (container, 5353)),
        ]),
        gateways: BTreeSet::from([("flatnet-br0".to_owned(), subnet.parse().expect("a subnet"))]),
        addresses: BTreeSet::from([one]),
    }
}

/// What is there after that was written.
fn found(wanted: &Wanted, own: Own) -> Found {
    let [(_, _, published), (_, _, published_at)] = Found::default().maps(wanted);
    let chains = rules::wanted(wanted.family, own, &wanted.gateways).into_iter();
    let chains = chains.filter_map(|found| Some((*CHAINS.iter().find(|name| **name == found.0.name)?, found)));
    Found {
        chains: chains.collect(),
        published: Some(published),
        published_at: Some(published_at),
        addresses: (own == Own::Listed).then(|| keys(&wanted.addresses)),
    }
}

#[rstest]
fn what_is_written_is_found_right(
    #[values(IpFamily::V4, IpFamily::V6)] family: IpFamily,
    #[values(Own::Asked, Own::Listed)] own: Own,
) {
    let wanted = wanted(family);
    let found = found(&wanted, own);
    assert_eq!((found.problem(&wanted), found.own(&wanted)), (None, own));
    assert_eq!(found.changed(&wanted), BTreeSet::new());
    assert_eq!(found.chains.len(), rules::wanted(family, own, &wanted.gateways).len(), "all are in CHAINS");
}

#[rstest]
#[case::flushed(|found: &mut Found| *found = Found::default(), "no chain lead")]
#[case::rule_gone(|found: &mut Found| found.chains.get_mut("guard").expect("it").1.truncate(3), "chain guard")]
#[case::chain_gone(|found: &mut Found| drop(found.chains.remove("towards_containers")), "no chain towards_containers")]
#[case::map_gone(|found: &mut Found| found.published = None, "map published")]
#[case::element_gone(|found: &mut Found| found.published_at = Some(Mappings::new()), "map published_at")]
fn what_was_changed_is_named(#[case] change: fn(&mut Found), #[case] words: &str) {
    let wanted = wanted(IpFamily::V4);
    let mut found = found(&wanted, Own::Asked);
    change(&mut found);
    let problem = found.problem(&wanted).expect("a problem");
    assert!(problem.contains(words), "{problem}");
}

#[test]
fn an_address_of_the_host_that_is_not_listed_is_a_problem() {
    let before = wanted(IpFamily::V4);
    let addresses = BTreeSet::from([[172, 30, 0, 2].into()]);
    let now = Wanted { addresses, ..before.clone() };
    assert!(found(&before, Own::Listed).problem(&now).expect("a problem").contains("set addresses"));
    assert_eq!(found(&before, Own::Asked).problem(&now), None, "the kernel is asked");
}

#[test]
fn a_port_is_changed_that_is_new_gone_or_leads_elsewhere() {
    let now = wanted(IpFamily::V6);
    let mut before = now.clone();
    let all = port(all_of(IpFamily::V6), Protocol::Tcp, 8080);
    let gone = port(all_of(IpFamily::V6), Protocol::Tcp, 9);
    before.ports.get_mut(&all).expect("it").1 = 81;
    before.ports.insert(gone, (Ipv6Addr::LOCALHOST.into(), 9));
    assert_eq!(found(&before, Own::Asked).changed(&now), BTreeSet::from([all, gone]));
}

#[test]
fn what_flatnet_0_1_wrote_says_for_whom() {
    let wanted = wanted(IpFamily::V4);
    let mut found = found(&wanted, Own::Asked);
    let with_comment = |it: Mapping| Mapping { comment: Some("flatnet-att-web@eth0".into()), ..it };
    found.published = found.published.map(|published| published.into_iter().map(with_comment).collect());
    let all = port(all_of(IpFamily::V4), Protocol::Tcp, 8080);
    assert_eq!(found.former(IpFamily::V4), [("flatnet-att-web@eth0".to_owned(), all, 80)]);
    assert_eq!(found.problem(&wanted), None, "a comment is no difference");
}
