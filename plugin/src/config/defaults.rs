//! The reference's defaults and its empty values, with the version that they are of, held against what flatnet does with them: a default that
//! drifts apart is seen here.
//!
//! Read at containernetworking/plugins: `NetConf` and `loadNetConf` of `plugins/main/bridge/bridge.go`, `IPAMConfig` of
//! `plugins/ipam/host-local/backend/allocator/config.go`. Whoever reads a newer release writes its version to [`NEWEST`].

use rstest::rstest;
use serde_json::{Map, Value, json};

use super::Configured;
use crate::error::Result;

/// The newest release of the reference that the table has been held against.
const NEWEST: &str = "1.9";

/// A key of the reference and its default.
struct Default {
    key: &'static str,
    /// The reference's.
    reference: Value,
    /// The release of the reference that has it so, where an earlier one had another.
    since: &'static str,
    /// Flatnet's, where it is another.
    own: Option<Value>,
    /// What else the configuration says, for the key to mean something.
    beside: Value,
}

fn defaults() -> Vec<Default> {
    let row = |key, reference, since, own, beside| Default { key, reference, since, own, beside };
    let vlan = || json!({"vlan": 100});
    vec![
        row("bridge", json!("cni0"), "0.1", Some(json!("flatnet-br0")), json!({})),
        row("isGateway", json!(false), "0.1", Some(json!(true)), json!({})),
        row("isDefaultGateway", json!(false), "0.3", Some(json!(true)), json!({})),
        row("forceAddress", json!(false), "0.7", None, json!({})),
        row("ipMasq", json!(false), "0.1", Some(json!(true)), json!({})),
        row("ipMasqBackend", json!("iptables"), "1.6", Some(json!("nftables")), json!({})),
        row("mtu", json!(0), "0.1", None, json!({})),
        row("hairpinMode", json!(false), "0.1", None, json!({})),
        row("promiscMode", json!(false), "0.6", None, json!({})),
        row("portIsolation", json!(false), "1.7", None, json!({})),
        row("vlan", json!(0), "0.8", None, json!({})),
        row("vlanTrunk", json!([]), "1.3", None, json!({})),
        // True from 1.3 to 1.7: a port of a VLAN then listened to the bridge's default VLAN as well.
        row("preserveDefaultVlan", json!(false), "1.8", None, vlan()),
        row("macspoofchk", json!(false), "1.1", None, json!({})),
        row("enabledad", json!(false), "1.3", None, json!({})),
        row("disableContainerInterface", json!(false), "1.5", None, json!({})),
        row("ipam.rangeStart", json!("10.87.1.1"), "0.1", None, json!({})),
        row("ipam.rangeEnd", json!("10.87.1.254"), "0.1", None, json!({})),
        row("ipam.gateway", json!("10.87.1.1"), "0.1", None, json!({})),
        row("ipam.ranges", json!([]), "0.7", None, json!({})),
        row("ipam.routes", json!([]), "0.1", None, json!({})),
        row("ipam.resolvConf", json!(""), "0.5", None, json!({})),
        row("ipam.dataDir", json!(""), "0.5", None, json!({})),
    ]
}

/// A configuration that says what `beside` does, and `value` as the key, if any.
fn with(key: &str, value: Option<&Value>, beside: &Value) -> Map<String, Value> {
    let mut config = json!({"cniVersion": "1.1.0", "name": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
    let config = config.as_object_mut().expect("an object");
    config.extend(beside.as_object().expect("an object").clone());
    let mut parts: Vec<_> = key.split('.').collect();
    let last = parts.pop().expect("a key");
    let mut place = &mut *config;
    for part in parts {
        place = place.entry(part).or_insert_with(|| json!({})).as_object_mut().expect("an object");
    }
    match value {
        Some(value) => place.insert(last.to_owned(), value.clone()),
        None => place.remove(last),
    };
    config.clone()
}

fn parse(key: &str, value: Option<&Value>, beside: &Value) -> Result<Configured> {
    Configured::parse(&with(key, value, beside))
}

#[test]
fn what_is_not_said_is_as_in_the_newest_reference_or_as_the_table_says() {
    for Default { key, reference, since, own, beside } in defaults() {
        let unsaid = parse(key, None, &beside).expect(key);
        let expected = own.as_ref().unwrap_or(&reference);
        let said = parse(key, Some(expected), &beside).expect(key);
        assert_eq!(unsaid, said, "{key}: the default is not {expected}, as in the reference since {since}");
        if own.is_some() {
            // Refused (`ipMasqBackend`), or another network.
            let references = parse(key, Some(&reference), &beside).ok();
            assert_ne!(
                Some(unsaid),
                references,
                "{key}: the default is the reference's: take it out of the third column"
            );
        }
    }
}

#[test]
fn the_table_of_defaults_is_that_of_the_manual() {
    let manual = include_str!("../../manual/keys.md");
    assert!(manual.contains(&format!("release {NEWEST}")), "manual/keys.md does not say which release was read");
    for Default { key, reference, own, .. } in defaults() {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{key}` |"))).expect(key);
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (default, in_reference) = (cells[3], cells[4]);
        // An empty fourth cell means that the third is the reference's, too.
        assert_eq!(in_reference.is_empty() || key == "mtu" || key == "ipam.dataDir", own.is_none(), "{key}: {row}");
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let (Value::Bool(value), None) = (&reference, &own) {
            assert_eq!(default, value.to_string(), "{key}");
        }
        if own.is_some() {
            assert_eq!(in_reference.trim_matches('`'), plain(&reference), "{key}");
        }
    }
}

/// Each key with its empty values, and null: the newest reference takes them all. Observed at `bridge` and `host-local` of 1.1.1 by the scenario
/// input/empty-values-are-taken-as-by-the-reference, and read in the newest for what is younger.

#[rstest]
#[case::bridge("bridge", &[])]
#[case::gateway("isGateway", &[json!(false)])]
#[case::default_gateway("isDefaultGateway", &[json!(false)])]
#[case::force_address("forceAddress", &[json!(false)])]
#[case::masquerade("ipMasq", &[json!(false)])]
#[case::mtu("mtu", &[json!(0)])]
#[case::hairpin("hairpinMode", &[json!(false)])]
#[case::promiscuous("promiscMode", &[json!(false)])]
#[case::isolation("portIsolation", &[json!(false)])]
#[case::vlan("vlan", &[json!(0)])]
#[case::trunk("vlanTrunk", &[json!([]), json!([{}]), json!([{"id": null}]), json!([{"minID": null, "maxID": null, "id": 7}])])]
#[case::default_vlan("preserveDefaultVlan", &[json!(false)])]
#[case::spoofing("macspoofchk", &[json!(false)])]
#[case::dad("enabledad", &[json!(false)])]
#[case::no_interface("disableContainerInterface", &[json!(false)])]
#[case::dns("dns", &[json!({})])]
#[case::nameservers("dns.nameservers", &[json!([])])]
#[case::domain("dns.domain", &[json!("")])]
#[case::search("dns.search", &[json!([])])]
#[case::options("dns.options", &[json!([])])]
#[case::layer_2("ipam", &[json!({}), json!({"type": ""}), json!({"type": null})])]
#[case::ipam_type("ipam.type", &[json!("")])]
#[case::range_start("ipam.rangeStart", &[json!(""), json!("10.87.1.0"), json!("::ffff:10.87.1.9")])]
#[case::range_end("ipam.rangeEnd", &[json!(""), json!("10.87.1.255")])]
#[case::gateway_address("ipam.gateway", &[json!("")])]
#[case::ranges("ipam.ranges", &[
    json!([]),
    json!([[{"subnet": "10.88.9.0/24", "rangeStart": "", "rangeEnd": "", "gateway": ""}]]),
    json!([[{"subnet": "10.88.9.0/24", "rangeStart": null, "rangeEnd": null, "gateway": null}]]),
])]
#[case::routes("ipam.routes", &[
    json!([]),
    json!([{"dst": "10.99.0.0/16", "gw": ""}]),
    json!([{"dst": "10.99.0.0/16", "gw": null, "mtu": 0, "advmss": 0, "priority": 0, "table": null, "scope": null}]),
    json!([{"dst": "10.99.0.0/16", "table": 0, "scope": 0}]),
])]
#[case::resolv_conf("ipam.resolvConf", &[json!("")])]
#[case::data_dir("ipam.dataDir", &[json!("")])]
#[case::args("args", &[json!({}), json!({"cni": {}}), json!({"cni": null}), json!({"cni": {"ips": [], "mac": ""}})])]
#[case::runtime("runtimeConfig", &[json!({}), json!({"ips": [], "mac": "", "ipRanges": []})])]
#[case::capabilities("capabilities", &[json!({})])]
fn empty_values_that_the_reference_takes_are_taken(#[case] key: &str, #[case] values: &[Value]) {
    // `ipam` that is missing is a network of layer 2 for the reference, whose manual calls the key required: here it is refused, with that advice.
    let null = Some(&Value::Null).filter(|_| key != "ipam");
    for value in values.iter().chain(null) {
        for change in [json!({}), json!({"isGateway": true}), json!({"isDefaultGateway": true, "ipMasq": false})] {
            if let Err(error) = parse(key, Some(value), &change) {
                panic!("{key} = {value} beside {change}: {error}");
            }
        }
    }
}
