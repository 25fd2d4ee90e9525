use rstest::rstest;

use super::super::finding::State;
use super::*;

const SHIPPED: &str = include_str!("../../../../dist/flatnet.conflist");

fn read(backend: Backend, files: &[(&str, &str)]) -> Networks {
    let mut networks = Networks::default();
    for (file, text) in files {
        networks.take(backend, PathBuf::from(file), text, None);
    }
    networks
}

fn bad(networks: &Networks) -> Vec<(&'static str, String)> {
    let findings = networks.check(None).into_iter().filter(|finding| finding.state == State::Bad);
    findings.map(|finding| (finding.id, format!("{}\n{}", finding.found, finding.remedy.unwrap_or_default()))).collect()
}

#[test]
fn the_shipped_file_is_fine() {
    let networks = read(Backend::Cni, &[("flatnet.conflist", SHIPPED)]);
    assert_eq!(bad(&networks), []);
    assert_eq!(networks.ours[0].plugins, ["flatnet"]);
}

#[rstest]
#[case::not_json(&SHIPPED.replace("\"name\"", "name"), "configuration", "line 4 column 3")]
#[case::unknown_key(&SHIPPED.replace("\"bridge\"", "\"brigde\""), "configuration", "did you mean bridge?")]
#[case::version(&SHIPPED.replace("\"cniVersion\": \"1.0.0\"", "\"cniVersion\": \"9.0.0\""), "configuration", "cniVersion")]
#[case::order(&SHIPPED.replace("[\n    {", "[{\"type\": \"tuning\"},\n    {"), "configuration", "after tuning")]
fn what_is_wrong_is_named(#[case] text: &str, #[case] id: &str, #[case] words: &str) {
    let found = bad(&read(Backend::Cni, &[("flatnet.conflist", text)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, id);
    assert!(found[0].1.contains(words), "{found:?}");
}

#[rstest]
#[case::subnet(r#"{"name": "other", "plugins": [{"type": "bridge", "bridge": "br1", "ipam": {"ranges": [[{"subnet": "10.87.0.0/16"}]]}}]}"#, "another subnet")]
#[case::bridge(r#"{"name": "other", "plugins": [{"type": "bridge", "bridge": "flatnet-br0", "isGateway": true, "ipam": {"subnet": "10.99.0.0/24"}}]}"#, "another `bridge`")]
#[case::its_subnet_on_the_bridge(r#"{"name": "other", "plugins": [{"type": "bridge", "bridge": "flatnet-br0", "ipam": {"subnet": "10.87.1.0/24"}}]}"#, "another subnet")]
#[case::name(r#"{"name": "flatnet", "plugins": [{"type": "bridge", "bridge": "br1"}]}"#, "rename or remove")]
fn another_network_in_the_way_is_named(#[case] other: &str, #[case] words: &str) {
    let found = bad(&read(Backend::Cni, &[("flatnet.conflist", SHIPPED), ("other.conflist", other)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 == "network-clash" && found[0].1.contains(words), "{found:?}");
    assert!(found[0].1.contains("other.conflist"), "{found:?}");
}

#[rstest]
#[case::vlans(r#""vlan": 100"#, r#""vlan": 200"#, 0)]
#[case::one_vlan(r#""vlan": 100"#, r#""vlan": 100"#, 2)]
#[case::a_vlan_and_the_bridge(r#""vlan": 100"#, r#""vlan": 0"#, 0)]
#[case::the_bridge(r#""vlan": 0"#, r#""vlan": 0"#, 2)]
#[case::no_gateway(r#""isGateway": false"#, r#""vlan": 0"#, 0)]
#[case::no_gateways(r#""isGateway": false"#, r#""isGateway": false"#, 0)]
fn networks_share_a_bridge_where_they_can(#[case] one: &str, #[case] other: &str, #[case] clashes: usize) {
    expect_clashes((one, "10.87.1.0/24"), (other, "10.87.2.0/24"), clashes);
}

#[rstest]
#[case::one_subnet("10.87.1.0/24", "10.87.1.0/24", 0)]
#[case::wider("10.87.1.0/24", "10.87.0.0/16", 2)]
#[case::of_two_families("10.87.1.0/24", "fd87:1::/64", 0)]
#[case::two_of_ipv6("fd87:1::/64", "fd87:2::/64", 0)]
#[case::wider_of_ipv6("fd87:1::/64", "fd87::/16", 2)]
fn subnets_on_one_bridge(#[case] one: &str, #[case] other: &str, #[case] clashes: usize) {
    expect_clashes((r#""vlan": 0"#, one), (r#""vlan": 0"#, other), clashes);
}

fn expect_clashes((one, its): (&str, &str), (other, others): (&str, &str), clashes: usize) {
    let list = |name: &str, subnet: &str, more: &str| {
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "flatnet", {more}, "ipam": {{"subnet": "{subnet}"}}}}]}}"#
        )
    };
    let (one, other) = (list("one", its, one), list("other", others, other));
    let found = bad(&read(Backend::Cni, &[("one.conflist", &one), ("other.conflist", &other)]));
    assert_eq!(found.len(), clashes, "{found:?}");
}

#[test]
fn what_is_nobodys_business_is_let_be() {
    let other = r#"{"name": "podman", "plugins": [{"type": "bridge", "bridge": "cni-podman0", "ipam": {"ranges": [[{"subnet": "10.88.0.0/16"}]]}}]}"#;
    let plain = r#"{"name": "plain", "plugins": [{"type": "bridge", "bridge": "flatnet-br0", "ipam": {"subnet": "10.99.0.0/24"}}]}"#;
    let files = [
        ("flatnet.conflist", SHIPPED),
        ("87-podman.conflist", other),
        ("broken.conflist", "{"),
        ("plain.conflist", plain),
    ];
    assert_eq!(bad(&read(Backend::Cni, &files)), []);
}

#[test]
fn what_could_not_be_read_is_said_and_not_called_missing() {
    let networks = Networks { unread: vec!["/etc/cni/net.d could not be read".into()], ..Networks::default() };
    assert_eq!(networks.check(None)[0].state, State::Warning);
    assert_eq!(bad(&networks), []);
}

#[test]
fn no_network_is_mended_by_install() {
    let found = bad(&read(Backend::Cni, &[]));
    assert!(found.len() == 1 && found[0].1.contains("flatnet install"), "{found:?}");
}

#[test]
fn a_network_of_podman_5_is_read_too() {
    let text = r#"{"name": "flat", "driver": "flatnet", "network_interface": "flatnet-br1", "options": {"mtu": "1400"},
        "subnets": [{"subnet": "10.87.2.0/24", "gateway": "10.87.2.1", "lease_range": {"start_ip": "10.87.2.9"}}]}"#;
    let networks = read(Backend::Netavark, &[("flat.json", text)]);
    let network = networks.ours[0].network.as_ref().expect("a network");
    assert_eq!((network.bridge.as_str(), network.mtu), ("flatnet-br1", Some(1400)));
    assert_eq!(network.pools.ranges().next().expect("a range").bounds().0.to_string(), "10.87.2.9");
}
