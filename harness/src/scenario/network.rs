//! A network configuration, as a runtime hands it to the plugin.
//!
//! Invariant: kept as the JSON it is, wrong values included: judging it is the plugin's work.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::shipped;

/// What the plugin calls its bridge unless it is told.
const USUAL_BRIDGE: &str = "flatnet-br0";

/// What a file with a network looks like.
const FORM: &str = r#"a .conf is like {"cniVersion": "1.0.0", "name": "net", "type": "bridge", ..}, a .conflist like {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", ..}]}"#;

/// The configuration of one plugin of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Network(Map<String, Value>);

impl Network {
    /// Wraps a configuration.
    pub fn new(config: Map<String, Value>) -> Self {
        Self(config)
    }

    /// The first plugin of the shipped list.
    pub fn shipped() -> Result<Self> {
        Self::first_of(&shipped::list()?).context("find a plugin in the shipped flatnet.conflist")
    }

    /// The plugin of a `.conf` or a `.conflist`, which must be alone in it.
    pub fn from_file(file: &Path) -> Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("read {shown}"))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("read {shown}"))?;
        let network = match value.get("plugins").map(Value::as_array) {
            Some(Some(plugins)) if plugins.len() != 1 => bail!(
                "find the one plugin of {shown}: it lists {} (write the one in question alone into a file; each of them can be tried so)",
                plugins.len()
            ),
            Some(_) => Self::first_of(&value).ok(),
            None => value.as_object().filter(|config| config.contains_key("type")).cloned().map(Self),
        };
        let network = network.with_context(|| {
            format!("find a plugin in {shown}: it has neither `type` nor `plugins` with one ({FORM})")
        })?;
        ensure!(!network.kind().is_empty(), "find a plugin in {shown}: its `type` names none ({FORM})");
        Ok(network)
    }

    /// The first plugin of a list, with the list's version and name put in as libcni does it.
    fn first_of(list: &Value) -> Result<Self> {
        let Some(Value::Object(mut config)) = list["plugins"].get(0).cloned() else {
            return Err(anyhow!("find a plugin in a network list"));
        };
        for key in ["cniVersion", "name"] {
            if let Some(value) = list.get(key) {
                config.insert(key.to_owned(), value.clone());
            }
        }
        Ok(Self(config))
    }

    /// The plugin's type: the name of its binary.
    pub fn kind(&self) -> &str {
        self.text("type")
    }

    /// The type of the plugin that gives its addresses, if that is another.
    pub fn ipam_kind(&self) -> Option<&str> {
        self.0.get("ipam")?.get("type")?.as_str()
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The spec version that it is written for.
    pub fn version(&self) -> &str {
        self.text("cniVersion")
    }

    /// The bridge that it asks for, or the one that the plugin makes where the key is absent.
    pub fn bridge(&self) -> &str {
        if self.0.contains_key("bridge") { self.text("bridge") } else { USUAL_BRIDGE }
    }

    /// The MTU that it asks for, if it does.
    pub fn mtu(&self) -> Option<i64> {
        self.0.get("mtu").and_then(Value::as_i64)
    }

    /// The link that has the gateway's address: the bridge, or a VLAN on it. None where the bridge is to be no gateway.
    pub fn gateway_link(&self) -> Option<String> {
        let says = |key| self.0.get(key).and_then(Value::as_bool);
        let has_addresses = self.0.get("ipam").and_then(Value::as_object).is_some_and(|ipam| !ipam.is_empty());
        let is_gateway = says("isDefaultGateway") == Some(true) || says("isGateway").unwrap_or(has_addresses);
        let vlan = self.0.get("vlan").and_then(Value::as_i64).filter(|vlan| *vlan != 0);
        let vlan = vlan.map_or_else(String::new, |vlan| format!(".{vlan}"));
        is_gateway.then(|| format!("{}{vlan}", self.bridge()))
    }

    /// Whether what leaves the flat range is masqueraded.
    pub fn masquerade(&self) -> bool {
        self.0.get("ipMasq").and_then(Value::as_bool).unwrap_or(self.gateway_link().is_some())
    }

    /// The subnets that containers get addresses of, as far as it says them, each once: `ipam.subnet`, then those of `ipam.ranges`.
    pub fn subnets(&self) -> Vec<IpNetwork> {
        let of = |range: &Value| range.get("subnet")?.as_str()?.parse().ok();
        once_each(self.ranges().into_iter().filter_map(of))
    }

    /// The bridge's addresses, each once, in the same order: those that it says, or the first of their subnets.
    pub fn gateways(&self) -> Vec<IpNetwork> {
        let of = |range: &Value| {
            let subnet: IpNetwork = range.get("subnet")?.as_str()?.parse().ok()?;
            let said = range.get("gateway").and_then(Value::as_str);
            let address = said.map_or_else(|| subnet.iter().nth(1), |said| said.parse().ok())?;
            IpNetwork::new(address, subnet.prefix()).ok()
        };
        once_each(self.ranges().into_iter().filter_map(of))
    }

    /// Its subnets with their gateways, in the words of Podman 5.
    pub fn subnets_of_podman(&self) -> Value {
        let of = |gateway: IpNetwork| {
            let subnet = IpNetwork::new(gateway.network(), gateway.prefix()).ok();
            json!({ "gateway": gateway.ip(), "lease_range": null, "subnet": subnet })
        };
        self.gateways().into_iter().map(of).collect()
    }

    /// Whether containers get IPv6 addresses.
    pub fn has_ipv6(&self) -> bool {
        self.subnets().iter().any(IpNetwork::is_ipv6)
    }

    /// Whatever may have a `subnet`.
    fn ranges(&self) -> Vec<&Value> {
        let Some(ipam) = self.0.get("ipam") else { return Vec::new() };
        let outer = ipam.get("ranges").and_then(Value::as_array).into_iter().flatten();
        std::iter::once(ipam).chain(outer.filter_map(Value::as_array).flatten()).collect()
    }

    /// Puts in what a runtime is asked for and the plugin declares in its `capabilities`.
    pub fn ask(&mut self, wishes: &Map<String, Value>) {
        let declared = self.0.get("capabilities").cloned().unwrap_or_default();
        for (capability, wish) in wishes.iter().filter(|(capability, _)| declared[capability.as_str()] == true) {
            self.set(&format!("runtimeConfig.{capability}"), wish.clone());
        }
    }

    /// Sets the value at a path like `ipam.subnet`, making objects on the way.
    pub fn set(&mut self, path: &str, value: Value) {
        let (parents, key) = steps(path);
        let mut object = &mut self.0;
        for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
            let inner = object.entry(parent).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            let Value::Object(inner) = inner else { return };
            object = inner;
        }
        object.insert(key.to_owned(), value);
    }

    /// Takes away the value at a path like `ipam.subnet`.
    pub fn unset(&mut self, path: &str) {
        let (parents, key) = steps(path);
        let mut object = Some(&mut self.0);
        for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
            object = object.and_then(|object| object.get_mut(parent)?.as_object_mut());
        }
        if let Some(object) = object {
            object.shift_remove(key);
        }
    }

    /// Leaves out the part that is another plugin's business, if one is named for it.
    pub fn set_alone(&mut self) {
        if self.0.get("ipam").is_some_and(|ipam| ipam.get("type").is_some()) {
            self.unset("ipam");
        }
    }

    /// As the plugin reads it.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// What it says at the top, by that key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

fn once_each(all: impl Iterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    let mut seen = BTreeSet::new();
    all.filter(|it| seen.insert(*it)).collect()
}

/// The objects that a path leads through, if any, and the key in the last. A key of the specification's own, such as
/// `cni.dev/valid-attachments`, has a dot and is one key.
fn steps(path: &str) -> (Option<&str>, &str) {
    match path.rsplit_once('.') {
        Some((parents, key)) if !path.contains('/') => (Some(parents), key),
        _ => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::Network;
    use serde_json::{Value, json};

    fn network(config: Value) -> Network {
        Network(serde_json::from_value(config).unwrap())
    }

    #[test]
    fn values_are_set_and_unset_by_path() {
        let mut it = network(json!({"name": "a", "ipam": {"subnet": "10.87.1.0/24"}}));
        it.set("ipam.subnet", json!("10.87.2.0/24"));
        it.set("a.b.c", json!(1));
        it.set("name.odd", json!(true));
        it.unset("missing.path");
        assert_eq!(
            it,
            network(json!({"name": {"odd": true}, "ipam": {"subnet": "10.87.2.0/24"}, "a": {"b": {"c": 1}}}))
        );
        it.unset("ipam.subnet");
        it.unset("a");
        assert_eq!(it, network(json!({"name": {"odd": true}, "ipam": {}})));
    }

    #[test]
    fn a_plugin_gets_what_it_declares() {
        let mut it = network(json!({"capabilities": {"mac": true, "ips": false}}));
        let wishes = json!({"mac": "0a:00:00:00:00:01", "ips": ["10.87.1.9"], "portMappings": []});
        it.ask(wishes.as_object().unwrap());
        let asked = json!({"mac": "0a:00:00:00:00:01"});
        assert_eq!(it, network(json!({"capabilities": {"mac": true, "ips": false}, "runtimeConfig": asked})));
    }

    #[test]
    fn the_shipped_network_is_whole() {
        let it = Network::shipped().unwrap();
        assert_eq!((it.kind(), it.version()), ("flatnet", "1.0.0"));
        assert_eq!(it.subnets().len(), 1);
    }

    #[test]
    fn subnets_and_gateways_of_both_families() {
        let it = network(json!({"ipam": {
            "subnet": "10.87.1.0/24",
            "ranges": [[{"subnet": "fd87:1::/64", "gateway": "fd87:1::ff"}], [{"subnet": "10.87.1.0/24"}, {"subnet": 1}]],
        }}));
        let texts = |all: Vec<ipnetwork::IpNetwork>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(it.subnets()), ["10.87.1.0/24", "fd87:1::/64"]);
        assert_eq!(texts(it.gateways()), ["10.87.1.1/24", "fd87:1::ff/64"]);
        assert!(it.has_ipv6());
    }

    #[test]
    fn a_network_without_a_bridge_gets_the_usual_one() {
        assert_eq!(network(json!({})).bridge(), "flatnet-br0");
        assert_eq!(network(json!({"bridge": "other"})).bridge(), "other");
    }
}
