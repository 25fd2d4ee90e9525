use rstest::rstest;

use super::*;
use crate::attachment::Args;

#[rstest]
#[case::own("fn-0123abcd", Some(7), None, true)]
#[case::another_s("veth0123abc", Some(7), None, false)]
#[case::not_a_port("fn-0123abcd", None, None, false)]
#[case::begun("fn-0123abcd", Some(7), Some("network=flatnet ADD is at work"), true)]
#[case::begun_on_a_bridge_that_is_gone("fn-0123abcd", None, Some("network=flatnet ADD is at work"), true)]
#[case::finished_on_a_bridge_that_is_gone(
    "fn-0123abcd",
    None,
    Some("network=flatnet container=web interface=eth0"),
    false
)]
#[case::finished("fn-0123abcd", Some(7), Some("network=flatnet container=web interface=eth0"), false)]
fn half_made_links(#[case] name: &str, #[case] bridge: Option<u32>, #[case] alias: Option<&str>, #[case] half: bool) {
    let alias = alias.map(str::to_owned);
    let link = Link { name: name.into(), kind: Some("veth".into()), bridge, alias, ..Link::default() };
    assert_eq!(is_half_made(&link), half);
}

#[test]
fn the_record_tells_the_mac_that_a_container_is_held_to_and_its_vlan() {
    let mac = Mac([0x0a, 0x57, 0x0a, 0x57, 1, 2]);
    // Nobody can smuggle another in by the name.
    let args = Args { name: Some("web mac=0a:00:00:00:00:01 vlan=1".into()), ..Args::default() };
    let target = Target { container: "0123".into(), interface: "eth0".into(), netns: "".into(), args };
    let link = |guarded| {
        let alias = Some(Attachment { network: "flatnet", target: &target }.record(guarded, Some(100)));
        let link = Link { alias, ..Link::default() };
        (guarded_mac(&link), vlan(&link))
    };
    assert_eq!((link(Some(mac)), link(None)), ((Some(mac), Some(100)), (None, Some(100))));
}

#[rstest]
#[case::lease("flatnet-ip-10.87.1.2", Some("10.87.1.2"))]
#[case::v6("flatnet-ip-fd00::2", Some("fd00::2"))]
#[case::attachment("flatnet-att-web@eth0", None)]
#[case::foreign("enp1s0", None)]
#[case::nonsense("flatnet-ip-10.87.1", None)]
fn addresses_in_names(#[case] name: &str, #[case] expected: Option<&str>) {
    assert_eq!(address_in(name), expected.map(|text| text.parse().expect("an address")));
}
