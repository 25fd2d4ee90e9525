//! The table of keys, `dist/keys.md`, is what the configuration does: nothing more, and nothing less.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Configured, RESERVED};

/// The keys of the reference, as the head of the table says where they stand.
const REFERENCE: [&str; 32] = [
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "ipMasq",
    "ipMasqBackend",
    "mtu",
    "hairpinMode",
    "promiscMode",
    "vlan",
    "vlanTrunk",
    "vlanTrunk[].minID",
    "vlanTrunk[].maxID",
    "vlanTrunk[].id",
    "preserveDefaultVlan",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
    "portIsolation",
    "dns",
    "ipam",
    "args",
    "runtimeConfig",
    "ipam.type",
    "ipam.subnet",
    "ipam.rangeStart",
    "ipam.rangeEnd",
    "ipam.gateway",
    "ipam.ranges",
    "ipam.routes",
    "ipam.resolvConf",
    "ipam.dataDir",
];

/// A line of the table.
struct Row<'a> {
    key: &'a str,
    example: Value,
    verdict: &'a str,
    scenario: &'a str,
}

fn table() -> Vec<Row<'static>> {
    let rows = include_str!("../../dist/keys.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let [key, example, _, _, verdict, scenario] = cells[..] else { panic!("{row} has {} cells", cells.len()) };
        let example = serde_json::from_str(example.trim_matches('`')).expect(row);
        Row { key: key.trim_end_matches('`'), example, verdict, scenario }
    })
    .collect()
}

/// A configuration that has the key, and no other than it needs.
fn with(key: &str, value: &Value) -> Map<String, Value> {
    let mut config = json!({"cniVersion": "1.0.0", "name": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
    let key = key.split("[]").next().unwrap_or(key);
    if key == "disableContainerInterface" {
        config["ipam"] = Value::Null;
    }
    let mut place = &mut config;
    for part in key.split('.') {
        place = &mut place[part];
    }
    *place = value.clone();
    config.as_object().expect("an object").clone()
}

/// The keys that are known at a place, as the error about one that is not says.
fn known(key: &str) -> BTreeSet<String> {
    let error = Configured::parse(&with(key, &json!(1))).expect_err("a key that nobody knows").to_string();
    let list = error.split("known keys are ").nth(1).expect(&error);
    let list = list.split(" (").next().unwrap_or(list);
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn each_key_does_what_the_table_says() {
    for Row { key, example, verdict, .. } in table() {
        match Configured::parse(&with(key, &example)) {
            Ok(_) => assert!(verdict.starts_with("honoured") || verdict == "flatnet's own", "{key} is taken"),
            Err(error) => {
                assert!(verdict.starts_with("refused: "), "{key} is refused: {error}");
                assert!([2, 7].contains(&error.code()) && error.to_string().contains(key), "{key}: {error}");
            }
        }
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_by_name() {
    let anything_goes = ["args", "runtimeConfig"];
    for Row { key, .. } in table().into_iter().filter(|row| !anything_goes.contains(&row.key)) {
        let error = Configured::parse(&with(key, &json!([[[]]]))).expect_err(key);
        let named = key.split("[]").next().unwrap_or(key);
        assert!([2, 7].contains(&error.code()) && error.to_string().contains(named), "{key}: {error}");
    }
}

#[test]
fn no_key_of_the_reference_is_missing() {
    let rows: BTreeSet<_> = table().iter().map(|row| row.key).collect();
    let missing: Vec<_> = REFERENCE.iter().filter(|key| !rows.contains(*key)).collect();
    assert!(missing.is_empty(), "dist/keys.md has no row for {missing:?}");
}

#[test]
fn the_table_has_the_keys_that_are_known_and_no_others() {
    let of_specification = ["cniVersion", "name", "prevResult"];
    let passes = |key: &&String| {
        let key = key.as_str();
        of_specification.contains(&key) || (RESERVED.contains(&key) && !REFERENCE.contains(&key))
    };
    let top = known("qqqqqqqqqqqq").into_iter().filter(|key| !passes(&key)).collect::<BTreeSet<_>>();
    let ipam = known("ipam.qqqqqqqqqqqq").into_iter().map(|key| format!("ipam.{key}"));
    let known: BTreeSet<_> = top.into_iter().chain(ipam).collect();
    let told: BTreeSet<_> = table()
        .iter()
        .map(|row| row.key.to_owned())
        .filter(|key| !key.contains("[]") && !key.starts_with("dns."))
        .collect();
    assert_eq!(known, told, "left what the configuration knows, right what dist/keys.md has: add a row for a new key");
}

#[test]
fn each_scenario_is_about_its_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    for Row { key, scenario, .. } in table() {
        let text = fs::read_to_string(folder.join(format!("{scenario}.toml"))).expect(scenario);
        let last = key.rsplit(['.', ']']).next().unwrap_or(key);
        assert!(text.contains(last), "{scenario} says nothing of {key}");
    }
}
