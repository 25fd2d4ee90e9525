use rstest::rstest;

use super::*;

fn source(port: u32, last: u8) -> AllowedSource {
    AllowedSource { port, mac: Mac([2, 0, 0, 0, 0, last]), address: [10, 87, 1, last].into() }
}

fn source_of_ipv6(port: u32, last: u8) -> AllowedSource {
    AllowedSource { address: Ipv6Addr::new(0xfd00, 0x87, 0, 0, 0, 0, 0, last.into()).into(), ..source(port, last) }
}

fn found(allowed_sources: &[AllowedSource]) -> Found {
    Found {
        ports: allowed_sources.iter().map(|source| source.port).collect(),
        entries: allowed_sources.iter().flat_map(entries).collect(),
        first: Some(rules::first(Way::Bridge)),
        ipv6: Some(rules::ipv6()),
        ..Found::default()
    }
}

fn problem(found: &Found, allowed_sources: &[AllowedSource]) -> Option<String> {
    found.problem(Way::Bridge, allowed_sources)
}

#[test]
fn what_is_written_is_found_right() {
    let allowed_sources = [source(7, 2), source(8, 3)];
    assert_eq!(problem(&found(&allowed_sources), &allowed_sources), None);
    assert_eq!(problem(&found(&allowed_sources), &allowed_sources[..1]), None, "others do not matter");
    assert_eq!(found(&allowed_sources).allowed_sources().collect::<Vec<_>>(), allowed_sources);
    for source in [source(7, 2), source_of_ipv6(7, 2)] {
        let read: Vec<_> = entries(&source).iter().filter_map(|entry| Entry::read(&entry.element())).collect();
        assert_eq!(read, entries(&source));
    }
}

#[test]
fn with_ipv6_the_address_of_its_link_is_its_own_too() {
    let addresses: Vec<_> = entries(&source_of_ipv6(7, 2)).iter().map(|entry| entry.address.to_string()).collect();
    assert_eq!(addresses, ["fd00:87::2", "::", "fe80::ff:fe00:2"]);
    let allowed_sources = [source(7, 2), source_of_ipv6(7, 2)];
    assert_eq!(problem(&found(&allowed_sources), &allowed_sources), None);
    assert!(problem(&found(&allowed_sources), &allowed_sources[..1]).expect("a problem").contains("set speakers-ipv6"));
    let again: Vec<_> = found(&allowed_sources).allowed_sources().collect();
    assert_eq!(found(&again).entries, found(&allowed_sources).entries);
}

#[rstest]
#[case::flushed(Found::default(), "no chain spoofing")]
#[case::rule_gone(Found { first: Some((rules::first(Way::Bridge).0, rules::first(Way::Bridge).1[..3].to_vec())), ..found(&[source(7, 2)]) }, "was changed")]
#[case::other_policy(Found { first: Some((Chain { base: None, ..rules::first(Way::Bridge).0 }, rules::first(Way::Bridge).1)), ..found(&[source(7, 2)]) }, "was changed")]
#[case::rule_of_ipv6_gone(Found { ipv6: Some((rules::ipv6().0, vec![])), ..found(&[source(7, 2)]) }, "chain spoofing-ipv6")]
#[case::not_under_control(Found { ports: BTreeSet::new(), ..found(&[source(7, 2)]) }, "set ports")]
#[case::cut_off(Found { entries: BTreeSet::new(), ..found(&[source(7, 2)]) }, "set speakers")]
#[case::says_more(found(&[source(7, 2), source(7, 3)]), "set speakers")]
fn what_was_changed_is_named(#[case] found: Found, #[case] words: &str) {
    let problem = problem(&found, &[source(7, 2)]).expect("a problem");
    assert!(problem.contains(words), "{problem}");
}

#[test]
fn only_what_is_gone_is_taken_away() {
    let all = found(&[source(7, 2), source(8, 3)]);
    assert!(without(Way::Bridge, &all, |_| false).is_none());
    assert!(without(Way::Bridge, &all, |port| port == 7).is_some());
    assert!(without(Way::Bridge, &Found::default(), |_| true).is_some(), "an empty table goes");
}

#[test]
fn of_a_link_s_own_chain_all_is_looked_at() {
    let allowed_sources = [source(7, 2)];
    let first = Some(rules::first(Way::Links));
    let whole = Found { first, chains: [7].into(), led: [7].into(), ..found(&allowed_sources) };
    assert_eq!(whole.problem(Way::Links, &allowed_sources), None);
    let unled = Found { led: BTreeSet::new(), ..whole };
    assert!(unled.problem(Way::Links, &allowed_sources).expect("a problem").contains("chain port-7"));
    assert!(without(Way::Links, &unled, |_| false).is_none());
    // What an element no longer says, a chain may.
    let late = Found { chains: [7, 8].into(), ..found(&allowed_sources) };
    assert!(without(Way::Links, &late, |port| port == 8).is_some());
}
