use rstest::rstest;
use serde_json::json;

use super::explain::{Explanation, Surroundings};
use super::way::Blocked;
use super::*;

const ADDRESS: &str = "10.87.1.2";

fn network() -> Network {
    let config = json!({"name": "flatnet", "type": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
    Network::parse(config.as_object().expect("an object")).expect("a network")
}

fn bridge(up: bool) -> Link {
    Link { index: 7, name: "flatnet-br0".into(), up, kind: Some("bridge".into()), ..Link::default() }
}

fn port(index: u32, address: &str, name: &str) -> Link {
    let names = vec![format!("flatnet-att-{name}@eth0"), format!("flatnet-ip-{address}")];
    let alias = Some(format!("network=flatnet container={name} interface=eth0"));
    let kind = Some("veth".into());
    Link {
        index,
        name: "fn-1".into(),
        names,
        alias,
        kind,
        up: true,
        bridge: Some(7),
        forwarding: true,
        ..Link::default()
    }
}

fn explained(links: &[Link], tried: &Tried, blocked: Option<Blocked>) -> Explanation {
    let network = network();
    let subjects = subjects(links, &network);
    Surroundings::of(&network, links).explain(&subjects[0], tried, blocked)
}

#[rstest]
#[case::no_bridge(vec![port(8, ADDRESS, "web")], "there is no bridge", "flatnet gateway", Shown::Blocked)]
#[case::elsewhere(vec![Link { bridge: Some(9), ..port(8, ADDRESS, "web") }, bridge(true)], "not a port", "master flatnet-br0", Shown::Blocked)]
#[case::down(vec![Link { up: false, ..port(8, ADDRESS, "web") }, bridge(true)], "fn-1 is down", "ip link set fn-1 up", Shown::Blocked)]
#[case::bridge_down(vec![port(8, ADDRESS, "web"), bridge(false)], "flatnet-br0 is down", "ip link set flatnet-br0 up", Shown::Blocked)]
#[case::blocked(vec![Link { forwarding: false, ..port(8, ADDRESS, "web") }, bridge(true)], "is blocked", "flatnet gc", Shown::Blocked)]
#[case::silent(vec![port(8, ADDRESS, "web"), bridge(true)], "nobody answers ARP", "recreate", Shown::Silent)]
fn the_nearest_cause_is_named(
    #[case] links: Vec<Link>,
    #[case] found: &str,
    #[case] remedy: &str,
    #[case] shown: Shown,
) {
    let explanation = explained(&links, &Tried::default(), None);
    let fault = &explanation.fault;
    assert!(fault.found.contains(found) && fault.remedy.contains(remedy) && explanation.certain, "{fault:?}");
    assert_eq!(explanation.shown, shown);
}

#[test]
fn a_rule_comes_before_silence_and_a_filter_is_a_doubt() {
    let links = [port(8, ADDRESS, "web"), bridge(true)];
    let blocked = Blocked { found: "by a rule".into(), remedy: String::new() };
    assert_eq!(explained(&links, &Tried::default(), Some(blocked)).fault.found, "by a rule");
    let address = ADDRESS.parse().expect("an address");
    let tried = Tried { macs: [(address, Mac::of(address))].into(), ..Tried::default() };
    let explanation = explained(&links, &tried, None);
    assert!(!explanation.certain, "ARP was answered: it may be the container's own packet filter");
    assert_eq!(explanation.shown, Shown::Silent);
}

#[test]
fn one_mac_of_two_containers_is_shared_and_that_of_two_addresses_of_one_is_not() {
    let two = Link {
        names: vec!["flatnet-att-db@eth0".into(), "flatnet-ip-10.87.1.3".into(), "flatnet-ip-10.87.1.4".into()],
        ..port(9, "10.87.1.3", "db")
    };
    let network = network();
    let links = [port(8, ADDRESS, "web"), two];
    let subjects = subjects(&links, &network);
    let mac = |address: &str, mac: u8| (address.parse().expect("an address"), Mac([2, 0, 0, 0, 0, mac]));
    let distinct = [mac(ADDRESS, 1), mac("10.87.1.3", 2), mac("10.87.1.4", 2)];
    assert!(shared(&subjects, &distinct.into()).is_empty());
    let same = [mac(ADDRESS, 1), mac("10.87.1.3", 1)];
    let shared: Vec<_> =
        shared(&subjects, &same.into()).into_iter().map(|(address, other)| format!("{address} {other}")).collect();
    assert_eq!(shared, ["10.87.1.2 db", "10.87.1.3 web"]);
}

#[test]
fn all_that_are_not_reached_are_named() {
    let fault = |address: &str| Fault {
        address: address.parse().expect("an address"),
        who: "web".into(),
        found: "it is so".into(),
        remedy: String::new(),
    };
    let report = |faults| Report { faults, ..Report::default() };
    assert_eq!(report(vec![]).problem(), None);
    assert_eq!(report(vec![fault(ADDRESS)]).problem().as_deref(), Some("10.87.1.2 (web) is not reached: it is so"));
    let two = report(vec![fault(ADDRESS), fault("10.87.1.3")]).problem().expect("a problem");
    assert!(two.ends_with("so it is with 1 more: 10.87.1.3 (web)"), "{two}");
}
