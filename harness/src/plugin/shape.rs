//! The published shape of ADD's result in each version of the specification.
//!
//! Invariant: what a version does not have is a fault of the result, and so is what it asks for and is not there.

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

/// Which keys an object may have, and which it must have.
struct Keys {
    must: &'static [&'static str],
    may: &'static [&'static str],
}

/// What there is in a result, version by version.
struct Shape {
    interface: Keys,
    ip: Keys,
    route: Keys,
}

const OLD_INTERFACE: Keys = Keys { must: &["name"], may: &["mac", "sandbox"] };
const OLD_ROUTE: Keys = Keys { must: &["dst"], may: &["gw"] };
const DNS: Keys = Keys { must: &[], may: &["nameservers", "domain", "search", "options"] };
const OLDEST: Keys = Keys { must: &["ip"], may: &["gateway", "routes"] };

/// The sections "Result" (to 0.4.0) and "ADD Success" (from 1.0.0); `None` of versions that know no lists.
fn shape(version: &str) -> Option<Shape> {
    let old = |ip| Some(Shape { interface: OLD_INTERFACE, ip, route: OLD_ROUTE });
    match version {
        "0.3.0" | "0.3.1" | "0.4.0" => old(Keys { must: &["version", "address"], may: &["gateway", "interface"] }),
        "1.0.0" => old(Keys { must: &["address"], may: &["gateway", "interface"] }),
        "1.1.0" => Some(Shape {
            interface: Keys { must: &["name"], may: &["mac", "mtu", "sandbox", "socketPath", "pciID"] },
            ip: Keys { must: &["address"], may: &["gateway", "interface"] },
            route: Keys { must: &["dst"], may: &["gw", "mtu", "advmss", "priority", "table", "scope"] },
        }),
        _ => None,
    }
}

/// What of `result` is not in the shape of `version`, if anything.
pub fn misfit(version: &str, result: &Value) -> Option<String> {
    let Some(result) = result.as_object() else { return Some("the result is no object".to_owned()) };
    if !result.get("cniVersion").is_some_and(|said| said == version) {
        return Some(format!("cniVersion is not {version}"));
    }
    let dns = result.get("dns").and_then(|dns| DNS.misfit("dns", dns));
    let own = match shape(version) {
        Some(shape) => of_lists(&shape, result),
        None => of_families(version, result),
    };
    own.or(dns)
}

fn of_lists(shape: &Shape, result: &Map<String, Value>) -> Option<String> {
    let whole = Keys { must: &["cniVersion"], may: &["interfaces", "ips", "routes", "dns"] };
    let lists = [("interfaces", &shape.interface), ("ips", &shape.ip), ("routes", &shape.route)];
    let each = lists.iter().find_map(|(key, keys)| keys.misfit_of_list(key, result.get(*key)?));
    whole.misfit_of_object("", result).or(each).or_else(|| family_misfit(result))
}

/// Where an address says its family, it says its own.
fn family_misfit(result: &Map<String, Value>) -> Option<String> {
    result.get("ips")?.as_array()?.iter().enumerate().find_map(|(at, ip)| {
        let said = ip.get("version")?;
        let address: IpNetwork = ip.get("address")?.as_str()?.parse().ok()?;
        let own = if address.is_ipv4() { "4" } else { "6" };
        (said != own).then(|| format!("ips[{at}].version is {said}, and its address is {address}"))
    })
}

fn of_families(version: &str, result: &Map<String, Value>) -> Option<String> {
    if !matches!(version, "0.1.0" | "0.2.0") {
        return Some(format!("{version} is no published version"));
    }
    let whole = Keys { must: &["cniVersion"], may: &["ip4", "ip6", "dns"] };
    let families = || {
        let misfit = |family: &&str| {
            let ip = result.get(*family)?;
            let routes = || OLD_ROUTE.misfit_of_list(&format!("{family}.routes"), ip.get("routes")?);
            OLDEST.misfit(family, ip).or_else(routes)
        };
        ["ip4", "ip6"].iter().find_map(misfit)
    };
    let none = || (!result.contains_key("ip4") && !result.contains_key("ip6")).then(|| "it has no address".to_owned());
    whole.misfit_of_object("", result).or_else(families).or_else(none)
}

impl Keys {
    fn misfit_of_list(&self, path: &str, list: &Value) -> Option<String> {
        match list {
            Value::Array(list) => {
                list.iter().enumerate().find_map(|(at, value)| self.misfit(&format!("{path}[{at}]"), value))
            }
            _ => Some(format!("{path} is no list")),
        }
    }

    fn misfit(&self, path: &str, value: &Value) -> Option<String> {
        match value.as_object() {
            Some(object) => self.misfit_of_object(path, object),
            None => Some(format!("{path} is no object")),
        }
    }

    fn misfit_of_object(&self, path: &str, object: &Map<String, Value>) -> Option<String> {
        let dotted = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let strange = object.keys().find(|key| !self.must.contains(&key.as_str()) && !self.may.contains(&key.as_str()));
        let missing = || self.must.iter().find(|key| !object.contains_key(**key));
        match strange {
            Some(key) => Some(format!("{} does not belong to it", dotted(key))),
            None => missing().map(|key| format!("{} is not there", dotted(key))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::misfit;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case("0.1.0", json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.1.0.9/24", "routes": [{"dst": "0.0.0.0/0"}]}, "dns": {}}))]
    #[case("0.3.1", json!({"cniVersion": "0.3.1", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"version": "4", "address": "10.1.0.9/24", "interface": 0}], "dns": {}}))]
    #[case("1.0.0", json!({"cniVersion": "1.0.0", "ips": [{"address": "fd00::9/64"}], "routes": [{"dst": "::/0"}]}))]
    #[case("1.1.0", json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1500}], "routes": [{"dst": "::/0", "mtu": 1400}]}))]
    fn what_is_published_fits(#[case] version: &str, #[case] result: Value) {
        assert_eq!(misfit(version, &result), None);
    }

    #[rstest]
    #[case("0.1.0", json!({"cniVersion": "0.1.0", "dns": {}}), "it has no address")]
    #[case("0.2.0", json!({"cniVersion": "0.2.0", "ip4": {"ip": "1.2.3.4/8"}, "interfaces": []}), "interfaces does not belong")]
    #[case("0.2.0", json!({"cniVersion": "0.2.0", "ip4": {"ip": "1.2.3.4/8", "version": "4"}}), "ip4.version does not belong")]
    #[case("0.4.0", json!({"cniVersion": "0.4.0", "ips": [{"address": "1.2.3.4/8"}]}), "ips[0].version is not there")]
    #[case("0.4.0", json!({"cniVersion": "0.4.0", "ips": [{"version": "6", "address": "1.2.3.4/8"}]}), "ips[0].version is \"6\"")]
    #[case("1.0.0", json!({"cniVersion": "1.0.0", "ips": [{"version": "4", "address": "1.2.3.4/8"}]}), "ips[0].version does not")]
    #[case("1.0.0", json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mtu": 1500}]}), "interfaces[0].mtu does not")]
    #[case("1.0.0", json!({"cniVersion": "1.0.0", "routes": [{"dst": "::/0", "table": 7}]}), "routes[0].table does not")]
    #[case("1.1.0", json!({"cniVersion": "1.1.0", "dns": {"nameserver": []}}), "dns.nameserver does not")]
    #[case("1.1.0", json!({"cniVersion": "1.0.0"}), "cniVersion is not 1.1.0")]
    #[case("1.2.0", json!({"cniVersion": "1.2.0"}), "no published version")]
    fn what_is_not_is_named(#[case] version: &str, #[case] result: Value, #[case] expected: &str) {
        let misfit = misfit(version, &result).unwrap();
        assert!(misfit.contains(expected), "{misfit}");
    }
}
