//! A result of ADD: written in the shape of any version, read from any, and put behind that of the plugins before.
//!
//! In memory it is always what CNI 1.1.0 has, the richest shape; what an older version lacks is left out only where it is written.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value, json};

use crate::error::{Error, PREV_RESULT, Result};
use crate::netlink::{self, RouteAttributes};
use crate::spec::SpecVersion;

/// What CNI 1.1.0 brought, and older readers do not expect.
const SINCE_1_1_0: [(&str, &[&str]); 2] =
    [("interfaces", &["mtu", "socketPath", "pciID"]), ("routes", &["mtu", "advmss", "priority", "table", "scope"])];

/// A result (section "Success").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Success {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
}

/// An interface that ADD made or used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// `CNI_NETNS` for the container's; the host's have none.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    /// Of other plugins' interfaces; flatnet's have none.
    #[serde(rename = "socketPath", skip_serializing_if = "Option::is_none")]
    pub(crate) socket_path: Option<String>,
    /// Of other plugins' interfaces; flatnet's have none.
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub(crate) pci_id: Option<String>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ip {
    /// Index into `interfaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
    pub(crate) address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
}

/// A route inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advmss: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<u32>,
}

/// What a container's resolver is to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dns {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

/// A result as it is read: what it is depends on its version.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "cniVersion", default, deserialize_with = "or_default")]
    version: String,
    interfaces: Option<Vec<Interface>>,
    ips: Option<Vec<Ip>>,
    routes: Option<Vec<Route>>,
    ip4: Option<OfFamily>,
    ip6: Option<OfFamily>,
    dns: Option<Dns>,
}

/// Before 0.3.0: all that there is of one family.
#[derive(Deserialize)]
struct OfFamily {
    ip: IpNetwork,
    gateway: Option<IpAddr>,
    routes: Option<Vec<Route>>,
}

impl Success {
    /// Results of the first versions have an address (specification 0.2.0, section "Result"). Errors: 2.
    pub(crate) fn refuse_old_version(version: SpecVersion, has_address: bool) -> Result<()> {
        if version >= SpecVersion::V0_3_0 || has_address {
            return Ok(());
        }
        Err(Error::Unsupported {
            key: "cniVersion".into(),
            value: format!("{:?} for a container without an address", version.as_str()),
            remedy: "set cniVersion to 0.3.0 or newer: older results have no place for an interface without an address"
                .into(),
        })
    }

    /// The shape that `version` publishes: see [`Self::refuse_old_version`].
    pub(crate) fn json(&self, version: SpecVersion) -> Value {
        let mut json = match version {
            SpecVersion::V0_1_0 | SpecVersion::V0_2_0 => self.by_family(),
            _ => json!({ "interfaces": self.interfaces, "ips": self.ips, "routes": self.routes }),
        };
        json["cniVersion"] = json!(version.as_str());
        json["dns"] = json!(self.dns);
        if version < SpecVersion::V1_1_0 {
            for (list, keys) in SINCE_1_1_0 {
                for item in items(&mut json, list).filter_map(Value::as_object_mut) {
                    item.retain(|key, _| !keys.contains(&key.as_str()));
                }
            }
        }
        if version < SpecVersion::V1_0_0 {
            for (json, ip) in items(&mut json, "ips").zip(&self.ips) {
                json["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
            }
        }
        json
    }

    /// Before 0.3.0: the first address of each family, with the routes of that family, and no interfaces.
    fn by_family(&self) -> Value {
        let mut json = json!({});
        for (key, is_family) in [("ip4", IpNetwork::is_ipv4 as fn(&IpNetwork) -> bool), ("ip6", IpNetwork::is_ipv6)] {
            let Some(ip) = self.ips.iter().find(|ip| is_family(&ip.address)) else { continue };
            let routes = self.routes.iter().filter(|route| is_family(&route.dst));
            let routes: Vec<_> = routes
                .map(|route| said([("dst", Some(json!(route.dst))), ("gw", route.gw.map(|gw| json!(gw)))]))
                .collect();
            let gateway = ip.gateway.map(|gateway| json!(gateway));
            json[key] = said([("ip", Some(json!(ip.address))), ("gateway", gateway), ("routes", Some(json!(routes)))]);
        }
        json
    }

    /// The result that `json` is; one that names no version is of `version`. Keys that no version has are dropped, as libcni does.
    /// The error follows a name.
    pub(crate) fn read(json: &Value, version: SpecVersion) -> Result<Self, String> {
        // A list of values would do as well, where the order is the right one.
        let raw = if json.is_object() { Raw::deserialize(json) } else { Err(de::Error::custom("it is not an object")) };
        let raw = raw.map_err(|e| format!("is not a CNI result: {e}"))?;
        let version = match raw.version.as_str() {
            "" => version,
            said => {
                SpecVersion::parse(said).ok_or_else(|| format!("is not a CNI result: there is no version {said:?}"))?
            }
        };
        let mut success = Self { dns: raw.dns.unwrap_or_default(), ..Self::default() };
        if version >= SpecVersion::V0_3_0 {
            success.interfaces = raw.interfaces.unwrap_or_default();
            success.ips = raw.ips.unwrap_or_default();
            success.routes = raw.routes.unwrap_or_default();
        } else {
            for OfFamily { ip, gateway, routes } in [raw.ip4, raw.ip6].into_iter().flatten() {
                success.ips.push(Ip { interface: None, address: ip, gateway });
                success.routes.extend(routes.into_iter().flatten());
            }
        }
        Ok(success)
    }

    /// The result that a configuration brings along: that of the plugins before in ADD, that of all plugins in CHECK. Errors: 7.
    pub(crate) fn before(config: &Map<String, Value>, version: SpecVersion) -> Result<Option<Self>> {
        match config.get(PREV_RESULT) {
            None | Some(Value::Null) => Ok(None),
            Some(json) => Self::read(json, version)
                .map(Some)
                .map_err(|problem| Error::Config { key: PREV_RESULT.into(), problem }),
        }
    }

    /// An index that leads nowhere would lead to another's interface, once those of another plugin are behind it. The error follows a name.
    pub(crate) fn refuse_dangling(&self) -> Result<(), String> {
        let count = self.interfaces.len();
        let dangles = |ip: &&Ip| ip.interface.is_some_and(|index| index >= count);
        match self.ips.iter().find(dangles) {
            Some(Ip { interface: Some(index), address, .. }) => {
                Err(format!("gives {address} to interface {index}, and has {count} interfaces, counted from 0"))
            }
            _ => Ok(()),
        }
    }

    /// This, behind what the plugins before have done: all of theirs stays as it is (section "Success": what a plugin was given it
    /// must give back, with its own changes).
    pub(crate) fn after(mut self, mut before: Self) -> Self {
        let first = before.interfaces.len();
        for index in self.ips.iter_mut().filter_map(|ip| ip.interface.as_mut()) {
            *index += first;
        }
        before.interfaces.append(&mut self.interfaces);
        before.ips.append(&mut self.ips);
        before.routes.append(&mut self.routes);
        before.dns.extend(self.dns);
        before
    }
}

impl Route {
    /// A route with nothing else said of it.
    #[cfg(test)]
    pub(crate) fn to(dst: IpNetwork) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl From<&netlink::Route> for Route {
    fn from(route: &netlink::Route) -> Self {
        let netlink::Route { destination, gateway, attributes, .. } = *route;
        let RouteAttributes { mtu, advmss, priority, table, scope, .. } = attributes;
        Self { dst: destination, gw: gateway, mtu, advmss, priority, table, scope: scope.map(u32::from) }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dst, gw, mtu, advmss, priority, table, scope } = self;
        write!(f, "{dst}")?;
        gw.map_or(Ok(()), |by| write!(f, " via {by}"))?;
        let attributes = [("mtu", mtu), ("advmss", advmss), ("priority", priority), ("table", table), ("scope", scope)];
        attributes.iter().try_for_each(|(key, value)| value.map_or(Ok(()), |value| write!(f, ", {key} {value}")))
    }
}

impl Dns {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what it has not got yet. The lists go by priority, and who came first has the first word; there is one domain only.
    fn extend(&mut self, other: Self) {
        let lists = [
            (&mut self.nameservers, other.nameservers),
            (&mut self.search, other.search),
            (&mut self.options, other.options),
        ];
        for (list, more) in lists {
            for text in more {
                if !list.contains(&text) {
                    list.push(text);
                }
            }
        }
        if self.domain.is_empty() {
            self.domain = other.domain;
        }
    }
}

/// The items of the list `key`, none if there is no such list.
fn items<'a>(json: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    json.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// An object of what there is to say.
fn said<const N: usize>(keys: [(&str, Option<Value>); N]) -> Value {
    keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// `null` is as good as nothing: so some plugins write an empty list.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const V1: SpecVersion = SpecVersion::V1_1_0;

    fn read(json: &Value) -> Result<Success, String> {
        Success::read(json, V1)
    }

    #[rstest]
    #[case::newest(json!({"ips": [{"address": "10.87.1.2/24", "gateway": "10.87.1.1"}, {"address": "fd00::2/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}, {"dst": "::/0"}], "dns": {"domain": "lan"}}), V1)]
    #[case::its_own_version_counts(json!({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.87.1.2/24", "gateway": "10.87.1.1"},
        {"version": "6", "address": "fd00::2/64"}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}, {"dst": "::/0"}], "dns": {"domain": "lan"}}), V1)]
    #[case::nothing_is_null(json!({"interfaces": null, "ips": [{"address": "10.87.1.2/24", "gateway": "10.87.1.1", "interface": null},
        {"address": "fd00::2/64", "gateway": null}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1", "table": null}, {"dst": "::/0", "gw": null}],
        "dns": {"domain": "lan", "search": null, "nameservers": null}}), V1)]
    #[case::by_family(json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.87.1.2/24", "gateway": "10.87.1.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}]},
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]}, "dns": {"domain": "lan"}}), V1)]
    #[case::by_family_without_version(json!({"ip4": {"ip": "10.87.1.2/24", "gateway": "10.87.1.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}]},
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]}, "dns": {"domain": "lan"}}), SpecVersion::V0_2_0)]
    #[case::more_than_anybody_knows(json!({"ips": [{"address": "10.87.1.2/24", "gateway": "10.87.1.1", "new": 1}, {"address": "fd00::2/64"}], "new": {},
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1"}, {"dst": "::/0"}], "dns": {"domain": "lan", "new": []}}), V1)]
    fn every_shape_says_the_same(#[case] json: Value, #[case] version: SpecVersion) {
        let network = |text: &str| text.parse().expect("a network");
        let gateway = Some("10.87.1.1".parse().expect("an address"));
        let expected = Success {
            interfaces: Vec::new(),
            ips: vec![
                Ip { interface: None, address: network("10.87.1.2/24"), gateway },
                Ip { interface: None, address: network("fd00::2/64"), gateway: None },
            ],
            routes: vec![Route { gw: gateway, ..Route::to(network("0.0.0.0/0")) }, Route::to(network("::/0"))],
            dns: Dns { domain: "lan".into(), ..Dns::default() },
        };
        assert_eq!(Success::read(&json, version), Ok(expected));
    }

    #[rstest]
    #[case::a_text(json!("result"), "not an object")]
    #[case::a_list(json!(["1.0.0", null, null, null, null, null, null]), "not an object")]
    #[case::a_list_too_little(json!({"ips": {}}), "invalid type: map")]
    #[case::no_address(json!({"ips": [{"gateway": "10.87.1.1"}]}), "missing field `address`")]
    #[case::not_an_address(json!({"ips": [{"address": "10.87.1/24"}]}), "invalid address")]
    #[case::no_name(json!({"interfaces": [{"mac": "02:00:00:00:00:01"}]}), "missing field `name`")]
    #[case::index(json!({"ips": [{"address": "10.87.1.2/24", "interface": -1}]}), "invalid value: integer `-1`")]
    #[case::version(json!({"cniVersion": "9.9.9"}), "there is no version \"9.9.9\"")]
    #[case::dns(json!({"dns": {"nameservers": "10.0.0.1"}}), "invalid type: string")]
    fn what_is_no_result(#[case] json: Value, #[case] words: &str) {
        let problem = read(&json).expect_err("no result");
        assert!(problem.starts_with("is not a CNI result") && problem.contains(words), "{problem}");
    }

    #[rstest]
    #[case::none(json!({"ips": [{"address": "10.87.1.2/24"}]}), None)]
    #[case::last(json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.87.1.2/24", "interface": 0}]}), None)]
    #[case::behind(json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.87.1.2/24", "interface": 1}]}), Some("10.87.1.2/24 to interface 1, and has 1"))]
    fn dangling_indexes(#[case] json: Value, #[case] words: Option<&str>) {
        match (read(&json).expect("a result").refuse_dangling(), words) {
            (Ok(()), None) => {}
            (Err(problem), Some(words)) => assert!(problem.contains(words), "{problem}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn before_lists_there_must_be_an_address() {
        let error = Success::refuse_old_version(SpecVersion::V0_2_0, false).expect_err("nothing to say");
        assert_eq!(error.code(), 2);
        assert_eq!(error.to_string(), "unsupported value for cniVersion: \"0.2.0\" for a container without an address");
        assert!(Success::refuse_old_version(SpecVersion::V0_2_0, true).is_ok());
        assert!(Success::refuse_old_version(SpecVersion::V0_3_0, false).is_ok());
    }

    #[test]
    fn resolvers_have_who_came_first_first() {
        let dns = |json: Value| Success { dns: serde_json::from_value(json).expect("dns"), ..Success::default() };
        let before = dns(json!({"nameservers": ["10.0.0.1"], "search": ["lan"], "domain": "lan"}));
        let own = dns(json!({"nameservers": ["10.0.0.2", "10.0.0.1"], "domain": "flat", "options": ["ndots:1"]}));
        let both = json!({"nameservers": ["10.0.0.1", "10.0.0.2"], "domain": "lan", "search": ["lan"], "options": ["ndots:1"]});
        assert_eq!(json!(own.clone().after(before).dns), both);
        assert_eq!(own.clone().after(Success::default()), own);
    }
}
