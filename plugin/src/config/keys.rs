//! The table of keys, `manual/keys.md`, is what the configuration does: nothing more, and nothing less.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Configured, RESERVED};
use crate::attachment::Args;
use crate::cni::request::requested::Requested;
use crate::error::Result;

/// The keys of the reference, as the head of the table says where they stand.
const REFERENCE: &[&str] = &[
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
    "dns.nameservers",
    "dns.domain",
    "dns.search",
    "dns.options",
    "ipam",
    "args",
    "args.cni.ips",
    "args.cni.mac",
    "runtimeConfig",
    "runtimeConfig.ips",
    "runtimeConfig.mac",
    "runtimeConfig.ipRanges",
    "ipam.type",
    "ipam.subnet",
    "ipam.rangeStart",
    "ipam.rangeEnd",
    "ipam.gateway",
    "ipam.ranges",
    "ipam.ranges[][].subnet",
    "ipam.ranges[][].rangeStart",
    "ipam.ranges[][].rangeEnd",
    "ipam.ranges[][].gateway",
    "ipam.routes",
    "ipam.routes[].dst",
    "ipam.routes[].gw",
    "ipam.routes[].mtu",
    "ipam.routes[].advmss",
    "ipam.routes[].priority",
    "ipam.routes[].table",
    "ipam.routes[].scope",
    "ipam.resolvConf",
    "ipam.dataDir",
];
/// One that nobody knows.
const UNKNOWN: &str = "qqqqqqqqqqqq";

/// A line of the table.
struct Row<'a> {
    key: &'a str,
    example: Value,
    verdict: &'a str,
    scenario: &'a str,
}

fn table() -> Vec<Row<'static>> {
    let rows = include_str!("../../manual/keys.md").lines().filter_map(|line| line.strip_prefix("| `"));
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

/// What is read of a configuration: all that an ADD reads before it asks the kernel.
fn read(config: &Map<String, Value>) -> Result<()> {
    let configured = Configured::parse(config)?;
    let asked = Requested::read(&Args::parse("").expect("no arguments"), config)?;
    match configured {
        Configured::Whole(network) => asked.of_pools(&network.pools).map(drop),
        Configured::Delegated(..) => Ok(()),
    }
}

/// The first object of a list, or of a list of lists; else the value itself.
fn innermost(value: &mut Value) -> &mut Value {
    match value {
        Value::Array(list) => innermost(list.first_mut().expect("an item")),
        other => other,
    }
}

/// The keys that are known at a place, as the error about one that is not says. What is there is an example of the table.
fn known(place: &str) -> BTreeSet<String> {
    let (key, example) = match place.strip_suffix("[]") {
        None if place.is_empty() => (UNKNOWN.to_owned(), json!(1)),
        None => (format!("{place}.{UNKNOWN}"), json!(1)),
        Some(_) => {
            let list = place.trim_end_matches("[]");
            let row = table().into_iter().find(|row| row.key.starts_with(place)).expect(place);
            let mut example = row.example;
            innermost(&mut example)[UNKNOWN] = json!(1);
            (list.to_owned(), example)
        }
    };
    let error = read(&with(&key, &example)).expect_err("a key that nobody knows").to_string();
    let list = error.split("known keys are ").nth(1).expect(&error);
    let list = list.split(" (").next().unwrap_or(list);
    let prefix = if place.is_empty() { String::new() } else { format!("{place}.") };
    list.split(", ").map(|key| format!("{prefix}{key}")).collect()
}

/// The keys of the configuration that a scenario sets or unsets, in its networks or by the way.
fn keys_of(scenario: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let networks = scenario.get("network").into_iter();
    let more = scenario.get("networks").and_then(Value::as_object).into_iter().flat_map(Map::values);
    for network in networks.chain(more) {
        flatten("", network, &mut keys);
        let plugins = network.get("plugins").and_then(Value::as_array).into_iter().flatten();
        plugins.filter(|plugin| plugin["type"] == "flatnet").for_each(|plugin| flatten("", plugin, &mut keys));
    }
    keys_of_steps(&scenario["run"], &mut keys);
    // `set = { "ipam.subnet" = .. }` sets something in `ipam`.
    let around: Vec<_> = keys.iter().flat_map(|key| key.match_indices('.').map(|(n, _)| key[..n].to_owned())).collect();
    keys.extend(around);
    keys
}

fn keys_of_steps(value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| keys_of_steps(item, keys)),
        Value::Object(step) if !step.contains_key("netavark") => {
            let part = |key: &str| step.get(key).unwrap_or(&Value::Null);
            flatten("", part("set"), keys);
            flatten("runtimeConfig", part("runtime"), keys);
            keys.extend(part("unset").as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            for key in ["steps", "meanwhile"] {
                keys_of_steps(part(key), keys);
            }
        }
        _ => {}
    }
}

/// The key of each thing in the value, as the table writes it.
fn flatten(place: &str, value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| flatten(&format!("{place}[]"), item, keys)),
        Value::Object(map) => {
            for (key, value) in map {
                let key = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                flatten(&key, value, keys);
                keys.insert(key);
            }
        }
        _ => {}
    }
}

#[test]
fn each_key_does_what_the_table_says() {
    for Row { key, example, verdict, .. } in table() {
        match read(&with(key, &example)) {
            Ok(()) => assert!(verdict.starts_with("honoured") || verdict == "flatnet's own", "{key} is taken"),
            Err(error) => {
                assert!(verdict.starts_with("refused: "), "{key} is refused: {error}");
                assert!([2, 7].contains(&error.code()) && error.to_string().contains(key), "{key}: {error}");
            }
        }
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_by_name() {
    for Row { key, mut example, .. } in table() {
        let wrong = json!([[[]]]);
        match key.rsplit_once("[].") {
            Some((_, last)) => innermost(&mut example)[last] = wrong,
            None => example = wrong,
        }
        let error = read(&with(key, &example)).expect_err(key);
        let named = key.replace("[]", "[0]");
        assert!([2, 7].contains(&error.code()) && error.to_string().contains(&named), "{key}: {error}");
    }
}

#[test]
fn no_key_of_the_reference_is_missing() {
    let rows: BTreeSet<_> = table().iter().map(|row| row.key).collect();
    let missing: Vec<_> = REFERENCE.iter().filter(|key| !rows.contains(*key)).collect();
    assert!(missing.is_empty(), "manual/keys.md has no row for {missing:?}");
}

#[test]
fn the_table_has_the_keys_that_are_known_and_no_others() {
    let of_specification = ["cniVersion", "name", "prevResult"];
    let passes = |key: &String| {
        let key = key.as_str();
        of_specification.contains(&key) || (RESERVED.contains(&key) && !REFERENCE.contains(&key))
    };
    let places = ["", "dns", "ipam", "ipam.ranges[][]", "ipam.routes[]", "vlanTrunk[]"];
    let known: BTreeSet<_> = places.into_iter().flat_map(known).filter(|key| !passes(key)).collect();
    // Others put keys of theirs there, and none is refused: the test of values of the wrong kind shows that these are read.
    let of_many = ["args.", "runtimeConfig."];
    let told: BTreeSet<_> = table()
        .iter()
        .map(|row| row.key.to_owned())
        .filter(|key| !of_many.iter().any(|place| key.starts_with(place)))
        .collect();
    assert_eq!(
        known, told,
        "left what the configuration knows, right what manual/keys.md has: add a row for a new key"
    );
}

#[test]
fn each_scenario_is_about_its_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut wrong = Vec::new();
    for Row { key, scenario, .. } in table() {
        let text = fs::read_to_string(folder.join(format!("{scenario}.toml"))).expect(scenario);
        if !keys_of(&toml::from_str(&text).expect(scenario)).contains(key) {
            wrong.push((key, scenario));
        }
    }
    assert!(wrong.is_empty(), "these scenarios do not set these keys: {wrong:#?}");
}
