use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::json;

use super::*;

fn parse(change: &Value) -> Result<Network> {
    let Value::Object(mut config) = json!({
        "cniVersion": "1.0.0", "name": "flatnet", "type": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}
    }) else {
        unreachable!("an object literal")
    };
    config.extend(change.as_object().expect("an object").clone());
    Network::parse(&config)
}

#[test]
fn the_shipped_file_is_the_default_network() {
    let list: Value = serde_json::from_str(include_str!("../../dist/flatnet.conflist")).expect("JSON");
    let mut config = list["plugins"][0].as_object().expect("a plugin").clone();
    config.insert("name".into(), list["name"].clone());
    let network = Network::parse(&config).expect("a network");
    assert_eq!(network, parse(&json!({"bridge": "flatnet-br0"})).expect("a network"));
    assert_eq!(network.gateway_networks(), ["10.87.1.1/24".parse().expect("a network")]);
}

#[rstest]
#[case::misspelt(json!({"brigde": "x"}), 2, "unknown key brigde: did you mean bridge? (its value is \"x\")")]
#[case::unlike_any(json!({"qqqqqqqq": 1}), 2, "known keys are")]
#[case::misspelt_inside(json!({"ipam": {"subnet": "10.87.1.0/24", "gatway": "10.87.1.1"}}), 2, "ipam.gatway")]
#[case::bridge_type(json!({"bridge": 1}), 7, "bridge is 1, not a string")]
#[case::bridge_long(json!({"bridge": "a234567890123456"}), 7, "16 bytes")]
#[case::mtu_small(json!({"mtu": 67}), 7, "mtu is 67")]
#[case::mtu_large(json!({"mtu": 65536}), 7, "mtu is 65536")]
#[case::mtu_negative(json!({"mtu": -1}), 7, "mtu is -1")]
#[case::mtu_fraction(json!({"mtu": 1.5}), 7, "mtu is 1.5")]
#[case::name_missing(json!({"name": null}), 7, "name is missing")]
#[case::name_bad(json!({"name": "../x"}), 7, "../x")]
#[case::no_ipam(json!({"ipam": null}), 7, "ipam is missing")]
#[case::no_subnet(json!({"ipam": {"rangeStart": "10.87.1.9"}}), 7, "ipam.rangeStart is set, but ipam.subnet is not")]
#[case::subnet_no_prefix(json!({"ipam": {"subnet": "10.87.1.0"}}), 7, "prefix length")]
#[case::delegated(json!({"ipam": {"type": "host-local", "subnet": "10.87.1.0/24"}}), 2, "host-local")]
#[case::delegated_path(json!({"ipam": {"type": "../host-local"}}), 7, "ipam.type is \"../host-local\"")]
#[case::delegated_parent(json!({"ipam": {"type": ".."}}), 7, "ipam.type is \"..\"")]
#[case::delegated_nul(json!({"ipam": {"type": "host\u{0}local"}}), 7, "ipam.type is")]
#[case::masquerade_text(json!({"ipMasq": "yes"}), 7, "ipMasq is \"yes\", not true or false")]
#[case::masquerade_backend(json!({"ipMasqBackend": "iptables"}), 2, "ipMasqBackend: \"iptables\"")]
#[case::gateways_text(json!({"gateways": "172.30.0.1"}), 7, "gateways is \"172.30.0.1\", not a list of strings")]
#[case::gateways_name(json!({"gateways": ["gateway.lan"]}), 7, "gateways has \"gateway.lan\"")]
#[case::gateway_at_the_wrong_place(json!({"gateway": "172.30.0.1"}), 2, "did you mean gateways?")]
#[case::spoofing_type(json!({"macspoofchk": "true"}), 7, "macspoofchk is \"true\", not true or false")]
#[case::ranges_of_layer_2(json!({"isGateway": false, "ipam": null, "runtimeConfig": {"ipRanges": [[{"subnet": "10.87.3.0/24"}]]}}), 7, "runtimeConfig.ipRanges is set, but without ipam")]
#[case::spoofing_without_addresses(json!({"macspoofchk": true, "ipam": {}}), 7, "macspoofchk is true, but without ipam")]
#[case::spoofing_of_layer_2(json!({"macspoofchk": true, "isGateway": false, "ipam": null}), 7, "macspoofchk is true, but without ipam")]
#[case::spoofing_of_a_trunk(json!({"macspoofchk": true, "vlanTrunk": [{"id": 7}]}), 7, "vlanTrunk is set")]
#[case::dad_type(json!({"enabledad": 1}), 7, "enabledad is 1, not true or false")]
#[case::dns_type(json!({"dns": {"nameservers": "1.1.1.1"}}), 7, "dns.nameservers")]
fn refused(#[case] change: Value, #[case] code: u32, #[case] words: &str) {
    let error = parse(&change).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn spoofing_is_not_looked_for_by_default() {
    assert!(!parse(&json!({})).expect("a network").macspoofchk);
    assert!(parse(&json!({"macspoofchk": true})).expect("a network").macspoofchk);
}

#[rstest]
#[case::masquerade_off(json!({"ipMasq": false}))]
#[case::masquerade_on(json!({"ipMasq": true, "ipMasqBackend": "nftables", "gateways": []}))]
#[case::runtime_keys(json!({"args": {}, "runtimeConfig": {}, "capabilities": {}, "cni.dev/attachments": []}))]
#[case::mtu_zero(json!({"mtu": 0}))]
#[case::backend_of_nothing(json!({"ipMasq": false, "ipMasqBackend": "iptables"}))]
#[case::empty_type(json!({"ipam": {"type": "", "subnet": "10.87.1.0/24"}}))]
fn accepted(#[case] change: Value) {
    assert_eq!(parse(&change).expect("a network").mtu, None);
}

#[rstest]
#[case::left_out(json!({"subnet": "10.87.1.0/24"}), None)]
#[case::own(json!({"type": "flatnet", "subnet": "10.87.1.0/24"}), None)]
#[case::another_s(json!({"type": "host-local", "ranges": [[]], "anything": 1}), Some("host-local"))]
fn who_gives_the_addresses(#[case] ipam: Value, #[case] expected: Option<&str>) {
    let config = json!({"name": "flatnet", "ipam": ipam, "args": {"cni": {"ips": expected.map(|_| "10.87.1.9")}}});
    let config = config.as_object().expect("an object");
    assert_eq!(delegate_of(config), expected);
    match Configured::parse(config).expect("a network") {
        Configured::Whole(_) => assert_eq!(expected, None),
        Configured::Delegated(_, plugin) => assert_eq!(expected, Some(plugin.as_str())),
    }
}

#[rstest]
#[case::not_a_text(json!({"ipam": {"type": 1}}))]
#[case::a_path(json!({"ipam": {"type": "../host-local"}}))]
#[case::no_object(json!({"ipam": []}))]
#[case::nothing(json!({}))]
fn nobody_else_gives_addresses_in(#[case] config: Value) {
    assert_eq!(delegate_of(config.as_object().expect("an object")), None);
}

#[rstest]
#[case::no_gateway(json!({"isGateway": false}), false)]
#[case::no_gateway_but_asked(json!({"isGateway": false, "ipMasq": true}), true)]
#[case::layer_2(json!({"ipam": {}}), false)]
#[case::layer_2_but_asked(json!({"ipam": {}, "ipMasq": true, "ipMasqBackend": "iptables"}), false)]
fn who_is_no_gateway_masquerades_only_if_asked(#[case] change: Value, #[case] expected: bool) {
    let network = parse(&change).expect("a network");
    assert_eq!(network.masquerade, expected);
    assert!(network.gateway_networks().is_empty());
    assert_eq!(network.is_layer_2(), change.get("ipam").is_some());
}

#[rstest]
#[case::by_default(json!({}), &["0.0.0.0/0"])]
#[case::no_default(json!({"isDefaultGateway": false}), &[])]
#[case::no_gateway(json!({"isGateway": false}), &[])]
fn default_routes(#[case] change: Value, #[case] expected: &[&str]) {
    let network = parse(&change).expect("a network");
    let own = network.pools.iter().flat_map(|pool| pool.free(&BTreeSet::new()).take(1).collect::<Vec<_>>());
    let routes = network.container_routes(&own.collect::<Vec<_>>()).expect("routes");
    assert_eq!(routes.iter().map(|route| route.destination.to_string()).collect::<Vec<_>>(), expected);
}

#[test]
fn masquerade_is_on_unless_it_is_off() {
    let network = parse(&json!({})).expect("a network");
    assert!(network.masquerade && network.gateways.is_empty());
    let network = parse(&json!({"ipMasq": false, "gateways": ["172.30.0.1"]})).expect("a network");
    assert_eq!((network.masquerade, network.gateways), (false, vec![IpAddr::from([172, 30, 0, 1]).into()]));
}
